"""MessagePack: the object of /predict in a body, an instance after the other in a file.

https://github.com/msgpack/msgpack/blob/master/spec.md
"""

import contextlib
import io
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, BinaryIO, TypeAlias

import msgspec
import numpy as np
from msgspec import UNSET, Raw, Struct, UnsetType
from numpy.typing import NDArray

from service.engine.model import Model
from service.errors import InvalidInput, RequestError
from service.formats.images.decode import image_of, reader_for
from service.formats.json_lines import InstanceOfFile
from service.formats.json_rows import EXAMPLE, check_fields, check_instances, row_or_image
from service.formats.lines import Bad, Options, Row, Tape
from service.formats.message import LARGEST_IN_LOOP, Fields, Limits, Slow
from service.formats.turns import Turns

_decode = msgspec.msgpack.Decoder().decode
_decode_fields = msgspec.msgpack.Decoder(dict[str, Raw]).decode  # not what stands in them
_decode_list = msgspec.msgpack.Decoder(list[Raw]).decode

_Value: TypeAlias = str | float | bool | None
_decode_flat = msgspec.msgpack.Decoder(list[_Value] | dict[str, _Value]).decode  # without lists

# An empty list takes one byte here and 64 in memory: 16 MB of them would take 1 GB. So what holds
# lists or maps is decoded up to a size: so many bytes, and what a row may have.
_MOST_BYTES = 1000
_MOST_FIELDS = 100  # of a body

# What follows the first byte of a value (spec, "Formats"): how many bytes, or how many bytes say
# how long the data is, or how many values there are.
_FIXED = {0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}
_FIXED |= {0xC0: 0, 0xC2: 0, 0xC3: 0, 0xD4: 2, 0xD5: 3, 0xD6: 5, 0xD7: 9, 0xD8: 17}
_LENGTH = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xC7: 1, 0xC8: 2, 0xC9: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
_TEXTS = {*range(0xA0, 0xC0), *_LENGTH}  # what holds no other value: texts, bytes and extensions
_EXTENSION = range(0xC7, 0xCA)  # they have a further byte, their type
_COUNT = {0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}  # and values for each


class _Base64(Struct, forbid_unknown_fields=True):
    """An image, as JSON has it."""

    b64: str


_decode_base64 = msgspec.msgpack.Decoder(_Base64).decode


class MsgpackMessage:
    """A MessagePack map, whose instances are decoded one by one."""

    needs_images = False

    def __init__(self, fields: Fields, instances: Raw | UnsetType, size: int) -> None:
        self.fields = fields
        self._instances = instances
        self._size = size

    def rows(self, model: Model, limits: Limits) -> NDArray[Any]:
        """Return the instances as rows; see Message."""
        found: Any = self._instances
        if found is not UNSET:
            is_list = _is_list(found)
            if is_list:
                limits.check_count(_values_in(found))
                if limits.in_loop and self._size > LARGEST_IN_LOOP:
                    raise Slow
            found = _decode_list(found) if is_list else _small(found, "instances", _MOST_BYTES)
        reader = reader_for(model, limits)
        rows, give_way = [], Turns()
        for index, instance in enumerate(check_instances(found, limits)):
            give_way()
            where = f"instances[{index}]"
            row = row_or_image(_instance(instance, where, model), where, model, reader)
            rows.append(np.array(row, model.row_dtype))  # of much less memory
        return model.rows_of(rows)


def read(body: bytes, known: frozenset[str], content_type: str) -> MsgpackMessage:
    """Take a body of MessagePack apart: an object of no other fields than those known.

    An image is {"b64": ...} as in JSON, or its bytes. Raises InvalidInput.
    """
    if not body:
        raise InvalidInput(f"body: expected a MessagePack map {EXAMPLE}, got nothing")
    is_map = 0x80 <= body[0] < 0x90 or body[0] in (0xDE, 0xDF)
    if is_map and _values_in(body) <= 2 * _MOST_FIELDS:
        document: Any = _decoded(body, "body", _fields_of)
    else:
        document = _small(body, "body", _MOST_BYTES)
    fields = check_fields(document, "a MessagePack map", known)
    instances = fields.pop("instances", UNSET)
    fields = {name: _small(value, name, _MOST_BYTES) for name, value in fields.items()}
    return MsgpackMessage(fields, instances, len(body))


def _fields_of(body: bytes) -> dict[str, Raw]:
    try:
        return _decode_fields(body)
    except msgspec.ValidationError as error:
        raise InvalidInput("body: expected strings as the keys of the map") from error


def _instance(data: Raw, where: str, model: Model) -> Any:
    """Return an instance as Python has it, if it is not far larger than one can be.

    Raises InvalidInput.
    """
    if model.row_dtype is np.object_ and len(data) > _MOST_BYTES:  # strings may be long
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
            return _decode_flat(data)
    if model.has_open_rows:
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
            return _decoder_of(len(model.row_dims))(data)
    numbers = model.row_size * (9 + 5 * len(model.row_shape))  # bytes, with the heads of lists
    names = sum(5 + len(name.encode()) for name in model.column_names)
    if len(data) > _MOST_BYTES and image_of(model) is not None:
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
            return {"b64": _decode_base64(data).b64}
    return _small(data, where, _MOST_BYTES + numbers + names)


@cache
def _decoder_of(depth: int) -> Callable[[Raw], Any]:
    """Return what decodes numbers in so many lists, and nothing else."""
    nested: Any = float | None
    for _ in range(depth):
        nested = list[nested]
    return msgspec.msgpack.Decoder(nested).decode


def _small(data: bytes | Raw, where: str, most: int) -> Any:
    """Return what is sent, if it is a text, bytes, or at most so many bytes of lists and maps.

    Raises InvalidInput.
    """
    if len(data) > most and memoryview(data)[0] not in _TEXTS:
        raise InvalidInput(
            f"{where}: expected at most {most} bytes of lists and maps, got {len(data)}"
        )
    return _decoded(data, where)


def _is_list(data: Raw) -> bool:
    return 0x90 <= (kind := memoryview(data)[0]) < 0xA0 or kind in (0xDC, 0xDD)


def _values_in(data: bytes | Raw) -> int:
    """Return how many values a list has, keys and values a map."""
    head = memoryview(data)[:5]
    return _size(bytearray(head[:1]), 0, io.BytesIO(head[1:]), "body")[0]


def _decoded(data: bytes | Raw, where: str, decode: Callable[..., Any] = _decode) -> Any:
    """Return what a decoder makes of MessagePack. Raises InvalidInput."""
    expected = f"{where}: expected MessagePack"
    try:
        return decode(data)
    except RecursionError as error:
        raise InvalidInput(f"{expected}, got lists or maps nested too deeply") from error
    except (msgspec.DecodeError, UnicodeDecodeError, TypeError) as error:  # a list as a key
        raise InvalidInput(f"{expected}, got: {error}") from error


class MsgpackRows:
    """The rows of a file: each an instance as POST /predict takes it, numbered as lines are."""

    unit = "row"

    def __init__(self, tape: Tape, model: Model, options: Options) -> None:
        """Take a file. `options.keep`: an object may have other fields too."""
        self.kept_names: list[str] = []
        self._tape = tape
        self._longest = options.longest
        self._instance = InstanceOfFile(model, options)

    def __iter__(self) -> Iterator[Row | Bad]:
        """Yield each row. Raises InvalidInput where the file is no MessagePack from there on."""
        while True:
            number = self._tape.number + 1
            where = f"row {number}"
            data = _next_value(self._tape.file, where, self._longest)
            if not data:
                return
            self._tape.passed(data, 1)
            try:
                yield Row(number, *self._instance.read(_decoded(data, where), where))
            except RequestError as error:
                yield Bad(number, str(error))


def _next_value(file: BinaryIO, where: str, longest: int) -> bytes:
    """Return the bytes of the next value of a file, nothing at its end. Raises InvalidInput."""
    value = bytearray(file.read(1))
    begun = 0  # of `value`, up to the first byte of the value that is read
    left = 1 if value else 0  # values that are still to come
    while left:
        more, data = _size(value, begun, file, where)
        if len(value) + data > longest:
            raise InvalidInput(f"{where}: expected at most {longest} bytes, got more")
        value += _read(file, data, where)
        left += more - 1
        begun = len(value)
        if left:
            value += _read(file, 1, where)
    return bytes(value)


def _read(file: BinaryIO, size: int, where: str) -> bytes:
    """Return so many bytes of a file. Raises InvalidInput where it has fewer."""
    data = file.read(size)
    if len(data) < size:
        raise InvalidInput(f"{where}: expected MessagePack, got a file that is cut off")
    return data


def _size(value: bytearray, at: int, file: BinaryIO, where: str) -> tuple[int, int]:
    """Return how many values, and how many bytes, belong to the value that begins at a byte.

    What says so is read from the file. Raises InvalidInput where it is cut off.
    """
    kind = value[at]
    if kind < 0x80 or kind >= 0xE0:
        return 0, 0
    if kind < 0xA0:  # a short map or list
        return ((kind & 0x0F) * 2 if kind < 0x90 else kind & 0x0F), 0
    if kind < 0xC0:  # a short string
        return 0, kind & 0x1F
    if kind in _COUNT:
        width, each = _COUNT[kind]
        return _number(value, width, file, where) * each, 0
    if kind in _LENGTH:
        return 0, _number(value, _LENGTH[kind], file, where) + (kind in _EXTENSION)
    return 0, _FIXED.get(kind, 0)


def _number(value: bytearray, width: int, file: BinaryIO, where: str) -> int:
    data = _read(file, width, where)
    value += data
    return int.from_bytes(data)
