"""A Parquet file -> blocks: rows of one row group, which a worker reads for itself.

A block says where its rows are. A worker that answers one after the other goes on in the row group
where it was, so that no row group needs to be in memory.
"""

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pyarrow as pa
from msgspec import Struct
from pyarrow import parquet

from service.batch.answered import Answered, Position
from service.batch.scorer import Scorer
from service.batch.table_blocks import (
    UNIT,
    Chosen,
    chosen,
    rows_of_a_block,
    unreadable,
    width_of,
)

_CHANGED = "it changed while it was read"
_CHUNK_BYTES = 2**20
_BUFFERS_BYTES, _LEAST_BUFFER = 2**24, 2**13  # of all columns together, of one


class ParquetBlock(Struct, frozen=True):
    """Rows `start` to `stop` of a row group, in which `size` rows are read at once."""

    path: str
    group: int
    start: int
    stop: int
    size: int
    before: int  # rows of the file
    footer: str  # what identifies the file: another may get its name meanwhile
    chosen: Chosen

    def answer(self, scorer: Scorer) -> Answered:
        """Return the answers to the rows. Raises CannotScore where they cannot be read."""
        try:
            batch = _reading.rows(self)
        except (OSError, pa.ArrowException) as error:
            raise unreadable(self.path, error) from error
        return self.chosen.answer(scorer, batch, self.before)


class _Reading:
    """The row group that this process reads, and how far it is."""

    def __init__(self) -> None:
        self._of: tuple[object, ...] = ()
        self._at = 0
        self._batches: Iterator[pa.RecordBatch] = iter(())

    def rows(self, block: ParquetBlock) -> pa.RecordBatch:
        """Return the rows of a block. Raises OSError, ArrowException."""
        of = (block.path, block.group, block.size, *block.chosen.names)
        if of != self._of or block.start < self._at:
            self._of, self._at = of, 0
            self._batches = _batches(block)
        found: list[pa.RecordBatch] = []
        while self._at < block.stop:
            start, batch = self._at, next(self._batches, None)
            if batch is None:
                self._of = ()
                raise OSError(_CHANGED)
            self._at += batch.num_rows
            if start >= block.start:  # a column that is held in pieces ends a batch early
                found.append(batch)
        rows = found[0] if len(found) == 1 else pa.concat_batches(found)
        if rows.num_rows != block.stop - block.start:
            raise RuntimeError("a block of Parquet has other rows than its own. This is a bug.")
        return rows


_reading = _Reading()  # of this process


def _batches(block: ParquetBlock) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a row group, `size` at once."""
    names = block.chosen.names
    buffer = max(_LEAST_BUFFER, min(_CHUNK_BYTES, _BUFFERS_BYTES // max(1, len(names))))
    with pa.OSFile(block.path) as source:
        if _footer(source) != block.footer:
            raise OSError(_CHANGED)
        with parquet.ParquetFile(
            source, buffer_size=buffer, pre_buffer=False, page_checksum_verification=True
        ) as file:
            yield from file.iter_batches(
                batch_size=block.size, row_groups=[block.group], columns=names, use_threads=False
            )


def _footer(source: pa.NativeFile) -> str:
    """Return the digest of what stands behind the rows: their places, and what is in them.

    The length of that stands before the last four bytes (the format's README, "File format").
    """
    end = source.size() - 8
    source.seek(end)
    size = int.from_bytes(source.read(4), "little")
    source.seek(max(0, end - size))
    digest = sha256(source.read(size)).hexdigest()
    source.seek(0)
    return digest


class ParquetInput:
    """The blocks of a file."""

    unit = UNIT

    def __init__(self, path: Path, scorer: Scorer, *, keep: bool) -> None:
        """Read what the file says of itself. Raises CannotScore, InvalidInput."""
        self._path = path
        try:
            with pa.OSFile(str(path)) as source, parquet.ParquetFile(source) as file:
                schema, self._metadata = file.schema_arrow, file.metadata
                self._footer = _footer(source)
        except (OSError, pa.ArrowException) as error:
            raise unreadable(path, error, "Parquet") from error
        self._chosen = chosen(schema, scorer, str(path), keep=keep)
        self.kept = self._chosen.kept_schema(schema)
        self._widths = [width_of(schema.field(each).type) for each in self._chosen.names]
        self._sha256 = sha256(str(schema).encode())
        self._hashed = 0  # bytes of the file
        self._group, self._begin = -1, 0  # the row group that is hashed last, and where it begins
        self._number = 0  # rows that are passed
        self._bytes = 0

    @property
    def position(self) -> Position:
        """What is passed: the digest is that of all row groups that were begun."""
        return Position(self._bytes, self._number, self._sha256.hexdigest())

    def pass_to(self, position: Position) -> bool:
        """Pass what another run has passed; return whether it was the same as there."""
        for _ in self._blocks():
            if self._number >= position.number:
                break
        return self.position == position

    def __iter__(self) -> Iterator[tuple[ParquetBlock, Position]]:
        """Yield each block, and the position behind it. Raises CannotScore."""
        for block in self._blocks():
            yield block, self.position

    def _blocks(self) -> Iterator[ParquetBlock]:
        """Yield the blocks that are not passed yet; each is passed as it is yielded."""
        before = 0
        for group in range(self._metadata.num_row_groups):
            count = self._metadata.row_group(group).num_rows
            if before + count > self._number:
                yield from self._of_group(group, before, count)
            before += count

    def _of_group(self, group: int, before: int, count: int) -> Iterator[ParquetBlock]:
        end, size = self._extent(group)
        if group != self._group:  # which may have been begun by `pass_to`
            self._group, self._begin = group, self._hashed
            self._hash(end)
        for start in range(0, count, size):
            stop = min(start + size, count)
            if before + stop > self._number:
                self._number = before + stop
                self._bytes = self._begin + (self._hashed - self._begin) * stop // count
                yield ParquetBlock(
                    str(self._path),
                    group,
                    start,
                    stop,
                    size,
                    before + start,
                    self._footer,
                    self._chosen,
                )

    def _extent(self, group: int) -> tuple[int, int]:
        """Return where a row group ends in the file, and how many rows of it make a block."""
        metadata = self._metadata.row_group(group)
        end, bytes_of = 0, dict.fromkeys(self._chosen.names, 0)
        for place in range(metadata.num_columns):
            column = metadata.column(place)
            first = column.dictionary_page_offset or column.data_page_offset
            end = max(end, min(first, column.data_page_offset) + column.total_compressed_size)
            name = column.path_in_schema.partition(".")[0]
            if name in bytes_of:
                bytes_of[name] += column.total_uncompressed_size
        count = max(1, metadata.num_rows)
        sizes = [each / count for each in bytes_of.values()]
        return end, rows_of_a_block(list(map(max, sizes, self._widths)))

    def _hash(self, end: int) -> None:
        """Take the file up to a byte into the digest. Raises CannotScore."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._hashed)
                while (left := end - self._hashed) > 0:
                    chunk = file.read(min(_CHUNK_BYTES, left))
                    if not chunk:
                        return
                    self._sha256.update(chunk)
                    self._hashed += len(chunk)
        except OSError as error:
            raise unreadable(self._path, error) from error
