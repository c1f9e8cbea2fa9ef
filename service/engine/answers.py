"""When two answers of a model are the same, and how they differ."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.engine.providers import CPU
from service.engine.spec import Tensor
from service.engine.trial_rows import Arrays

# Two answers are the same if they differ by no more than this share of the largest number in the
# answer of the row. A batch of another size rounds differently: real files differ by 1e-4.
SAME = 1e-3
SAME_FLOAT16 = SAME_ELSEWHERE = 1e-2  # elsewhere than on the CPU other algorithms are chosen
_SAME_OF_ALL = 1e-6  # and of the largest number in all answers, for what cancels out
_MOST_NUMBERS = 2**20  # that are compared at once


class Mixed(Exception):
    """Rows were run together, and got other answers than alone."""


class Uncounted(Mixed):
    """The answers are not one for each row."""


def difference(
    outputs: Sequence[Tensor], alone: Sequence[Arrays], together: Arrays, provider: str
) -> Mixed | None:
    """Return what is wrong if rows did not get the answers that they get alone."""
    count = len(alone)
    for place, tensor in enumerate(outputs):
        ones = [answer[place] for answer in alone]
        many = together[place]
        where = f"output {tensor.name}"
        for rows, answer in [*((1, one) for one in ones), (count, many)]:
            if answer.shape[:1] != (rows,):
                shown = f"{rows} row{'s' * (rows > 1)} of a trial has shape {answer.shape}"
                return Uncounted(f"{where}: the answer to {shown}")
        beside = (1, *many.shape[1:])
        for one in ones:
            if one.shape != beside:
                sizes = f"{one.shape} alone, {beside} in a batch of {count}"
                return Mixed(f"{where}: the answer to a row has shape {sizes}")
        if found := _worst_row(ones, many, _tolerance(many, provider)):
            row, gap = found
            by = f" by {gap:.3g}" if math.isfinite(gap) else ""
            return Mixed(
                f"{where}: row {row} of {count} has another answer than alone{by}: rows "
                "depend on each other"
            )
    return None


def are_alike(first: Arrays, again: Arrays) -> bool:
    """Whether two runs of the same request gave the same, rounding and all."""
    return all(is_equal(*each) for each in zip(first, again, strict=True))


def is_equal(one: NDArray[Any], other: NDArray[Any]) -> bool:
    """Whether two answers are the same, NaN and all."""
    return np.array_equal(one, other, equal_nan=one.dtype.kind == "f")


def _worst_row(
    alone: Sequence[NDArray[Any]], together: NDArray[Any], tolerance: float
) -> tuple[int, float] | None:
    """Return the row whose answers differ most, and by how much; None if all are the same.

    A few rows at a time, as the numbers of all may be many.
    """
    if alone[0].dtype != together.dtype:
        return 0, math.inf
    step = max(1, _MOST_NUMBERS * len(together) // max(1, together.size))
    starts = range(0, len(alone), step)
    largest = max(float(_size(np.concatenate(alone[at : at + step])).max()) for at in starts)
    worst = None
    least = 0.0
    for at in starts:
        one = np.concatenate(alone[at : at + step])
        gaps = _gaps(one, together[at : at + step])
        excess = gaps - tolerance * _size(one) - _SAME_OF_ALL * largest
        row = int(excess.argmax())
        if excess[row] > least:
            least = float(excess[row])
            worst = at + row, float(gaps[row])
    return worst


def _size(rows: NDArray[Any]) -> NDArray[np.float64]:
    """Return the largest finite number of each row, without its sign; 0 where there is none."""
    if rows.dtype.kind != "f" or not rows.size:
        return np.zeros(len(rows))
    numbers = np.abs(rows.reshape(len(rows), -1).astype(np.float64))
    numbers[~np.isfinite(numbers)] = 0
    largest: NDArray[np.float64] = numbers.max(axis=1)
    return largest


def _gaps(one: NDArray[Any], other: NDArray[Any]) -> NDArray[np.float64]:
    """Return how far apart two answers are in each row; infinity for what is no float."""
    one, other = (each.reshape(len(one), -1) for each in (one, other))
    same = one == other
    if one.dtype.kind == "f":
        same |= np.isnan(one) & np.isnan(other)
    if one.dtype.kind != "f" or same.all():
        gaps: NDArray[np.float64] = np.where(same.all(axis=1), 0.0, math.inf)
        return gaps
    with np.errstate(invalid="ignore"):
        apart = np.abs(one.astype(np.float64) - other)
    apart[np.isnan(apart)] = math.inf
    gaps = np.where(same, 0.0, apart).max(axis=1)
    return gaps


def _tolerance(array: NDArray[Any], provider: str) -> float:
    if provider != CPU:
        return SAME_ELSEWHERE
    return SAME_FLOAT16 if array.dtype == np.float16 else SAME
