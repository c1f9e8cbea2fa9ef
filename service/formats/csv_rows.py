"""CSV as people and programs write it: bodies and files. Their first lines are csv_table.py's."""

import csv
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import multipart
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from service.engine.model import Model
from service.errors import InvalidInput, TooLarge
from service.formats.csv_cells import has_empty_cells
from service.formats.csv_header import has_numbers_as_names
from service.formats.csv_table import Table, is_blank, open_table
from service.formats.json_blocks import BLOCK, LONG
from service.formats.json_fast import read_lists
from service.formats.lines import Bad, Lines, Options, Row, Tape
from service.formats.message import LARGEST_IN_LOOP, Fields, Limits, Slow, gathered
from service.formats.numbers import Unfit
from service.formats.turns import Turns, check_deadline
from service.words import shown

_LONGEST_IN_LOOP = 1000  # bytes of a line that is looked at for a header in the event loop
_TABS = re.compile(r"\s*text/(tsv|tab-separated-values)\b", re.IGNORECASE)


class CsvMessage:
    """A body of CSV, a line for each instance. It can say nothing beside them."""

    needs_images = False

    def __init__(self, body: bytes, has_header: bool | None = None, separator: str = "") -> None:
        """Take a body; has_header, separator: as its Content-Type says, None and "" if not."""
        self.fields: Fields = {}
        self._body = body
        self._has_header = has_header
        self._separator = separator
        self._is_plain = not any(mark in body for mark in (b"[", b"]", b"{", b'"'))

    def rows(self, model: Model, limits: Limits) -> NDArray[Any]:
        """Return the lines as rows; see Message. Blank lines are none."""
        check_lines(self._body, limits)
        if limits.in_loop and len(self._body) > (LONG if self._is_plain else LARGEST_IN_LOOP):
            raise Slow
        if not self._is_plain:  # a line end may be in a cell
            table, start = self._table(model, limits)
            rest = self._body[start:]
            return stacked(_slow_rows(rest, table, start, table.head_lines), model, limits)
        # A cell takes two bytes, and may be empty where that is a value.
        of_cell = 1 + (np.dtype(model.row_dtype).kind in "iu" or not has_empty_cells(model))
        most = len(self._body) // (of_cell * model.row_size) + 1
        rows = gathered(self._parts(model, limits), most, model, limits)
        return rows if len(rows) else stacked([], model, limits)

    def _parts(self, model: Model, limits: Limits) -> Iterator[Sequence[Any] | NDArray[Any]]:
        start, lines, any_count = 0, 0, replace(limits, max_rows=len(self._body))
        table: Table | None = None
        while start < len(self._body):
            check_deadline(limits.deadline)
            block = _block(self._body, start)
            try:
                if start == 0 and (
                    self._has_header or self._separator or has_numbers_as_names(model)
                ):
                    raise Unfit
                if table is not None and not table.is_plain:
                    raise Unfit
                yield _plain_rows(block, model, any_count)
            except Exception as error:  # simdjson's are of many kinds
                if limits.in_loop and len(block) > LARGEST_IN_LOOP:
                    raise Slow from error
                if table is None:
                    table, begin = self._table(model, limits)
                    if begin:
                        start, lines = begin, table.head_lines
                        continue
                yield _slow_rows(block, table, start, lines)
            start += len(block)
            lines += block.count(b"\n")

    def _table(self, model: Model, limits: Limits) -> tuple[Table, int]:
        """Return how the lines are read, and the first byte of the rows.

        Raises InvalidInput, Slow.
        """
        lines = self._body.splitlines(keepends=True)
        if limits.in_loop and max(map(len, lines), default=0) > _LONGEST_IN_LOOP:
            raise Slow
        table = open_table(
            iter(lines), model, self._has_header, is_file=False, separator=self._separator
        )
        return table, sum(map(len, lines[: table.head_lines]))


def read(body: bytes, known: frozenset[str], content_type: str) -> CsvMessage:
    """Take a body of CSV. Raises InvalidInput for a parameter `header` that says nothing."""
    has_header = _said_header(content_type) if ";" in content_type else None
    return CsvMessage(body, has_header, "\t" if _TABS.match(content_type) else "")


@lru_cache
def _said_header(content_type: str) -> bool | None:
    """Return whether a Content-Type says that there is a header (RFC 4180, section 3)."""
    said: str | None = multipart.parse_options_header(content_type)[1].get("header")
    if said is None:
        return None
    if said.lower() not in ("present", "absent"):
        raise InvalidInput(
            f"Content-Type: expected header=present or header=absent, got header={shown(said)}"
        )
    return said.lower() == "present"


def check_lines(body: bytes, limits: Limits) -> None:
    """Raise TooLarge where there are more lines than rows and blank lines between them can be.

    A compressed body of a few kB may hold millions.
    """
    lines = max(body.count(b"\n"), body.count(b"\r"))
    if lines > 2 * limits.max_rows:
        raise TooLarge(
            f"body: expected at most {limits.max_rows} rows in one request, got {lines} lines"
        )


def _block(body: bytes, start: int) -> bytes:
    """Return a block of whole lines."""
    stop = body.find(b"\n", start + BLOCK) + 1 or len(body)
    return body[start:stop]


def _plain_rows(block: bytes, model: Model, limits: Limits) -> NDArray[Any]:
    """Return the rows of CSV that JSON would say with the same numbers; raises anything else.

    It is read 20 times faster that way.
    """
    if model.row_dtype is np.object_:  # JSON says them in other words
        raise Unfit
    lines = block.strip().replace(b"\r\n", b"\n")
    if b"\r" in lines:  # ends a line too, and is white space in JSON
        raise ValueError("lines that end with a carriage return")
    return read_lists(b"[[%b]]" % lines.replace(b"\n", b"],["), model, limits)


def _slow_rows(body: bytes, table: Table, start: int, lines: int) -> list[NDArray[Any]]:
    """Return the rows of a table in lines that stand behind so many other bytes and lines.

    Blank lines are none. Raises InvalidInput with the line of the first thing that does not fit.
    """
    reader = table.reader(_texts(body, start))
    rows, give_way = [], Turns()
    try:
        for cells in reader:
            give_way()
            if not is_blank(cells):
                values = table.row(cells, f"line {lines + reader.line_num}")
                rows.append(np.array(values, table.model.row_dtype))  # of much less memory
    except csv.Error as error:
        raise _not_csv(error, lines + reader.line_num) from error
    return rows


def _texts(body: bytes, place: int) -> Iterator[str]:
    """Yield each line, the first of which is at a place of all. Raises InvalidInput."""
    for line in body.splitlines(keepends=True):
        try:
            yield line.decode("utf-8-sig" if place == 0 else "utf-8")
        except UnicodeDecodeError as error:
            where = place + error.start
            raise InvalidInput(
                f"body: expected CSV in UTF-8, got byte {where} that is not"
            ) from error
        place += len(line)


def stacked(rows: Sequence[Any], model: Model, limits: Limits) -> NDArray[Any]:
    """Return the rows of lines as an array. Raises InvalidInput where there are none, TooLarge."""
    if not rows:
        raise InvalidInput("body: expected a line for each instance, got none")
    limits.check_count(len(rows))
    return model.rows_of(rows)


class CsvRows:
    """The rows of CSV. The first line is a header if it names a column, or no value fits it.

    A header gives the columns their meaning, in any order; those of other names are no columns of
    the model.
    """

    unit = "line"

    def __init__(self, tape: Tape, model: Model, options: Options) -> None:
        """Read the first lines. Raises InvalidInput for a header that does not fit."""
        self._lines = lines = Lines(tape, options.longest)
        self._table = table = open_table(lines.ahead(), model, None, is_file=True)
        for _ in range(table.head_lines):
            lines.take()
            lines.pass_row()
        self.kept_names = [] if table.header is None else table.header.kept_names

    def __iter__(self) -> Iterator[Row | Bad]:
        """Yield each row."""
        reader = self._table.reader(self._lines)
        while True:
            line = self._lines.number + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except (csv.Error, InvalidInput) as error:
                self._lines.pass_first()
                yield Bad(line, str(_not_csv(error, line)))
                continue
            self._lines.pass_row()
            if not is_blank(cells):
                yield self._row(cells, line)

    def _row(self, cells: list[str], line: int) -> Row | Bad:
        try:
            values = self._table.row(cells, f"line {line}")
        except InvalidInput as error:
            return Bad(line, str(error))
        header = self._table.header
        return Row(line, values, [] if header is None else [cells[n] for n in header.kept])


def _not_csv(error: csv.Error | InvalidInput, line: int) -> InvalidInput:
    """Return what the reader says as an error with its place."""
    if isinstance(error, InvalidInput):
        return error
    return InvalidInput(f"line {line}: expected CSV, got: {error}")
