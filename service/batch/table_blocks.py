"""Rows of a table -> their answers: what blocks of Parquet and Arrow have in common."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from msgspec import Struct

from service.batch.answered import Answered, answered
from service.batch.inputs import plain
from service.batch.scorer import Scorer
from service.errors import CannotScore, InvalidInput

UNIT = "row"
MOST_ROWS = 16_384  # of a block
MOST_BYTES = 2**22  # of its values, as they are in memory
_LEAST_BYTES = 4  # of a value whose width is not known


class Chosen(Struct, frozen=True):
    """Which columns of a table are read: those of the model, and those that are kept."""

    features: list[str]
    kept: list[str]

    @property
    def names(self) -> list[str]:
        """All of them."""
        return [*self.features, *self.kept]

    def answer(self, scorer: Scorer, batch: pa.RecordBatch, before: int) -> Answered:
        """Return the answers to rows that stand behind so many others.

        Raises CannotScore for a kept column that cannot be written.
        """
        numbers = np.arange(before + 1, before + 1 + batch.num_rows)
        kept = None
        if self.kept:
            arrays = [_whole(batch.column(each), each) for each in self.kept]
            kept = pa.RecordBatch.from_arrays(arrays, self.kept)
        return answered(scorer.of_batch(batch.select(self.features)), UNIT, numbers, kept)

    def kept_schema(self, schema: pa.Schema) -> pa.Schema:
        """Return the kept columns as `answer` has them. Raises CannotScore."""
        arrays = [_whole(pa.nulls(0, schema.field(each).type), each) for each in self.kept]
        return pa.schema(
            [pa.field(name, each.type) for name, each in zip(self.kept, arrays, strict=True)]
        )


def _whole(array: pa.Array, name: str) -> pa.Array:
    """Return a kept column without dictionaries. Raises CannotScore where it has no right values.

    A batch that is serialized alone has none of its dictionaries.
    """
    try:
        array = plain(array)
        type = _without_dictionaries(array.type)
        array = array if type == array.type else array.cast(type)
        array.validate(full=True)
    except pa.ArrowException as error:
        why = str(error).strip().partition("\n")[0]
        raise CannotScore(f"column {name!r}: cannot be kept: {why}") from error
    return array


def _without_dictionaries(type: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(type):
        return _without_dictionaries(type.value_type)
    if pa.types.is_struct(type):
        return pa.struct([_field(each) for each in type])
    if pa.types.is_map(type):
        return pa.map_(_field(type.key_field), _field(type.item_field), type.keys_sorted)
    if pa.types.is_fixed_size_list(type):
        return pa.list_(_field(type.value_field), type.list_size)
    if pa.types.is_list(type):
        return pa.list_(_field(type.value_field))
    if pa.types.is_large_list(type):
        return pa.large_list(_field(type.value_field))
    return type


def _field(field: pa.Field) -> pa.Field:
    if pa.types.is_dictionary(field.type) and pa.types.is_nested(field.type.value_type):
        raise pa.ArrowNotImplementedError(f"Unsupported cast from {field.type}")
    return field.with_type(_without_dictionaries(field.type))


def chosen(schema: pa.Schema, scorer: Scorer, where: str, *, keep: bool) -> Chosen:
    """Return the columns of a file to read.

    Raises InvalidInput where the model's are not among them or fit no row, or two have one name.
    """
    try:
        features = scorer.names_in(schema)
        kept = [each for each in schema.names if each not in features] if keep else []
        for each in [*features, *kept]:
            if (count := schema.names.count(each)) > 1:
                raise InvalidInput(f"column {each!r}: expected one of that name, got {count}")
        nothing = [pa.nulls(0, schema.field(each).type) for each in features]
        scorer.of_batch(pa.RecordBatch.from_arrays(nothing, features))
    except InvalidInput as error:
        raise InvalidInput(f"{where}: {error}") from error
    return Chosen(features, kept)


def rows_of_a_block(widths: Sequence[float]) -> int:
    """Return how many rows a block has, of values that take so many bytes each."""
    width = sum(max(each, _LEAST_BYTES) for each in widths)
    return max(1, min(MOST_ROWS, int(MOST_BYTES / max(width, 1))))


def width_of(type: pa.DataType) -> float:
    """Return how many bytes a value takes; 0 where that is not known."""
    if pa.types.is_fixed_size_list(type):
        return float(type.list_size * width_of(type.value_type))
    try:
        return float(type.bit_width / 8)
    except ValueError:
        return 0


def unreadable(path: str | Path, error: Exception, kind: str = "") -> CannotScore:
    """Return the error that a file cannot be read, or not as the kind that it is taken for."""
    of_system, said = getattr(error, "strerror", None), str(error).strip().partition("\n")[0]
    if kind and of_system is None:
        return CannotScore(f"{path}: expected {kind}, got: {said}")
    return CannotScore(f"{path}: cannot be read: {of_system or said}")
