"""How a table was written: what separates its cells, and what marks the decimals in them.

RFC 4180 says commas. Spreadsheets write semicolons where commas mark decimals, tabs, and a first
line sep=; that says it. The first lines decide, so that a file is read alike from wherever it goes
on. A number that may be two, as 1,234 where nothing says what its comma marks, is refused.
"""

import csv
import re
from collections.abc import Iterable, Sequence
from itertools import islice

import numpy as np

from service.engine.columns import Column
from service.engine.model import Model
from service.errors import InvalidInput
from service.formats.csv_cells import columns_of, value_as
from service.formats.csv_header import named
from service.words import shown

SEPARATORS = ",;\t"  # the likeliest first
_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs"}
_FITS = 3  # the most sense that a line makes: it is a row, or a header that names columns
HEAD_ROWS = 64  # of a table, in which it says what marks decimals
_SAID = re.compile(r'"?sep=(.?)"?', re.IGNORECASE)
# A number, by what marks its decimals.
_MARKS = {
    mark: re.compile(rf"[+-]?[0-9]*{re.escape(mark)}[0-9]+(?:[eE][+-]?[0-9]+)?") for mark in ",."
}
_THOUSANDS = re.compile(r"[+-]?[1-9][0-9]{0,2}[.,][0-9]{3}")  # or a number of three decimals


def said_separator(line: str) -> str:
    """Return what the line sep=; says that stands first in a file, "" if it is another line.

    Raises InvalidInput.
    """
    found = _SAID.fullmatch(line.strip("\r\n "))
    if found is None:
        return ""
    if found[1] not in (*SEPARATORS, "|"):
        got = shown(found[0])
        raise InvalidInput(f"line 1: expected sep= with a comma, semicolon, tab or bar, got {got}")
    return found[1]


def separator_of(line: str, model: Model) -> str:
    """Return what separates the cells of the first line of a table.

    It is a comma, unless with another one more of the line makes sense. Raises InvalidInput for a
    line that is one of the model with either.
    """
    others = [each for each in SEPARATORS[1:] if each in line]
    if not others:
        return ","
    sense = {each: _sense(line, each, model) for each in (",", *others)}
    fitting = [each for each, most in sense.items() if most == _FITS]
    if len(fitting) > 1:
        names = " and with ".join(_NAMES[each] for each in fitting)
        raise InvalidInput(
            f"line 1: expected CSV, got {shown(line.strip())}, which fits the model with {names}: "
            f"write sep={fitting[0]} or sep={fitting[1]} before it, or quote what is one cell"
        )
    return max(sense, key=lambda each: sense[each])


def cells_of(line: str, separator: str) -> list[str]:
    """Return the cells of a line, however badly they are quoted."""
    try:
        cells = next(csv.reader([line], delimiter=separator), [])
    except csv.Error:
        cells = line.split(separator)
    return [each.strip() for each in cells]


def is_row(cells: Sequence[str], separator: str, model: Model) -> bool:
    """Whether cells are values of all columns of a row."""
    columns = columns_of(model, len(cells))
    return len(columns) == len(cells) and all(
        _is_value(cell, each, separator) for cell, each in zip(cells, columns, strict=True)
    )


def is_words(cells: Sequence[str], model: Model) -> bool:
    """Whether none of the cells is like a value, but for those that may hold any text."""
    columns = columns_of(model, len(cells))
    if len(columns) != len(cells):
        columns = [Column("", np.float64)] * len(cells)
    others = [pair for pair in zip(cells, columns, strict=True) if pair[1].dtype is not np.object_]
    return bool(others) and not any(_is_value(*pair, ";") for pair in others)


def decimal_of(rows: Iterable[Sequence[str]], is_number: Sequence[bool]) -> str:
    """Return what marks decimals, by the first number that shows it; "" if none does.

    is_number: which cells of a row are to be numbers.
    """
    for cells in islice(rows, HEAD_ROWS):
        for cell, is_one in zip(cells, is_number, strict=False):
            text = cell.strip()
            if not is_one or _THOUSANDS.fullmatch(text):
                continue
            if found := [mark for mark, form in _MARKS.items() if form.fullmatch(text)]:
                return found[0]
    return ""


def with_point(cell: str, decimal: str, where: str) -> str:
    """Return what a cell says, with a point where a comma marks decimals.

    Raises InvalidInput for a number that may be two.
    """
    text = cell.strip()
    has_comma = _MARKS[","].fullmatch(text) is not None
    if has_comma and decimal == ",":
        return text.replace(",", ".")
    if not has_comma and not (decimal == "," and _MARKS["."].fullmatch(text)):
        return cell
    if decimal:
        why = f", but elsewhere {'a comma' if decimal == ',' else 'a point'} marks decimals"
    else:
        why = f": write {text.replace(',', '.')}"
        why += f" or {text.replace(',', '')}" if _THOUSANDS.fullmatch(text) else ""
    raise InvalidInput(f"{where}: expected a number, got {shown(cell)}{why}")


def _sense(line: str, separator: str, model: Model) -> int:
    """Return how much sense the cells of a line make that are separated so."""
    cells = cells_of(line, separator)
    if is_row(cells, separator, model) or named(cells, model):
        return _FITS
    number = Column("", np.float64, takes_missing=True)
    if len(cells) > 1 and any(cells) and all(_is_value(each, number, separator) for each in cells):
        return 2  # a row that is too short or too long
    return int(len(columns_of(model, len(cells))) == len(cells))


def _is_value(cell: str, column: Column, separator: str) -> bool:
    value = value_as(cell, column.dtype, takes_missing=column.takes_missing)
    if isinstance(value, str) and np.dtype(column.dtype).kind in "fiu":
        return separator != "," and _MARKS[","].fullmatch(cell) is not None
    return column.dtype is np.object_ or not isinstance(value, str)
