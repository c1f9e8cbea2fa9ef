"""Where the numbers live: float64 cells in memory, or in files that the workers share.

The request path adds to them directly. With several workers a block is a file that each worker
maps, so that any worker can answer a scrape with the sums of all; a worker that replaces a dead one
counts on in its file.
"""

import hashlib
import mmap
import os
from bisect import bisect_left
from collections.abc import Container, Iterable, Sequence
from pathlib import Path
from typing import TypeAlias

from service.metrics.instruments import Instrument

Doubles: TypeAlias = "memoryview[float]"  # float64 cells


class Blocks:
    """Zeroed float64 cells by name: private memory, or files that the workers share."""

    def __init__(self, directory: Path | None = None, worker: int = 0) -> None:
        """Keep blocks in `directory` as worker number `worker`; in private memory if None."""
        self._directory = directory
        self._worker = worker

    def open(self, name: str, size: int) -> Doubles:
        """Return this worker's block; a worker before it with the same number began it."""
        if self._directory is None:
            return memoryview(mmap.mmap(-1, size * 8)).cast("d")[:size]
        self._directory.mkdir(exist_ok=True)  # somebody may have cleaned /tmp
        return _map(self._path(name, self._worker), size)

    def all(self, name: str, size: int, own: Doubles) -> dict[int, Doubles]:
        """Return the block of every worker that has one, by its number; `own` is this worker's."""
        blocks = {self._worker: own}
        if self._directory is not None:
            for path in self._directory.glob(self._path(name, "*").name):
                number = int(path.name.split(".")[-2])
                if number != self._worker:
                    blocks[number] = _map(path, size)
        return blocks

    def _path(self, name: str, worker: int | str) -> Path:
        assert self._directory is not None
        return self._directory / f"{name}.{worker}.cells"


def _map(path: Path, size: int) -> Doubles:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if os.fstat(descriptor).st_size < size * 8:
            os.ftruncate(descriptor, size * 8)
        return memoryview(mmap.mmap(descriptor, size * 8)).cast("d")
    finally:
        os.close(descriptor)


class Histogram:
    """Cells of one histogram: a count per bucket, one above the last, and the sum."""

    __slots__ = ("_bounds", "_cells")

    def __init__(self, bounds: Sequence[float], cells: Doubles) -> None:
        self._bounds = bounds
        self._cells = cells

    def observe(self, *values: float) -> None:
        """Count values."""
        cells, bounds = self._cells, self._bounds
        for value in values:
            cells[bisect_left(bounds, value)] += 1.0
            cells[-1] += value


class Cells:
    """The cells of some instruments under one name, and where each instrument's begin."""

    def __init__(
        self, blocks: Blocks, name: str, instruments: Iterable[tuple[Instrument, Sequence[str]]]
    ) -> None:
        """Lay the instruments out one after the other; each with the values of its label."""
        self._slices: dict[Instrument, slice] = {}
        self.label_values: dict[Instrument, Sequence[str]] = {}
        size = 0
        for instrument, values in instruments:
            count = len(instrument.buckets) + 2 if instrument.buckets else len(values)
            self._slices[instrument] = slice(size, size + count)
            self.label_values[instrument] = values
            size += count
        layout = repr([(each.name, list(v)) for each, v in self.label_values.items()])
        self._name = f"{name}.{hashlib.sha256(layout.encode()).hexdigest()[:12]}"
        self._size = size
        self._blocks = blocks
        self._own = blocks.open(self._name, size)

    def own(self, instrument: Instrument) -> Doubles:
        """Return the cells that this worker adds to."""
        return self._own[self._slices[instrument]]

    def sums(self, living: Container[int] | None = None) -> dict[Instrument, list[float]]:
        """Return every instrument's cells, added up over the workers.

        Of what is now only those of the `living` count, if they are given.
        """
        blocks = self._blocks.all(self._name, self._size, self._own)
        total = _added(blocks.values())
        now = total
        if living is not None:
            now = _added(block for number, block in blocks.items() if number in living)
        return {
            each: (now if each.is_now else total)[place] for each, place in self._slices.items()
        }

    def each(self, instrument: Instrument) -> dict[int, float]:
        """Return an unlabelled instrument's cell of each worker, by its number."""
        blocks = self._blocks.all(self._name, self._size, self._own)
        place = self._slices[instrument].start
        return {number: block[place] for number, block in blocks.items()}


def _added(blocks: Iterable[Doubles]) -> list[float]:
    return [sum(cells) for cells in zip(*blocks, strict=True)]
