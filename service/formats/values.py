"""Values of requests: which fit a type, be it of numbers, booleans or strings."""

from typing import Any

import numpy as np

from service.errors import InvalidInput
from service.formats.numbers import number
from service.words import shown


def fitting(value: Any, where: str, dtype: type[np.generic], *, takes_missing: bool = False) -> Any:
    """Return a value that fits a type; none is made of one of another type.

    `takes_missing`: null is NaN. Raises InvalidInput with its place.
    """
    if dtype is np.object_:
        if type(value) is not str:
            raise InvalidInput(f"{where}: expected a string, got {shown(value)}")
        if not _has_utf8(value):
            raise InvalidInput(f"{where}: expected a string that has a form in UTF-8")
        return value
    if dtype is np.bool_:
        if type(value) is not bool:
            raise InvalidInput(f"{where}: expected true or false, got {shown(value)}")
        return value
    return number(value, where, dtype, takes_missing=takes_missing)


def in_words(dtype: type[np.generic]) -> str:
    """Return what a type holds, for sentences: one of it."""
    return {np.object_: "a string", np.bool_: "true or false"}.get(dtype, "a number")


def _has_utf8(text: str) -> bool:
    """Whether a string has no lone surrogate, which JSON may hold as an escape."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
