"""When two answers of a model are the same, and how they differ."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.engine.providers import CPU
from service.engine.spec import Tensor
from service.engine.trial_rows import Arrays

# A batch of another size rounds differently: real files differ by 1e-4 of what they answer. So two
# numbers are the same if they differ by no more than these shares of what rounding depends on. The
# row's largest number is no part of it: beside a time stamp, or the lowest float32 that masks a
# choice, no other number would count.
_OF_ITSELF = 1e-3
_OF_ITS_PLACE = 1e-4  # the largest that was seen in its place, in any row
_OF_SMALL_ONES = 2e-4  # what one in twenty of the row's numbers is smaller than, if they are many
_MANY = 1000
_OF_SHARES = 1e-6  # of probabilities, that is of numbers which are 1 together
_LARGEST = 1e30  # beyond that a number is no size, but stands for "none"
_ROUNDS_MORE = 10  # times all of this: half floats, and other devices, which choose algorithms
_MOST_NUMBERS = 2**20  # that are compared together


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
        if found := _worst_row(ones, many, _share(many, provider)):
            row, gap = found
            by = f" by {gap:.3g}" if math.isfinite(gap) else ""
            return Mixed(
                f"{where}: row {row} of {count} has another answer than alone{by}: rows "
                "depend on each other"
            )
    return None


def differ(answers: Sequence[Arrays], provider: str) -> bool:
    """Whether the answers to two rows differ by more than what counts as the same.

    Only then does it show something that rows have the same answers alone and together.
    """
    first = answers[0]
    return any(
        one.shape != answer[place].shape
        or _worst_row([one], answer[place], 2 * _share(one, provider)) is not None
        for answer in answers[1:]
        for place, one in enumerate(first)
        if one.ndim
    )


def are_alike(first: Arrays, again: Arrays) -> bool:
    """Whether two runs of the same request gave the same, rounding and all."""
    return all(
        np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
        for one, other in zip(first, again, strict=True)
    )


def _worst_row(
    alone: Sequence[NDArray[Any]], together: NDArray[Any], share: float
) -> tuple[int, float] | None:
    """Return the row whose answers differ most, and by how much; None if all are the same.

    share: of the tolerances above. A few rows at a time, as the numbers of all may be many.
    """
    if alone[0].dtype != together.dtype:
        return 0, math.inf
    if not together.size:
        return None
    step = max(1, _MOST_NUMBERS * len(together) // together.size)
    of_place: NDArray[np.float64] | None = None
    worst = None
    most = 0.0
    for at in range(0, len(alone), step):
        one = np.concatenate(alone[at : at + step])
        gaps = _gaps(one, together[at : at + step])
        if not gaps.any():
            continue  # as most often
        if of_place is None:
            places = [_sizes(each) for each in {id(each): each for each in alone}.values()]
            of_place = np.maximum.reduce(places) * _OF_ITS_PLACE
        own = _sizes(one)
        tolerance = own * _OF_ITSELF + of_place
        if one.dtype.kind == "f" and own.shape[1] > 1:
            are_shares = np.abs(own.sum(axis=1, keepdims=True) - 1) < _OF_ITSELF
            tolerance += are_shares * _OF_SHARES
        if own.shape[1] >= _MANY:
            tolerance += np.quantile(own, 0.05, axis=1, keepdims=True) * _OF_SMALL_ONES
        excess = (gaps - share * tolerance).max(axis=1)
        row = int(excess.argmax())
        if excess[row] > most:
            most = float(excess[row])
            worst = at + row, float(gaps[row].max())
    return worst


def _sizes(rows: NDArray[Any]) -> NDArray[np.float64]:
    """Return the size of each number, (n, all): 0 of what is no float, and of what is too large."""
    if rows.dtype.kind != "f":
        return np.zeros((len(rows), max(1, rows.size // len(rows))))
    sizes: NDArray[np.float64] = np.abs(rows.reshape(len(rows), -1).astype(np.float64))
    sizes[~(sizes < _LARGEST)] = 0  # of NaN too
    return sizes


def _gaps(one: NDArray[Any], other: NDArray[Any]) -> NDArray[np.float64]:
    """Return how far apart two answers are, (n, all); infinity for what differs and is no float."""
    one, other = (each.reshape(len(one), -1) for each in (one, other))
    same = one == other
    if one.dtype.kind != "f":
        unequal: NDArray[np.float64] = np.where(same, 0.0, math.inf)
        return unequal
    same |= np.isnan(one) & np.isnan(other)
    with np.errstate(invalid="ignore", over="ignore"):
        gaps: NDArray[np.float64] = np.abs(one.astype(np.float64) - other)
    gaps[np.isnan(gaps)] = math.inf
    gaps[same] = 0
    return gaps


def _share(array: NDArray[Any], provider: str) -> float:
    return _ROUNDS_MORE if provider != CPU or array.dtype == np.float16 else 1.0
