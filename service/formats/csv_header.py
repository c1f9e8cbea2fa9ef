"""The header of a table: which of its cells name the columns of a model, however they are written.

"Sepal_Length", "sepal length (cm)", "Sepal.Length" and "SepalLengthCm" are sepal_length, whose unit
is cm; "sepal length (inch)" is refused. A name is never guessed: each has one cell, or it is an
error.
"""

import difflib
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import lru_cache

from msgspec import Struct

from service.engine.model import Model
from service.errors import InvalidInput
from service.formats.csv_cells import value_of
from service.words import shown

# What stands between words, but not in numbers: x_1_1 is not x_11, nor t-1 t1.
_BETWEEN = re.compile(r"(?<![0-9])[\s_]+|[\s_]+(?![0-9])|(?<=[^\W\d_])[.-](?=[^\W\d_])")
MOST_OTHERS = 10_000  # cells of a request's header beside those of the columns
_LONGEST = 200  # characters of a name that is compared otherwise than as it stands


class Header(Struct, frozen=True):
    """What the cells of a header are."""

    width: int  # of the header, and of each row below it
    places: list[int]  # the cell of each column of the model; none where they have no names
    kept: list[int]  # the cells of other names
    kept_names: list[str]

    @property
    def is_as_rows(self) -> bool:
        """Whether what stands below is in the order of the model, with nothing beside it."""
        return self.places == list(range(self.width)) or not self.places

    def cells(self, row: Sequence[str]) -> Sequence[str]:
        """Return the cells of a row in the order of the model's columns."""
        return [row[place] for place in self.places] if self.places else row


class _Name(Struct, frozen=True):
    """A name, without what people write in different ways."""

    whole: str
    base: str  # without the unit
    unit: str  # "" if none is said
    text: str = ""  # as it stands

    @property
    def ways(self) -> tuple[str, str]:
        """How it may be written."""
        return self.whole, self.base

    @property
    def with_unit(self) -> str:
        """The name with its unit behind it."""
        return self.base + _folded(self.unit)


def header_of(cells: Sequence[str], model: Model, where: str) -> Header:
    """Return what the cells of a header are; those of other names are no columns of the model.

    Raises InvalidInput unless each column has exactly one.
    """
    width = len(cells)
    if model.column_names:
        places = _places(cells, model, where)
        kept = sorted(set(range(width)).difference(places))
        return Header(width, places, kept, [cells[place] for place in kept])
    if not model.has_open_rows and width != model.row_size:
        raise InvalidInput(f"{where}: expected a header of {model.row_size} columns, got {width}")
    return Header(width, [], [], [])


def check_width(cells: Sequence[str], model: Model, where: str) -> None:
    """Raise InvalidInput for more cells than a request may have in a header."""
    if len(cells) > (most := model.row_size + MOST_OTHERS):
        raise InvalidInput(f"{where}: expected at most {most} columns, got {len(cells)}")


def has_numbers_as_names(model: Model) -> bool:
    """Whether a header of the model is a row too, as of years."""
    names = model.column_names
    return bool(names) and all(isinstance(value_of(each), int | float) for each in names)


def named(cells: Sequence[str], model: Model) -> int:
    """Return how many columns of a model some cell seems to name, in another unit too."""
    said = {*cells, *(way for cell in cells for way in _name(cell).ways)} - {""}
    return sum(
        not said.isdisjoint((name, *column.ways, column.with_unit))
        for name, column in zip(model.column_names, _columns(model), strict=True)
    )


def _places(cells: Sequence[str], model: Model, where: str) -> list[int]:
    """Return the cell of each column."""
    exact, alike = defaultdict[str, list[int]](list), defaultdict[str, list[int]](list)
    names = [_name(cell) for cell in cells]
    for place, cell in enumerate(cells):
        exact[cell].append(place)
        for way in {*names[place].ways} - {""}:
            alike[way].append(place)
    known = set(model.column_names)
    places = []
    for name, column in zip(model.column_names, _columns(model), strict=True):
        found = exact.get(name) or [
            place
            for place in sorted({*alike[column.base], *alike[column.with_unit]})
            if cells[place] not in known and _is(names[place], column)
        ]
        if len(found) > 1:
            raise InvalidInput(f"{where}: expected one column {name}, got {len(found)}")
        if not found:
            raise _missing(name, column, [each for each in cells if each not in known], where)
        places += found
    place, count = Counter(places).most_common(1)[0]
    if count > 1:
        got = f"{shown(cells[place])} for {count} of them"
        raise InvalidInput(f"{where}: expected a column for each name, got {got}")
    return places


def _is(name: _Name, column: _Name) -> bool:
    """Whether a name is that of a column. One that says a unit says that of the column."""
    if name.whole == column.whole:
        return True
    if name.whole == column.with_unit and _is_unit(name.text[-len(column.unit) :], column.unit):
        return True
    return name.base == column.base and (not name.unit or _is_unit(name.unit, column.unit))


def _missing(name: str, column: _Name, others: Sequence[str], where: str) -> InvalidInput:
    """Return the error that no cell has a name, with the other one that may have been meant."""
    for cell in others:
        said = _name(cell)
        is_other = (said.base == column.base and said.unit) or said.whole == column.with_unit
        if column.unit and is_other:
            expected = f"expected {name} in {column.unit}"
            return InvalidInput(f"{where}: {expected}, got {shown(cell)}")
    near = difflib.get_close_matches(name, others, n=1)
    hint = f"; is it {shown(near[0])}?" if near else ""
    return InvalidInput(f"{where}: expected a column {name}, got none{hint}")


def _columns(model: Model) -> tuple[_Name, ...]:
    """Return the names of a model's columns, with the units that its card says."""
    units = {each.name: each.unit for each in model.card.features} if model.card else {}
    return _with_units(tuple((name, units.get(name, "")) for name in model.column_names))


@lru_cache
def _with_units(names: tuple[tuple[str, str], ...]) -> tuple[_Name, ...]:
    return tuple(_of_model(*each) for each in names)


def _name(text: str, unit: str = "") -> _Name:
    if len(text) > _LONGEST:
        return _Name("", "", "")
    base, said = _cut(text)
    return _Name(_folded(text), _folded(base), unit or said, text.strip())


def _of_model(name: str, unit: str) -> _Name:
    """Return the name of a column; brackets in it are a unit only if the card says that unit."""
    cut = _name(name, unit)
    _, said = _cut(name)
    return cut if said == unit else _Name(cut.whole, cut.whole, unit, cut.text)


def _is_unit(said: str, unit: str) -> bool:
    """Whether two units are the same: CM is cm, but MW is not mW, nor g G."""
    said, unit = "".join(said.split()), "".join(unit.split())
    if said == unit or (unit.islower() and len(unit) > 1 and said == unit.capitalize()):
        return True  # LengthMm
    is_safe = len(unit) > 1 and unit[0].lower() not in "mp"  # milli and mega, pico and peta
    return is_safe and said.casefold() == unit.casefold()


def _cut(text: str) -> tuple[str, str]:
    """Return a name and the unit that stands behind it in brackets."""
    text = text.strip()
    for opening, closing in ("()", "[]"):
        if text.endswith(closing):
            base, bracket, unit = text[:-1].rpartition(opening)
            if bracket and base.strip():
                return base, unit
    return text, ""


def _folded(text: str) -> str:
    """Return a name in lower case, without what stands between its words."""
    return _BETWEEN.sub("", text.strip().casefold())
