"""CSV as people and programs write it: bodies and files. Their first lines are csv_table.py's."""

import csv
import re
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from typing import Any

import multipart
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from service.engine.model import Model
from service.errors import InvalidInput, TooLarge
from service.formats.csv_cells import has_empty_cells
from service.formats.csv_dialect import SEPARATORS
from service.formats.csv_header import MOST_OTHERS, has_numbers_as_names
from service.formats.csv_table import Table, is_blank, open_table
from service.formats.json_blocks import BLOCK, LONG
from service.formats.json_fast import read_lists
from service.formats.lines import Bad, Lines, Options, Row, Tape
from service.formats.message import LARGEST_IN_LOOP, Fields, Limits, Slow, gathered
from service.formats.numbers import Unfit
from service.formats.turns import Turns, check_deadline
from service.words import shown

_QUOTED = re.compile(rb'"[^"]*"')
_LONGEST_IN_LOOP = 1000  # bytes of a line that is looked at for a header in the event loop
TABS = ("text/tab-separated-values", "text/tsv")  # media types of tables with tabs


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
                if len(block) > 4 * BLOCK and _has_bomb(block, model):
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
        ahead = _before_bomb(lines, model)
        table = open_table(ahead, model, self._has_header, is_file=False, separator=self._separator)
        return table, sum(map(len, lines[: table.head_lines]))


def read(body: bytes, known: frozenset[str], content_type: str) -> CsvMessage:
    """Take a body of CSV. Raises InvalidInput for a parameter `header` that says nothing."""
    return CsvMessage(body, *_said(content_type))


@lru_cache
def _said(content_type: str) -> tuple[bool | None, str]:
    """Return what a Content-Type says of a header (RFC 4180, section 3), and the separator."""
    media_type, parameters = multipart.parse_options_header(content_type)
    separator = "\t" if media_type in TABS else ""
    said: str | None = parameters.get("header")
    if said is None:
        return None, separator
    if said.lower() not in ("present", "absent"):
        raise InvalidInput(
            f"Content-Type: expected header=present or header=absent, got header={shown(said)}"
        )
    return said.lower() == "present", separator


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


def _before_bomb(lines: Sequence[bytes], model: Model) -> Iterator[bytes]:
    """Yield the lines before one of far too many cells, which tells nothing of the table.

    The first that is not blank is for `open_table` to judge.
    """
    is_first, marks = True, 0
    for line in lines:
        if not is_first and len(line) > MOST_OTHERS:
            outside = _QUOTED.sub(b"", b'"' * (marks % 2) + line)
            if _has_bomb(outside, model):
                return
        yield line
        is_first &= not line.strip()
        marks += line.count(b'"')


def _has_bomb(text: bytes, model: Model) -> bool:
    """Whether a line has far more cells than any row or header of a model."""
    most = model.row_size + MOST_OTHERS
    return not model.has_open_rows and any(
        max(line.count(each.encode()) for each in SEPARATORS) > most for line in text.splitlines()
    )


def _slow_rows(body: bytes, table: Table, start: int, lines: int) -> list[NDArray[Any]]:
    """Return the rows of a table in lines that stand behind so many other bytes and lines.

    Blank lines are none. Raises InvalidInput with the line of the first thing that does not fit.
    """
    texts = _Texts(body, table, start, lines)
    reader = table.reader(texts)
    rows, give_way = [], Turns()
    try:
        for cells in reader:
            give_way()
            texts.is_in_row = False
            if not is_blank(cells):
                values = table.row(cells, f"line {lines + reader.line_num}")
                rows.append(np.array(values, table.model.row_dtype))  # of much less memory
    except csv.Error as error:
        raise _not_csv(error, lines + reader.line_num) from error
    return rows


class _Texts:
    """The lines of a table, the first of which stands behind so many other bytes and lines.

    One of far too many cells is refused before it is read, which would hold the process.
    """

    def __init__(self, body: bytes, table: Table, place: int, lines: int) -> None:
        self._lines = iter(body.splitlines(keepends=True))
        self._table = table
        self._place = place
        self._number = lines  # of those that were taken
        self.is_in_row = False  # whether the next line goes on with a cell of the last one

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        """Take a line. Raises InvalidInput."""
        line = next(self._lines)
        self._number += 1
        if len(line) > MOST_OTHERS:
            self._check_width(line)
        try:
            text = line.decode("utf-8-sig" if self._place == 0 else "utf-8")
        except UnicodeDecodeError as error:
            where = self._place + error.start
            raise InvalidInput(
                f"body: expected CSV in UTF-8, got byte {where} that is not"
            ) from error
        self._place += len(line)
        self.is_in_row = True
        return text

    def _check_width(self, line: bytes) -> None:
        """Raise InvalidInput for a line of far too many cells."""
        table, mark = self._table, self._table.separator.encode()
        most = table.model.row_size + MOST_OTHERS
        if table.model.has_open_rows or (count := line.count(mark)) <= most:
            return
        more = " or more" if self.is_in_row else ""  # without what stands before
        if b'"' in line or self.is_in_row:
            place = count = 0
            for each in _quoted(mark, is_in_row=self.is_in_row).finditer(line):
                count += line.count(mark, place, each.end(1))
                place = each.end()
                if count > most:
                    more = " or more"  # they are not all looked at
                    break
            else:
                count += line.count(mark, place)
        if count > most and (why := table.wrong_width(count + 1)):
            raise InvalidInput(f"line {self._number}: {why}{more}")


@cache
def _quoted(mark: bytes, *, is_in_row: bool) -> re.Pattern[bytes]:
    """Return a pattern of a cell in quotation marks, in a line that may begin within one."""
    first = rb"\A" if is_in_row else rb'\A(?:\xef\xbb\xbf)?+"'
    return re.compile(rb'(%b|%b")(?:[^"]++|"")*+(?:"|\Z)' % (first, re.escape(mark)))


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

    def __init__(
        self, tape: Tape, model: Model, options: Options, table: Table | None = None
    ) -> None:
        """Read the first lines, unless `table` is what others found in them.

        Raises InvalidInput for a header that does not fit.
        """
        self._lines = lines = Lines(tape, options.longest)
        if table is None:
            table = open_table(lines.ahead(), model, None, is_file=True)
            for _ in range(table.head_lines):
                lines.take()
                lines.pass_row()
        self.table = table
        self.kept_names = [] if table.header is None else table.header.kept_names

    def __iter__(self) -> Iterator[Row | Bad]:
        """Yield each row."""
        reader = self.table.reader(self._lines)
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
            values = self.table.row(cells, f"line {line}")
        except InvalidInput as error:
            return Bad(line, str(error))
        header = self.table.header
        return Row(line, values, [] if header is None else [cells[n] for n in header.kept])


def _not_csv(error: csv.Error | InvalidInput, line: int) -> InvalidInput:
    """Return what the reader says as an error with its place."""
    if isinstance(error, InvalidInput):
        return error
    return InvalidInput(f"line {line}: expected CSV, got: {error}")
