"""MLflow's scoring protocol: a data frame, or tensors, in an object of JSON.

Sources, as of MLflow 3: "Inference Server Specification" in "Deploy MLflow Model as a Local
Inference Server", and `dump_input_data`, which its client writes bodies with: NaN for what is
missing, as Python does. Columns of other names are passed over, as MLflow does where a model has a
signature, and so are `params`: no model here takes any.
"""

import re
from typing import Any

import msgspec
import numpy as np
from msgspec import Raw
from numpy.typing import NDArray

from service.engine.columns import Column
from service.engine.model import Model
from service.errors import InvalidInput, UnknownField
from service.formats import json_fast
from service.formats.csv_header import MOST_OTHERS, Header, check_width, header_of
from service.formats.json_blocks import LONG, parts
from service.formats.json_bodies import check_list, rows_of_text, texts_of, values_of
from service.formats.json_text import decoded, parsed
from service.formats.message import LARGEST_IN_LOOP, Fields, Limits, Slow
from service.formats.turns import Turns, check_deadline
from service.formats.values import fitting
from service.words import shown

_ROWS = ("dataframe_split", "dataframe_records", "inputs", "instances")  # one of them
FIELDS = frozenset({"model", "version", "params", *_ROWS})
_OF_SPLIT = frozenset({"columns", "index", "data"})
_decoder = msgspec.json.Decoder(dict[str, Raw])
_NAN = re.compile(rb'"(?:[^"\\]|\\.?)*+(?:"|\Z)|\bNaN\b', re.DOTALL)  # or a string
# Lists and objects with none in them, what opens, what closes, and what is counted.
_TEXT = rb'"(?:[^"\\]++|\\.)*+"'
_FLAT = rb'[\[{](?:[^"\[\]{}]++|%b)*+[\]}]' % _TEXT
_MARKS = {
    b":": re.compile(rb"(?:%b,?){1,99}+|%b|([\[{])|([\]}])|(:)" % (_FLAT, _TEXT), re.DOTALL),
    b",": re.compile(rb"%b|%b|([\[{])|([\]}])|(,)" % (_FLAT, _TEXT), re.DOTALL),
}


class MlflowMessage:
    """An object of MLflow's: the rows are a text of JSON in the field `name`."""

    needs_images = False

    def __init__(self, fields: Fields, name: str, text: Raw) -> None:
        self.fields = fields
        self._name = name
        self._text = text

    def rows(self, model: Model, limits: Limits) -> NDArray[Any]:
        """Return the rows; see Message."""
        name, text = self._name, self._text
        if limits.in_loop and len(text) > LARGEST_IN_LOOP:
            raise Slow
        if name == "dataframe_split":
            return _of_split(text, model, limits)
        if name == "inputs" and _is_object(text):
            return _of_columns(text, model, limits)
        check_list(text, name, "rows")
        return rows_of_text(memoryview(text), name, model, limits, _Records(model))


def read(body: bytes, known: frozenset[str], content_type: str) -> MlflowMessage:
    """Take a body of MLflow's apart. Raises InvalidInput."""
    texts = _fields(body, known)
    found = [each for each in _ROWS if each in texts]
    if len(found) != 1:
        got = " and ".join(found) or "none"
        raise InvalidInput(f"body: expected one of {', '.join(_ROWS)}, got {got}")
    params = texts.pop("params", None)
    if params is not None and not _is_object(params) and bytes(params) != b"null":
        raise InvalidInput("params: expected an object, got something else")
    text = texts.pop(found[0])
    return MlflowMessage(values_of(texts), found[0], text)


def _fields(body: bytes, known: frozenset[str]) -> dict[str, Raw]:
    try:
        return texts_of(body, known)
    except InvalidInput:
        if len(body) > LONG or b"NaN" not in body:
            raise
    return texts_of(_NAN.sub(lambda each: each[0] if each[0] != b"NaN" else b"null", body), known)


def _is_object(text: Raw) -> bool:
    return memoryview(text)[0] == ord("{")


def _check_few(text: Raw, mark: bytes, model: Model, where: str, deadline: float) -> None:
    """Raise InvalidInput for more columns in a list or an object than `check_width` lets pass.

    What reads so many holds the process. mark: of which the text has one for each of them.
    Raises DeadlineExceeded.
    """
    most = model.row_size + MOST_OTHERS
    if np.count_nonzero(np.frombuffer(text, np.uint8) == ord(mark)) < most:
        return  # nearly always; others may have marks in texts, or further in
    depth, found, give_way = 1, int(mark == b","), Turns()
    for each in _MARKS[mark].finditer(text, 1):
        give_way()
        check_deadline(deadline)
        if each.lastindex == 3:
            found += depth == 1
            if found > most:
                raise InvalidInput(f"{where}: expected at most {most} columns, got more")
        elif each.lastindex:
            depth += 1 if each.lastindex == 1 else -1


class _Records:
    """Takes the columns of a model out of objects, which nearly always have the same names."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._names: tuple[str, ...] = ()
        self._header: Header | None = None

    def __call__(self, value: Any, where: str) -> Any:
        """Return the values of an object in order. Raises InvalidInput."""
        if not isinstance(value, dict) or not self._model.column_names:
            return value
        if self._header is None or self._names != tuple(value):
            self._names = tuple(value)
            check_width(self._names, self._model, where)
            self._header = header_of(self._names, self._model, where)
        return self._header.cells([*value.values()])


def _of_split(text: Raw, model: Model, limits: Limits) -> NDArray[Any]:
    """Return the rows of a data frame that is split into columns, index and data."""
    where = "dataframe_split"
    if not _is_object(text):
        raise InvalidInput(f"{where}: expected an object of columns and data, got something else")
    try:
        texts = texts_of(text, _OF_SPLIT)
    except UnknownField as error:
        raise InvalidInput(f"{where}: {error}") from error
    if "data" not in texts:
        raise InvalidInput(f"{where}.data: expected a list of rows, got no such field")
    check_list(texts["data"], f"{where}.data", "rows")
    header = _header(texts.get("columns"), model, f"{where}.columns", limits.deadline)

    def arrange(value: Any, place: str) -> Any:
        if header is None:
            return value
        if not isinstance(value, list) or len(value) != header.width:
            expected = f"{place}: expected a list of {header.width} values"
            raise InvalidInput(f"{expected}, as there are columns, got {shown(value)}")
        return header.cells(value)

    is_arranged = header is None or header.is_as_rows
    data = memoryview(texts["data"])
    return rows_of_text(data, f"{where}.data", model, limits, arrange, is_arranged=is_arranged)


def _header(text: Raw | None, model: Model, where: str, deadline: float) -> Header | None:
    """Return what the columns of a data frame are; None where they have no names."""
    if text is None:
        return None
    if len(text) > LONG:
        raise InvalidInput(f"{where}: expected at most {LONG} bytes, got {len(text)}")
    if not model.has_open_rows:  # pandas numbers any number of columns
        _check_few(text, b",", model, where, deadline)
    columns = parsed(bytes(text), where)
    if not isinstance(columns, list):
        raise InvalidInput(f"{where}: expected a list of names, got {shown(columns)}")
    if columns == list(range(len(columns))):  # as pandas numbers them
        return None
    if unnamed := [each for each in columns if type(each) not in (str, int)]:
        raise InvalidInput(f"{where}: expected names, got {shown(unnamed[0])}")
    names = [str(each) for each in columns]
    check_width(names, model, where)
    return header_of(names, model, where)


def _of_columns(text: Raw, model: Model, limits: Limits) -> NDArray[Any]:
    """Return the rows of an object that has a tensor for each column, or for the only input."""
    _check_few(text, b":", model, "inputs", limits.deadline)
    texts = decoded(text, _decoder)
    if len(texts) == 1 and len(model.inputs) == 1 and model.input.name in texts:
        where = f"inputs.{model.input.name}"
        check_list(texts[model.input.name], where, "rows")
        return rows_of_text(memoryview(texts[model.input.name]), where, model, limits)
    if not model.column_names:
        expected = f"an object of {', '.join(each.name for each in model.inputs)}"
        raise InvalidInput(f"inputs: expected {expected}, got {shown(texts)}")
    names = [*texts]
    check_width(names, model, "inputs")
    places = header_of(names, model, "inputs").places
    found = [
        _values_of(texts[names[place]], f"inputs.{names[place]}", column, limits)
        for place, column in zip(places, model.columns, strict=True)
    ]
    counts = sorted({len(each) for each in found})
    if len(counts) > 1:
        got = " and ".join(map(str, counts))
        raise InvalidInput(f"inputs: expected as many values in each column, got {got}")
    if not counts[0]:
        raise InvalidInput("inputs: expected at least one value in each column, got none")
    rows = np.empty((counts[0], len(found)), model.row_dtype)
    for place, values in enumerate(found):
        rows[:, place] = values
    return model.rows_of(rows)


def _values_of(text: Raw, where: str, column: Column, limits: Limits) -> NDArray[Any]:
    """Return the values of a column (n,)."""
    check_list(text, where, "values")
    found, count = [np.empty(0, column.dtype)], 0
    for part in parts(memoryview(text), _Values(where, column), where, limits.deadline):
        count += len(part)
        limits.check_count(count)
        found.append(np.array(part, column.dtype))
    return np.concatenate(found)


class _Values:
    """What the elements of a column are read as: values, each of which may be in a list."""

    def __init__(self, where: str, column: Column) -> None:
        self._where = where
        self._column = column

    def fast(self, block: bytes) -> NDArray[Any]:
        return json_fast.read_elements(block, (), self._column.dtype)

    def slow(self, value: Any, index: int) -> Any:
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        where, takes_missing = f"{self._where}[{index}]", self._column.takes_missing
        return fitting(value, where, self._column.dtype, takes_missing=takes_missing)

    def check_large(self, text: bytes, index: int) -> None:
        if not text.startswith(b'["'):
            raise InvalidInput(f"{self._where}[{index}]: expected a value, got {len(text)} bytes")
