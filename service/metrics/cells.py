"""Where the numbers live: float64 cells in memory, or in files that the workers share.

The request path adds to them directly. With several workers, each has a file that it maps, so that
any worker can answer a scrape with the sums of all; a worker that replaces a dead one counts on in
its file. A file holds one block behind the other, each with its head, and a region that is added to
the file holds complete blocks.
"""

import hashlib
import mmap
import os
from bisect import bisect_left
from collections.abc import Container, Iterable, Sequence
from contextlib import suppress
from functools import reduce
from pathlib import Path
from struct import Struct
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from service.metrics.instruments import Instrument

Doubles: TypeAlias = "memoryview[float]"  # float64 cells

_HEAD = Struct("=Q24s")  # how many cells a block has, 0 where no more blocks are; its key
_GROWS_BY = 2**16  # bytes of a file; a multiple of the page size of every machine


class Reading:
    """What all workers counted up to now."""

    def __init__(self, workers: dict[int, dict[bytes, Doubles]]) -> None:
        """Take the blocks of each worker, by its number and their keys."""
        self._workers = workers

    def blocks(self, key: bytes) -> dict[int, NDArray[np.float64]]:
        """Return the block of every worker that has one, by its number."""
        return {
            number: np.asarray(blocks[key])
            for number, blocks in self._workers.items()
            if key in blocks
        }


class Blocks:
    """Zeroed float64 cells by key: private memory, or a file for each worker."""

    def __init__(self, directory: Path | None = None, worker: int = 0) -> None:
        """Keep blocks in `directory` as worker number `worker`; in private memory if None."""
        self._directory = directory
        self._worker = worker
        self._own: dict[bytes, Doubles] = {}
        self._free = memoryview(b"")  # the end of this worker's file, where the next block goes
        self._goes_on = directory is not None  # in what the file held, once a block is wanted

    def open(self, key: bytes, size: int) -> Doubles:
        """Return this worker's block; a worker before it with the same number began it."""
        if self._goes_on:
            self._own |= self._of_the_worker_before()
            self._goes_on = False
        block = self._own.get(key)
        if block is None:
            in_file = self._directory is not None
            block = self._begin(key, size) if in_file else _private(size)
            self._own[key] = block
        return block

    def read(self) -> Reading:
        """Return what all workers counted. It costs as much as there are cells."""
        workers = {self._worker: self._own}
        if self._directory is not None:
            for path in self._directory.glob(_path(self._directory, "*").name):
                number = int(path.stem.removeprefix("worker-"))
                if number != self._worker:
                    with suppress(FileNotFoundError):  # somebody cleans the folder
                        workers[number] = _blocks_of(memoryview(path.read_bytes()))
        return Reading(workers)

    def _begin(self, key: bytes, size: int) -> Doubles:
        """Write the head of a new block behind the others, and return its cells."""
        needed = _HEAD.size + 8 * size
        if len(self._free) < needed:
            self._free = self._grow(needed)
        block, self._free = self._free[:needed], self._free[needed:]
        _HEAD.pack_into(block, 0, 0, key)
        block[:8].cast("Q")[0] = size  # last: with it the block is there for those who read
        return block[_HEAD.size :].cast("d")

    def _grow(self, needed: int) -> "memoryview[int]":
        """Add a region of at least `needed` bytes to this worker's file, and map it."""
        assert self._directory is not None
        self._directory.mkdir(exist_ok=True)  # somebody may have cleaned /tmp
        path = _path(self._directory, self._worker)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            start = os.fstat(descriptor).st_size
            length = -(-needed // _GROWS_BY) * _GROWS_BY
            os.ftruncate(descriptor, start + length)
            return memoryview(mmap.mmap(descriptor, length, offset=start))
        finally:
            os.close(descriptor)

    def _of_the_worker_before(self) -> dict[bytes, Doubles]:
        assert self._directory is not None
        try:
            descriptor = os.open(_path(self._directory, self._worker), os.O_RDWR)
        except FileNotFoundError:
            return {}
        try:
            if not os.fstat(descriptor).st_size:
                return {}
            content = memoryview(mmap.mmap(descriptor, 0))
        finally:
            os.close(descriptor)
        return _blocks_of(content)


def _path(directory: Path, worker: int | str) -> Path:
    return directory / f"worker-{worker}.cells"


def _private(size: int) -> Doubles:
    return memoryview(bytearray(8 * size)).cast("d")


def _blocks_of(content: "memoryview[int]") -> dict[bytes, Doubles]:
    """Return the blocks of a worker's file."""
    blocks = {}
    at = 0
    while at + _HEAD.size <= len(content):
        size, key = _HEAD.unpack_from(content, at)
        if not size:
            at += _GROWS_BY - at % _GROWS_BY
            continue
        start, at = at + _HEAD.size, at + _HEAD.size + 8 * size
        blocks[key] = content[start:at].cast("d")
    return blocks


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
        layout = name, [(each.name, list(v)) for each, v in self.label_values.items()]
        self._key = hashlib.sha256(repr(layout).encode()).digest()[:24]
        self._size = size
        self._own = blocks.open(self._key, size)

    def own(self, instrument: Instrument) -> Doubles:
        """Return the cells that this worker adds to."""
        return self._own[self._slices[instrument]]

    def sums(
        self, reading: Reading, living: Container[int] | None = None
    ) -> dict[Instrument, list[float]]:
        """Return every instrument's cells, added up over the workers.

        Of what is now only those of the `living` count, if they are given.
        """
        blocks = reading.blocks(self._key)
        total = self._added(blocks.values())
        now = total
        if living is not None:
            now = self._added(block for number, block in blocks.items() if number in living)
        return {
            each: (now if each.is_now else total)[place] for each, place in self._slices.items()
        }

    def each(self, instrument: Instrument, reading: Reading) -> dict[int, float]:
        """Return an unlabelled instrument's cell of each worker, by its number."""
        place = self._slices[instrument].start
        blocks = reading.blocks(self._key)
        return {number: float(block[place]) for number, block in blocks.items()}

    def _added(self, blocks: Iterable[NDArray[np.float64]]) -> list[float]:
        added: list[float] = reduce(np.add, blocks, np.zeros(self._size)).tolist()
        return added
