from collections.abc import Iterator

import pytest
from onnx import TensorProto

from service.engine.model import Model
from service.errors import InvalidInput
from service.formats.csv_dialect import HEAD_ROWS
from service.formats.csv_table import Table, open_table
from tests.support.toys import save_same


def opened(text: bytes, model: Model, *, is_file: bool = False) -> Table:
    return open_table(iter(text.splitlines(keepends=True)), model, None, is_file=is_file)


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A model of one text."""
    folder = tmp_path_factory.mktemp("models")
    return Model.open(save_same(folder, ["batch", 1], TensorProto.STRING))


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
