"""Typed contents on the wire: what NumPy can read and write of them, without protobuf.

A number takes many times its bytes in a message of protobuf's, and one list of many numbers is read
and written in one go, in which no other thread runs. Packed floats and booleans are arrays as they
are; all else is done in pieces (protobuf.dev, "Encoding"). What is unusual is left to protobuf.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.engine.protobuf import head
from service.formats.turns import Turns, check_deadline
from service.grpc.outline import varint_at

_PIECE = 65_536  # bytes, or numbers
_LONGEST = 10  # bytes of a varint
_MORE, _BITS = 0x80, 7  # of its bytes
_BYTES = 2  # a wire type
_TEXTS_AT_A_TIME = 1024
_FLOATS: dict[str, str] = {"fp32_contents": "<f4", "fp64_contents": "<f8"}
_VARINTS: dict[str, type[np.generic]] = {
    "bool_contents": np.bool_,
    "int_contents": np.int32,
    "int64_contents": np.int64,
    "uint_contents": np.uint32,
    "uint64_contents": np.uint64,
}


def block_of(contents: memoryview) -> tuple[int, memoryview] | None:
    """Return the number of the only field of contents, which is packed, and its bytes."""
    key, place = varint_at(contents, 0)
    if key & 7 != _BYTES:
        return None
    length, place = varint_at(contents, place)
    return (key >> 3, contents[place:]) if place + length == len(contents) else None


def numbers_in(block: memoryview, field: str, deadline: float) -> NDArray[Any] | None:
    """Return the numbers of a packed field; None for what is unusual. Raises DeadlineExceeded."""
    if field in _FLOATS:
        dtype = np.dtype(_FLOATS[field])
        if len(block) % dtype.itemsize:
            return None
        array = np.frombuffer(block, dtype)
        return array if array.flags.aligned else array.copy()
    data = np.frombuffer(block, np.uint8)
    if field == "bool_contents" and not (data > 1).any():
        return data.view(np.bool_)
    numbers = np.empty(np.count_nonzero(data < _MORE), _VARINTS[field])
    place = done = 0
    give_way = Turns()
    while place < len(data):
        give_way()
        check_deadline(deadline)
        found = _varints_in(data[place : place + _PIECE])
        if found is None:
            return None
        values, size = found
        numbers[done : done + len(values)] = _as_kind(values, numbers.dtype)
        done, place = done + len(values), place + size
    return numbers


def _as_kind(values: NDArray[np.uint64], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return what protobuf makes of varints: their lowest bits, or whether there is any."""
    if dtype.kind == "b":
        return values.astype(np.bool_)
    narrow = values.astype(np.dtype(f"u{dtype.itemsize}"))
    return narrow.view(dtype)


def _varints_in(data: NDArray[np.uint8]) -> tuple[NDArray[np.uint64], int] | None:
    """Return the varints that are complete, and their bytes; None if one is none."""
    ends = np.flatnonzero(data < _MORE)
    if not len(ends):
        return None
    starts = np.concatenate(([0], ends[:-1] + 1))
    sizes = ends - starts + 1
    longest = int(sizes.max())
    if longest > _LONGEST or (data[ends[sizes == _LONGEST]] > 1).any():
        return None
    values = (data[starts] & np.uint8(0x7F)).astype(np.uint64)
    for n in range(1, longest):
        longer = sizes > n
        bits = (data[starts[longer] + n] & np.uint8(0x7F)).astype(np.uint64)
        values[longer] |= bits << np.uint64(_BITS * n)
    return values, int(ends[-1]) + 1


def texts_in(contents: memoryview, key: int, deadline: float) -> list[bytes] | None:
    """Return the elements of a field of bytes, the only one; None for what is unusual."""
    texts: list[bytes] = []
    place, stop, give_way = 0, len(contents), Turns()
    data = bytes(contents)  # of which pieces are cut faster
    while place < stop:
        if not len(texts) % _TEXTS_AT_A_TIME:
            give_way()
            check_deadline(deadline)
        if data[place] != key:
            return None
        length, begin = data[place + 1] if place + 1 < stop else _MORE, place + 2
        if length >= _MORE:
            length, begin = varint_at(data, place + 1)
        place = begin + length
        if place > stop:
            return None
        texts.append(data[begin:place])
    return texts


def contents_of(array: NDArray[Any], number: int) -> list[bytes | memoryview]:
    """Return contents, in parts, that hold an array in the field of that number."""
    flat = np.ascontiguousarray(array).reshape(-1)
    if not len(flat):
        return []
    if flat.dtype == object:
        return list(_texts(flat, number))
    if flat.dtype.kind in "bf":
        parts: list[bytes | memoryview] = [flat.view(np.uint8).data]
    else:
        parts = list(_varints(flat))
    return [head(number, sum(map(len, parts))), *parts]


def _texts(flat: NDArray[Any], number: int) -> Iterator[bytes]:
    give_way = Turns()
    for start in range(0, len(flat), _TEXTS_AT_A_TIME):
        give_way()
        texts = [text.encode() for text in flat[start : start + _TEXTS_AT_A_TIME]]
        yield b"".join(head(number, len(each)) + each for each in texts)


def _varints(flat: NDArray[Any]) -> Iterator[bytes]:
    give_way = Turns()
    for start in range(0, len(flat), _PIECE):
        give_way()
        piece = flat[start : start + _PIECE]
        # The sign of a negative number goes on to the 64th bit.
        wide = piece.astype(np.int64 if piece.dtype.kind == "i" else np.uint64).view(np.uint64)
        longest = max(1, -(-int(wide.max()).bit_length() // _BITS))
        shifts = np.arange(longest, dtype=np.uint64) * np.uint64(_BITS)
        rest = wide[:, np.newaxis] >> shifts  # (n,) -> (n, bytes)
        digits = (rest & np.uint64(0x7F)).astype(np.uint8)
        is_there = rest > 0
        is_there[:, 0] = True
        digits[:, :-1] |= is_there[:, 1:].astype(np.uint8) << np.uint8(7)
        yield digits[is_there].tobytes()
