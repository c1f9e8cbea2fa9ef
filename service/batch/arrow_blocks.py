"""An Arrow IPC file or stream -> blocks: slices of its batches, which carry their rows."""

import errno
from collections.abc import Iterator
from hashlib import sha256
from typing import BinaryIO

import pyarrow as pa
from msgspec import Struct

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

_MAGIC = b"ARROW1"  # of a file; a stream has none


class ArrowBlock(Struct, frozen=True):
    """Rows of a file, as a stream of their own."""

    data: bytes
    before: int  # rows of the file
    chosen: Chosen

    def answer(self, scorer: Scorer) -> Answered:
        """Return the answers to the rows."""
        with pa.ipc.open_stream(self.data) as stream:
            (batch,) = stream
        return self.chosen.answer(scorer, batch, self.before)


class ArrowInput:
    """The blocks of a file, or of a stream, one batch of which is in memory."""

    unit = UNIT

    def __init__(self, file: BinaryIO, name: str, scorer: Scorer, *, keep: bool) -> None:
        """Read the schema. Raises CannotScore, InvalidInput."""
        self._name = name
        try:
            self._batches, schema = _opened(file)
        except (OSError, pa.ArrowException) as error:
            raise unreadable(name, error, "Arrow") from error
        self._chosen = chosen(schema, scorer, name, keep=keep)
        self.kept = self._chosen.kept_schema(schema)
        self._widths = [width_of(schema.field(each).type) for each in self._chosen.names]
        self._sha256 = sha256()
        self._bytes = self._number = 0
        self._blocks = self._all()

    @property
    def position(self) -> Position:
        """What is passed: the digest is that of the columns that were read."""
        return Position(self._bytes, self._number, self._sha256.hexdigest())

    def pass_to(self, position: Position) -> bool:
        """Pass what another run has passed; return whether it was the same as there."""
        while self._number < position.number and next(self._blocks, None):
            pass
        return self.position == position

    def __iter__(self) -> Iterator[tuple[ArrowBlock, Position]]:
        """Yield each block, and the position behind it. Raises CannotScore."""
        for block in self._blocks:
            yield block, self.position

    def _all(self) -> Iterator[ArrowBlock]:
        for batch in self._read():
            names = self._chosen.names
            wanted = batch.select(names)
            count = max(1, batch.num_rows)
            widths = [
                width or wanted.column(place).nbytes / count
                for place, width in enumerate(self._widths)
            ]
            size = rows_of_a_block(widths)
            for start in range(0, batch.num_rows, size):
                yield self._block(wanted.slice(start, size))

    def _block(self, rows: pa.RecordBatch) -> ArrowBlock:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, rows.schema) as stream:
            stream.write_batch(rows)
        data = sink.getvalue().to_pybytes()
        block = ArrowBlock(data, self._number, self._chosen)
        self._sha256.update(data)
        self._bytes += len(data)
        self._number += rows.num_rows
        return block

    def _read(self) -> Iterator[pa.RecordBatch]:
        try:
            yield from self._batches
        except (OSError, pa.ArrowException) as error:
            raise unreadable(self._name, error) from error


def _opened(file: BinaryIO) -> tuple[Iterator[pa.RecordBatch], pa.Schema]:
    """Return the batches of a file or stream. Raises OSError, ArrowException."""
    if file.seekable() and file.peek(len(_MAGIC)).startswith(_MAGIC):  # type: ignore[attr-defined]  # buffered
        whole = pa.ipc.open_file(file)
        return map(whole.get_batch, range(whole.num_record_batches)), whole.schema
    if file.peek(len(_MAGIC)).startswith(_MAGIC):  # type: ignore[attr-defined]  # buffered
        why = "expected a stream of Arrow, got a file, which is read from its end"
        raise OSError(errno.ESPIPE, why)
    stream = pa.ipc.open_stream(file)
    return iter(stream), stream.schema
