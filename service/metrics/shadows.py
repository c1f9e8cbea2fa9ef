"""What is counted of a version and its shadow."""

from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from service.metrics.cells import Blocks, Cells, Reading
from service.metrics.instruments import (
    OF_A_SHADOW,
    SHADOW_LABELS,
    SHADOW_OUTCOMES,
    SHADOW_ROWS,
    Instrument,
)


class Histogram(Struct, frozen=True):
    """What was counted of a difference: rows up to each bound, the last beyond all; their sum."""

    bounds: Sequence[float]
    rows: list[int]
    sum: float

    @property
    def mean(self) -> float | None:
        """The mean, None of no row."""
        rows = sum(self.rows)
        return self.sum / rows if rows else None


class Comparison(Struct, frozen=True):
    """What was counted of a version and its shadow up to now, over all workers."""

    rows: dict[str, int]  # by outcome
    differences: dict[Instrument, Histogram]
    pairs: NDArray[Any]  # rows (labels, labels): as the version answered, as its shadow did


class ShadowMetrics:
    """The counters of a version and its shadow. Threads may add to them at the same time."""

    def __init__(
        self,
        model: str,
        version: str,
        shadow: str,
        *,
        labels: Sequence[str],
        differences: Sequence[Instrument],
        blocks: Blocks,
    ) -> None:
        """differences: the instruments of how far apart two answers are."""
        self.labels = list(labels)
        self.differences = list(differences)
        pairs = [f"{one},{other}" for one in range(len(labels)) for other in range(len(labels))]
        described = [(SHADOW_ROWS, SHADOW_OUTCOMES), *((each, ("",)) for each in differences)]
        # The labels are a part of the name: with others it is a block of its own.
        name = repr((f"{model}@{version}.shadow.{shadow}", self.labels))
        self.cells = Cells(blocks, name, [*described, (SHADOW_LABELS, pairs)])
        self._cells = {
            each: np.asarray(self.cells.own(each))
            for each in (SHADOW_ROWS, SHADOW_LABELS, *differences)
        }
        self._lock = Lock()

    def count(self, outcome: str, rows: float) -> None:
        """Count rows by what became of them."""
        if rows:
            with self._lock:
                self._cells[SHADOW_ROWS][SHADOW_OUTCOMES.index(outcome)] += rows

    def pair(self, before: NDArray[np.intp], after: NDArray[np.intp]) -> None:
        """Count rows by the places of both labels (n,), -1 for one that is not known."""
        if not self.labels:
            return
        known = (before >= 0) & (after >= 0)
        places = before[known] * len(self.labels) + after[known]
        with self._lock:
            self._cells[SHADOW_LABELS] += np.bincount(places, minlength=len(self.labels) ** 2)

    def differ(self, differences: Mapping[Instrument, NDArray[Any]]) -> None:
        """Count how far apart answers are (n,), all finite."""
        for instrument, values in differences.items():
            cells, bounds = self._cells[instrument], instrument.buckets
            places = np.searchsorted(bounds, values)
            with self._lock:
                cells[:-1] += np.bincount(places, minlength=len(bounds) + 1)
                cells[-1] += values.sum()

    def compared(self, reading: Reading) -> Comparison:
        """Return what was counted up to a reading, added up over the workers."""
        sums = self.cells.sums(reading)
        rows = zip(SHADOW_OUTCOMES, map(int, sums[SHADOW_ROWS]), strict=True)
        side = len(self.labels)
        return Comparison(
            dict(rows),
            {
                each: Histogram(each.buckets, list(map(int, sums[each][:-1])), sums[each][-1])
                for each in OF_A_SHADOW
                if each in sums and each.buckets
            },
            np.array(sums[SHADOW_LABELS], np.int64).reshape(side, side),
        )
