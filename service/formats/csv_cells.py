"""What a cell of CSV says, by the type of its column."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from service.engine.columns import Column, RowForm
from service.engine.model import Model

_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


def values_of(cells: Sequence[str], form: RowForm) -> list[Any]:
    """Return what cells say where the columns of a row have these types."""
    if form.columns:
        return [
            value_as(cell, each.dtype, takes_missing=each.takes_missing)
            for cell, each in zip(cells, form.columns, strict=True)
        ]
    missing = form.takes_missing
    return [value_as(cell, form.dtype, takes_missing=missing) for cell in cells]


def value_as(cell: str, dtype: type[np.generic], *, takes_missing: bool) -> Any:
    """Return what a cell says: strings as they stand, no value where it is empty or NaN."""
    if dtype is np.object_:
        return cell
    if dtype is np.bool_:
        return _BOOLEANS.get(cell.strip().lower(), cell)
    value = value_of(cell)
    if takes_missing and (value != value or (isinstance(value, str) and not value.strip())):
        return None
    return value


def value_of(cell: str) -> float | str:
    """Return the number that a cell holds, or what it says if that is none."""
    text = cell.strip()
    try:
        number = float(text)
    except ValueError:
        return cell
    if not text.isascii() or "_" in text:  # Python's numbers, nobody else's
        return cell
    is_whole = text.lstrip("+-").isdigit() and math.isfinite(number)
    is_minus_zero = number == 0 and text.startswith("-")  # an integer has no such sign
    return int(text) if is_whole and not is_minus_zero else number  # floats lack some int64


def has_empty_cells(model: Model) -> bool:
    """Whether an empty cell is a value of some column."""
    if not model.columns:
        return model.form.takes_missing or model.row_dtype is np.object_
    return any(each.takes_missing or each.dtype is np.object_ for each in model.columns)


def columns_of(model: Model, width: int) -> list[Column]:
    """Return what the cells of a line of so many are, as many as a row has values.

    Where the columns have no names, these have none.
    """
    if model.columns:
        return model.columns
    size = width if model.has_open_rows else model.row_size
    return [Column("", model.row_dtype, model.form.takes_missing)] * size
