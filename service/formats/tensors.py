"""Tensors as the Open Inference Protocol sends them, JSON or binary, and the arrays they are.

https://github.com/kserve/open-inference-protocol (inference_rest.md, "Tensor Data") and Triton's
extensions: docs/protocol/extension_binary_data.md, extension_classification.md.
"""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from service.errors import InvalidInput
from service.formats import json_fast
from service.formats.json_blocks import LONG, Part, Text, parts
from service.formats.json_text import parsed
from service.formats.numbers import Unfit
from service.formats.reply_size import MOST_NUMBERS_IN_LOOP, is_large, joined
from service.formats.values import fitting
from service.words import shown

DATATYPES: dict[str, type[np.generic]] = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
    "BYTES": np.object_,
}
NAMES = {dtype: name for name, dtype in DATATYPES.items()}
_encode = msgspec.json.Encoder().encode
NO_FP16 = "FP16 has no form in JSON; use binary data"
_LENGTH_BYTES = 4  # before each element of BYTES


def read_json(
    data: msgspec.Raw | Text | list[float],
    shape: Sequence[int],
    datatype: str,
    where: str,
    deadline: float = math.inf,
    *,
    takes_missing: bool = False,
) -> NDArray[Any]:
    """Return `data`, a list of numbers, booleans or strings, flat or nested as `shape`.

    In place of text it may be a flat list of few floats, for a datatype of floats. `takes_missing`:
    null is NaN there.

    Fast where simdjson can; what it refuses is walked in Python, which is the definition of what is
    accepted. Raises InvalidInput with the place of the first thing that does not fit, and, for a
    long text, DeadlineExceeded.
    """
    if datatype == "FP16":
        raise InvalidInput(f"{where}: {NO_FP16}")
    if not isinstance(data, list | bytes):
        view = memoryview(data)
        if len(view) > LONG and view[0] == ord("["):
            elements = _Elements(view, shape, datatype, where, takes_missing=takes_missing)
            return _read_long(view, shape, elements, where, deadline)
        data = bytes(view)
    dtype = DATATYPES[datatype]
    try:
        if isinstance(data, list):
            return json_fast.small_tensor(data, shape, dtype)
        return json_fast.read_tensor(data, shape, dtype)
    except json_fast.WrongCount as error:
        raise _wrong_count(error.count, shape, where) from None
    except Exception:  # simdjson's are of many kinds
        return _read_slowly(data, shape, dtype, where, takes_missing=takes_missing)


def _read_long(
    text: Text, shape: Sequence[int], elements: "_Elements", where: str, deadline: float
) -> NDArray[Any]:
    """Return a long list in JSON, read in blocks."""
    count = math.prod(shape)
    # A text of so many bytes has no more elements; memory is taken when they are here.
    array = np.empty(min(count, len(text) // 2 + 1), elements.dtype)
    done, lists = 0, 0
    for part in parts(text, elements, where, deadline):
        flat = elements.flat(part)
        if done + len(flat) <= len(array):
            array[done : done + len(flat)] = flat
        done += len(flat)
        lists += len(part)
    if elements.is_nested and lists != shape[0]:
        raise InvalidInput(f"{where}: expected a list of {shape[0]}, got a list of {lists}")
    if done != count:
        raise _wrong_count(done, shape, where)
    return array.reshape(shape)


class _Elements:
    """What the elements of a long list are read as: values, or lists that are nested."""

    def __init__(
        self, text: Text, shape: Sequence[int], datatype: str, where: str, *, takes_missing: bool
    ) -> None:
        self.is_nested = re.match(rb"\[\s*\[", text) is not None
        self._shape = tuple(shape[1:]) if self.is_nested else ()
        self._datatype = datatype
        self.dtype = DATATYPES[datatype]
        self._takes_missing = takes_missing
        self._where = where

    def fast(self, block: bytes) -> NDArray[Any]:
        if self._datatype not in _DECODERS:
            return json_fast.read_elements(block, self._shape, self.dtype)
        if self.is_nested:
            raise Unfit
        values = _DECODERS[self._datatype](block)
        return np.array(values, np.bool_) if self._datatype == "BOOL" else strings(values)

    def slow(self, value: Any, index: int) -> Any:
        where = f"{self._where}[{index}]"
        missing, dtype = self._takes_missing, self.dtype
        if self.is_nested:
            return _elements(value, self._shape, dtype, where, takes_missing=missing)
        return fitting(value, where, dtype, takes_missing=missing)

    def check_large(self, text: bytes, index: int) -> None:
        expected = math.prod(self._shape)
        if b'"' not in text and (numbers := text.count(b",") + 1) > expected:
            raise InvalidInput(
                f"{self._where}[{index}]: expected {expected} elements, got {numbers}"
            )

    def flat(self, part: Part) -> Sequence[Any] | NDArray[Any]:
        """Return the values of a part one after the other."""
        if isinstance(part, np.ndarray):
            return part.reshape(-1)
        return [value for each in part for value in each] if self.is_nested else part


# Lone surrogates, which have no form in UTF-8, are an error of msgspec's.
_DECODERS: dict[str, Callable[[bytes], list[Any]]] = {
    "BOOL": msgspec.json.Decoder(list[bool]).decode,
    "BYTES": msgspec.json.Decoder(list[str]).decode,
}


def _read_slowly(
    data: bytes | list[float],
    shape: Sequence[int],
    dtype: type[np.generic],
    where: str,
    *,
    takes_missing: bool,
) -> NDArray[Any]:
    document: Any = data if isinstance(data, list) else parsed(data, where)
    if not isinstance(document, list):
        raise InvalidInput(f"{where}: expected a list of elements, got {shown(document)}")
    if any(isinstance(each, list) for each in document):
        elements = _elements(document, shape, dtype, where, takes_missing=takes_missing)
    else:
        if len(document) != math.prod(shape):
            raise _wrong_count(len(document), shape, where)
        elements = [
            fitting(each, f"{where}[{index}]", dtype, takes_missing=takes_missing)
            for index, each in enumerate(document)
        ]
    array = np.empty(len(elements), dtype)
    array[:] = elements
    return array.reshape(shape)


def _wrong_count(count: int, shape: Sequence[int], where: str) -> InvalidInput:
    expected = math.prod(shape)
    return InvalidInput(
        f"{where}: expected {expected} elements as shape {list(shape)} says, got {count}"
    )


def _elements(
    nest: Any, shape: Sequence[int], dtype: type[np.generic], where: str, *, takes_missing: bool
) -> list[Any]:
    if not shape:
        return [fitting(nest, where, dtype, takes_missing=takes_missing)]
    if not isinstance(nest, list) or len(nest) != shape[0]:
        raise InvalidInput(f"{where}: expected a list of {shape[0]}, got {shown(nest)}")
    elements: list[Any] = []
    for index, inner in enumerate(nest):
        place = f"{where}[{index}]"
        elements += _elements(inner, shape[1:], dtype, place, takes_missing=takes_missing)
    return elements


def read_binary(data: memoryview, shape: Sequence[int], datatype: str, where: str) -> NDArray[Any]:
    """Return binary data as an array, a view of `data` where its place in memory allows that.

    Little-endian, row-major; BOOL one byte, 0 or 1; BYTES each with its length in 4 bytes before
    it, in UTF-8. Raises InvalidInput.
    """
    count = math.prod(shape)
    if datatype == "BYTES":
        return _read_strings(data, count, where).reshape(shape)
    dtype = np.dtype(DATATYPES[datatype])
    expected = count * dtype.itemsize
    if len(data) != expected:
        raise InvalidInput(
            f"{where}: expected {expected} bytes as shape {list(shape)} of {datatype} says, "
            f"got {len(data)}"
        )
    if datatype == "BOOL":
        numbers = np.frombuffer(data, np.uint8)
        if (numbers > 1).any():
            raise InvalidInput(f"{where}: expected bytes of 0 and 1, got {numbers.max()}")
        return numbers.view(np.bool_).reshape(shape)
    array = np.frombuffer(data, dtype.newbyteorder("<")).reshape(shape)
    return array if array.flags.aligned else array.copy()


def _read_strings(data: memoryview, count: int, where: str) -> NDArray[Any]:
    texts: list[str] = []
    place = 0
    while place < len(data) and len(texts) < count:
        start = place + _LENGTH_BYTES
        end = start + int.from_bytes(data[place:start], "little")
        if end > len(data):
            element = f"{where}: element {len(texts)}"
            if start > len(data):
                got = len(data) - place
                raise InvalidInput(f"{element}: expected 4 bytes for its length, got {got}")
            raise InvalidInput(f"{element}: expected {end - start} bytes, got {len(data) - start}")
        texts.append(_text(data[start:end], where, len(texts)))
        place = end
    if len(texts) != count or place != len(data):
        more = f", and {len(data) - place} bytes behind them" if place != len(data) else ""
        raise InvalidInput(
            f"{where}: expected {count} elements as the shape says, got {len(texts)}{more}"
        )
    return strings(texts)


def _text(data: memoryview, where: str, index: int) -> str:
    """Return an element of BYTES as the string that ONNX Runtime takes."""
    try:
        return bytes(data).decode()
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"{where}: element {index}: expected UTF-8, got byte {error.start} that is not"
        ) from error


def strings(texts: Sequence[str]) -> NDArray[np.object_]:
    """Return strings as an array of objects."""
    array = np.empty(len(texts), np.object_)
    array[:] = texts
    return array


def widened(array: NDArray[Any], dtype: type[np.generic]) -> NDArray[Any] | None:
    """Return an array as `dtype`, if that holds every value of its own type; else None.

    So an image may be sent as bytes to a network of float32.
    """
    sent, wanted = array.dtype, np.dtype(dtype)
    if sent == wanted:
        return array
    numbers = sent.kind in "fiu" and wanted.kind in "fiu"
    if numbers and sent.itemsize < wanted.itemsize and np.can_cast(sent, wanted, "safe"):
        with np.errstate(invalid="ignore"):  # a signalling NaN is one afterwards too
            return array.astype(wanted)
    return None


def as_json(array: NDArray[Any]) -> list[Any] | msgspec.Raw:
    """Return the elements in one flat list; as JSON, written in parts, if they are many."""
    flat = array.ravel()
    if not is_large([flat]):
        few: list[Any] = flat.tolist()
        return few
    starts = range(0, len(flat), MOST_NUMBERS_IN_LOOP)
    parts = (_encode(flat[n : n + MOST_NUMBERS_IN_LOOP].tolist()) for n in starts)
    return msgspec.Raw(joined(parts))


def as_binary(array: NDArray[Any]) -> bytes | memoryview:
    """Return the bytes of an array, as `read_binary` takes them; a view of them if it can be."""
    if array.dtype == np.object_:
        texts = [text.encode() for text in array.ravel()]
        return b"".join(len(each).to_bytes(_LENGTH_BYTES, "little") + each for each in texts)
    flat = np.ascontiguousarray(array).reshape(-1)
    return flat.view(np.uint8).data


def classified(
    array: NDArray[Any], most: int, labels: Sequence[str], *, has_rows: bool
) -> NDArray[np.object_]:
    """Return the `most` highest of each row as "value:index:label": (n, ...) -> strings (n, most).

    Without rows, (...) -> (most,). The label is left out where there is none.
    """
    rows = array.reshape(len(array) if has_rows else 1, -1)  # (n, classes)
    most = min(most, rows.shape[1])
    if rows.dtype.kind == "f":
        order = np.argsort(-rows, axis=1, kind="stable")
    else:  # reversed twice, so that of equal values the first comes first
        order = rows.shape[1] - 1 - np.argsort(rows[:, ::-1], axis=1, kind="stable")[:, ::-1]
    highest = order[:, :most]
    texts = [
        _class(row[index], index, labels)
        for row, indices in zip(rows, highest.tolist(), strict=True)
        for index in indices
    ]
    return strings(texts).reshape((len(rows), most) if has_rows else (most,))


def _class(value: Any, index: int, labels: Sequence[str]) -> str:
    shown_value = f"{value:f}" if isinstance(value, np.floating) else str(value)
    label = f":{labels[index]}" if index < len(labels) else ""
    return f"{shown_value}:{index}{label}"
