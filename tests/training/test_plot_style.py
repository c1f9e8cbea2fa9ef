import pytest

from service.card import Target
from training.plot_style import LONGEST_NAME, named, shortened


def test_long_names_are_shortened_in_the_middle() -> None:
    assert shortened("b") == "b"
    assert shortened("a very long name of a label, with its end") == "a very long…ith its end"


@pytest.mark.parametrize("length", [LONGEST_NAME - 1, LONGEST_NAME, LONGEST_NAME + 1, 1000])
def test_no_name_is_longer_than_the_longest(length: int) -> None:
    assert len(shortened("x" * length)) == min(length, LONGEST_NAME - (length > LONGEST_NAME))


def test_column_has_its_unit_where_it_has_one() -> None:
    assert named(Target(name="z", unit="m", description="")) == "z (m)"
    assert named(Target(name="z", unit="", description="")) == "z"
