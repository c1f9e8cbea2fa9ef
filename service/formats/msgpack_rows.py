"""MessagePack: the object of /predict in a body, an instance after the other in a file.

https://github.com/msgpack/msgpack/blob/master/spec.md
"""

from collections.abc import Iterator
from typing import Any, BinaryIO

import msgspec
from msgspec import UNSET

from service.engine.model import Model
from service.errors import InvalidInput, RequestError
from service.formats.json_lines import InstanceOfFile
from service.formats.json_rows import Instances, check_fields
from service.formats.lines import Bad, Options, Row, Tape

_decode = msgspec.msgpack.Decoder().decode

# What follows the first byte of a value (spec, "Formats"): how many bytes, or how many bytes say
# how long the data is, or how many values there are.
_FIXED = {0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}
_FIXED |= {0xC0: 0, 0xC2: 0, 0xC3: 0, 0xD4: 2, 0xD5: 3, 0xD6: 5, 0xD7: 9, 0xD8: 17}
_LENGTH = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xC7: 1, 0xC8: 2, 0xC9: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
_EXTENSION = range(0xC7, 0xCA)  # they have a further byte, their type
_COUNT = {0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}  # and values for each


def read(body: bytes, known: frozenset[str], content_type: str) -> Instances:
    """Take a body of MessagePack apart: an object of no other fields than those known.

    An image is {"b64": ...} as in JSON, or its bytes. Raises InvalidInput.
    """
    fields = check_fields(_decoded(body, "body"), "a MessagePack map", known)
    return Instances(fields, fields.pop("instances", UNSET), len(body), may_hold_images=True)


def _decoded(data: bytes, where: str) -> Any:
    try:
        return _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, TypeError) as error:
        # TypeError: a list as a key
        raise InvalidInput(f"{where}: expected MessagePack, got: {error}") from error


class MsgpackRows:
    """The rows of a file: each an instance as POST /predict takes it, numbered as lines are."""

    unit = "row"
    has_header = False

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
