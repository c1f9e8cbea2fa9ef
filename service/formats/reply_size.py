"""How many bytes an answer may have, before the model runs and after."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.engine.model import Model
from service.engine.spec import DTYPES
from service.errors import TooLarge
from service.formats.turns import Turns

UNKNOWN = 2**62  # bytes of an answer whose size only shows when it is here
MOST_NUMBERS_IN_LOOP = 16_384  # that are written in the event loop

STRING = 16  # numbers that a string counts as
# The most characters that JSON needs for a value, with its comma: not known of strings.
_WIDTH_OF_KIND = {"b": 6, "i": 21, "u": 21, "f": 26, "O": UNKNOWN}
WIDTH = {dtype: _WIDTH_OF_KIND[np.dtype(dtype).kind] for dtype in DTYPES.values()}


def values_of(model: Model, place: int, rows: int) -> int:
    """Return how many values an output has for so many rows, UNKNOWN where that is open."""
    values, is_of_row = model.output_values[place]
    if values is None:
        return UNKNOWN
    return values * rows if is_of_row else values


def times(count: int, size: int) -> int:
    """Return a product; UNKNOWN if a factor is."""
    return UNKNOWN if count == UNKNOWN or size == UNKNOWN else count * size


def check_size(size: int, most: int, rows: int, where: str) -> None:
    """Raise TooLarge for a reply to so many rows that may have more than `most` bytes.

    One of an unknown size is checked when it is here.
    """
    if most < size < UNKNOWN:
        of_row = -(-size // rows)
        fit = f"at most {most // of_row} rows" if most >= of_row else "a smaller output"
        raise TooLarge(
            f"{where}: expected {fit}, as the reply to each may have {of_row} bytes, and all "
            f"at most {most} (TORCHLIT_MAX_REPLY_BYTES); got {rows}"
        )


def check_outputs(outputs: Sequence[NDArray[Any]], most: int) -> None:
    """Raise TooLarge for outputs that no reply of `most` bytes can hold."""
    check_reply(sum(min(2, array.itemsize) * array.size for array in outputs), most, "at least ")


def check_reply(size: int, most: int, how: str = "") -> None:
    """Raise TooLarge for a reply of more than `most` bytes."""
    if size > most:
        raise TooLarge(
            f"reply: expected at most {most} bytes (TORCHLIT_MAX_REPLY_BYTES), got {how}{size}; "
            "send fewer rows"
        )


def is_large(outputs: Sequence[NDArray[Any]]) -> bool:
    """Whether outputs take long to write."""
    return sum(STRING * a.size if a.dtype == object else a.size for a in outputs) > (
        MOST_NUMBERS_IN_LOOP
    )


def joined(lists: Iterable[bytes]) -> bytes:
    """Return lists in JSON as one, none of which is empty; others run between them."""
    inner, give_way = [], Turns()
    for each in lists:
        give_way()
        inner.append(each[1:-1])
    return b"[%b]" % b",".join(inner)


def slices(outputs: Sequence[NDArray[Any]]) -> list[list[NDArray[Any]]]:
    """Cut outputs (n, ...) into parts of whole rows that do not take long to write."""
    rows = len(outputs[0])
    of_row = max(1, sum(array.size for array in outputs) // max(rows, 1))
    step = max(1, MOST_NUMBERS_IN_LOOP // of_row)
    if step >= rows:
        return [list(outputs)]
    return [[array[n : n + step] for array in outputs] for n in range(0, rows, step)]
