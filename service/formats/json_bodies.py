"""JSON bodies: short ones by json_fast.py, the instances of long ones in blocks, in a thread."""

import codecs
import contextlib
import re
from collections.abc import Callable
from functools import cache
from typing import Any, TypeAlias

import msgspec
import numpy as np
from msgspec import UNSET, Raw, UnsetType
from msgspec.structs import replace
from numpy.typing import NDArray

from service.engine.model import Model
from service.errors import InvalidInput
from service.formats import json_fast
from service.formats.images.decode import Reader, reader_for
from service.formats.json_blocks import LONG, Text, parts
from service.formats.json_fast import JsonMessage
from service.formats.json_rows import (
    Instances,
    check_fields,
    expected_instance,
    refuse_at_a_glance,
    row_or_image,
    unknown_field,
)
from service.formats.json_text import decoded, parsed
from service.formats.message import Fields, Limits, Slow, gathered
from service.formats.numbers import Unfit

_MOST_BYTES = 8192  # of what stands beside the instances
# What a large instance may have before it is decoded.
_SOME_FIELDS = 16  # beyond those of the model
_LONGEST_VALUE = 512  # bytes, with its name and space
_PER_ESCAPE = 16  # bytes: base64 has some where its lines end
_INSTANCES = re.compile(rb'"instances"[ \t\r\n]*:[ \t\r\n]*(?=\[)')
_IMAGE = re.compile(rb'"b64"')
_Value: TypeAlias = str | float | bool | None
# An element and its place -> an instance. Raises InvalidInput.
Arrange: TypeAlias = Callable[[Any, str], Any]
_check_flat = msgspec.json.Decoder(list[list[_Value] | dict[str, _Value] | _Value]).decode
_ANY_COUNT = 2**62
_decoder = msgspec.json.Decoder(dict[str, Raw])
_count_of = msgspec.json.Decoder(list[Raw])
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`$", re.DOTALL)  # msgspec's


class LongMessage:
    """A JSON object whose instances are a text."""

    needs_images = False

    def __init__(self, fields: Fields, instances: Text) -> None:
        self.fields = fields
        self._instances = instances

    def rows(self, model: Model, limits: Limits) -> NDArray[Any]:
        """Return the instances as rows; see Message."""
        if limits.in_loop:
            raise Slow
        return rows_of_text(self._instances, "instances", model, limits)


def rows_of_text(
    text: Text,
    where: str,
    model: Model,
    limits: Limits,
    arrange: Arrange = lambda value, where: value,
    *,
    is_arranged: bool = True,
) -> NDArray[Any]:
    """Return the elements of a JSON list as rows of a model, read in blocks; see Message.

    arrange: makes an instance of an element; is_arranged: whether one that is an instance is taken
    as it is.
    """
    images = sum(1 for _ in _IMAGE.finditer(text))
    reader = reader_for(model, limits) if images else None
    elements = _Instances(where, model, limits, reader, arrange, is_arranged=is_arranged)
    most = images + len(text) // (2 * model.row_size) + 1  # a value takes two bytes
    rows = gathered(parts(text, elements, where, limits.deadline), most, model, limits)
    if not len(rows):
        raise InvalidInput(f"{where}: expected at least one instance, got an empty list")
    return rows


class _Instances:
    """What the elements of the instances are read as: rows of a model.

    Those beyond the rows of one request are counted alone.
    """

    def __init__(
        self,
        where: str,
        model: Model,
        limits: Limits,
        reader: Reader | None,
        arrange: Arrange,
        *,
        is_arranged: bool,
    ) -> None:
        self._where = where
        self._model = model
        self._limits = replace(limits, max_rows=_ANY_COUNT)  # it is checked when all are counted
        self._most = limits.max_rows
        self._count = 0  # of those that were read
        self._reader = reader
        self._arrange = arrange
        self._is_arranged = is_arranged

    def fast(self, block: bytes) -> NDArray[Any]:
        rows: NDArray[Any]
        if self._count >= self._most:
            rows = np.zeros(len(_count_of.decode(block)), np.bool_)  # nobody looks at them
        elif not self._is_arranged:
            raise Unfit
        else:
            rows = json_fast.read_lists(block, self._model, self._limits)
        self._count += len(rows)
        return rows

    def slow(self, value: Any, index: int) -> Any:
        self._count = index + 1
        if index >= self._most:
            return None
        where = f"{self._where}[{index}]"
        return row_or_image(self._arrange(value, where), where, self._model, self._reader)

    def check_large(self, text: bytes, index: int) -> None:
        model = self._model
        if model.has_open_rows:
            return  # its size is for the model to judge
        expected = f"{self._where}[{index}]: expected {expected_instance(model)}"
        if model.row_dtype is np.object_:  # strings may be long, and lists in them are none
            with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
                _check_flat(text)
                return
        if b'"' not in text and (numbers := text.count(b",") + 1) > self._model.row_size:
            raise InvalidInput(f"{expected}, got {numbers} numbers")
        most = len(text) if self._reader else self._model.row_size * _LONGEST_VALUE
        if (
            (b'"' in text and len(text) > most)
            or text.count(b":") > len(self._model.column_names) + _SOME_FIELDS
            or text.count(b"\\") * _PER_ESCAPE > len(text)
        ):
            raise InvalidInput(f"{expected}, got {len(text)} bytes of something else")


def read(
    body: bytes, known: frozenset[str], content_type: str = "application/json"
) -> JsonMessage | Instances | LongMessage:
    """Take a body apart: an object of no other fields than those known. Raises InvalidInput."""
    if len(body) <= LONG:
        return json_fast.read(body, known)
    found = _without_lists(body)
    if found is not None:
        fields, instances = found
        check_fields(fields, "a JSON object", known)
        return LongMessage(fields, instances)
    refuse_at_a_glance(body)
    texts = texts_of(body, known)
    text = texts.pop("instances", UNSET)
    fields = values_of(texts)
    if text is UNSET:
        return Instances(fields, UNSET, len(body), may_hold_images=False)
    check_list(text, "instances")
    return LongMessage(fields, memoryview(text))


def texts_of(text: bytes | Raw, known: frozenset[str]) -> dict[str, Raw]:
    """Return the fields of an object as they stand. One that is not known is found at once.

    An object may have so many that reading them all holds the process. Raises InvalidInput,
    UnknownField.
    """
    body = memoryview(text)
    if bytes(body[:3]) == codecs.BOM_UTF8 and bytes(body[3:6]) != codecs.BOM_UTF8:
        body = body[3:]
    try:
        document = _decoder_of(known)(body)
    except msgspec.ValidationError as error:
        if found := _UNKNOWN.match(str(error)):
            raise unknown_field(found[1], known) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    else:
        texts = {name: getattr(document, name) for name in known}
        return {name: text for name, text in texts.items() if text is not UNSET}
    return check_fields(decoded(body, _decoder), "a JSON object", known)


@cache
def _decoder_of(known: frozenset[str]) -> Callable[[Text], Any]:
    """Return what decodes an object of fields that are known, but not what stands in them."""
    fields: list[Any] = [(name, Raw | UnsetType, UNSET) for name in known]
    document = msgspec.defstruct("Body", fields, forbid_unknown_fields=True)
    return msgspec.json.Decoder(document).decode


def _without_lists(body: bytes) -> tuple[dict[str, Any], Text] | None:
    """Return the fields of a body with nothing but lists as instances, and the text of those.

    None for another body. From the first bracket to the last no other field stands, as there is no
    quotation mark.
    """
    found = _INSTANCES.search(body, 0, _MOST_BYTES + 1)
    if found is None:
        return None
    start, stop = found.end(), body.rfind(b"]") + 1
    if body.find(b'"', start, stop) >= 0 or len(body) - (stop - start) > _MOST_BYTES:
        return None
    rest = b"%b0%b" % (body[:start], body[stop:])
    try:
        fields = msgspec.json.decode(rest, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if b"\\" in rest or rest.count(b'"instances"') != 1 or fields.pop("instances", None) != 0:
        return None
    return fields, memoryview(body)[start:stop]


def check_list(text: Raw, where: str, of: str = "instances") -> None:
    """Raise InvalidInput for a JSON value that is no list."""
    if (first := memoryview(text)[0]) != ord("["):
        got = {ord("{"): "an object", ord('"'): "a string"}.get(first, "something else")
        raise InvalidInput(f"{where}: expected a list of {of}, got {got}")


def values_of(texts: dict[str, Raw]) -> dict[str, Any]:
    """Return what is said beside the instances. Raises InvalidInput."""
    for name, text in texts.items():
        if len(text) > _MOST_BYTES:
            raise InvalidInput(f"{name}: expected at most {_MOST_BYTES} bytes, got {len(text)}")
    return {name: parsed(bytes(text), name) for name, text in texts.items()}
