import csv
import gzip
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from service.batch import Scorer
from service.commands.score.columns import writers
from service.commands.score.columns.writers import Writer, writer_of
from service.commands.score.conversion import Growing
from service.commands.score.suffixes import ARROW, ARROW_STREAM, CSV, PARQUET, Kind
from service.errors import CannotScore
from service.settings import Settings
from tests.support.toys import save_same, save_toy, toy_card

ROWS = pa.record_batch(
    {
        "line": [2, 3, 4],
        "text": ["plain", 'a "quoted", one', None],
        "lines": ["a\nb", "c\rd", ""],
        "is": [True, False, None],
        "half": np.array([0.1, 1e-7, 3], np.float32),
        "many": pa.array([[1.5, 2], [3, 4], [5, 6]], pa.list_(pa.float64(), 2)),
    }
)
NAMES = ["line", "text", "lines", "is", "half", "many[0]", "many[1]"]


def writer(kind: Kind = CSV, compression: str = "") -> Writer:
    return Writer(kind, compression, ROWS.schema, NAMES)


def test_csv_says_what_the_csv_module_reads_back() -> None:
    text = (writer().head() + writer().encode(ROWS) + writer().tail()).decode()
    head, *lines = csv.reader(io.StringIO(text, newline=""))
    assert head == NAMES
    assert [line[:4] for line in lines] == [
        ["2", "plain", "a\nb", "True"],
        ["3", 'a "quoted", one', "c\rd", "False"],
        ["4", "", "", ""],
    ]
    numbers = [[float(cell) for cell in line[4:]] for line in lines]
    assert numbers == [
        [float(np.float32(0.1)), 1.5, 2],
        [float(np.float32(1e-7)), 3, 4],
        [3, 5, 6],
    ]
    assert text.splitlines()[1].startswith("2,plain,")  # in quotation marks only where needed


@pytest.mark.parametrize(
    "type",
    [
        pa.list_(pa.string()),
        pa.struct({"a": pa.int8()}),
        pa.binary(),
        pa.binary(16),
        pa.binary_view(),
        pa.uuid(),
        pa.timestamp("us", "Mars/Olympus"),
    ],
    ids=str,
)
def test_what_is_no_cell_is_not_kept_in_csv(tmp_path: Path, type: pa.DataType) -> None:
    save_toy(tmp_path, card=toy_card())
    scorer = Scorer("toy", Settings(models_dir=tmp_path))
    kept = pa.schema([pa.field("tags", type)])
    with pytest.raises(CannotScore, match="column 'tags': expected single values for CSV, got "):
        writer_of(CSV, ".csv", kept, scorer)
    assert writer_of(PARQUET, ".parquet", kept, scorer).names[0] == "tags"


@pytest.mark.parametrize(
    "type",
    [
        pa.month_day_nano_interval(),
        pa.list_(pa.struct([])),
        pa.dense_union([pa.field("a", pa.int8())]),
        pa.binary(0),
    ],
    ids=str,
)
def test_what_parquet_has_no_type_for_is_not_kept_in_it(tmp_path: Path, type: pa.DataType) -> None:
    save_toy(tmp_path, card=toy_card())
    scorer = Scorer("toy", Settings(models_dir=tmp_path))
    kept = pa.schema([pa.field("age", type)])
    with pytest.raises(CannotScore, match=r"^column 'age': expected .* Parquet has, got .*: write"):
        writer_of(PARQUET, ".parquet", kept, scorer)
    assert writer_of(ARROW, ".arrow", kept, scorer).names[0] == "age"


def test_a_value_that_parquet_cannot_hold_is_an_error_of_the_system(tmp_path: Path) -> None:
    rows = pa.record_batch({"at": pa.array([2**62], pa.timestamp("s"))})
    each = Writer(PARQUET, "", rows.schema, ["at"])
    part = tmp_path / "part"
    part.write_bytes(each.head() + each.encode(rows) + each.tail())
    with Growing(part, part.stat().st_size) as file, pytest.raises(OSError, match="overflow"):
        each.convert(file, tmp_path / "result")


def test_compressed_csv_is_the_same_text_in_the_same_bytes() -> None:
    plain, packed = writer(), writer(compression="gz")
    parts = [packed.head(), packed.encode(ROWS), packed.encode(ROWS.slice(0, 0))]
    assert gzip.decompress(b"".join(parts)) == plain.head() + plain.encode(ROWS)
    assert parts[1] == packed.encode(ROWS)  # no time is in it


@pytest.mark.parametrize("kind", [PARQUET, ARROW, ARROW_STREAM])
def test_tables_are_what_was_written(tmp_path: Path, kind: Kind) -> None:
    each = writer(kind)
    part, result = tmp_path / "part", tmp_path / "result"
    part.write_bytes(each.head() + each.encode(ROWS) + each.encode(ROWS.slice(1)) + each.tail())
    if each.convert is not None:
        with Growing(part, part.stat().st_size) as file:
            each.convert(file, result)
    found = {
        "parquet": lambda: parquet.read_table(result),
        "arrow": lambda: pa.ipc.open_file(result).read_all(),
        "arrows": lambda: pa.ipc.open_stream(part).read_all(),
    }[kind.name]()
    assert found == pa.Table.from_batches([ROWS, ROWS.slice(1)])


def test_parquet_has_row_groups_of_bounded_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writers, "_GROUP_ROWS", 4)
    each = writer(PARQUET)
    (tmp_path / "part").write_bytes(each.head() + each.encode(ROWS) * 5 + each.tail())
    with Growing(tmp_path / "part", 2**20) as file:
        each.convert(file, tmp_path / "result")
    metadata = parquet.ParquetFile(tmp_path / "result").metadata
    assert [metadata.row_group(place).num_rows for place in range(metadata.num_row_groups)] == [
        *(4, 2) * 2,
        3,
    ]


def test_no_two_columns_have_one_name(tmp_path: Path) -> None:
    save_toy(tmp_path, card=toy_card())
    toy = Scorer("toy", Settings(models_dir=tmp_path))
    before = pa.schema([("line", pa.int64()), ("label", pa.string())])
    for kind, advice in (
        (CSV, "rename one, or write JSON Lines"),
        (PARQUET, "rename one in INPUT"),
    ):
        with pytest.raises(CannotScore, match=f"^OUTPUT: column 'label': .* got 2: {advice}"):
            writer_of(kind, kind.suffixes[0], before, toy)


def test_answers_of_an_open_shape_are_no_cells(tmp_path: Path) -> None:
    save_same(tmp_path, ["batch", "length"], name="series")
    series = Scorer("series", Settings(models_dir=tmp_path))
    before = pa.schema([("row", pa.int64())])
    with pytest.raises(CannotScore, match="expected a shape for CSV, got an open one"):
        writer_of(CSV, ".csv", before, series)
    assert writer_of(PARQUET, ".parquet", before, series).names == ["row", "output"]


def test_strings_of_each_width_are_quoted() -> None:
    rows = pa.record_batch(
        {
            "large": pa.array(['a "b"', None, "c"], pa.large_string()),
            "view": pa.array(["a,b", None, "c"], pa.string_view()),
        }
    )
    assert Writer(CSV, "", rows.schema, ["large", "view"]).encode(rows) == (
        b'"a ""b""","a,b"\n,\nc,c\n'
    )
