"""A block of CSV -> its answers: read in columns by Arrow, or row by row.

Arrow's reader says fast what is surely a row as formats/csv_rows.py reads it. A line that may be
none is judged by that, and so is a block of which Arrow cannot say which line is which.
"""

import csv
import re
from codecs import BOM_UTF8
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
import pyarrow as pa
from msgspec import Struct
from numpy.typing import NDArray

from service.batch import csv_columns
from service.batch.answered import Answered, answered
from service.batch.csv_columns import NotColumns
from service.batch.scorer import Scorer
from service.batch.tables import rows_of
from service.engine.model import Model
from service.errors import InvalidInput
from service.formats.csv_header import Header
from service.formats.csv_rows import CsvRows
from service.formats.csv_table import Table
from service.formats.lines import Bad, Options, Row, Tape

_UNIT = "line"
_LINE_FEED, _RETURN = b"\n\r"
_BLANK = re.compile(rb"^[ \t\v\f]+\r?$", re.MULTILINE)  # lines that are empty to some


class Dialect(Struct, frozen=True):
    """How the lines of a file are read, as its first ones say."""

    separator: str
    decimal: str
    header: Header | None
    kept: list[str]  # the names of the columns that are kept
    longest: int  # bytes of a line

    def table(self, model: Model) -> Table:
        """Return what reads a line."""
        return Table(model, self.separator, self.decimal, self.header)


class CsvBlock(Struct, frozen=True):
    """Whole rows of a file: its bytes, or what they say where rows end within lines."""

    dialect: Dialect
    before: int  # lines
    data: bytes = b""
    rows: list[Row | Bad] | None = None

    def answer(self, scorer: Scorer) -> Answered:
        """Return the answers to the rows."""
        if self.rows is not None:
            return self._of_rows(scorer, self.rows)
        try:
            return self._of_columns(scorer)
        except NotColumns:
            return self._of_rows(scorer, self._read(scorer.model))

    def _read(self, model: Model) -> list[Row | Bad]:
        tape = Tape(BytesIO(self.data))
        tape.number = self.before
        keep = bool(self.dialect.kept)
        options = Options(longest=self.dialect.longest, keep=keep, max_image_pixels=0)
        return list(CsvRows(tape, model, options, self.dialect.table(model)))

    def _of_rows(self, scorer: Scorer, rows: Sequence[Row | Bad]) -> Answered:
        fitting = [each for each in rows if isinstance(each, Row)]
        bad = [(each.line, each.why) for each in rows if isinstance(each, Bad)]
        lines = np.array([each.line for each in fitting], np.int64)
        answers = scorer.of_rows([each.values for each in fitting])
        kept = _kept(fitting, names) if (names := self.dialect.kept) else None
        return answered(answers, _UNIT, lines, kept, bad)

    def _of_columns(self, scorer: Scorer) -> Answered:
        """As `_of_rows`, much faster. Raises NotColumns."""
        table = self.dialect.table(scorer.model)
        data = self.data if self.before else self.data.removeprefix(BOM_UTF8)
        lines = _Lines(data, table, self.dialect.longest)
        columns = csv_columns.read(data, table, keep=bool(self.dialect.kept))
        rows, ragged = lines.rows(are_ragged=columns.are_ragged)
        if len(rows) != len(columns.values[0]):
            raise NotColumns
        bad = []
        for place in ragged.tolist():
            try:
                lines.row(place)
            except InvalidInput as error:
                number = self.before + place + 1
                bad.append((number, f"{_UNIT} {number}{error}"))
        answers = scorer.of_columns(
            rows_of(columns.values, scorer.model), lambda place: lines.row(rows[place])
        )
        return answered(answers, _UNIT, rows + self.before + 1, columns.kept, bad)


def _is_utf8(data: bytes) -> bool:
    """Whether bytes are text: Arrow prints an error for a ragged line that is none."""
    try:
        return data.isascii() or bool(data.decode())
    except UnicodeDecodeError:
        return False


def _kept(rows: Sequence[Row], names: list[str]) -> pa.RecordBatch:
    cells = zip(*(each.kept for each in rows), strict=True) if rows else [()] * len(names)
    return pa.RecordBatch.from_arrays([pa.array(each, pa.string()) for each in cells], names)


class _Lines:
    """The lines of a block, each of which is a row or empty."""

    def __init__(self, data: bytes, table: Table, longest: int) -> None:
        """Find the lines. Raises NotColumns where one may end otherwise, or is too long."""
        self._data, self._table = data, table
        self._characters = characters = np.frombuffer(data, np.uint8)
        ends = np.flatnonzero(characters == _LINE_FEED)
        returns = np.count_nonzero(characters[ends[ends > 0] - 1] == _RETURN)
        if data.count(b"\r") != returns or b"\0" in data or not _is_utf8(data):
            raise NotColumns
        if not data.endswith(b"\n"):
            ends = np.append(ends, len(data))
        self._starts = np.concatenate([[0], ends[:-1] + 1])
        self._ends = ends
        size = (ends - self._starts).max()
        if size >= longest or (size > csv.field_size_limit() and self._may_have_a_long_cell()):
            raise NotColumns

    def _may_have_a_long_cell(self) -> bool:
        """Whether a cell may be longer than those that the csv module reads."""
        if b'"' in self._data:
            return True
        is_end = self._characters == ord(self._table.separator)
        ends = np.flatnonzero(is_end | (self._characters == _LINE_FEED))
        cells = np.diff(ends, prepend=-1, append=len(self._data)) - 1
        return bool(cells.max() > csv.field_size_limit())

    def rows(self, *, are_ragged: bool) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the lines that are rows, and those of too few or too many cells."""
        sizes = self._ends - self._starts
        is_row = (sizes > 1) | ((sizes == 1) & (self._characters[self._starts] != _RETURN))
        width = self._table.width
        if (are_ragged or width == 1) and (b'"' in self._data or _BLANK.search(self._data)):
            raise NotColumns
        if not are_ragged:
            return np.flatnonzero(is_row), np.empty(0, np.int64)
        marks = np.flatnonzero(self._characters == ord(self._table.separator))
        counts = np.searchsorted(marks, self._ends) - np.searchsorted(marks, self._starts)
        return np.flatnonzero(is_row & (counts == width - 1)), np.flatnonzero(
            is_row & (counts != width - 1)
        )

    def row(self, place: int) -> Any:
        """Return the values of a line. Raises InvalidInput, with the place in the line."""
        line = self._data[self._starts[place] : self._ends[place]]
        try:
            cells = next(self._table.reader([line.decode()]))
        except csv.Error as error:
            raise InvalidInput(f": expected CSV, got: {error}") from error
        return self._table.row(cells, "")
