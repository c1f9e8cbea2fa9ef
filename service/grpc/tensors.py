"""Typed contents of the protocol, and the arrays they are."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.errors import InvalidInput
from service.formats.tensors import DATATYPES, strings
from service.formats.turns import check_deadline
from service.grpc.messages import Message

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
NO_FP16 = "FP16 has no typed contents; use raw_input_contents"
_NARROW = {"INT8": np.int32, "INT16": np.int32, "UINT8": np.uint32, "UINT16": np.uint32}


def read_contents(
    contents: Message, shape: Sequence[int], datatype: str, where: str, deadline: float
) -> NDArray[Any]:
    """Return the elements of a datatype that is known. Raises InvalidInput, DeadlineExceeded."""
    if datatype == "FP16":
        raise InvalidInput(f"{where}: {NO_FP16}")
    field = FIELDS[datatype]
    for other, _ in contents.ListFields():
        if other.name != field:
            raise InvalidInput(f"{where}: expected {field} for {datatype}, got {other.name}")
    values = getattr(contents, field)
    if len(values) != math.prod(shape):
        raise InvalidInput(
            f"{where}.{field}: expected {math.prod(shape)} elements as shape {list(shape)} says, "
            f"got {len(values)}"
        )
    check_deadline(deadline)
    if datatype == "BYTES":
        array: NDArray[Any] = strings([_text(each, where, n) for n, each in enumerate(values)])
    elif datatype in _NARROW:
        array = _narrowed(np.array(values, _NARROW[datatype]), datatype, f"{where}.{field}")
    else:
        array = np.array(values, DATATYPES[datatype])
    return array.reshape(shape)


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


def write_contents(contents: Message, array: NDArray[Any], datatype: str) -> None:
    """Put the elements of an array, which is not of FP16, into the field of its datatype."""
    values: list[Any] = array.ravel().tolist()
    if datatype == "BYTES":
        values = [text.encode() for text in values]
    getattr(contents, FIELDS[datatype]).extend(values)
