"""The rows of a trial."""

from typing import Any

import numpy as np
import pytest

from service.engine.spec import Dimensions, Spec, Tensor
from service.engine.trial_rows import (
    FAR,
    ODD,
    ROWS,
    SCALED,
    SPREAD,
    TAME,
    Chance,
    Style,
    TrialRows,
    all_of,
    different,
    joined,
    own,
)

STYLES = {"scaled": SCALED, "tame": TAME, "spread": SPREAD, "far": FAR, "odd": ODD}
KINDS = (np.float16, np.float32, np.float64, np.int8, np.int64, np.uint8, np.bool_, np.object_)
of_each_style = pytest.mark.parametrize("style", STYLES.values(), ids=STYLES)
of_each_kind = pytest.mark.parametrize("kind", KINDS, ids=[each.__name__ for each in KINDS])


def maker(
    *dimensions: Dimensions, kind: type[np.generic] = np.float32, are_sizes: bool = False
) -> TrialRows:
    """Return what makes rows for inputs of these dimensions."""
    inputs = [
        Tensor(f"x{number}", kind, tuple(each if isinstance(each, int) else -1 for each in shape))
        for number, shape in enumerate(dimensions)
    ]
    return TrialRows(Spec(inputs, [], list(dimensions)), are_sizes=are_sizes)


def rows_of(style: Style, rows: TrialRows, size: int = 4) -> list[Any]:
    """Return the first array of each row."""
    return [rows.row(style, all_of(size), number)[0] for number in range(ROWS)]


@of_each_style
@of_each_kind
def test_rows_have_the_type_and_shape_of_the_input_and_are_one_each(
    style: Style, kind: type[np.generic]
) -> None:
    for each in rows_of(style, maker(("n", 3, "wide"), kind=kind)):
        assert (each.dtype, each.shape) == (np.dtype(kind), (1, 3, 4))
    for each in rows_of(style, maker((2, 3), kind=kind)):
        assert each.shape == (2, 3)  # as the graph says it


@of_each_style
@of_each_kind
def test_not_all_rows_are_the_same(style: Style, kind: type[np.generic]) -> None:
    """Else nothing could show that one has the answer of another."""
    if kind is np.bool_ and style not in (SCALED, TAME):
        return  # of numbers that are large, each is true
    first, _, third = rows_of(style, maker(("n", 13), kind=kind))
    assert first.tolist() != third.tolist()


@of_each_kind
@pytest.mark.parametrize("style", [SCALED, TAME])
def test_the_rows_of_a_pair_differ(style: Style, kind: type[np.generic]) -> None:
    first, second, _ = rows_of(style, maker(("n", 1), kind=kind))
    assert first.tolist() != second.tolist()


def test_chance_is_the_same_on_every_machine() -> None:
    """And so are verdicts."""
    chance = Chance(3)
    assert chance.shares(2).tolist() == [0.2379646294284612, 0.5926409107632935]
    normal = Chance(3).normal(100_000)
    assert abs(normal.mean()) < 0.01
    assert abs(normal.std() - 1) < 0.01


def test_inputs_of_a_row_have_values_of_their_own() -> None:
    first, second = maker(("n", 9), ("n", 9)).row(TAME, all_of(1), 0)
    assert not np.array_equal(first, second)


@of_each_style
def test_what_decides_on_a_size_is_never_zero(style: Style) -> None:
    """ONNX Runtime ends the process for some sizes and steps of 0."""
    for each in rows_of(style, maker(("n", 100), kind=np.int64, are_sizes=True)):
        assert each.min() > 0


def test_numbers_of_a_large_row_come_again_and_at_no_size_that_models_have() -> None:
    """A row of a million numbers costs no more chance than one of 65,521, which is a prime."""
    row = maker(("n", 300, 300)).row(TAME, all_of(1), 0)[0].ravel()
    assert len(np.unique(row)) < 65_522
    assert np.array_equal(row[65_521:], row[: 90_000 - 65_521])
    assert not any(np.array_equal(row[:300], row[300 * n : 300 * n + 300]) for n in range(1, 300))


def test_dimensions_that_are_equal_by_name_are_equal_in_size_and_sums_fit() -> None:
    rows = maker(("n", "past"), ("n", "length"), ("n", "past + length"), ("n", "length + 2"))
    past, length, both, more = (each.shape[1] for each in rows.row(TAME, different, 0))
    assert past != length
    assert (both, more) == (past + length, length + 2)
    assert [each.shape[1] for each in rows.row(TAME, all_of(5), 0)] == [5, 5, 10, 7]


def test_the_memory_of_a_row_is_known_before_it_is_made() -> None:
    rows = maker(("n", 3, "wide"), (7,), kind=np.float64)
    assert rows.bytes(all_of(4)) == sum(each.nbytes for each in rows.row(TAME, all_of(4), 0))
    assert maker(("n", 3, 20_000, 20_000)).bytes(all_of(1)) == 4_800_000_000


@pytest.mark.parametrize(("kind", "zero"), [(np.int8, 0), (np.bool_, False), (np.object_, "")])
def test_a_row_of_zeros_is_one_of_nothing(kind: type[np.generic], zero: Any) -> None:
    (zeros,) = maker(("n", 2), kind=kind).zeros()
    assert (zeros.dtype, zeros.tolist()) == (np.dtype(kind), [[zero, zero]])


def test_rows_are_joined_along_the_first_dimension() -> None:
    rows = maker(("n", 2), ("n",))
    several = [rows.row(SCALED, all_of(1), number) for number in (2, 0)]
    left, right = joined(several)
    assert np.array_equal(left, np.stack([several[0][0][0], several[1][0][0]]))
    assert right.shape == (2,)


def test_own_rows_have_what_the_file_knows() -> None:
    style = own([["red", "blue", "green"], ["small", "large"]], [5.0, -300.0])
    words = maker(("n", 1), ("n", 1), kind=np.object_)
    rows = [[str(each.item()) for each in words.row(style, all_of(1), n)] for n in range(ROWS)]
    assert rows == [["red", "small"], ["blue", "large"], ["green", "small"]]
    together = rows_of(style, maker(("n", 2), kind=np.object_))
    assert [each.tolist() for each in together] == [[row] for row in rows]
    numbers = {float(each) for row in rows_of(style, maker(("n", 50))) for each in row.ravel()}
    assert sorted(numbers) == [pytest.approx(-300, 0.001), pytest.approx(5, 0.001)]
    assert min(numbers) > -300  # beyond the branch
    assert max(numbers) > 5


def test_own_rows_without_words_or_numbers_are_some_all_the_same() -> None:
    for kind in (np.float32, np.object_):
        assert len(rows_of(own([], []), maker(("n", 3), kind=kind))) == ROWS
