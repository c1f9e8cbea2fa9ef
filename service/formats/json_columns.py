"""Instances of columns of several types, decoded by what is made for them.

What does not fit goes the slow way (json_rows.py), which finds the words for it; both give the same
rows.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeAlias

import msgspec
import numpy as np
from msgspec.structs import astuple
from numpy.typing import NDArray

from service.engine.columns import Column
from service.engine.model import Model
from service.formats.message import Limits
from service.formats.numbers import LEAST_INFINITE, MINUS, MINUS_ZERO, Unfit

_KINDS = {"f": float, "i": int, "u": int, "b": bool, "O": str}
_MOST_MODELS = 256

Decode: TypeAlias = Callable[[bytes], Any]


def rows_of_body(body: bytes, model: Model, limits: Limits) -> NDArray[Any]:
    """Return the instances of a JSON body as rows (n, columns) of objects.

    Raises TooLarge; anything else means that the slow way is needed.
    """
    of_body, _ = _decoders(tuple(model.columns))
    return _rows(of_body(body).instances, body, model, limits)


def rows_of_list(text: bytes, model: Model, limits: Limits) -> NDArray[Any]:
    """As `rows_of_body`, for a JSON list of instances."""
    _, of_list = _decoders(tuple(model.columns))
    return _rows(of_list(text), text, model, limits)


@lru_cache(_MOST_MODELS)
def _decoders(columns: tuple[Column, ...]) -> tuple[Decode, Decode]:
    """Return what decodes a body, and a list of instances: objects of columns, or tuples.

    Raises ValueError for a name that no field of msgspec's can have.
    """
    names = {f"column_{place}": each.name for place, each in enumerate(columns)}
    kinds: list[Any] = [_KINDS[np.dtype(each.dtype).kind] for each in columns]
    types: list[Any] = [
        kind | None if each.takes_missing else kind
        for kind, each in zip(kinds, columns, strict=True)
    ]
    named = msgspec.defstruct(
        "Named",
        list(zip(names, types, strict=True)),
        rename=names,
        forbid_unknown_fields=True,
        gc=False,
    )
    instances: Any = list[named | tuple[*types]]  # type: ignore[valid-type]
    body = msgspec.defstruct("Body", [("instances", instances)])
    return msgspec.json.Decoder(body).decode, msgspec.json.Decoder(instances).decode


def _rows(instances: list[Any], text: bytes, model: Model, limits: Limits) -> NDArray[Any]:
    if not instances or (MINUS in text and MINUS_ZERO.search(text)):  # msgspec makes -0 a 0
        raise Unfit
    limits.check_count(len(instances))
    rows = np.empty((len(instances), len(model.columns)), np.object_)
    rows[:] = [each if type(each) is tuple else astuple(each) for each in instances]
    for place, column in enumerate(model.columns):
        kind = np.dtype(column.dtype).kind
        if kind == "f":
            values = rows[:, place].astype(np.float64)  # None -> NaN
            sizes = np.abs(values[~np.isnan(values)])
            if sizes.size and not sizes.max() < LEAST_INFINITE[column.dtype]:
                raise Unfit
            if column.takes_missing:
                rows[:, place] = values.tolist()
        elif kind in "iu":
            bounds = np.iinfo(column.dtype)  # type: ignore[type-var]
            if not (bounds.min <= rows[:, place].min() and rows[:, place].max() <= bounds.max):
                raise Unfit
    return rows
