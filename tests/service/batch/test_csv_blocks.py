"""Blocks of CSV are answered as formats/csv_rows.py reads their rows, by columns or row by row."""

import io
import random
from collections.abc import Callable

import numpy as np
import pytest

from service.batch import Scorer, csv_input
from service.batch.answered import Answered
from service.batch.csv_blocks import CsvBlock
from service.batch.csv_columns import NotColumns
from service.batch.csv_input import CsvInput
from service.engine.columns import Column
from service.errors import InvalidInput
from service.formats.csv_cells import columns_of
from service.formats.csv_rows import CsvRows
from service.formats.lines import Options, Tape

Open = Callable[[str], Scorer]

NUMBERS = [
    "1",
    "2.5",
    "-3",
    "0",
    "-0",
    "-0.0",
    "1e3",
    "1E-3",
    ".5",
    "5.",
    "+4",
    "1_0",
    "0x1F",
    "nan",
    "NaN",
    "inf",
    "-inf",
    "Infinity",
    "null",
    "NA",
    "wide",
    "1e400",
    "1e39",
    "3.4028235e38",
    "9007199254740993",
    "9223372036854775807",
    "9223372036854775808",
    "3.0",
    "true",
    "1,5",
    "1.234",
    "1,234",
    "\uff11",
    '"3"',
    "1e",
    "--1",
    "1.2.3",
    "-",
    "e5",
    "\u0663",
    "0001",
    "-007",
    "1.0e+05",
    "1d5",
    "1f",
    "4.9e-324",
    "0b1",
    "1L",
    "",
    " ",
    "  7 ",
    '" 3"',
    "1 2",
]
BOOLEANS = ["true", "False", "TRUE", "1", "0", "yes", "", "tRue", " true", "2", "null"]
STRINGS = [
    "Łódź",
    "",
    "null",
    " x ",
    "1",
    '"a,b"',
    '"a""b"',
    'a"b',
    '"x"y',
    '"multi\nline"',
    '"open',
]


def answered(scorer: Scorer, data: bytes, keep: bool) -> tuple[Answered | None, int]:
    """Compare what blocks say of a file to what its rows say; return that.

    And how many blocks are read in columns.
    """
    given = CsvInput(io.BytesIO(data), scorer.model, scorer.settings, keep=keep)
    blocks = list(given)
    tables, bad, columnar = [], [], 0
    for block, _ in blocks:
        answers = block.answer(scorer)
        tables += rows_of(answers)
        bad += answers.bad
        if block.rows is None:
            try:
                block._of_columns(scorer)
                columnar += 1
            except NotColumns:
                pass
    tape = Tape(io.BytesIO(data))
    options = Options(longest=scorer.settings.max_body_bytes, keep=keep, max_image_pixels=0)
    rows = list(CsvRows(tape, scorer.model, options))
    position = given.position
    assert (position.bytes, position.number) == (tape.offset, tape.number)
    assert position.sha256 == tape.sha256.hexdigest()
    if not blocks:
        assert not rows
        return None, 0
    expected = CsvBlock(blocks[0][0].dialect, 0, rows=rows).answer(scorer)
    assert tables == rows_of(expected)
    assert bad == expected.bad
    return expected, columnar


def rows_of(answered: Answered) -> list[str]:
    return [repr(row) for row in answered.table.to_pylist()]  # NaN is NaN, and -0.0 is not 0.0


def text_of(chance: random.Random, columns: list[Column], names: list[str], odd: float) -> bytes:
    """Return a file whose cells are odd at this rate."""

    def cell(column: Column) -> str:
        kind = np.dtype(column.dtype).kind
        if chance.random() < odd:
            return chance.choice({"O": STRINGS, "b": BOOLEANS}.get(kind, NUMBERS))
        usual = {"O": "rome", "b": "true", "f": f"{chance.uniform(-9, 9):.2f}"}
        return usual.get(kind, str(chance.randint(0, 9)))

    mark = chance.choice(",,,;\t")
    end = chance.choice(["\n", "\n", "\r\n"])
    beside = [Column("id", np.object_)] * (chance.randint(0, 2) if names else 0)
    order = list(range(len(columns) + len(beside)))
    chance.shuffle(order)
    header = [*names, *(f"id{place}" for place in range(len(beside)))]
    lines = [mark.join(header[place] for place in order)] if names else []
    for _ in range(chance.randint(1, 30)):
        cells = [cell(each) for each in [*columns, *beside]]
        if mark != "," and chance.random() < 0.95:
            cells = [each.replace(".", ",") for each in cells]
        line = mark.join(cells[place] for place in order)
        strange = [line + mark + "9", line.rpartition(mark)[0], "", " ", "\t", f"a\r{line}"]
        lines.append(chance.choice(strange) if chance.random() < odd / 3 else line)
    data = end.join(lines).encode() + chance.choice([b"", end.encode(), 2 * end.encode()])
    data = chance.choice([b"", b"", "\ufeff".encode()]) + data
    place = chance.randint(0, len(data))
    return data[:place] + b"\xff" + data[place:] if chance.random() < odd / 9 else data


@pytest.mark.parametrize("turns", [32, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("model", ["toy", "columns", "imputed", "bytes"])
def test_files_are_read_alike_in_blocks(
    scorer: Open, monkeypatch: pytest.MonkeyPatch, chance: random.Random, model: str, turns: int
) -> None:
    monkeypatch.setattr(csv_input, "BLOCK_BYTES", 300)
    opened = scorer(model)
    columns, names = columns_of(opened.model, opened.model.row_size), opened.model.column_names
    columnar = 0
    for turn in range(turns):
        data = text_of(chance, columns, names, (0, 0.02, 0.1, 0.4)[turn % 4])
        try:
            CsvInput(io.BytesIO(data), opened.model, opened.settings, keep=False)
        except InvalidInput:  # of the first lines, which are for others to test
            continue
        columnar += answered(opened, data, keep=turn % 3 == 0)[1]
    assert columnar > turns / 2


@pytest.mark.parametrize(
    ("model", "text", "is_columnar"),
    [
        ("toy", "a,b,c,d\n1,2,3,4\n\n5,6,7,8\r\n\n", True),  # a blank line is none
        ("toy", "a,b,c,d\n1,2,3,4\n1,2,wide,4\n1,2,3\n1,2,3,4,5\n,2,3,4\n", True),
        ("toy", 'd,x,c,b,a\n1,k,2,3,4\n1,"k,k",2,3,4\n1,"k""k",2,3,4\n', True),
        ("toy", 'd,x,c,b,a\n1,"k\nk",2,3,4\n1,k,2,3,4\n', False),  # a row of two lines
        ("toy", 'd,x,c,b,a\n1,"k"k,2,3,4\n1,k,2,3,4\n', False),
        ("toy", "a;b;c;d\n1,5;2;3;4\n5,;6;7;8\n1.5;2;3;4\n", True),  # to Arrow "5," is a number
        ("toy", "a\tb\tc\td\n1.5\t2\t3\t4\n", True),
        ("columns", "age,rooms,city,paid\n1,0x1F,a,1\n1,3.0,null,true\n,2,,no\n", True),
        ("imputed", "age,size\n,1\nnan,2\n7,\n  ,1\nNA,3\n", True),
        ("words", "input\nx\n  \ny\n", False),  # a line of blanks is none to us alone
        ("lengths", "1,2\n3\n", False),
    ],
)
def test_a_file_is_read_as_its_rows_say(
    scorer: Open, model: str, text: str, is_columnar: bool
) -> None:
    _, columnar = answered(scorer(model), text.encode(), keep=True)
    assert columnar == is_columnar


def test_a_bad_line_is_named_and_the_others_are_answered(scorer: Open) -> None:
    text = b"id,a,b,c,d\nx,1,2,3,4\ny,1,2,wide,4\n\nz,1,2,3\nw,4,3,2,1\n"
    found, columnar = answered(scorer("toy"), text, keep=True)
    assert columnar == 1
    assert found is not None
    assert found.bad == [
        'line 3.c: expected a number, got "wide"',
        "line 5: expected 5 values, got 4",
    ]
    assert found.table.select(["line", "id"]).to_pylist() == [
        {"line": 2, "id": "x"},
        {"line": 6, "id": "w"},
    ]


def test_a_cell_that_is_too_long_for_csv_is_refused_either_way(scorer: Open) -> None:
    text = f"id,a,b,c,d\n{'x' * 131_073},1,2,3,4\n{'x' * 131_072},1,2,3,4\n".encode()
    found, _ = answered(scorer("toy"), text, keep=False)
    assert found is not None
    assert found.bad == ["line 2: expected CSV, got: field larger than field limit (131072)"]
    text = text.replace(b"x" * 131_073, b"x" * 131_072)
    assert answered(scorer("toy"), text, keep=False)[1] == 2  # blocks, both in columns
