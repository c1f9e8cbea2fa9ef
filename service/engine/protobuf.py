"""Messages of protobuf in a file, read field by field (protobuf's documentation, "Encoding")."""

import os
from collections.abc import Iterator
from struct import iter_unpack
from typing import BinaryIO, TypeVar

from msgspec import Struct

_LARGEST_TEXT = 2**16  # bytes of a name; more is none
_LARGEST_LIST = 2**20  # bytes of whole numbers that are read; weights are not
_PART = 2**20  # bytes that are copied at a time
_FIXED = {1: 8, 5: 4}  # bytes of a value, by protobuf's wire type

# The value of a field: a number, or where its bytes are.
_Value = TypeVar("_Value", int, range)


class Field(Struct, frozen=True):
    """A field of a message: its value is None where no field of ONNX has one of that kind."""

    number: int
    value: int | range | None
    place: range  # with its head


class Messages:
    """Walks the messages of a file. Each method takes where a message is.

    Raises EOFError where a message ends too early, or is none.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def each(self, place: range) -> Iterator[Field]:
        """Yield the fields of a message."""
        at = place.start
        while at < place.stop:
            self._file.seek(at)
            number, wire = divmod(self._varint(), 8)
            value: int | range | None = None
            if wire == 0:
                value = self._varint()
            elif wire == 2:
                length = self._varint()
                value = range(self._file.tell(), self._file.tell() + length)
            elif wire not in _FIXED:
                raise EOFError  # groups are no part of ONNX
            after = self._file.tell() + _FIXED.get(wire, 0)
            after = value.stop if isinstance(value, range) else after
            if after > place.stop:
                raise EOFError
            yield Field(number, value, range(at, after))
            at = after

    def fields(self, kind: type[_Value], place: range, *numbers: int) -> list[list[_Value]]:
        """Return the values of the fields of these numbers in a message, where they are `kind`."""
        found: dict[int, list[_Value]] = {number: [] for number in numbers}
        for each in self.each(place):
            if each.number in found and isinstance(each.value, kind):
                found[each.number].append(each.value)
        return list(found.values())

    def integers(self, place: range, number: int) -> list[int]:
        """Return the whole numbers of a repeated field (int32 or int64), packed or not."""
        (found,), (packed,) = self.fields(int, place, number), self.fields(range, place, number)
        for each in packed:
            if len(each) > _LARGEST_LIST:
                raise EOFError
            self._file.seek(each.start)
            while self._file.tell() < each.stop:
                found.append(self._varint())
        return [each - 2**64 if each >= 2**63 else each for each in found]

    def floats(self, place: range, number: int) -> Iterator[float]:
        """Yield the numbers of a repeated field (float), packed or not."""
        for each in self.each(place):
            if each.number == number:
                where = each.value if isinstance(each.value, range) else each.place[-4:]
                yield from (of[0] for of in iter_unpack("<f", self.bytes(where, len(where))))

    def has_one(self, place: range, number: int) -> bool:
        """Whether a repeated field of zeros and ones has a one, packed or not; the last field."""
        first = next(each for each in self.each(place) if each.number == number)
        if isinstance(first.value, range):
            return b"\x01" in self.bytes(first.value, len(first.value))
        rest = range(first.place.start, place.stop)
        return bytes((8 * number, 1)) in self.bytes(rest, len(rest))

    def text(self, places: list[range]) -> str:
        """Return the last of a field's texts, which counts; "" if there is none."""
        return "".join(self.texts(places[-1:]))

    def texts(self, places: list[range]) -> list[str]:
        """Return texts, each in UTF-8."""
        return [os.fsdecode(self.bytes(each)) for each in places]

    def bytes(self, place: range, most: int = _LARGEST_TEXT) -> bytes:
        """Return what stands at a place. Raises EOFError if that is too much."""
        if len(place) > most:
            raise EOFError
        self._file.seek(place.start)
        return self._file.read(len(place))

    def copy(self, place: range, target: BinaryIO) -> None:
        """Write what stands at a place to another file."""
        self._file.seek(place.start)
        left = len(place)
        while left:
            part = self._file.read(min(left, _PART))
            if not part:
                raise EOFError
            target.write(part)
            left -= len(part)

    def _varint(self) -> int:
        """Read a number, 7 bits of each byte, the lowest first."""
        value = shift = 0
        while byte := self._file.read(1):
            value |= (byte[0] & 0x7F) << shift
            shift += 7
            if byte[0] < 0x80:
                return value
            if shift > 63:
                break
        raise EOFError


def message(number: int, content: str | bytes) -> bytes:
    """Return a field that is a text, or a message."""
    content = os.fsencode(content) if isinstance(content, str) else content
    return head(number, len(content)) + content


def head(number: int, length: int) -> bytes:
    """Return what stands before a text or message of so many bytes."""
    return _varint(number * 8 + 2) + _varint(length)


def whole_number(number: int, value: int) -> bytes:
    """Return a field that is a number from 0."""
    return _varint(number * 8) + _varint(value)


def _varint(value: int) -> bytes:
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)
