"""Columns of Arrow -> what the graph of a model takes, and which rows are not sure to fit.

Here is said fast what surely fits. What may not is for `formats/json_rows.row` to judge, row by
row: it is the definition, and has the words.
"""

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct
from numpy.typing import NDArray

from service.engine.columns import Column
from service.errors import InvalidInput
from service.formats.numbers import EXACT_IN_FLOAT, LEAST_INFINITE
from service.formats.values import in_words
from service.words import shown

Sure: TypeAlias = NDArray[np.bool_] | None  # which values surely fit; None: all of them


class Values(Struct, frozen=True):
    """The values of a column: (n,) of its dtype. What stands where one is not sure is anything."""

    array: NDArray[Any]
    sure: Sure


def plain(array: pa.Array) -> pa.Array:
    """Return an array without what only says how its values are held."""
    if isinstance(array.type, pa.BaseExtensionType):
        array = array.storage
    if pa.types.is_dictionary(array.type):
        array = plain(array.dictionary).take(array.indices)  # decoding takes no lists
    elif pa.types.is_run_end_encoded(array.type):
        array = pc.run_end_decode(array)
    if pa.types.is_string_view(array.type):  # as Polars has them; few kernels of Arrow take them
        array = array.cast(pa.large_string())
    elif pa.types.is_list_view(array.type) or pa.types.is_large_list_view(array.type):
        # A cast writes one offset too few (pyarrow 26.0.1).
        array = pa.array(array.to_pylist(), pa.large_list(array.type.value_type))
    return array


def values_of(array: pa.Array, column: Column, name: str) -> Values:
    """Return the values of a column of a table as those of a column of the model.

    Raises InvalidInput for a type that holds no such values.
    """
    array, kind = plain(array), np.dtype(column.dtype).kind
    type = array.type
    if pa.types.is_null(type):
        return _missing(len(array), column)
    if kind == "O" and _is_text(type):
        return _strings(array)
    if kind == "b" and pa.types.is_boolean(type):
        return Values(_filled(array, fill=False), _present(array))
    if kind in "fiu" and _is_number(type):
        if pa.types.is_decimal(type):  # text says the nearest float
            array = array.cast(pa.string()).cast(pa.float64())
        if kind == "f":
            return _floats(array, column)
        return _whole_numbers(array, column)
    expected = in_words(column.dtype)
    raise InvalidInput(f"{name}: expected a column with {expected} in each row, got {type}")


def _is_text(type: pa.DataType) -> bool:
    return bool(pa.types.is_string(type) or pa.types.is_large_string(type))


def _is_number(type: pa.DataType) -> bool:
    return bool(
        pa.types.is_integer(type) or pa.types.is_floating(type) or pa.types.is_decimal(type)
    )


def _missing(count: int, column: Column) -> Values:
    if column.takes_missing:
        return Values(np.full(count, np.nan, column.dtype), None)
    return Values(_nothing(count, 1, column).reshape(-1), np.zeros(count, np.bool_))


def _present(array: pa.Array) -> Sure:
    """Return which values are not null."""
    return array.is_valid().to_numpy(zero_copy_only=False) if array.null_count else None


def _filled(array: pa.Array, fill: Any) -> NDArray[Any]:
    """Return an array with a value for those that are null."""
    filled: NDArray[Any] = (array.fill_null(fill) if array.null_count else array).to_numpy(
        zero_copy_only=False
    )
    return filled


def _strings(array: pa.Array) -> Values:
    try:
        return Values(_filled(array, ""), _present(array))
    except (UnicodeDecodeError, pa.ArrowException):
        texts = [_text(each) for each in array.cast(pa.large_binary()).to_pylist()]
        sure = np.array([each is not None for each in texts], np.bool_)
        return Values(np.array([each or "" for each in texts], np.object_), sure)


def _text(data: bytes | None) -> str | None:
    """Return bytes as text; None where they are none."""
    try:
        return None if data is None else data.decode()
    except UnicodeDecodeError:
        return None


def _floats(array: pa.Array, column: Column) -> Values:
    dtype, takes_missing = column.dtype, column.takes_missing
    numbers: NDArray[np.float64] = array.to_numpy(zero_copy_only=False).astype(np.float64)
    sure: Sure = None
    limit = LEAST_INFINITE[dtype]
    if len(numbers) and not (-limit < numbers.min() and numbers.max() < limit):  # null is NaN
        sure = np.abs(numbers) < limit
        if takes_missing:
            sure |= np.isnan(numbers)
    with np.errstate(over="ignore"):
        return Values(numbers.astype(dtype), None if sure is None or sure.all() else sure)


def _whole_numbers(array: pa.Array, column: Column) -> Values:
    limits: Any = np.iinfo(np.dtype(column.dtype))
    numbers = _filled(array, 0)
    if numbers.dtype.kind == "f":  # narrower ones round the limits
        numbers = numbers.astype(np.float64)
    with np.errstate(invalid="ignore"):
        sure = (numbers >= limits.min) & (numbers <= limits.max)
        if numbers.dtype.kind == "f":
            sure &= (np.abs(numbers) < EXACT_IN_FLOAT) & (numbers == np.floor(numbers))
        if (present := _present(array)) is not None:
            sure &= present
        return Values(numbers.astype(column.dtype), None if sure.all() else sure)


def lists_of(array: pa.Array, shape: Sequence[int], column: Column, name: str) -> Values:
    """Return a column of lists of values as rows (n, product of shape).

    The lists are of all values of a row, or nested as `shape` says. Raises InvalidInput for a type
    that holds no such lists.
    """
    array = plain(array)
    count, size = len(array), math.prod(shape)
    sizes = list(shape) if _depth(array.type) == len(shape) else [size]
    if _depth(array.type) != len(sizes):
        raise InvalidInput(f"{name}: expected a column of lists of {size}, got {array.type}")
    fit = _have(array, sizes[0])
    sure: NDArray[np.bool_] = fit.to_numpy(zero_copy_only=False)
    if not sure.all():
        array = array.filter(fit)
    array = plain(array.flatten())
    for each in sizes[1:]:
        if not pc.all(_have(array, each), min_count=0).as_py():  # in which row is not known
            return Values(_nothing(count, size, column), np.zeros(count, np.bool_))
        array = plain(array.flatten())
    values = values_of(array, column, name)
    if sure.all() and values.sure is None:
        return Values(values.array.reshape(count, size), None)
    rows, sure = _nothing(count, size, column), sure.copy()  # what Arrow gave cannot be written
    rows[sure] = values.array.reshape(-1, size)
    if values.sure is not None:
        sure[sure] = values.sure.reshape(-1, size).all(axis=1)
    return Values(rows, sure)


def _have(array: pa.Array, size: int) -> pa.Array:
    """Return which lists have a size; those that are null have none."""
    return pc.equal(pc.list_value_length(array), size).fill_null(False)


def _nothing(count: int, size: int, column: Column) -> NDArray[Any]:
    rows: NDArray[Any] = np.zeros((count, size), column.dtype)
    if column.dtype is np.object_:
        rows[:] = ""
    return rows


def _is_list(type: pa.DataType) -> bool:
    return any(
        is_one(type)
        for is_one in (
            pa.types.is_list,
            pa.types.is_large_list,
            pa.types.is_fixed_size_list,
            pa.types.is_list_view,
            pa.types.is_large_list_view,
        )
    )


def _depth(type: pa.DataType) -> int:
    if isinstance(type, pa.BaseExtensionType):
        return _depth(type.storage_type)
    if pa.types.is_dictionary(type) or pa.types.is_run_end_encoded(type):
        return _depth(type.value_type)
    return 1 + _depth(type.value_type) if _is_list(type) else 0


def is_list(type: pa.DataType) -> bool:
    """Whether a column holds lists."""
    return _depth(type) > 0


def is_binary(type: pa.DataType) -> bool:
    """Whether a column holds bytes, as of images."""
    return bool(
        pa.types.is_binary(type)
        or pa.types.is_large_binary(type)
        or pa.types.is_binary_view(type)
        or (pa.types.is_struct(type) and type.get_field_index("bytes") >= 0)
    )


def refuse_columns(names: Sequence[str], expected: str) -> InvalidInput:
    """Return the error that a table has other columns than a model takes."""
    got = f"{len(names)} columns: {shown(', '.join(names))}" if names else "none"
    return InvalidInput(f"table: expected {expected}, got {got}")
