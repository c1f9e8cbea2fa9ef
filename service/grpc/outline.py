"""A long ModelInferRequest, taken apart before it is parsed.

Raw contents are left where they are, in place of two copies of each. What else is long takes many
times its bytes once it is parsed, so the fields are counted first.
"""

from msgspec import Struct

from service.engine.protobuf import head
from service.errors import InvalidInput, TooLarge

LONG = 65_536  # bytes of a message that is taken apart
MOST_FIELDS = 16_384  # of the message, its inputs and outputs
_NAME, _VERSION, _INPUTS, _OUTPUTS, _RAW = 1, 2, 5, 6, 7  # numbers of fields
_CONTENTS = 5  # of an input
_VARINT, _EIGHT_BYTES, _BYTES, _GROUP, _END, _FOUR_BYTES = range(6)  # wire types
_LONGEST_VARINT = 10
_BROKEN = "message: expected a ModelInferRequest, got something else"


class Outline(Struct):
    """The parts of a message."""

    name: str  # of the model
    version: str
    rest: bytes  # the message without its contents
    raw: list[memoryview]
    contents: list[memoryview | None]  # typed ones of each input; None: in `rest`


def outline(data: bytes) -> Outline:
    """Take a message apart. Raises InvalidInput, TooLarge."""
    view = memoryview(data)
    rest: list[bytes | memoryview] = []
    raw: list[memoryview] = []
    contents: list[memoryview | None] = []
    names = {_NAME: b"", _VERSION: b""}
    fields = [0]
    start = place = 0
    while place < len(data):
        number, begin, end = _field(data, place, len(data), fields)
        if number == _RAW and begin:
            rest.append(view[start:place])
            raw.append(view[begin:end])
            start = end
        elif number in names and begin:
            names[number] = data[begin:end]
        elif number in (_INPUTS, _OUTPUTS) and begin:
            found = _contents_in(data, begin, end, fields)
            if number == _INPUTS:
                contents.append(view[found[1] : found[2]] if found else None)
                if found:
                    rest += (view[start:place], _without(view, begin, end, found))
                    start = end
        place = end
    rest.append(view[start:])
    try:
        name, version = names[_NAME].decode(), names[_VERSION].decode()
    except UnicodeDecodeError as error:
        raise InvalidInput(_BROKEN) from error
    return Outline(name, version, b"".join(rest), raw, contents)


def _contents_in(
    data: bytes, begin: int, end: int, fields: list[int]
) -> tuple[int, int, int] | None:
    """Return where the only contents of an input stand: the field, its bytes, its end."""
    found: list[tuple[int, int, int]] = []
    place = begin
    while place < end:
        number, inner, stop = _field(data, place, end, fields)
        if number == _CONTENTS and inner:
            found.append((place, inner, stop))
        place = stop
    return found[0] if len(found) == 1 else None


def _without(view: memoryview, begin: int, end: int, cut: tuple[int, int, int]) -> bytes:
    """Return an input without its contents."""
    inner = b"".join((view[begin : cut[0]], view[cut[2] : end]))
    return head(_INPUTS, len(inner)) + inner


def _field(data: bytes, place: int, stop: int, fields: list[int]) -> tuple[int, int, int]:
    """Return the number of a field, where its bytes begin (0: it has none), and where it ends."""
    fields[0] += 1
    if fields[0] > MOST_FIELDS:
        raise TooLarge(f"message: expected at most {MOST_FIELDS} fields, got more")
    key, place = varint_at(data, place)
    wire, begin = key & 7, 0
    if wire == _BYTES:
        length, place = varint_at(data, place)
        begin, place = place, place + length
    elif wire == _VARINT:
        _, place = varint_at(data, place)
    elif wire in (_EIGHT_BYTES, _FOUR_BYTES):
        place += 8 if wire == _EIGHT_BYTES else 4
    elif wire == _GROUP:
        place = _end_of_group(data, place, stop, fields)
    else:
        raise InvalidInput(_BROKEN)
    if place > stop:
        raise InvalidInput(_BROKEN)
    return key >> 3, begin, place


def _end_of_group(data: bytes, place: int, stop: int, fields: list[int]) -> int:
    """Return where a group ends; protobuf looks whether it is the end of that group."""
    depth = 1
    while depth:
        key, behind = varint_at(data, place)
        kind = key & 7
        if kind in (_GROUP, _END):
            depth += 1 if kind == _GROUP else -1
            fields[0] += 1
            place = behind
        else:
            _, _, place = _field(data, place, stop, fields)
    return place


def varint_at(data: bytes | memoryview, place: int) -> tuple[int, int]:
    """Return a number (protobuf.dev, "Encoding"), and where it ends."""
    value = shift = 0
    for byte in data[place : place + _LONGEST_VARINT]:
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
    raise InvalidInput(_BROKEN)
