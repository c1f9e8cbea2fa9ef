"""Where the numbers live: float64 cells in memory, or in files that the workers share.

The request path adds to them directly. With several workers, each has a file that it maps, so that
any worker can answer a scrape with the sums of all; a worker that replaces a dead one counts on in
its file. A file holds one block behind the other, each with its head, and a region that is added to
the file holds complete blocks.

No counter stops a model. What is mapped is allocated before: to write to a page that the disk has
no place for kills the process (SIGBUS). Where there is no place, a block is private memory.
"""

import errno
import hashlib
import logging
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

logger = logging.getLogger("torchlit.metrics")

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
        self._goes_on = True  # in what the file held, once a block is wanted
        self._is_warned = False

    def open(self, key: bytes, size: int) -> Doubles:
        """Return this worker's block; a worker before it with the same number began it."""
        block = self._own.get(key)
        if block is None:
            block = self._own[key] = self._in_file(key, size) or _private(size)
        return block

    def read(self) -> Reading:
        """Return what all workers counted. It costs as much as there are cells."""
        workers = {self._worker: self._own}
        if self._directory is not None:
            for path in self._directory.glob(_path(self._directory, "*").name):
                number = int(path.stem.removeprefix("worker-"))
                if number != self._worker:
                    with suppress(OSError):  # somebody cleans the folder
                        workers[number] = _blocks_of(memoryview(path.read_bytes()))
        return Reading(workers)

    def _in_file(self, key: bytes, size: int) -> "Doubles | None":
        """Return a block of this worker's file, a new one if need be; None if it has none."""
        if self._directory is None:
            return None
        try:
            if self._goes_on:
                self._own = self._of_the_worker_before(self._directory) | self._own
                self._goes_on = False
            block = self._own.get(key)
            if block is None:
                block = self._begin(self._directory, key, size)
        except OSError as error:
            if not self._is_warned:
                logger.warning(
                    "TORCHLIT_METRICS_DIR: %s: %s: only worker %d itself shows what it counts of "
                    "further models",
                    *(self._directory, error.strerror, self._worker),
                )
            self._is_warned = True
            return None
        self._is_warned = False
        return block

    def _begin(self, directory: Path, key: bytes, size: int) -> Doubles:
        """Write the head of a new block behind the others, and return its cells."""
        needed = _HEAD.size + 8 * size
        if len(self._free) < needed:
            self._free = self._grow(directory, needed)
        block, self._free = self._free[:needed], self._free[needed:]
        _HEAD.pack_into(block, 0, 0, key)
        block[:8].cast("Q")[0] = size  # last: with it the block is there for those who read
        return block[_HEAD.size :].cast("d")

    def _grow(self, directory: Path, needed: int) -> "memoryview[int]":
        """Add a region of at least `needed` bytes to this worker's file, and map it."""
        directory.mkdir(exist_ok=True)  # somebody may have cleaned /tmp
        path = _path(directory, self._worker)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            end = os.fstat(descriptor).st_size
            start, length = _rounded(end), _rounded(needed)
            try:
                _allocate(descriptor, start, length)
                return memoryview(mmap.mmap(descriptor, length, offset=start))
            except OSError:
                os.ftruncate(descriptor, end)  # a part may have been allocated
                raise
        finally:
            os.close(descriptor)

    def _of_the_worker_before(self, directory: Path) -> dict[bytes, Doubles]:
        try:
            descriptor = os.open(_path(directory, self._worker), os.O_RDWR)
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


def _rounded(size: int) -> int:
    return -(-size // _GROWS_BY) * _GROWS_BY


def _allocate(descriptor: int, start: int, length: int) -> None:
    """Make a file longer by bytes that the disk has a place for. Raises OSError."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, start, length)
    elif os.pwrite(descriptor, bytes(length), start) < length:  # macOS
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _private(size: int) -> Doubles:
    return memoryview(bytearray(8 * size)).cast("d")


def _blocks_of(content: "memoryview[int]") -> dict[bytes, Doubles]:
    """Return the blocks of a worker's file."""
    blocks = {}
    at = 0
    while at + _HEAD.size <= len(content):
        size, key = _HEAD.unpack_from(content, at)
        if not size:
            at = _rounded(at + 1)
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
