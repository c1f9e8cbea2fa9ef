"""The message of an inference request: JSON, and binary data behind it."""

import math
import re
from typing import Any, Generic, TypeAlias, TypeVar

import msgspec
import numpy as np
from msgspec import Raw, Struct

from service.engine.model import Model
from service.errors import InvalidInput
from service.formats.json_blocks import LONG, Text
from service.formats.json_text import decoded
from service.formats.message import LARGEST_IN_LOOP
from service.formats.numbers import is_small
from service.formats.tensors import NAMES
from service.v2.outputs import RequestedOutput
from service.words import shown

HEADER_LENGTH = b"inference-header-content-length"
NULL = Raw(b"null")  # clients that write out every field send it for those they do not use

_FLOATS = frozenset({"FP32", "FP64"})  # datatypes
_DATA = re.compile(rb'"data"\s*:\s*')
_CUT = Raw(b"0")  # stands for data that was cut out
_MOST_CUTS = 16

Data = TypeVar("Data")  # JSON, or the few numbers in it


class InputTensor(Struct, Generic[Data]):
    """One input of a request: `data`, or binary data behind the JSON."""

    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, Any] | None = None
    data: Data = NULL  # type: ignore[assignment]


class InferRequest(Struct, Generic[Data]):
    """The JSON of a request. Other fields are ignored: clients send some of their own."""

    inputs: list[InputTensor[Data]]
    id: str | None = None
    parameters: dict[str, Any] | None = None
    outputs: list[RequestedOutput] | None = None


AnyTensor: TypeAlias = InputTensor[Any]
AnyRequest: TypeAlias = InferRequest[Any]
_request = msgspec.json.Decoder(InferRequest[Raw])
_small_request = msgspec.json.Decoder(InferRequest[list[float]])


class _Outline(Struct):
    """The fields of a request as texts."""

    inputs: Raw
    id: Raw = NULL
    parameters: Raw = NULL
    outputs: Raw = NULL


class _InputOutline(Struct):
    """The fields of an input as texts; what lacks one is none, and ends the decoding."""

    name: Raw
    shape: Raw
    datatype: Raw
    parameters: Raw = NULL


_outline = msgspec.json.Decoder(_Outline)
_input_outlines = msgspec.json.Decoder(list[_InputOutline])
_MOST_INPUTS = 4096  # of a long request
_LONGEST = 65_536  # bytes of any field of a long request but data


def is_long(body: bytes, length: bytes | None, model: Model) -> bool:
    """Whether it may take long to read a request: not for binary data of numbers."""
    if len(body) <= LARGEST_IN_LOOP:
        return False
    has_strings = any(each.dtype is np.object_ for each in model.inputs)
    if length is not None and re.fullmatch(rb"[0-9]{1,18}", length) and not has_strings:
        return int(length) > LONG
    return len(body) > (LARGEST_IN_LOOP if has_strings else LONG)


def split(body: bytes, length: bytes | None, model: Model) -> tuple[AnyRequest, memoryview]:
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


def _all_json(body: bytes) -> AnyRequest:
    """Return a request without binary data. Raises InvalidInput."""
    missing = (
        "Inference-Header-Content-Length: expected the length of the JSON, as binary data follows "
        "it; got no such header"
    )
    try:
        request = _quickly(body) or _plainly(body)
    except InvalidInput as error:
        if b'"binary_data_size"' in body:
            raise InvalidInput(missing) from error
        raise
    for each in request.inputs:
        if each.parameters is not None and each.parameters.get("binary_data_size"):
            raise InvalidInput(missing)
    return request


def _plainly(body: bytes) -> InferRequest[Raw]:
    """Return a request without binary data, whatever it holds. Raises InvalidInput."""
    if len(body) > LONG:
        _check_outline(body)
    return decoded(body, _request)


def _check_outline(body: bytes) -> None:
    """Raise InvalidInput for a long request that is not long by its data.

    16 MB of numbers that are none would all be made Python's objects, at once.
    """
    if body.count(b'"datatype"') > _MOST_INPUTS:
        raise InvalidInput(f"inputs: expected at most {_MOST_INPUTS}")
    fields = decoded(body, _outline)
    try:
        inputs = _input_outlines.decode(memoryview(fields.inputs))
    except (msgspec.DecodeError, RecursionError):
        return  # it says more with its place in the request
    for each in fields, *inputs:
        for name in each.__struct_fields__:
            if name != "inputs" and (size := len(getattr(each, name))) > _LONGEST:
                raise InvalidInput(f"{name}: expected at most {_LONGEST} bytes, got {size}")


def _quickly(body: bytes) -> AnyRequest | None:
    """Return a request of nothing unusual; None: decode it the plain way, which is the definition.

    That way reads data twice, once to find its end and once as numbers.
    """
    try:
        if is_small(body):
            small = _small_request.decode(body)
            return small if _FLOATS.issuperset([each.datatype for each in small.inputs]) else None
        return _without_data(body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None


def _without_data(body: bytes) -> AnyRequest | None:
    """As `_quickly`: cut flat lists out, decode what is left, and give each input its list.

    A list that is cut out ends at its first "]". If that was in a string, or of a list within, an
    odd quotation mark or bracket is left, which is no JSON.
    """
    left: list[bytes] = []
    lists: list[Text] = []
    place = 0
    while (found := _DATA.search(body, place)) and len(lists) < _MOST_CUTS:
        start = found.end()
        end = body.index(b"]", start) + 1
        if body[start] != ord("["):
            return None
        left.append(body[place:start])
        lists.append(body[start:end] if end - start <= LONG else memoryview(body)[start:end])
        place = end
    text = b"0".join([*left, body[place:]])
    if len(text) > _LONGEST:
        return None
    request: Any = _request.decode(text)
    # Each key stood for a list, and there is no other; an escape could hide one.
    if b"\\" in text or len(_DATA.findall(text)) != len(lists):
        return None
    for sent, data in zip(request.inputs, lists, strict=True):  # ValueError: it was of no input
        if sent.data != _CUT:
            return None
        sent.data = data
    return request  # type: ignore[no-any-return]


def _raw_request(body: memoryview, model: Model) -> tuple[InferRequest[Raw], memoryview]:
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
    sent = InputTensor[Raw](name=tensor.name, shape=shape, datatype=datatype, parameters=parameters)
    return InferRequest(inputs=[sent], parameters={"binary_data_output": True}), body
