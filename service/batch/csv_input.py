"""A CSV file -> blocks of whole rows, about BLOCK_BYTES of it each.

A line end may stand within quotation marks. Blocks where each quoted cell ends in its line are cut
at a line's end; from where that is not so, rows are read one by one, as the row says where it ends.
"""

import os
import re
import select
import stat
from collections import deque
from collections.abc import Iterator
from functools import cache
from typing import BinaryIO

import pyarrow as pa

from service.batch.answered import Position
from service.batch.csv_blocks import CsvBlock, Dialect
from service.engine.model import Model
from service.formats.csv_rows import CsvRows
from service.formats.csv_table import Table
from service.formats.lines import Options, Tape
from service.settings import Settings

BLOCK_BYTES = 2**18


class CsvInput:
    """The blocks of a file, or of a stream, from where it is."""

    unit = "line"

    def __init__(self, file: BinaryIO, model: Model, settings: Settings, *, keep: bool) -> None:
        """Read the first lines. Raises InvalidInput for a header that does not fit."""
        longest, pixels = settings.max_body_bytes, settings.max_image_pixels
        self._options = Options(longest=longest, keep=keep, max_image_pixels=pixels)
        self._file = file
        self._tape = Tape(file, file.tell() if file.seekable() else 0)
        self._model = model
        rows = CsvRows(self._tape, model, self._options)
        self._table: Table = rows.table
        self.kept_names = rows.kept_names if keep else []
        self._ahead = self._taken_back()
        self._is_end = False
        self._pipe = _pipe(file)

    @property
    def kept(self) -> pa.Schema:
        """The columns that are kept, as blocks have them."""
        return pa.schema([pa.field(each, pa.string()) for each in self.kept_names])

    @property
    def position(self) -> Position:
        """What is passed when all blocks that were given out are."""
        tape = self._tape
        return Position(tape.offset, tape.number, tape.sha256.hexdigest())

    def pass_to(self, position: Position) -> bool:
        """Pass what another run has passed; return whether it was the same as there."""
        self._ahead = b""
        self._tape.pass_to(position.number, position.bytes)
        return self.position == position

    def __iter__(self) -> Iterator[tuple[CsvBlock, Position]]:
        """Yield each block, and the position behind it."""
        while data := self._filled():
            end = len(data) if self._is_end else data.rfind(b"\n") + 1
            if end == 0 or not _are_closed(data[:end], self._table.separator):
                yield self._of_rows(data), self.position
                continue
            piece, self._ahead = data[:end], data[end:]
            before = self._tape.number
            self._tape.passed(piece, piece.count(b"\n") + (not piece.endswith(b"\n")))
            yield self._block(before, data=piece), self.position

    def _filled(self) -> bytes:
        """Return a block; less at the end, or where who writes a pipe has written no more yet."""
        data = self._ahead
        self._is_end = False
        while (missing := BLOCK_BYTES - len(data)) > 0 and self._may_wait(data):
            read = self._file.read if self._pipe is None else self._file.read1  # type: ignore[attr-defined]  # buffered
            if not (chunk := read(missing)):
                self._is_end = True
                break
            data += chunk
        return data

    def _may_wait(self, data: bytes) -> bool:
        """Whether to read on: of a pipe whole lines are answered before others are waited for."""
        if self._pipe is None or b"\n" not in data:
            return True
        return bool(select.select([self._pipe], [], [], 0)[0])

    def _of_rows(self, data: bytes) -> CsvBlock:
        """Return a block of rows that are read one by one, of which `data` is the beginning."""
        lines = data.split(b"\n")
        last = lines.pop()
        self._tape.again = deque(each + b"\n" for each in lines)
        if last:
            most = max(0, self._options.longest + 1 - len(last))
            self._tape.again.append(last + self._file.readline(most))
        before, start = self._tape.number, self._tape.offset
        rows = []
        for each in CsvRows(self._tape, self._model, self._options, self._table):
            rows.append(each)
            if self._tape.offset - start >= BLOCK_BYTES:
                break
        self._ahead = self._taken_back()
        return self._block(before, rows=rows)

    def _block(self, before: int, **what: object) -> CsvBlock:
        table, longest = self._table, self._options.longest
        dialect = Dialect(table.separator, table.decimal, table.header, self.kept_names, longest)
        return CsvBlock(dialect, before, **what)  # type: ignore[arg-type]  # data or rows

    def _taken_back(self) -> bytes:
        """Return what was read of the file, but not passed."""
        ahead = b"".join(self._tape.again)
        self._tape.again.clear()
        return ahead


def _pipe(file: BinaryIO) -> int | None:
    """Return the number of a file that others write bit by bit, as a pipe or a terminal."""
    try:
        number = file.fileno()
        return None if stat.S_ISREG(os.fstat(number).st_mode) else number
    except OSError:  # it is none of the system
        return None


def _are_closed(data: bytes, separator: str) -> bool:
    """Whether each quotation mark is of a cell that begins and ends with one, in one line."""
    return b'"' not in data or b'"' not in _quoted(separator.encode()).sub(b"", data)


@cache
def _quoted(separator: bytes) -> re.Pattern[bytes]:
    mark = re.escape(separator)
    return re.compile(
        rb'(?:\A(?:\xef\xbb\xbf)?|(?<=[\n%b]))"(?:[^"\n]|"")*"(?=[%b\r\n]|\Z)' % (mark, mark)
    )
