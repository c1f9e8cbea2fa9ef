"""When two answers are the same."""

from typing import Any

import numpy as np
import pytest

from service.engine.answers import Uncounted, are_alike, difference
from service.engine.providers import CPU, CUDA
from service.engine.spec import Tensor


def compared(alone: list[Any], together: Any, *, dtype: Any = "f4", provider: str = CPU) -> str:
    outputs = [Tensor("y", np.float32, (-1,))]
    ones = [[np.array([each], dtype)] for each in alone]
    return str(difference(outputs, ones, [np.array(together, dtype)], provider) or "")


@pytest.mark.parametrize(
    ("alone", "together", "is_same"),
    [
        ([1, 2], [1, 2], True),
        ([1, 2], [1.0005, 2], True),  # rounding
        ([1, 2], [1.002, 2], False),
        ([[1.7e9, 0.5]], [[1.7e9, 0.52]], False),  # whatever is beside it
        ([[-3.4e38, 0.5]], [[-3.4e38, 0.52]], False),
        ([0.001, 1000], [0.0015, 1000], True),  # it cancelled out
        ([0.001, 1000], [0.2, 1000], False),
        ([[1, 1.2e-7], [1, 1e-7]], [[1, 2e-7], [1, 1e-7]], True),  # probabilities
        ([[1, 1.2e-7], [1, 1e-7]], [[1, 2e-5], [1, 1e-7]], False),
        ([[0.5, 1.2e-7], [1, 1e-7]], [[0.5, 2e-7], [1, 1e-7]], False),
        ([np.nan, np.inf], [np.nan, np.inf], True),
        ([np.nan], [1], False),
        ([1], [np.nan], False),
        ([np.inf], [-np.inf], False),
        ([np.inf], [1], False),
    ],
)
def test_rounding_is_the_same_and_more_is_not(
    alone: list[Any], together: list[Any], is_same: bool
) -> None:
    assert (compared(alone, together) == "") is is_same


def test_the_worst_row_is_named_also_among_many() -> None:
    """As many numbers as are not compared at once."""
    rows = [np.full(300_000, number, np.float32) for number in range(9)]
    together = np.array(rows)
    together[7, 5] += 1
    together[2, 5] += 0.5
    said = compared(rows, together)
    assert said == (
        "output y: row 7 of 9 has another answer than alone by 1: rows depend on each other"
    )


@pytest.mark.parametrize(
    ("alone", "together", "dtype"),
    [(["a"], ["b"], object), ([1], [2], "i8"), ([True], [False], bool)],
)
def test_what_is_no_float_is_the_same_or_is_not(alone: Any, together: Any, dtype: Any) -> None:
    assert compared(alone, alone, dtype=dtype) == ""
    assert "row 0 of 1 has another answer than alone: rows" in compared(
        alone, together, dtype=dtype
    )


def test_other_devices_and_half_floats_round_more() -> None:
    assert compared([1.0], [1.005])
    assert not compared([1.0], [1.005], provider=CUDA)
    assert not compared([1.0], [1.005], dtype="f2")


def test_shapes_come_first() -> None:
    outputs = [Tensor("y", np.float32, (-1,))]
    one, wide, two = (np.zeros(shape, np.float32) for shape in ((1, 2), (2, 3), (1, 2)))
    assert "has shape (1, 2) alone, (1, 3) in a batch of 2" in str(
        difference(outputs, [[one], [one]], [wide], CPU)
    )
    assert isinstance(difference(outputs, [[one], [one]], [two], CPU), Uncounted)
    empty = np.zeros((2, 0), np.float32)
    assert difference(outputs, [[empty[:1]], [empty[:1]]], [empty], CPU) is None


def test_two_runs_are_alike_to_the_last_bit() -> None:
    one = [np.array([1, np.nan], np.float32), np.array(["a"], object)]
    assert are_alike(one, [each.copy() for each in one])
    assert not are_alike(one, [one[0] + np.float32(1e-6), one[1]])
