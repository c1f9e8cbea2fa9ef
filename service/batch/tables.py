"""Which columns of a table are those of a model, and the rows that stand in them."""

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from msgspec import Struct

from service.batch.inputs import Values, is_list, lists_of, plain, values_of
from service.batching import Inputs
from service.engine.columns import Column
from service.engine.model import Model
from service.errors import InvalidInput
from service.formats.csv_cells import columns_of
from service.formats.csv_header import header_of
from service.formats.json_rows import expected_instance, row

_INDEX = re.compile("__index_level_[0-9]+__")  # what pandas calls one without a name


class _Frame(Struct):
    """What pandas writes into a schema (its documentation, "Storing pandas DataFrame objects")."""

    index_columns: list[Any]  # the names of columns; a range is none


class Rows(Struct):
    """Rows as the graph takes them: an array (n, ...) for each of its inputs."""

    inputs: Inputs
    count: int
    sure: Any = None  # bool (n,): which surely fit; None: all of them

    def put(self, place: int, values: Sequence[Any], model: Model) -> None:
        """Put the values of a row that fits in its place."""
        inputs = model.inputs_of(model.rows_of([values]))
        for array, of_row in zip(self.inputs, inputs, strict=True):
            array[place] = of_row[0]


class Reading(Struct, frozen=True):
    """How the tables of one schema are read for a model."""

    model: Model
    places: list[int]  # the columns of the model, in its order; or the only one, of lists
    is_list: bool = False

    def rows(self, batch: pa.RecordBatch) -> Rows:
        """Return the rows of a batch. Raises InvalidInput for a column that fits no row."""
        names = batch.schema.names
        if self.is_list:
            (place,) = self.places
            model = self.model
            column = Column("", model.row_dtype, model.form.takes_missing)
            values = lists_of(batch.column(place), model.row_shape, column, names[place])
            rows = values.array.reshape(len(values.array), *model.row_dims)
            return Rows(model.inputs_of(rows), batch.num_rows, values.sure)
        return rows_of([batch.column(each) for each in self.places], self.model)

    def judge(self, batch: pa.RecordBatch, place: int) -> Any:
        """Return the values of one row. Raises InvalidInput, with its place in the row."""
        values = [_value(plain(batch.column(each).slice(place, 1))[0]) for each in self.places]
        return row(values[0] if self.is_list else values, "", self.model)


def rows_of(columns: Sequence[pa.Array], model: Model) -> Rows:
    """Return the rows of columns in the order of the model's, as many as a row has values.

    Raises InvalidInput for a column that fits no row.
    """
    of_model = columns_of(model, len(columns))
    read = [
        values_of(array, column, column.name or f"[{place}]")
        for place, (array, column) in enumerate(zip(columns, of_model, strict=True))
    ]
    count = len(columns[0])
    return Rows(_inputs(read, count, model), count, _sure(read))


def _inputs(read: Sequence[Values], count: int, model: Model) -> Inputs:
    inputs = model.inputs
    if len(inputs) > 1:
        return [
            np.array(each.array, tensor.dtype).reshape(count, *tensor.shape[1:])
            for each, tensor in zip(read, inputs, strict=True)
        ]
    rows = np.empty((count, len(read)), model.row_dtype)
    for place, each in enumerate(read):
        rows[:, place] = each.array
    return [rows.reshape(count, *model.row_dims)]


def _sure(read: Sequence[Values]) -> Any:
    doubts = [each.sure for each in read if each.sure is not None]
    return np.logical_and.reduce(doubts) if doubts else None


def reading_of(schema: pa.Schema, model: Model) -> Reading:
    """Return how tables of a schema are read. Raises InvalidInput for one that does not fit."""
    index = _index_of(schema).difference(model.column_names)
    places = [place for place, each in enumerate(schema.names) if each not in index]
    lists = [place for place in places if is_list(schema.field(place).type)]
    if len(places) == 1 and model.row_size == 1:  # whatever it is called
        return Reading(model, places, is_list=bool(lists))
    if model.column_names and not (len(places) == 1 and lists):
        header = header_of([schema.names[place] for place in places], model, "table")
        return Reading(model, [places[each] for each in header.places])
    if len(lists) == 1:
        return Reading(model, lists, is_list=True)
    if not lists and not model.has_open_rows and len(places) == model.row_size:
        return Reading(model, places)
    got = f"{len(lists)} columns of lists" if lists else f"{len(places)} columns"
    instance, _, image = expected_instance(model).partition(" or {")
    others = "" if model.has_open_rows else f", or {model.row_size} columns of one value each"
    others += ", or one column of images or of their paths, `path`" if image else ""
    raise InvalidInput(
        f"table: expected one column, each value of it {instance}{others}, got {got}"
    )


def _index_of(schema: pa.Schema) -> set[str]:
    """Return the columns that are the index of a frame of pandas."""
    found = {each for each in schema.names if _INDEX.fullmatch(each)}
    try:
        frame = msgspec.json.decode((schema.metadata or {}).get(b"pandas", b""), type=_Frame)
    except msgspec.DecodeError:  # there is none, or others wrote it
        return found
    return found.union(each for each in frame.index_columns if isinstance(each, str))


def _value(scalar: pa.Scalar) -> Any:
    """Return a value of a table as JSON has it; what is no UTF-8 has lone surrogates."""
    if is_list(scalar.type) and scalar.is_valid:
        return [_value(each) for each in plain(scalar.values)]
    try:
        value = scalar.as_py()
    except UnicodeDecodeError:
        return scalar.as_buffer().to_pybytes().decode(errors="surrogateescape")
    if isinstance(value, Decimal):
        return int(value) if value == int(value) else float(value)
    return value
