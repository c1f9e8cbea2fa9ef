from collections.abc import Iterator
from math import inf

import pytest
from msgspec.structs import replace
from onnx import TensorProto, helper

from service.engine.model import Model
from service.errors import InvalidInput
from service.formats import csv_rows
from service.formats.csv_dialect import HEAD_ROWS
from service.formats.csv_rows import CsvMessage
from service.formats.csv_table import Table, open_table
from service.formats.message import Limits
from tests.support.toys import save_graph, save_same, save_toy, tensor, toy_card

LIMITS = Limits(100, 1, 1, inf)


def opened(text: bytes, model: Model, *, is_file: bool = False) -> Table:
    return open_table(iter(text.splitlines(keepends=True)), model, None, is_file=is_file)


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A model of one text."""
    folder = tmp_path_factory.mktemp("models")
    return Model.open(save_same(folder, ["batch", 1], TensorProto.STRING))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A model of a number and a text."""
    path = tmp_path_factory.mktemp("models") / "model.onnx"
    types = {"area": TensorProto.FLOAT, "city": TensorProto.STRING}
    nodes = [helper.make_node("Identity", [name], [f"{name}_too"]) for name in types]
    inputs = [tensor(name, ["batch", 1], each) for name, each in types.items()]
    outputs = [tensor(f"{name}_too", ["batch", 1], each) for name, each in types.items()]
    save_graph(path, nodes, inputs, outputs, [], None)
    return Model.open(path)


def test_a_row_that_holds_the_name_of_a_column_is_a_row(columns: Model) -> None:
    for is_file in (False, True):
        assert opened(b"1.5,2,age,true\n", columns, is_file=is_file).header is None


def test_a_body_of_texts_is_refused_where_its_first_line_may_be_a_header(words: Model) -> None:
    assert opened(b"rome\ninput\n", words).header is None
    why = r'^line 1: expected a row or a header, got "input", which may be either: say header=pres'
    with pytest.raises(InvalidInput, match=why):
        opened(b"input\nrome\n", words)
    assert opened(b"Input\nrome\n", words, is_file=True).head_lines == 1


def test_a_file_shows_within_its_first_rows_what_marks_decimals(toy: Model) -> None:
    whole, last = b"1;2;3;4\n", b"1;2;3;4,5\n"
    assert opened(whole * (HEAD_ROWS - 1) + last, toy).decimal == ","
    assert opened(whole * HEAD_ROWS + last, toy).decimal == ""
    assert opened(b'1;2;3;"x' + last, toy).decimal == ""


def test_of_a_table_with_commas_only_the_first_line_is_read(toy: Model) -> None:
    def lines() -> Iterator[bytes]:
        yield from (b"\n", b"a,b,c,d\n")
        raise AssertionError("it may come slowly")

    table = open_table(lines(), toy, None, is_file=True)
    assert (table.head_lines, table.is_plain) == (2, True)


def test_columns_of_text_say_nothing_of_decimals(columns: Model) -> None:
    table = opened(b"city;paid;age;rooms\n1,5;true;1,234;2\n", columns)
    with pytest.raises(
        InvalidInput, match=r"age: expected a number, got \"1,234\": write 1.234 or"
    ):
        table.row(["1,5", "true", "1,234", "2"], "line 2")
    assert table.row(["1,5", "true", "1.234", "2"], "line 2") == [1.234, 2, "1,5", True]


def test_a_header_may_go_on_over_lines(toy: Model) -> None:
    table = opened(b'a,b,"the\nnote",c,d\n1,2,x,3,4\n', toy)
    assert table.head_lines == 2
    assert table.row(["1", "2", "x", "3", "4"], "line 3") == [1, 2, 3, 4]


@pytest.fixture(scope="module")
def years(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A model of columns whose names are numbers."""
    first = toy_card().features[0]
    features = [replace(first, name=name) for name in ("2018", "2019", "2020", "2021")]
    return Model.open(save_toy(tmp_path_factory.mktemp("models"), card=toy_card(features=features)))


def test_a_header_of_numbers_is_no_row_unless_somebody_says_so(years: Model) -> None:
    """It was answered as a row, and the columns were taken in their own order."""
    text = b"2021,2020,2019,2018\n1,2,3,4\n"
    with pytest.raises(InvalidInput, match=r"^line 1: expected a row or a header, got \"2021,"):
        CsvMessage(text).rows(years, LIMITS)
    assert CsvMessage(text, has_header=True).rows(years, LIMITS).tolist() == [[4, 3, 2, 1]]
    assert CsvMessage(text, has_header=False).rows(years, LIMITS)[1].tolist() == [1, 2, 3, 4]
    assert CsvMessage(b"1,2,3,4\n").rows(years, LIMITS).tolist() == [[1, 2, 3, 4]]
    assert opened(text, years, is_file=True).head_lines == 1


def test_a_line_that_fits_with_two_separators_is_refused(pairs: Model) -> None:
    """7,5;Rome was 7 and "5;Rome"."""
    with pytest.raises(InvalidInput, match=r"which fits the model with commas and with semicolons"):
        opened(b"7,5;Rome\n", pairs)
    assert opened(b"sep=;\n7,5;Rome\n", pairs).separator == ";"
    assert opened(b'7,"5;Rome"\n', pairs).separator == ","


def test_tabs_separate_where_the_media_type_says_so(pairs: Model, toy: Model) -> None:
    body = csv_rows.read(b"7.5\tRome, Italy\n", frozenset(), "Text/TSV; charset=utf-8")
    assert body.rows(pairs, LIMITS).tolist() == [[7.5, "Rome, Italy"]]
    with pytest.raises(InvalidInput, match=r"^line 1: expected 4 values, got 1$"):
        csv_rows.read(b"1,2,3,4\n", frozenset(), "text/tab-separated-values").rows(toy, LIMITS)
