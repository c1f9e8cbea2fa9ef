"""Arrays of several calls in one, and back."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from service.errors import InferenceFailed

# One array for each input of a model; the first dimension is the rows.
Inputs: TypeAlias = list[NDArray[Any]]
Outputs: TypeAlias = list[NDArray[Any]]


def joined(parts: Sequence[Inputs]) -> Inputs:
    """Return the arrays of several calls as one. Raises ValueError where they do not fit."""
    if len(parts) == 1:
        return parts[0]
    return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]


def split(outputs: Outputs, sizes: Sequence[int]) -> list[Outputs]:
    """Cut the outputs of a batch into those of its calls, which have so many rows."""
    parts: list[Outputs] = []
    start = 0
    for size in sizes:
        parts.append([array[start : start + size] for array in outputs])
        start += size
    return parts


def stacked(parts: Sequence[Outputs]) -> Outputs:
    """Return the outputs of single rows as those of all.

    An array of objects (n,), each a nested list, where they differ in shape.
    """
    outputs: Outputs = []
    for arrays in zip(*parts, strict=True):
        if len({each.shape for each in arrays}) == 1:
            outputs.append(np.concatenate(arrays))
            continue
        together = np.empty(len(arrays), np.object_)
        together[:] = [each[0].tolist() for each in arrays]
        outputs.append(together)
    return outputs


def check_rows(outputs: Outputs, rows: int) -> None:
    """Raise InferenceFailed unless each output has an answer for each row."""
    if not have_rows(outputs, rows):
        raise InferenceFailed("the model did not answer with one row for each row")


def have_rows(outputs: Outputs, rows: int) -> bool:
    """Whether each output has an answer for each row."""
    for output in outputs:  # noqa: SIM110  # `all` would cost each request half a microsecond
        if not output.ndim or len(output) != rows:
            return False
    return True
