"""The rows of a model are one array, whatever its graph takes; this says what stands in it.

A graph has one input that holds all values of a row, or an input for each of its columns, as
scikit-learn's converter writes what takes a data frame.
"""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from service.card import Card
from service.engine.spec import Spec, Tensor


class Column(Struct, frozen=True):
    """A value of a row that has a name."""

    name: str
    dtype: type[np.generic]  # np.object_: strings
    takes_missing: bool = False  # NaN stands for a value that is not known
    example: Any = None  # that is answered with those of the others; None: it has no such


class RowForm(Struct, frozen=True):
    """The array of rows (n, *dims), and what stands in it."""

    dtype: type[np.generic]  # np.object_: strings, or values of several types
    dims: tuple[int, ...]  # -1: open, each row may have its own
    columns: list[Column]  # of all values of a row; none where they have no names
    inputs: list[Tensor]
    takes_missing: bool  # whether NaN stands for a value that is not known, in each of them

    @property
    def is_open(self) -> bool:
        """Whether rows of one model may differ in shape."""
        return -1 in self.dims

    def rows_of(self, values: Any) -> NDArray[Any]:
        """Return n lists of values, or an array of them, as rows.

        Rows of an open shape are arrays; (n,) of objects, each of which is one, if they differ.
        """
        if self.is_open:
            return _of_any_shape(values, self.dtype)
        rows = np.array(values, self.dtype)
        return rows.reshape(len(rows), *self.dims)

    def inputs_of(self, rows: NDArray[Any]) -> list[NDArray[Any]]:
        """Return what the graph takes for rows: an array for each of its inputs."""
        if len(self.inputs) == 1:
            return [rows]
        return [
            rows[:, place].astype(each.dtype).reshape(len(rows), *each.shape[1:])
            for place, each in enumerate(self.inputs)
        ]


def are_joined(rows: NDArray[Any], form: RowForm) -> bool:
    """Whether rows are one array (n, ...), and not an array of rows that differ in shape."""
    return rows.ndim == len(form.dims) + 1


def form_of(
    spec: Spec, card: Card | None, missing: Collection[str], example: Sequence[Any] = ()
) -> RowForm:
    """Return what the rows of a model are.

    missing: the inputs that take NaN; example: a value for each, if they are columns.
    It makes no sense for several inputs that are no columns.
    """
    first, is_one = spec.inputs[0], len(spec.inputs) == 1
    columns: list[Column] = []
    if card is not None and is_one:
        takes = first.name in missing
        columns = [Column(each.name, first.dtype, takes) for each in card.features]
    elif not why_no_columns(spec.inputs):
        columns = [
            Column(each.name, each.dtype, each.name in missing, value)
            for each, value in zip(spec.inputs, example or [None] * len(spec.inputs), strict=True)
        ]
    dtypes = {each.dtype for each in spec.inputs}
    return RowForm(
        dtype=first.dtype if len(dtypes) == 1 else np.object_,
        dims=first.shape[1:] if is_one else (len(spec.inputs),),
        columns=columns,
        inputs=spec.inputs,
        takes_missing=all(each.name in missing for each in spec.inputs),
    )


def why_no_columns(inputs: Sequence[Tensor]) -> str:
    """Say why inputs are no columns, which hold one value of each row; nothing if they are."""
    for each in inputs:
        if len(each.shape) not in (1, 2) or each.shape[1:] not in ((), (1,)):
            return (
                f"it has {len(inputs)} inputs, and {each.name} holds more than one value of a row"
            )
    return ""


def _of_any_shape(values: Sequence[Any], dtype: type[np.generic]) -> NDArray[Any]:
    """Return rows in one array if they have the same shape, else in one of objects (n,)."""
    arrays = [np.asarray(each, dtype) for each in values]
    if len({each.shape for each in arrays}) == 1:
        return np.stack(arrays)
    rows = np.empty(len(arrays), np.object_)
    rows[:] = arrays
    return rows
