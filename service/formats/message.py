"""What a format makes of a body, before the model is known, and what reading it may cost."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from service.engine.model import Model
from service.errors import TooLarge

LARGEST_IN_LOOP = 8192  # bytes of a body that is walked value by value in the event loop

Fields: TypeAlias = Mapping[str, Any]


class Slow(Exception):
    """It takes too long for the event loop: read it again in a thread."""


class Limits(Struct, frozen=True):
    """What the rows of one request may cost."""

    max_rows: int
    max_pixels: int  # of one image
    max_pixels_in_all: int
    deadline: float  # by `perf_counter`
    prepare: bool = True  # whether images are made as the model takes them
    in_loop: bool = False  # raise Slow rather than take long

    def check_count(self, count: int) -> None:
        """Raise TooLarge for more instances than one request may have."""
        if count > self.max_rows:
            raise TooLarge(
                f"instances: expected at most {self.max_rows} in one request, got {count}"
            )


def gathered(
    parts: Iterable[Sequence[Any] | NDArray[Any]], most: int, model: Model, limits: Limits
) -> NDArray[Any]:
    """Return parts of rows, of which there are no more than `most`, in one array (n, ...).

    Its memory is taken as it is filled. Raises TooLarge when all rows were counted; parts beyond
    the rows of one request may hold anything.
    """
    count = 0
    if model.has_open_rows:
        found: list[Any] = []
        for part in parts:
            count += len(part)
            if count <= limits.max_rows:
                found.extend(part)
        limits.check_count(count)
        return model.rows_of(found) if found else np.empty(0)
    rows = np.empty((min(most, limits.max_rows), *model.row_dims), model.row_dtype)
    for part in parts:
        if len(part) and count + len(part) <= len(rows):
            rows[count : count + len(part)] = model.rows_of(part)
        count += len(part)
    limits.check_count(count)
    return rows[:count]


class Message(Protocol):
    """A body that was taken apart. Its rows are read in the event loop, and once more in a thread
    if that raised Slow."""

    @property
    def fields(self) -> Fields:
        """What stands beside the instances, such as the name of the model; values are unchecked."""

    @property
    def needs_images(self) -> bool:
        """Whether it fits only models that take images."""

    def rows(self, model: Model, limits: Limits) -> NDArray[Any]:
        """Return the instances as rows (n, ...), n >= 1, of the model's dtype and row shape.

        Raises InvalidInput with the place of the first thing that does not fit, TooLarge,
        DeadlineExceeded; Slow where `limits` say so.
        """
