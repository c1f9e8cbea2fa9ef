"""CSV: without a header in a body, with or without one in a file."""

import contextlib
import csv
import difflib
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from service.engine.columns import RowForm
from service.engine.model import Model
from service.errors import InvalidInput, TooLarge
from service.formats.json_blocks import BLOCK, LONG
from service.formats.json_fast import read_lists
from service.formats.json_rows import expected_instance, row
from service.formats.lines import Bad, Lines, Options, Row, Tape
from service.formats.message import LARGEST_IN_LOOP, Fields, Limits, Slow, gathered
from service.formats.numbers import Unfit
from service.formats.turns import Turns, check_deadline
from service.words import shown

_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


class CsvMessage:
    """A body of CSV, a line for each instance. It can say nothing beside them."""

    needs_images = False

    def __init__(self, body: bytes) -> None:
        self.fields: Fields = {}
        self._body = body
        self._is_plain = not any(mark in body for mark in (b"[", b"]", b"{", b'"'))

    def rows(self, model: Model, limits: Limits) -> NDArray[Any]:
        """Return the lines as rows; see Message. Blank lines are none."""
        check_lines(self._body, limits)
        if limits.in_loop and len(self._body) > (LONG if self._is_plain else LARGEST_IN_LOOP):
            raise Slow
        if not self._is_plain:  # a line end may be in a cell
            return stacked(_slow_rows(self._body, model), model, limits)
        # A cell takes two bytes, and may be empty where that is a value.
        of_cell = 1 + (np.dtype(model.row_dtype).kind in "iu" or not _has_empty_cells(model))
        most = len(self._body) // (of_cell * model.row_size) + 1
        rows = gathered(self._parts(model, limits), most, model, limits)
        return rows if len(rows) else stacked([], model, limits)

    def _parts(self, model: Model, limits: Limits) -> Iterator[Sequence[Any] | NDArray[Any]]:
        start, lines, any_count = 0, 0, replace(limits, max_rows=len(self._body))
        for block in _blocks(self._body):
            check_deadline(limits.deadline)
            try:
                yield _plain_rows(block, model, any_count)
            except Exception as error:  # simdjson's are of many kinds
                if limits.in_loop and len(block) > LARGEST_IN_LOOP:
                    raise Slow from error
                yield _slow_rows(block, model, start, lines)
            start += len(block)
            lines += block.count(b"\n")


def read(body: bytes, known: frozenset[str], content_type: str) -> CsvMessage:
    """Take a body of CSV."""
    return CsvMessage(body)


def check_lines(body: bytes, limits: Limits) -> None:
    """Raise TooLarge where there are more lines than rows and blank lines between them can be.

    A compressed body of a few kB may hold millions.
    """
    lines = max(body.count(b"\n"), body.count(b"\r"))
    if lines > 2 * limits.max_rows:
        raise TooLarge(
            f"body: expected at most {limits.max_rows} rows in one request, got {lines} lines"
        )


def _blocks(body: bytes) -> Iterator[bytes]:
    """Yield blocks of whole lines."""
    place = 0
    while place < len(body):
        stop = body.find(b"\n", place + BLOCK) + 1 or len(body)
        yield body[place:stop]
        place = stop


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


def _slow_rows(body: bytes, model: Model, start: int = 0, lines: int = 0) -> list[NDArray[Any]]:
    """Return the lines of CSV without a header as rows of a model.

    They stand behind so many other bytes and lines. Blank lines are none. Raises InvalidInput with
    the line of the first thing that does not fit.
    """
    reader = csv.reader(_texts(body, start), strict=True)
    rows, give_way = [], Turns()
    try:
        for cells in reader:
            give_way()
            if _is_blank(cells):
                continue
            where = f"line {lines + reader.line_num}"
            if why := wrong_width(cells, model):
                raise InvalidInput(f"{where}: {why}")
            values = row(values_of(cells, model.form), where, model)
            rows.append(np.array(values, model.row_dtype))  # of much less memory
    except csv.Error as error:
        line = lines + reader.line_num
        raise InvalidInput(f"line {line}: expected CSV, got: {error}") from error
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


def wrong_width(cells: Sequence[str], model: Model) -> str:
    """Say that there are not as many cells as a row has values, nothing if there are."""
    if len(model.row_dims) > 1 and model.has_open_rows:
        return f"expected {expected_instance(model)}, which a line of CSV cannot say: send JSON"
    if model.has_open_rows or len(cells) == model.row_size:
        return ""
    return f"expected {model.row_size} values, got {len(cells)}"


def values_of(cells: Sequence[str], form: RowForm) -> list[Any]:
    """Return what cells say where the columns of a row have these types."""
    if form.columns:
        return [
            _value_as(cell, each.dtype, takes_missing=each.takes_missing)
            for cell, each in zip(cells, form.columns, strict=True)
        ]
    missing = form.takes_missing
    return [_value_as(cell, form.dtype, takes_missing=missing) for cell in cells]


def _value_as(cell: str, dtype: type[np.generic], *, takes_missing: bool) -> Any:
    """Return what a cell says: strings as they stand, no value where it is empty or NaN."""
    if dtype is np.object_:
        return cell
    if dtype is np.bool_:
        return _BOOLEANS.get(cell.strip().lower(), cell)
    value = value_of(cell)
    if takes_missing and (value != value or (isinstance(value, str) and not value.strip())):
        return None
    return value


def _has_empty_cells(model: Model) -> bool:
    """Whether an empty cell is a value of some column."""
    if not model.columns:
        return model.form.takes_missing or model.row_dtype is np.object_
    return any(each.takes_missing or each.dtype is np.object_ for each in model.columns)


def value_of(cell: str) -> float | str:
    """Return the number that a cell holds, or what it says if that is none."""
    text = cell.strip()
    try:
        number = float(text)
    except ValueError:
        return cell
    if not text.isascii() or "_" in text:  # Python's numbers, nobody else's
        return cell
    is_whole = text.lstrip("+-").isdigit() and math.isfinite(number)
    is_minus_zero = number == 0 and text.startswith("-")  # an integer has no such sign
    return int(text) if is_whole and not is_minus_zero else number  # floats lack some int64


class CsvRows:
    """The rows of CSV. The first line is a header if it names a column, or no value fits it.

    A header gives the columns their meaning, in any order; those of other names are no columns of
    the model.
    """

    unit = "line"

    def __init__(self, tape: Tape, model: Model, options: Options) -> None:
        """Read the header, if there is one. Raises InvalidInput for one that does not fit."""
        self._lines = lines = Lines(tape, options.longest)
        self._model = model
        self._reader = csv.reader(lines, strict=True)
        names = model.column_names
        first = self._first()
        self.has_header = _is_header(first, model)
        self.kept_names: list[str] = []
        self._features = self._kept = list[int]()
        self._width = model.row_size
        self._is_float = np.dtype(model.row_dtype).kind == "f"
        self._is_float &= not _has_empty_cells(model)  # as those are no floats
        where = f"line {lines.number + 1}"
        if not self.has_header:
            numbered = [str(n) for n in range(self._width)]
            if not names and not model.has_open_rows and first == numbered:
                raise InvalidInput(
                    f"{where}: expected a row, got {','.join(first[:3])}{',...' * (len(first) > 3)}"
                    " as pandas numbers columns: leave that line out (header=False), or write "
                    f"{first[0]}.0 if it is a row"
                )
            lines.give_back()
            return
        lines.pass_row()
        if names:
            self._width = len(first)
            self._features = [_column(name, first, names, where) for name in names]
            self._kept = [n for n in range(len(first)) if n not in self._features]
            self.kept_names = [first[n] for n in self._kept]
        elif not model.has_open_rows and len(first) != self._width:
            raise InvalidInput(
                f"{where}: expected a header of {self._width} columns, got {len(first)}"
            )

    def _first(self) -> list[str]:
        """Take the first line that is not blank; return its cells, none if it is a bad row.

        Raises InvalidInput where it cannot be read and may be a header.
        """
        try:
            for cells in self._reader:
                if not _is_blank(cells):
                    return [each.strip() for each in cells]
                self._lines.pass_row()
        except (csv.Error, InvalidInput) as error:
            text = self._lines.first.decode("utf-8-sig", "replace")
            cells = [each.strip(' "\r\n') for each in text.split(",")]
            if not text or _is_header(cells, self._model):
                raise _not_csv(error, self._lines.number + 1) from error
        return []

    def __iter__(self) -> Iterator[Row | Bad]:
        """Yield each row."""
        while True:
            line = self._lines.number + 1
            try:
                cells = next(self._reader)
            except StopIteration:
                return
            except (csv.Error, InvalidInput) as error:
                self._lines.pass_first()
                yield Bad(line, str(_not_csv(error, line)))
                continue
            self._lines.pass_row()
            if not _is_blank(cells):
                yield self._row(cells, line)

    def _row(self, cells: list[str], line: int) -> Row | Bad:
        where = f"line {line}"
        if self._features and len(cells) != self._width:
            return Bad(line, f"{where}: expected {self._width} values, got {len(cells)}")
        if not self._features and (why := wrong_width(cells, self._model)):
            return Bad(line, f"{where}: {why}")
        of_columns = [cells[n] for n in self._features] if self._features else cells
        try:
            values = self._values(of_columns, where)
        except InvalidInput as error:
            return Bad(line, str(error))
        return Row(line, values, [cells[n] for n in self._kept])

    def _values(self, cells: list[str], where: str) -> Any:
        """Return what cells hold. Raises InvalidInput with the place of what does not fit.

        The first way says the same as the second where it says anything, five times faster.
        """
        text = "".join(cells)
        if self._is_float and text.isascii() and "_" not in text:
            with contextlib.suppress(ValueError, InvalidInput):
                return row([float(cell) for cell in cells], where, self._model)
        return row(values_of(cells, self._model.form), where, self._model)


def _column(name: str, header: list[str], names: list[str], where: str) -> int:
    """Return which column has a feature. Raises InvalidInput unless exactly one has."""
    count = header.count(name)
    if count == 1:
        return header.index(name)
    if count:
        raise InvalidInput(f"{where}: expected one column {name}, got {count}")
    others = [each for each in header if each not in names]
    near = difflib.get_close_matches(name, others, n=1)
    hint = f"; is it {shown(near[0])}?" if near else ""
    raise InvalidInput(f"{where}: expected a column {name}, got none{hint}")


def _is_header(cells: list[str], model: Model) -> bool:
    """Whether cells name a column, or say something that fits none of the columns.

    As anything fits a column of strings, the others decide, if there are any.
    """
    if not any(cells):
        return False
    columns = model.columns
    if any(each in model.column_names for each in cells):
        return True
    dtypes = [each.dtype for each in columns] if columns else [model.row_dtype] * len(cells)
    if len(dtypes) != len(cells):
        dtypes = [np.float64] * len(cells)
    others = [
        _value_as(cell, dtype, takes_missing=False)
        for cell, dtype in zip(cells, dtypes, strict=True)
        if dtype is not np.object_
    ]
    return bool(others) and all(isinstance(each, str) for each in others)


def _not_csv(error: csv.Error | InvalidInput, line: int) -> InvalidInput:
    """Return what the reader says as an error with its place."""
    if isinstance(error, InvalidInput):
        return error
    return InvalidInput(f"line {line}: expected CSV, got: {error}")


def _is_blank(cells: list[str]) -> bool:
    return not cells or (len(cells) == 1 and cells[0].isspace())
