"""What a block of an input becomes: a table of its answers, and a sentence for each bad row."""

from collections.abc import Iterable
from typing import Any

import pyarrow as pa
from msgspec import Struct
from numpy.typing import NDArray

from service.batch.scorer import Answers


class Position(Struct, frozen=True):
    """How far an input is, after a block: `sha256` is that of its first `bytes` bytes."""

    bytes: int
    number: int  # lines, or rows, that are passed
    sha256: str


class Answered(Struct, frozen=True):
    """The answers to a block, in the order of its rows."""

    # What numbers a row, what is kept of it, what is answered; bad rows are left out.
    table: pa.RecordBatch
    bad: list[str]


def answered(
    answers: Answers,
    unit: str,
    numbers: NDArray[Any],
    kept: pa.RecordBatch | None = None,
    bad: Iterable[tuple[int, str]] = (),
) -> Answered:
    """Return the answers to rows as a block has them.

    unit, numbers (n,): what a row is called by, "line" and 3; kept: columns of all rows; bad: the
    numbers of rows that were not among them, and sentences.
    """
    places, columns = answers.places, answers.columns
    names, arrays = [unit], [pa.array(numbers[places])]
    if kept is not None:
        names += kept.schema.names
        chosen = kept if len(places) == len(numbers) else kept.take(pa.array(places))
        arrays += chosen.columns
    names += columns.schema.names
    arrays += columns.columns
    found = [(numbers[place], f"{unit} {numbers[place]}{why}") for place, why in answers.bad]
    sentences = [sentence for _, sentence in sorted([*found, *bad])]
    return Answered(pa.RecordBatch.from_arrays(arrays, names), sentences)
