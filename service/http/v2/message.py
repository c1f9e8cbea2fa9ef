"""The message of an inference request: JSON, and binary data behind it."""

import math
import re
from typing import Any

import msgspec
import numpy as np
from msgspec import Raw, Struct

from service.engine.model import Model
from service.errors import InvalidInput
from service.formats.json_text import decoded
from service.formats.tensors import NAMES
from service.words import cut, shown

HEADER_LENGTH = b"inference-header-content-length"
NULL = Raw(b"null")  # clients that write out every field send it for those they do not use

# Parameters that ask for what is not here, and the values that ask for nothing.
_REFUSED = {
    "sequence_id": (None, 0, ""),
    "sequence_start": (None, False),
    "sequence_end": (None, False),
    "priority": (None, 0),
}
_LONGEST_US = 10**18  # of a timeout; more is the same


class InputTensor(Struct):
    """One input of a request: `data`, or binary data behind the JSON."""

    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, Any] | None = None
    data: Raw = NULL


class RequestedOutput(Struct):
    """One output that a request asks for."""

    name: str
    parameters: dict[str, Any] | None = None


class InferRequest(Struct):
    """The JSON of a request. Other fields are ignored: clients send some of their own."""

    inputs: list[InputTensor]
    id: str | None = None
    parameters: dict[str, Any] | None = None
    outputs: list[RequestedOutput] | None = None


_request = msgspec.json.Decoder(InferRequest)


def split(body: bytes, length: bytes | None, model: Model) -> tuple[InferRequest, memoryview]:
    """Return the JSON of a request, and the binary data behind it. Raises InvalidInput.

    `length` is that of the JSON, as the header says it; all is JSON if there is no such header.
    With a length of 0 all is the data of the only input, and the outputs come as binary data.
    """
    data = memoryview(body)
    if length is None:
        return _all_json(body), data[len(data) :]
    if not re.fullmatch(rb"[0-9]{1,18}", length.strip()) or int(length) > len(body):
        got = shown(length.decode("latin-1"))
        raise InvalidInput(
            f"Inference-Header-Content-Length: expected a whole number from 0 to {len(body)}, the "
            f"size of the body, got {got}"
        )
    size = int(length)
    if size == 0:
        return _raw_request(data, model)
    return decoded(data[:size], _request), data[size:]


def _all_json(body: bytes) -> InferRequest:
    """Return a request without binary data. Raises InvalidInput."""
    missing = (
        "Inference-Header-Content-Length: expected the length of the JSON, as binary data follows "
        "it; got no such header"
    )
    try:
        request = decoded(body, _request)
    except InvalidInput as error:
        if b'"binary_data_size"' in body:
            raise InvalidInput(missing) from error
        raise
    if any(parameter(each.parameters, "binary_data_size") for each in request.inputs):
        raise InvalidInput(missing)
    return request


def _raw_request(body: memoryview, model: Model) -> tuple[InferRequest, memoryview]:
    """Return the request that a body of nothing but data is. Raises InvalidInput.

    The one dimension that is open follows from the size; a body of strings is a single one.
    """
    tensor = model.inputs[0]
    where = "Inference-Header-Content-Length: 0"
    shape = tensor.shown_shape
    opened = [place for place, size in enumerate(shape) if size == -1]
    if len(model.inputs) > 1 or len(opened) > 1:
        raise InvalidInput(
            f"{where}: expected a model with one input, and one open dimension, got one with "
            f"{len(model.inputs)} and {len(opened)} in {tensor.name}"
        )
    shape = [1 if size == -1 else size for size in shape]
    datatype = NAMES[tensor.dtype]
    parameters: dict[str, Any] = {"binary_data_size": len(body)}
    if datatype == "BYTES":
        body = memoryview(len(body).to_bytes(4, "little") + body)
        parameters = {"binary_data_size": len(body)}
    elif opened:
        row_bytes = math.prod(shape) * np.dtype(tensor.dtype).itemsize
        shape[opened[0]] = len(body) // max(row_bytes, 1)
    sent = InputTensor(name=tensor.name, shape=shape, datatype=datatype, parameters=parameters)
    return InferRequest(inputs=[sent], parameters={"binary_data_output": True}), body


def check_parameters(parameters: dict[str, Any]) -> float:
    """Return the seconds that `timeout` gives, infinity if it does not; the unit is Triton's.

    Raises InvalidInput for what is asked for and cannot be done.
    """
    for name, value in parameters.items():
        if name in _REFUSED and value not in _REFUSED[name]:
            raise InvalidInput(
                f"parameters.{name}: expected none, as it is not served; got {shown(value)}"
            )
        if name.startswith("triton_"):
            raise InvalidInput(f"parameters.{cut(name)}: expected no name that begins with triton_")
    timeout_us = whole_number(parameters, "timeout", "parameters", "whole microseconds from 0")
    return min(timeout_us, _LONGEST_US) / 1e6 if timeout_us else math.inf


def parameter(parameters: dict[str, Any] | None, name: str) -> Any:
    """Return a parameter, None where it is not said."""
    return None if parameters is None else parameters.get(name)


def whole_number(
    parameters: dict[str, Any] | None,
    name: str,
    where: str,
    expected: str = "a whole number from 0",
) -> int | None:
    """Return a parameter that is a whole number, also one that was written as 2.0."""
    value = parameter(parameters, name)
    if type(value) is float and value.is_integer():
        value = int(value)
    if value is not None and (type(value) is not int or value < 0):
        raise InvalidInput(f"{where}.{name}: expected {expected}, got {shown(value)}")
    return value


def flag(parameters: dict[str, Any], name: str, where: str) -> bool | None:
    """Return a parameter that is true or false."""
    value = parameters.get(name)
    if value is not None and type(value) is not bool:
        raise InvalidInput(f"{where}.{name}: expected true or false, got {shown(value)}")
    return value
