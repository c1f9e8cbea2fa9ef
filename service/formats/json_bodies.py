"""JSON bodies: short ones by json_fast.py, the instances of long ones in blocks, in a thread."""

import contextlib
import re
from typing import Any, TypeAlias

import msgspec
import numpy as np
from msgspec import UNSET, Raw
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
    check_instances,
    expected_instance,
    refuse_at_a_glance,
    row_or_image,
)
from service.formats.json_text import decoded, parsed
from service.formats.message import Fields, Limits, Slow, gathered

_MOST_BYTES = 8192  # of what stands beside the instances
# What a large instance may have before it is decoded.
_SOME_FIELDS = 16  # beyond those of the model
_LONGEST_VALUE = 512  # bytes, with its name and space
_PER_ESCAPE = 16  # bytes: base64 has some where its lines end
_INSTANCES = re.compile(rb'"instances"[ \t\r\n]*:[ \t\r\n]*(?=\[)')
_IMAGE = re.compile(rb'"b64"')
_Value: TypeAlias = str | float | bool | None
_check_flat = msgspec.json.Decoder(list[list[_Value] | dict[str, _Value] | _Value]).decode
_ANY_COUNT = 2**62
_decoder = msgspec.json.Decoder(dict[str, Raw])


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
        text = self._instances
        images = sum(1 for _ in _IMAGE.finditer(text))
        elements = _Instances(model, limits, reader_for(model, limits) if images else None)
        most = images + len(text) // (2 * model.row_size) + 1  # a value takes two bytes
        found = parts(text, elements, "instances", limits.deadline)
        rows = gathered(found, most, model, limits)
        if not len(rows):
            check_instances([], limits)
        return rows


class _Instances:
    """What the elements of the instances are read as: rows of a model."""

    def __init__(self, model: Model, limits: Limits, reader: Reader | None) -> None:
        self._model = model
        self._limits = replace(limits, max_rows=_ANY_COUNT)  # it is checked when all are counted
        self._reader = reader

    def fast(self, block: bytes) -> NDArray[Any]:
        return json_fast.read_lists(block, self._model, self._limits)

    def slow(self, value: Any, index: int) -> Any:
        return row_or_image(value, f"instances[{index}]", self._model, self._reader)

    def check_large(self, text: bytes, index: int) -> None:
        model = self._model
        if model.has_open_rows:
            return  # its size is for the model to judge
        expected = f"instances[{index}]: expected {expected_instance(model)}"
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
    texts = check_fields(decoded(body, _decoder), "a JSON object", known)
    text = texts.pop("instances", UNSET)
    fields = _values(texts)
    if text is UNSET:
        return Instances(fields, UNSET, len(body), may_hold_images=False)
    view = memoryview(text)
    if view[0] != ord("["):
        raise InvalidInput(f"instances: expected a list of instances, got {_kind(view[0])}")
    return LongMessage(fields, view)


def _without_lists(body: bytes) -> tuple[dict[str, Any], Text] | None:
    """Return the fields of a body with nothing but lists as instances, and the text of those.

    None for another body. From the first bracket to the last no other field stands, as there is no
    quotation mark.
    """
    found = _INSTANCES.search(body)
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


def _kind(first: int) -> str:
    """Return what a JSON value is that is no list, by its first character."""
    return {ord("{"): "an object", ord('"'): "a string"}.get(first, "something else")


def _values(texts: dict[str, Raw]) -> dict[str, Any]:
    """Return what is said beside the instances. Raises InvalidInput."""
    for name, text in texts.items():
        if len(text) > _MOST_BYTES:
            raise InvalidInput(f"{name}: expected at most {_MOST_BYTES} bytes, got {len(text)}")
    return {name: parsed(bytes(text), name) for name, text in texts.items()}
