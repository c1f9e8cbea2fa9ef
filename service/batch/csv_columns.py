"""Lines of CSV -> columns of Arrow: numbers, booleans and strings, as csv_cells.py has them.

What Arrow reads as a number, Python's float does too. What it does not is left unsure, for others
to judge.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct
from pyarrow import csv

from service.engine.columns import Column
from service.formats.csv_cells import columns_of
from service.formats.csv_table import Table

_TRUE, _FALSE = ["true", "True", "TRUE", "1"], ["false", "False", "FALSE", "0"]
_UNSURE = "inf"  # no number that a model takes
_NUMBERS = {
    ".": "^-?([0-9]+([.][0-9]*)?|[.][0-9]+)([eE][+-]?[0-9]+)?$",
    ",": "^-?([0-9]*,)?[0-9]+([eE][+-]?[0-9]+)?$",
}
_HEX = re.compile(rb"0[xX]")
_WHOLE = "^-?[0-9]{1,18}$"


class NotColumns(Exception):
    """Arrow does not read the lines: read them row by row."""


class Columns(Struct, frozen=True):
    """What stands in the lines that have as many cells as a row."""

    values: list[pa.Array]  # in the order of the model; null or infinite where that is not sure
    kept: pa.RecordBatch | None
    are_ragged: bool  # whether there are other lines


def read(data: bytes, table: Table, *, keep: bool) -> Columns:
    """Read lines in columns. Raises NotColumns."""
    model, header = table.model, table.header
    has_decimals = table.separator != "," and not table.decimal and (b"." in data or b"," in data)
    if model.has_open_rows or has_decimals:
        raise NotColumns
    columns = columns_of(model, model.row_size)
    places = header.places if header is not None and header.places else range(len(columns))
    kept = header.kept if header is not None and keep else []
    reader = _Reader(data, table, [*places, *kept])
    types = [*map(_type_of, columns), *([pa.string()] * len(kept))]
    try:
        if table.decimal == "," or _HEX.search(data):  # to Arrow "5," and 0x1F are numbers too
            raise pa.ArrowInvalid
        arrays = reader.arrays(types)
    except pa.ArrowInvalid:  # one of many cells says something else
        arrays = reader.arrays([pa.string()] * len(types))
        for place, column in enumerate(columns):
            arrays[place] = _converted(arrays[place], column, table.decimal or ".")
    size = len(columns)
    beside = (
        pa.RecordBatch.from_arrays(arrays[size:], header.kept_names) if kept and header else None
    )
    return Columns(arrays[:size], beside, reader.are_ragged)


class _Reader:
    """Reads some cells of each line."""

    def __init__(self, data: bytes, table: Table, places: Sequence[int]) -> None:
        self._data = data
        self._names = [str(place) for place in range(table.width)]
        self._wanted = [self._names[place] for place in places]
        self._separator = table.separator
        self.are_ragged = False

    def arrays(self, types: Sequence[pa.DataType]) -> list[pa.Array]:
        """Return the cells as these types. Raises ArrowInvalid, and NotColumns for other text."""
        read = csv.ReadOptions(
            use_threads=False, block_size=len(self._data) + 1, column_names=self._names
        )
        parse = csv.ParseOptions(delimiter=self._separator, invalid_row_handler=self._passed)
        convert = csv.ConvertOptions(
            column_types=dict(zip(self._wanted, types, strict=True)),
            include_columns=self._wanted,
            null_values=[""],
            true_values=_TRUE,
            false_values=_FALSE,
        )
        try:
            table = csv.read_csv(pa.BufferReader(self._data), read, parse, convert)
        except pa.ArrowInvalid as error:
            if all(each == pa.string() for each in types):
                raise NotColumns from error
            raise
        return [each.combine_chunks() for each in table.columns]

    def _passed(self, row: Any) -> str:
        self.are_ragged = True
        return "skip"


def _type_of(column: Column) -> pa.DataType:
    if column.dtype is np.object_:
        return pa.string()
    if column.dtype is np.bool_:
        return pa.bool_()
    return pa.float64() if np.dtype(column.dtype).kind == "f" else pa.int64()


def _converted(texts: pa.Array, column: Column, decimal: str) -> pa.Array:
    """Return cells as what a column holds: null if empty, null or infinite where it is not sure."""
    if column.dtype is np.object_:
        return texts
    texts = pc.ascii_trim_whitespace(texts)
    if column.dtype is np.bool_:
        place = pc.index_in(pc.ascii_lower(texts), pa.array(["false", "0", "true", "1"]))
        return pc.greater_equal(place, 2)
    is_whole = pc.match_substring_regex(texts, _WHOLE)
    if np.dtype(column.dtype).kind in "iu" and pc.all(is_whole, min_count=0).as_py():
        return texts.cast(pa.int64())
    is_number = pc.match_substring_regex(texts, _NUMBERS[decimal])
    sure = pc.if_else(is_number, texts, pc.if_else(pc.equal(texts, ""), None, _UNSURE))
    if decimal != ".":
        sure = pc.replace_substring(sure, decimal, ".")
    return sure.cast(pa.float64())
