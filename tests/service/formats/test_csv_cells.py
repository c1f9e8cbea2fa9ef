import pytest

from service.formats.csv_cells import value_of


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("1", 1),
        (" +1 ", 1),
        ("-0", -0.0),
        ("9007199254740993", 9007199254740993),
        ("1e400", float("inf")),
        ("1" * 400, float("inf")),
        ("1_0", "1_0"),
        ("\u0661", "\u0661"),
        ("", ""),
        (" x", " x"),
    ],
)
def test_a_cell_is_a_number_or_what_it_says(cell: str, value: float | str) -> None:
    found = value_of(cell)
    assert (repr(found), type(found)) == (repr(value), type(value))
