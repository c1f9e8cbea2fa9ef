"""Typed contents of the protocol, and the arrays they are."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.errors import InvalidInput
from service.formats.tensors import DATATYPES, strings
from service.formats.turns import check_deadline
from service.grpc import packed
from service.grpc.messages import InferTensorContents, Message, parsed

FIELDS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
_NUMBERS = {each.name: each.number for each in InferTensorContents.DESCRIPTOR.fields}
_NAMES = {number: name for name, number in _NUMBERS.items()}
NO_FP16 = "FP16 has no typed contents; use raw_input_contents"
_NARROW = {"INT8": np.int32, "INT16": np.int32, "UINT8": np.uint32, "UINT16": np.uint32}


def read_contents(
    contents: Message | memoryview, shape: Sequence[int], datatype: str, where: str, deadline: float
) -> NDArray[Any]:
    """Return the elements of a datatype that is known, of a message or its bytes.

    Raises InvalidInput, DeadlineExceeded.
    """
    if datatype == "FP16":
        raise InvalidInput(f"{where}: {NO_FP16}")
    field = FIELDS[datatype]
    values: Any = None
    if isinstance(contents, memoryview):
        values = _values_in(contents, datatype, where, deadline)
        if values is None:
            contents = parsed(InferTensorContents, bytes(contents))
    if values is None:
        values = _values_of(contents, datatype, where)
    if len(values) != math.prod(shape):
        raise InvalidInput(
            f"{where}.{field}: expected {math.prod(shape)} elements as shape {list(shape)} says, "
            f"got {len(values)}"
        )
    check_deadline(deadline)
    if datatype == "BYTES":
        array: NDArray[Any] = strings([_text(each, where, n) for n, each in enumerate(values)])
    elif datatype in _NARROW:
        array = _narrowed(np.asarray(values, _NARROW[datatype]), datatype, f"{where}.{field}")
    else:
        array = np.asarray(values, DATATYPES[datatype])
    return array.reshape(shape)


def _values_of(contents: Message, datatype: str, where: str) -> Any:
    field = FIELDS[datatype]
    for other, _ in contents.ListFields():
        if other.name != field:
            raise InvalidInput(f"{where}: expected {field} for {datatype}, got {other.name}")
    return getattr(contents, field)


def _values_in(contents: memoryview, datatype: str, where: str, deadline: float) -> Any:
    """Return the elements of contents that are not parsed; None if protobuf has to."""
    field = FIELDS[datatype]
    if not contents:
        return ()
    if datatype == "BYTES" and contents[0] == _NUMBERS[field] << 3 | 2:
        return packed.texts_in(contents, contents[0], deadline)
    block = packed.block_of(contents)
    if block is None or not block[1]:
        return None
    if block[0] != _NUMBERS[field]:
        if block[0] in _NAMES:
            raise InvalidInput(f"{where}: expected {field} for {datatype}, got {_NAMES[block[0]]}")
        return None
    return packed.numbers_in(block[1], field, deadline)


def _narrowed(wide: NDArray[Any], datatype: str, where: str) -> NDArray[Any]:
    dtype: Any = DATATYPES[datatype]
    limits = np.iinfo(dtype)
    outside = (wide < limits.min) | (wide > limits.max)
    if outside.any():
        place = int(outside.argmax())
        raise InvalidInput(
            f"{where}[{place}]: expected {limits.min} to {limits.max}, got {wide[place]}"
        )
    narrow: NDArray[Any] = wide.astype(dtype)
    return narrow


def _text(data: bytes, where: str, index: int) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"{where}: element {index}: expected UTF-8, got byte {error.start} that is not"
        ) from error


def contents_of(array: NDArray[Any], datatype: str) -> list[bytes | memoryview]:
    """Return the contents, in parts, that hold an array, which is not of FP16."""
    return packed.contents_of(array, _NUMBERS[FIELDS[datatype]])
