"""JSON instances -> rows, value by value: the definition of what is accepted.

It finds the words for what is not, with the place of the first thing that does not fit.
"""

import base64
import binascii
from collections.abc import Collection
from typing import Any

import numpy as np
from msgspec import UNSET
from numpy.typing import NDArray

from service.engine.columns import RowForm
from service.engine.model import Model
from service.errors import InvalidInput, UnknownField
from service.formats.images import limits as image_limits
from service.formats.images.decode import Reader, image_of, reader_for
from service.formats.json_text import parsed
from service.formats.message import LARGEST_IN_LOOP, Fields, Limits, Slow
from service.formats.numbers import all_fit
from service.formats.values import fitting, in_words
from service.words import did_you_mean, quoted, shown

EXAMPLE = '{"model": ..., "instances": [...]}'
_KINDS: dict[type[np.generic], str] = {np.object_: "strings", np.bool_: "booleans"}
_CHUNK = 2**18  # characters of base64 that are decoded at a time: nobody else runs meanwhile
# The alphabet for URLs; with a character of the other one beside it, it is neither.
_FROM_URL_SAFE = str.maketrans("-_+/", "+/??")


class Instances:
    """A message whose instances are Python objects; `size` is that of its body in bytes."""

    needs_images = False

    def __init__(self, fields: Fields, instances: Any, size: int, may_hold_images: bool) -> None:
        self.fields = fields
        self._instances = instances
        self._size = size
        self._may_hold_images = may_hold_images

    def rows(self, model: Model, limits: Limits) -> NDArray[Any]:
        """Return the instances as rows; see Message."""
        if limits.in_loop and self._size > LARGEST_IN_LOOP:
            raise Slow
        reader = reader_for(model, limits) if self._may_hold_images else None
        return slow_rows(self._instances, model, limits, reader)


def parse(body: bytes, known: frozenset[str]) -> dict[str, Any]:
    """Return the body as a JSON object with known fields. Raises InvalidInput."""
    refuse_at_a_glance(body)
    return check_fields(parsed(body, "body"), "a JSON object", known)


def refuse_at_a_glance(body: bytes) -> None:
    """Raise InvalidInput for what is surely no JSON."""
    if not body.strip():
        raise InvalidInput(f"body: expected a JSON object {EXAMPLE}, got nothing")
    if image_limits.is_image(body):
        raise InvalidInput(
            'body: expected JSON, got an image: send {"instances": [{"b64": ...}]}, or the image '
            "to /predict with Content-Type: image/png"
        )


def check_fields(document: Any, expected: str, known: frozenset[str]) -> dict[str, Any]:
    """Return a decoded body, if it is an object of known fields.

    Raises InvalidInput, UnknownField.
    """
    if not isinstance(document, dict):
        raise InvalidInput(f"body: expected {expected} {EXAMPLE}, got {shown(document)}")
    for field in document:
        if field not in known:
            raise unknown_field(str(field), known)
    return document


def unknown_field(field: str, known: Collection[str]) -> UnknownField:
    """Return the error that a body has a field that is none of those known."""
    return UnknownField(f"{quoted(field)}: unknown field{did_you_mean(field, known)}", field)


def slow_rows(
    instances: Any, model: Model, limits: Limits, reader: Reader | None = None
) -> NDArray[Any]:
    """Return instances as rows (n, ...) of the model's dtype and row shape.

    `reader` reads those that are {"b64": ...}. Raises InvalidInput with the place of the first
    thing that does not fit, and TooLarge.
    """
    rows = [
        row_or_image(each, f"instances[{index}]", model, reader)
        for index, each in enumerate(check_instances(instances, limits))
    ]
    return model.rows_of(rows)


def check_instances(instances: Any, limits: Limits) -> list[Any]:
    """Return a list that is not too long. Raises InvalidInput, TooLarge."""
    expected = "instances: expected a list of instances"
    if instances is UNSET:
        raise InvalidInput(f"{expected}, got no such field")
    if not isinstance(instances, list):
        raise InvalidInput(f"{expected}, got {shown(instances)}")
    if not instances:
        raise InvalidInput("instances: expected at least one instance, got an empty list")
    limits.check_count(len(instances))
    return instances


def row_or_image(instance: Any, where: str, model: Model, reader: Reader | None) -> Any:
    """Return one instance as its values in order, those of an image if it is {"b64": ...}.

    Raises InvalidInput with its place, and what `Reader.read` raises.
    """
    if reader is not None and isinstance(instance, dict) and instance.keys() == {"b64"}:
        place = f"{where}.b64"
        return reader.read(_decoded(instance["b64"], place), place)
    if reader is not None and isinstance(instance, bytes):
        return reader.read(instance, where)
    return row(instance, where, model)


def row(instance: Any, where: str, model: Model) -> Any:
    """Return one instance as its values in order, as an array where its shape is open.

    Raises InvalidInput with its place.
    """
    names, form, size = model.column_names, model.form, model.row_size
    if isinstance(instance, dict) and names:
        return _named_row(instance, where, form)
    if form.is_open:
        return _open_row(instance, where, model)
    if size == 1 and not isinstance(instance, list | dict):  # a row of one value is that value
        return [_value(instance, where, form, 0)]
    if not isinstance(instance, list):
        raise InvalidInput(f"{where}: expected {expected_instance(model)}, got {shown(instance)}")
    if len(instance) == size and not isinstance(instance[0], list):
        if all_fit(instance, form.dtype):
            return instance
        return [
            _value(value, f"{where}.{names[index]}" if names else f"{where}[{index}]", form, index)
            for index, value in enumerate(instance)
        ]
    shape = model.row_shape
    if len(shape) > 1 and instance and isinstance(instance[0], list):
        return _nested_row(instance, where, shape, form)
    raise InvalidInput(f"{where}: expected {expected_instance(model)}, got {shown(instance)}")


def _value(value: Any, where: str, form: RowForm, index: int) -> Any:
    """Return a value of a row at its place. Raises InvalidInput."""
    if not form.columns:
        return fitting(value, where, form.dtype, takes_missing=form.takes_missing)
    column = form.columns[index]
    return fitting(value, where, column.dtype, takes_missing=column.takes_missing)


def _decoded(text: Any, where: str) -> bytes:
    """Return the bytes that base64 says, also in a data: URL. Raises InvalidInput.

    It may be of either alphabet (RFC 4648, sections 4 and 5), in lines, and without its padding.
    """
    expected = f"{where}: expected a PNG or JPEG image in base64"
    if not isinstance(text, str):
        raise InvalidInput(f"{expected}, got {shown(text)}")
    if text[:5].lower() == "data:":
        head, comma, text = text.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            raise InvalidInput(f"{expected}, got {shown(head[:40])}")
    plain = text
    if "\n" in text or "\r" in text:  # as base64 and Python's encodebytes write it
        plain = "".join(map(str.strip, plain.replace("\r", "\n").split("\n")))
    if len(plain) % 4 and not plain.endswith("="):
        plain += "=" * (-len(plain) % 4)
    try:
        chunks = (plain[start : start + _CHUNK] for start in range(0, len(plain), _CHUNK))
        if "-" in plain or "_" in plain:
            chunks = (each.translate(_FROM_URL_SAFE) for each in chunks)
        return b"".join(base64.b64decode(each, validate=True) for each in chunks)
    except (binascii.Error, ValueError) as error:
        raise InvalidInput(f"{expected}, got {shown(text)}: {error}") from error


def _named_row(instance: dict[str, Any], where: str, form: RowForm) -> list[Any]:
    columns = form.columns
    if not {each.name for each in columns}.issuperset(instance):
        names = [each.name for each in columns]
        name = next(str(name) for name in instance if name not in names)
        hint = did_you_mean(name, names)
        raise InvalidInput(f"{where}: {quoted(name)}: unknown feature{hint}")
    for each in columns:
        if each.name not in instance:
            expected = in_words(each.dtype)
            raise InvalidInput(f"{where}.{each.name}: expected {expected}, got no such field")
    return [
        fitting(
            instance[each.name],
            f"{where}.{each.name}",
            each.dtype,
            takes_missing=each.takes_missing,
        )
        for each in columns
    ]


def _nested_row(array: Any, where: str, shape: tuple[int, ...], form: RowForm) -> list[Any]:
    if not shape:
        return [fitting(array, where, form.dtype, takes_missing=form.takes_missing)]
    if not isinstance(array, list) or len(array) != shape[0]:
        raise InvalidInput(f"{where}: expected a list of {shape[0]}, got {shown(array)}")
    if len(shape) == 1 and all_fit(array, form.dtype):
        return array
    values: list[Any] = []
    for index, inner in enumerate(array):
        values += _nested_row(inner, f"{where}[{index}]", shape[1:], form)
    return values


def _open_row(instance: Any, where: str, model: Model) -> NDArray[Any]:
    """Return nested lists as an array; the first list of each depth says its size."""
    sizes: list[int] = []
    inner = instance
    for size in model.row_dims:
        if not isinstance(inner, list) or size not in (-1, len(inner)):
            raise InvalidInput(
                f"{where}: expected {expected_instance(model)}, got {shown(instance)}"
            )
        sizes.append(len(inner))
        inner = inner[0] if inner else []
    values = _nested_row(instance, where, tuple(sizes), model.form)
    array = np.empty(len(values), model.row_dtype)
    array[:] = values
    return array.reshape(sizes)


def expected_instance(model: Model) -> str:
    """Return what an instance of a model is, in words."""
    names, shape = model.column_names, model.row_shape
    kind = _KINDS.get(model.row_dtype, "numbers")
    if model.form.columns and len({each.dtype for each in model.columns}) > 1:
        kind = "values"
    if model.has_open_rows:
        if len(shape) == 1:
            return f"a list of {kind}"
        sizes = " x ".join("any" if size == -1 else str(size) for size in shape)
        return f"nested lists of {sizes} {kind}"
    text = f"a list of {model.row_size} {kind}"
    if names:
        listed = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
        return f"{text} or an object of {listed}"
    if len(shape) > 1:
        text += f" or nested lists of {' x '.join(map(str, shape))}"
    return text + (' or {"b64": a PNG or JPEG}' if image_of(model) else "")
