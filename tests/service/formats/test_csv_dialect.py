import pytest

from service.engine.model import Model
from service.errors import InvalidInput
from service.formats.csv_dialect import decimal_of, said_separator, separator_of, with_point


@pytest.mark.parametrize(
    ("line", "separator"),
    [("sep=;\r\n", ";"), ("SEP=,\n", ","), ('"sep=\t"\n', "\t"), ("sep=|", "|"), ("sep,a\n", "")],
)
def test_the_first_line_may_say_what_separates(line: str, separator: str) -> None:
    assert said_separator(line) == separator


@pytest.mark.parametrize(
    ("line", "separator"),
    [
        ("1,2,3,4", ","),
        ("1;2;3;4", ";"),
        ("1\t2\t3\t4", "\t"),
        ("1,0;2,0;3,0;4,0", ";"),
        ("1,5;2,5", ";"),  # a row that is too short
        ("1;5,2,3,4", ","),  # that is bad
        ("\t1,2,3,\t4", ","),
        ("a;b;c;d;a, or b", ";"),
        ("x;y", ","),
    ],
)
def test_a_comma_separates_unless_another_makes_more_sense(
    line: str, separator: str, toy: Model
) -> None:
    assert separator_of(line + "\n", toy) == separator


@pytest.mark.parametrize(
    ("line", "separator"),
    [
        ("1.5,2,a;b,true", ","),
        ("1,5;2;a, b;true", ";"),
        ("age;rooms;city;paid", ";"),
        ("Rome;2;1,5;true", ";"),
    ],
)
def test_texts_may_hold_what_separates_elsewhere(line: str, separator: str, columns: Model) -> None:
    assert separator_of(line, columns) == separator


@pytest.mark.parametrize(
    ("rows", "decimal"),
    [
        ([["1", "2"]], ""),
        ([["1,234", "2.345"]], ""),  # thousands, or three decimals
        ([["1,234", "2"], ["0,123", "1.5"]], ","),  # the first that shows it
        ([["12,3456"]], ","),
        ([["-1,5e3"]], ","),
        ([["x", "1.5"]], "."),
        ([["1,234,567"], [".5"]], "."),
    ],
)
def test_the_first_number_that_shows_it_says_what_marks_decimals(
    rows: list[list[str]], decimal: str
) -> None:
    assert decimal_of(rows, [True, True]) == decimal
    assert decimal_of(rows, [False, False]) == ""


def test_a_comma_becomes_a_point_only_where_it_marks_decimals() -> None:
    for cell, decimal, point in (
        (" 1,5 ", ",", "1.5"),
        ("1,234", ",", "1.234"),
        ("1.5", ".", "1.5"),
        ("1.234", "", "1.234"),
        ("1,2,3", ",", "1,2,3"),
    ):
        assert with_point(cell, decimal, "line 1") == point
    for cell, decimal, why in (
        ("1,234", "", ": write 1.234 or 1234"),
        ("1,5", "", ": write 1.5"),
        ("1,5", ".", ", but elsewhere a point marks decimals"),
        ("1.5", ",", ", but elsewhere a comma marks decimals"),
    ):
        with pytest.raises(InvalidInput) as raised:
            with_point(cell, decimal, "line 1")
        assert str(raised.value) == f'line 1: expected a number, got "{cell}"{why}'
