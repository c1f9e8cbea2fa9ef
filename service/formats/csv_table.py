"""A table in CSV: what its first lines say of all others, and the rows of these."""

import contextlib
import csv
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
from msgspec import Struct

from service.engine.columns import Column
from service.engine.model import Model
from service.errors import InvalidInput
from service.formats.csv_cells import columns_of, has_empty_cells, value_as, values_of
from service.formats.csv_dialect import (
    SEPARATORS,
    decimal_of,
    is_row,
    is_words,
    said_separator,
    separator_of,
    with_point,
)
from service.formats.csv_header import MOST_OTHERS, Header, header_of, named
from service.formats.json_rows import expected_instance, row
from service.formats.values import in_words
from service.words import shown


class Table(Struct, frozen=True):
    """How lines of CSV are read as rows of a model."""

    model: Model
    separator: str = ","
    decimal: str = ""  # what marks decimals; "": no number shows it, or commas separate
    header: Header | None = None
    head_lines: int = 0  # before the rows

    @property
    def is_plain(self) -> bool:
        """Whether its lines are rows as they are."""
        return self.separator == "," and (self.header is None or self.header.is_as_rows)

    @property
    def width(self) -> int:
        """How many cells a row has, -1 if any number."""
        return self.model.row_size if self.header is None else self.header.width

    def reader(self, lines: Iterable[str]) -> Any:
        """Return the csv module's reader of lines, which yields the cells of each row."""
        return csv.reader(lines, delimiter=self.separator, strict=True)

    def row(self, cells: Sequence[str], where: str) -> Any:
        """Return the values of a row in the order of the model's columns.

        Raises InvalidInput with the place of what does not fit.
        """
        if why := self.wrong_width(len(cells)):
            raise InvalidInput(f"{where}: {why}")
        if self.header is not None:
            cells = self.header.cells(cells)
        if self.separator != ",":
            cells = self._with_points(cells, where)
        if np.dtype(self.model.row_dtype).kind == "f" and not has_empty_cells(self.model):
            # It says the same as below where it says anything, five times faster.
            text = "".join(cells)
            if text.isascii() and "_" not in text:
                with contextlib.suppress(ValueError, InvalidInput):
                    return row([float(cell) for cell in cells], where, self.model)
        if self.separator == ",":
            cells = self._with_points(cells, where)  # it refuses "5,1"
        return row(values_of(cells, self.model.form), where, self.model)

    def wrong_width(self, width: int) -> str:
        """Say that there are not as many cells as a row has, nothing if there are."""
        model = self.model
        if len(model.row_dims) > 1 and model.has_open_rows:
            expected = expected_instance(model)
            return f"expected {expected}, which a line of CSV cannot say: send JSON"
        if model.has_open_rows or width == self.width:
            return ""
        return f"expected {self.width} values, got {width}"

    def _with_points(self, cells: Sequence[str], where: str) -> list[str]:
        """Return cells with points for decimal commas. Raises InvalidInput."""
        pointed = []
        for place, column in enumerate(columns_of(self.model, len(cells))):
            cell = cells[place]
            if ("," in cell or "." in cell) and np.dtype(column.dtype).kind in "fiu":
                at = f".{column.name}" if column.name else f"[{place}]"
                cell = with_point(cell, self.decimal, f"{where}{at}")
            pointed.append(cell)
        return pointed


def open_table(
    lines: Iterator[bytes],
    model: Model,
    has_header: bool | None,
    *,
    is_file: bool,
    separator: str = "",
) -> Table:
    """Return how the lines of a table are read, by the first of them.

    has_header, separator: as somebody said; None and "": nobody did. Raises InvalidInput for a
    header that does not fit the model, or may be none, and where two separators fit; of a file also
    what `lines` raises.
    """
    head = _Head(lines)
    text, said = head.first()
    said = said or separator
    if not text:
        return Table(model, said or ",", head_lines=head.before)
    if not is_file and max(map(text.count, SEPARATORS)) > model.row_size + MOST_OTHERS:
        return Table(model, said or ",", head_lines=head.before)  # no line of a table, but a bomb
    separator = said or separator_of(text, model)
    reader = csv.reader(chain([text], head.below()), delimiter=separator, strict=True)
    where = f"line {len(head.lines)}"
    first_line = len(head.lines) - 1
    error: csv.Error | None = None
    try:
        cells = [each.strip() for each in next(reader)]
    except csv.Error as raised:
        cells, error = [each.strip(' "\r\n') for each in text.split(separator)], raised
    header, head_lines = None, head.before
    if not is_file and not head.is_utf8(first_line):
        has_header = False  # whoever reads the line as a row says where it is none
    if _has_header(cells, separator, model, where, has_header, is_file=is_file):
        if error is not None:
            raise InvalidInput(f"{where}: expected CSV, got: {error}") from error
        head.check_utf8(first_line)
        header, head_lines = header_of(cells, model, where), len(head.lines)
    elif is_file:
        _check_no_numbering(cells, model, where)
    decimal = ""
    if separator != ",":
        below = csv.reader(head.below(), delimiter=separator)
        rows = below if header is not None else chain([cells], below)
        with contextlib.suppress(csv.Error, InvalidInput):  # the line that it is in will say so
            decimal = decimal_of(rows, _are_numbers(model, header, len(cells)))
    return Table(model, separator, decimal, header, head_lines)


class _Head:
    """The first lines of a table."""

    def __init__(self, lines: Iterator[bytes]) -> None:
        self._rest = lines
        self.lines: list[bytes] = []  # those that were read
        self.before = 0  # how many of them are no part of the table

    def first(self) -> tuple[str, str]:
        """Return the first line that is not blank, and what sep= before it says."""
        said = ""
        for text in self.below():
            if len(self.lines) == 1 and (said := said_separator(text)):
                self.before = 1
            elif text.strip():
                return text, said
        return "", said

    def below(self) -> Iterator[str]:
        """Yield all further lines."""
        for line in self._rest:
            self.lines.append(line)
            yield line.decode("utf-8-sig" if len(self.lines) == 1 else "utf-8", "replace")

    def check_utf8(self, start: int) -> None:
        """Raise InvalidInput unless the lines from one on are UTF-8."""
        for number, line in enumerate(self.lines[start:], start + 1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                raise InvalidInput(
                    f"line {number}: expected CSV in UTF-8, got byte {error.start} that is not"
                ) from error

    def is_utf8(self, start: int) -> bool:
        """Whether the lines from one on are UTF-8."""
        try:
            self.check_utf8(start)
        except InvalidInput:
            return False
        return True


def _has_header(
    cells: list[str],
    separator: str,
    model: Model,
    where: str,
    said: bool | None,
    *,
    is_file: bool,
) -> bool:
    """Whether the first line is a header. Raises InvalidInput where it may be one in a body."""
    if said is not None:
        return said
    if not any(cells):
        return False
    columns = columns_of(model, len(cells))
    if is_row(cells, separator, model):
        names = named(cells, model)
        may_be_both = names > 0 and names == len(model.column_names)
        is_text = all(each.dtype is np.object_ for each in columns)
        if is_file:
            is_header = is_text and any(each in model.column_names for each in cells)
            return may_be_both or is_header
    elif named(cells, model):
        return True
    else:
        may_be_both = is_words(cells, model)
        if is_file:
            return may_be_both
        may_be_both &= len(columns) == len(cells)
    if may_be_both:
        raise _perhaps(cells, columns, where)
    return False


def _perhaps(cells: Sequence[str], columns: Sequence[Column], where: str) -> InvalidInput:
    """Return the error that the first line of a body may be a header."""
    say = "say header=present or header=absent in Content-Type"
    for place, column in enumerate(columns):
        is_word = isinstance(value_as(cells[place], column.dtype, takes_missing=False), str)
        if column.dtype is not np.object_ and is_word:
            at = f".{column.name}" if column.name else f"[{place}]"
            got = f"{shown(cells[place])}; if the line is a header, "
            got += f"it has to name {column.name}" if column.name else say
            return InvalidInput(f"{where}{at}: expected {in_words(column.dtype)}, got {got}")
    got = f"{shown(','.join(cells))}, which may be either: {say}"
    return InvalidInput(f"{where}: expected a row or a header, got {got}")


def _check_no_numbering(cells: list[str], model: Model, where: str) -> None:
    """Raise InvalidInput for a first row that numbers columns that have no names."""
    numbered = [str(n) for n in range(model.row_size)]
    if not model.column_names and not model.has_open_rows and cells == numbered:
        raise InvalidInput(
            f"{where}: expected a row, got {','.join(cells[:3])}{',...' * (len(cells) > 3)}"
            " as pandas numbers columns: leave that line out (header=False), or write "
            f"{cells[0]}.0 if it is a row"
        )


def _are_numbers(model: Model, header: Header | None, width: int) -> list[bool]:
    """Return which of the cells of a line are to be numbers."""
    columns = columns_of(model, width)
    are = [np.dtype(each.dtype).kind in "fiu" for each in columns]
    if header is None or not header.places:
        return are
    of_place = dict(zip(header.places, are, strict=True))
    return [of_place.get(place, False) for place in range(width)]


def is_blank(cells: Sequence[str]) -> bool:
    """Whether a line is none."""
    return not cells or (len(cells) == 1 and cells[0].isspace())
