"""Numbers of requests: which fit a type, and which sign a zero has."""

import math
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.errors import InvalidInput
from service.words import shown

NUMBERS = frozenset({int, float})
MINUS = ord("-")
# A -0 without fraction or exponent. What stands before it comes last: a search that begins with
# two fixed characters is ten times faster.
MINUS_ZERO = re.compile(rb"-0[\],}\s](?<=[\[,:\s]-0.)", re.DOTALL)
SMALL = 800  # bytes of a JSON text that Python's numbers are read from
_SHORT = 1000  # bytes that are searched for it in a microsecond
EXACT_IN_FLOAT = 2**53  # a float from here on may stand for several whole numbers
NOT_MISSING = ": the model takes no missing values, unless TORCHLIT_MISSING allows them"
NOT_JSON = ", which JSON has not: a missing value is null, and /v2 takes all floats in binary"
# The least float that a type rounds to infinity: half a step above the largest number, so that
# 3.4028235e38 fits float32, whose largest is below that but printed so. Infinity for float64.
LEAST_INFINITE: dict[type[np.generic], float] = {
    dtype: float(np.finfo(dtype).max) + float(np.finfo(dtype).eps) * 2.0 ** (exponent - 1)
    for dtype, exponent in ((np.float16, 15), (np.float32, 127), (np.float64, 1023))
}


class Unfit(Exception):
    """A fast way does not fit what was sent; take the slow one."""


class NotJson(float):
    """NaN or an infinity, as Python writes them into what is no JSON then."""


def is_small(text: bytes) -> bool:
    """Whether msgspec reads numbers of JSON faster than simdjson, and right: it makes -0 a 0."""
    return len(text) <= SMALL and not (MINUS in text and MINUS_ZERO.search(text))


def stay_finite(values: NDArray[np.float64], dtype: type[np.generic]) -> bool:
    """Whether all of `values` are finite, also when they are rounded to a type of floats."""
    limit = LEAST_INFINITE[dtype]
    if np.vdot(values, values) < limit:  # the sum of squares; `dot` warns where that overflows
        return True
    return bool(np.abs(values).max() < limit)  # false for NaN


def are_finite_as(values: list[float], dtype: type[np.generic]) -> bool:
    """As `stay_finite`, for few numbers that JSON can say: none of them is NaN."""
    limit = LEAST_INFINITE[dtype]
    return math.hypot(*values) < limit or (-limit < min(values) and max(values) < limit)


def lost_a_sign(text: bytes, values: NDArray[np.float64]) -> bool:
    """Whether JSON has a -0 that is 0 in `values`, which simdjson read from it.

    To simdjson it is a whole number, which has no such sign; -0.0 keeps it. Few long texts are
    searched for it: most have no zero, or no minus that is not in `values` too.
    """
    if len(text) >= _SHORT and (
        np.count_nonzero(values) == len(values)
        or minus_signs(text) == np.count_nonzero(np.signbit(values))
    ):
        return False
    return MINUS_ZERO.search(text) is not None


def give_signs(numbers: NDArray[np.floating[Any]], text: bytes) -> None:
    """Give each number (n,) the sign of the -0 that it is in the first list of a JSON text.

    That holds nothing but numbers, in lists none of which is empty: there is a comma between two.
    """
    start = text.index(b"[")
    found = [each.start() for each in MINUS_ZERO.finditer(text, start)]
    commas = np.flatnonzero(np.frombuffer(text, np.uint8, offset=start) == ord(",")) + start
    places = np.searchsorted(commas, found)
    numbers[places[places < len(numbers)]] = -0.0  # what is behind the list is none of them


def minus_signs(text: bytes) -> int:
    """Return how many minus signs are in the lists of a JSON text, but for those of exponents."""
    start, end = text.index(b"["), text.rindex(b"]") + 1
    characters = np.frombuffer(text, np.uint8, end - start, start)
    signs = np.count_nonzero(characters == MINUS)
    if text.find(b"e", start, end) >= 0 or text.find(b"E", start, end) >= 0:
        exponents = np.flatnonzero(characters | 0x20 == ord("e"))  # E too
        signs -= np.count_nonzero(characters[exponents + 1] == MINUS)
    return int(signs)


def all_fit(values: list[Any], scalar: type[np.generic]) -> bool:
    """Whether `number` would surely take all of them; says it 20 times faster."""
    if np.dtype(scalar).kind != "f" or not NUMBERS.issuperset(map(type, values)):
        return False
    try:
        return stay_finite(np.array(values, np.float64), scalar)
    except OverflowError:  # a whole number beyond float64
        return False


def number(
    value: Any, where: str, scalar: type[np.generic], *, takes_missing: bool = False
) -> float:
    """Return a JSON value as a number that fits a type; null as NaN where that is taken.

    Raises InvalidInput with its place.
    """
    dtype = np.dtype(scalar)
    if type(value) not in NUMBERS:
        if value is None and dtype.kind == "f":
            if takes_missing:
                return math.nan
            raise InvalidInput(f"{where}: expected a number, got null{NOT_MISSING}")
        is_empty = value == "" and dtype.kind == "f" and not takes_missing  # a cell of CSV
        hint = NOT_JSON if type(value) is NotJson else NOT_MISSING if is_empty else ""
        raise InvalidInput(f"{where}: expected a number, got {shown(value)}{hint}")
    if dtype.kind == "f":
        if takes_missing and value != value:
            return math.nan
        as_float = _as_float(value)
        if not abs(as_float) < LEAST_INFINITE[scalar]:  # also true for NaN
            largest = float(np.finfo(dtype).max)
            raise InvalidInput(
                f"{where}: expected a finite number that fits {dtype} "
                f"(at most {largest:.3g}), got {shown(value)}"
            )
        return as_float
    limits = np.iinfo(dtype)
    fits = limits.min <= value <= limits.max and value == int(value)
    is_exact = type(value) is int or abs(value) < EXACT_IN_FLOAT
    if fits and is_exact:
        return int(value)
    how = ", written without a fraction as floats are exact only below 2**53" if fits else ""
    raise InvalidInput(
        f"{where}: expected a whole number from {limits.min} to {limits.max}{how}, "
        f"got {shown(value)}"
    )


def _as_float(value: float) -> float:
    """Return the nearest float to a whole number, or infinity."""
    try:
        return float(value)
    except OverflowError:
        return math.inf
