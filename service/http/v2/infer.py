"""POST /v2/models/{model}/infer: the Open Inference Protocol, top to bottom.

    body bytes -> model looked up -> tensors -> batcher -> model -> tensors -> reply bytes

As predict.py an ASGI function of its own; both meet in the model's queue. What is sent and
answered: https://github.com/kserve/open-inference-protocol (inference_rest.md) and, in Triton's
docs/protocol/, extension_binary_data.md, extension_classification.md, extension_parameters.md and
extension_schedule_policy.md.
"""

import math
import re
from time import perf_counter
from typing import Any

import msgspec
import numpy as np
from msgspec import Raw, Struct
from numpy.typing import NDArray

from service.batching import Inputs, Outputs
from service.catalog.catalog import ModelRepository
from service.catalog.served import ServedModel
from service.engine.model import Model
from service.engine.spec import Tensor
from service.errors import InvalidInput, TooLarge
from service.formats import tensors
from service.formats.json_rows import decoded, shown
from service.http import compression
from service.http.request import JSON, Incoming, Parts, encode
from service.settings import Settings

HEADER_LENGTH = b"inference-header-content-length"
BINARY = (b"content-type", b"application/octet-stream")
_INFER = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?/infer/?")
_NULL = Raw(b"null")  # clients that write out every field send it for those they do not use

# Parameters that ask for what is not here, and the values that ask for nothing.
_REFUSED = {
    "sequence_id": (None, 0, ""),
    "sequence_start": (None, False),
    "sequence_end": (None, False),
    "priority": (None, 0),
}
_LARGEST_SIZE = 2**31 - 1  # of a dimension
_MOST_NUMBERS = 2**40  # of a tensor; beside a size of 0 too, as NumPy multiplies the others
_LONGEST_US = 10**18  # of a timeout; more is the same


class InputTensor(Struct):
    """One input of a request: `data`, or binary data behind the JSON."""

    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, Any] | None = None
    data: Raw = _NULL


class RequestedOutput(Struct):
    """One output that a request asks for."""

    name: str
    parameters: dict[str, Any] | None = None


class Request(Struct):
    """The JSON of a request. Other fields are ignored: clients send some of their own."""

    inputs: list[InputTensor]
    id: str | None = None
    parameters: dict[str, Any] | None = None
    outputs: list[RequestedOutput] | None = None


class Wanted(Struct):
    """How one output is to be answered."""

    place: int  # among the outputs of the model
    is_binary: bool
    most_classes: int = 0  # 0: the tensor as it is


_request = msgspec.json.Decoder(Request)


class Infer:
    """Answers POST /v2/models/{model}/infer and /v2/models/{model}/versions/{version}/infer."""

    def __init__(self, models: ModelRepository, settings: Settings) -> None:
        self._models = models
        self._timeout_s = settings.request_timeout_s
        self._max_body_bytes = settings.max_body_bytes
        self._max_rows = settings.max_request_rows
        self._json = tensors.JsonReader()

    async def respond(self, request: Incoming, start: float) -> Parts:
        """Return the reply's body. Raises RequestError; cancelled when the caller leaves."""
        request.check_is_post()
        timeout_s = request.timeout_s(self._timeout_s)
        body = await request.body(self._max_body_bytes)
        served = request.served = self._models.named(*_model_in(request.scope["path"]))
        model = served.model
        asked, binary = split(body, request.headers.get(HEADER_LENGTH), model)
        timeout_s = min(timeout_s, check_parameters(asked.parameters or {}))
        inputs = self._read_inputs(asked.inputs, binary, model)
        rows = count_rows(inputs, model)
        wanted = wanted_outputs(asked, model)
        timing = request.timing()
        outputs = await served.batcher.submit(
            inputs,
            rows,
            timeout_s - (perf_counter() - start),
            alone=request.is_alone(),
            kind=served.kind_of(inputs),
            timing=timing,
        )
        if timing is not None:
            request.tell(timing)
        reply_id = asked.id or dict(request.reply_headers)[b"x-request-id"].decode()
        return await _told(request, reply(served, reply_id, wanted, outputs))

    def _read_inputs(self, sent: list[InputTensor], binary: memoryview, model: Model) -> Inputs:
        """Return the arrays in the model's order. Raises InvalidInput with the place."""
        arrays: dict[str, NDArray[Any]] = {}
        place = 0
        expected = {each.name: each for each in model.inputs}
        for index, each in enumerate(sent):
            where = f"inputs[{index}]"
            if each.name not in expected:
                names = ", ".join(expected)
                raise InvalidInput(f"{where}.name: expected one of {names}; got {shown(each.name)}")
            if each.name in arrays:
                raise InvalidInput(f"{where}.name: expected each input once, got {each.name} again")
            tensor = expected[each.name]
            _check_tensor(each, tensor, where)
            if model.is_batched and each.shape[0] > self._max_rows:
                raise TooLarge(
                    f"inputs: expected at most {self._max_rows} rows in one request, got "
                    f"{each.shape[0]}"
                )
            size = _binary_size(each, where)
            if size is None:
                array = self._json.read(each.data, each.shape, each.datatype, f"{where}.data")
            else:
                data = binary[place : place + size]
                place += size
                if len(data) < size:
                    raise InvalidInput(
                        f"{where}.parameters.binary_data_size: expected {shown(size)} bytes "
                        f"behind the JSON, got {len(data)}"
                    )
                array = tensors.read_binary(data, each.shape, each.datatype, where)
            if not tensor.shape and tensor.has_shape:
                array = array.reshape(())  # Triton's clients send a single number as [1]
            wide = tensors.widened(array, tensor.dtype)
            if wide is None:
                raise InvalidInput(
                    f"{where}.datatype: expected {tensors.NAMES[tensor.dtype]} for input "
                    f"{tensor.name}, got {each.datatype}"
                )
            arrays[each.name] = wide
        if place != len(binary):
            raise InvalidInput(
                f"body: expected {place} bytes behind the JSON as binary_data_size says, "
                f"got {len(binary)}"
            )
        if missing := [name for name in expected if name not in arrays]:
            raise InvalidInput(f"inputs: expected {', '.join(expected)}; got no {missing[0]}")
        return [arrays[name] for name in expected]


def count_rows(inputs: Inputs, model: Model) -> int:
    """Return how many rows a request has; 1 where there are none. Raises InvalidInput."""
    if not model.is_batched:
        return 1
    rows = len(inputs[0])
    for tensor, array in zip(model.inputs, inputs, strict=True):
        if len(array) != rows and model.has_named_rows:
            raise InvalidInput(
                f"inputs: expected as many rows in {tensor.name} as in {model.inputs[0].name}, "
                f"{rows}, got {len(array)}"
            )
    return max(map(len, inputs))


def is_infer(path: str) -> bool:
    """Whether this is the path of an inference request."""
    return path.startswith("/v2/") and _INFER.fullmatch(path) is not None


def _model_in(path: str) -> tuple[str, str | None]:
    found = _INFER.fullmatch(path)
    assert found is not None  # is_infer
    return found[1], found[2]


def split(body: bytes, length: bytes | None, model: Model) -> tuple[Request, memoryview]:
    """Return the JSON of a request, and the binary data behind it. Raises InvalidInput.

    `length` is that of the JSON, as the header says it; all is JSON if there is no such header.
    With a length of 0 all is the data of the only input, and the outputs come as binary data.
    """
    whole = memoryview(body)
    if length is None:
        return _all_json(body), whole[len(whole) :]
    if not re.fullmatch(rb"[0-9]{1,18}", length.strip()) or int(length) > len(body):
        got = shown(length[:40].decode("latin-1"))
        raise InvalidInput(
            f"Inference-Header-Content-Length: expected a whole number from 0 to {len(body)}, the "
            f"size of the body, got {got}"
        )
    size = int(length)
    if size == 0:
        return _raw_request(whole, model)
    return decoded(whole[:size], _request), whole[size:]


def _all_json(body: bytes) -> Request:
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
    if any(_parameter(each.parameters, "binary_data_size") for each in request.inputs):
        raise InvalidInput(missing)
    return request


def _raw_request(body: memoryview, model: Model) -> tuple[Request, memoryview]:
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
    datatype = tensors.NAMES[tensor.dtype]
    parameters: dict[str, Any] = {"binary_data_size": len(body)}
    if datatype == "BYTES":
        body = memoryview(len(body).to_bytes(4, "little") + body)
        parameters = {"binary_data_size": len(body)}
    elif opened:
        row_bytes = math.prod(shape) * np.dtype(tensor.dtype).itemsize
        shape[opened[0]] = len(body) // max(row_bytes, 1)
    sent = InputTensor(name=tensor.name, shape=shape, datatype=datatype, parameters=parameters)
    return Request(inputs=[sent], parameters={"binary_data_output": True}), body


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
            raise InvalidInput(f"parameters.{name[:40]}: expected no name that begins with triton_")
    timeout_us = _whole(parameters, "timeout", "parameters", "whole microseconds from 0")
    return min(timeout_us, _LONGEST_US) / 1e6 if timeout_us else math.inf


def _check_tensor(sent: InputTensor, tensor: Tensor, where: str) -> None:
    """Raise InvalidInput unless datatype and shape are known and fit."""
    if sent.datatype not in tensors.DATATYPES:
        known = ", ".join(tensors.DATATYPES)
        raise InvalidInput(f"{where}.datatype: expected one of {known}; got {shown(sent.datatype)}")
    if not _fits(sent.shape, tensor):
        raise InvalidInput(
            f"{where}.shape: expected {_expected_shape(tensor)}; got {_shown_shape(sent.shape)}"
        )


def _fits(sent: list[int], tensor: Tensor) -> bool:
    """Whether a shape is right for an input. No rows are none: operators of ONNX fail on them."""
    if sent and not 0 < sent[0] <= _LARGEST_SIZE:
        return False
    if math.prod(size or 1 for size in sent) > _MOST_NUMBERS:
        return False
    if not tensor.has_shape:
        return all(0 <= size <= _LARGEST_SIZE for size in sent)
    if not tensor.shape and sent == [1]:
        return True
    return len(sent) == len(tensor.shape) and all(
        0 <= got <= _LARGEST_SIZE if size == -1 else got == size
        for got, size in zip(sent, tensor.shape, strict=True)
    )


def _expected_shape(tensor: Tensor) -> str:
    named = f"for input {tensor.name}"
    if not tensor.has_shape:
        return f"any shape {named}, the first size from 1"
    if not tensor.shape:
        return f"[] or [1] {named}"
    inner = ", from 0 where it is not the first" if -1 in tensor.shape[1:] else ""
    return f"{list(tensor.shape)} {named}, with sizes from 1 for -1{inner}"


def _shown_shape(shape: list[int]) -> str:
    sizes = ", ".join(map(shown, shape[:5]))
    return f"[{sizes}, ...]" if len(shape) > 5 else f"[{sizes}]"


def _parameter(parameters: dict[str, Any] | None, name: str) -> Any:
    return None if parameters is None else parameters.get(name)


def _binary_size(sent: InputTensor, where: str) -> int | None:
    """Return how many bytes of binary data an input has, None if its data is JSON."""
    if _parameter(sent.parameters, "shared_memory_region") is not None:
        raise InvalidInput(f"{where}: expected data in the request, as shared memory is not served")
    size = _whole(sent.parameters, "binary_data_size", f"{where}.parameters")
    if (size is None) == (sent.data == _NULL):
        got = "none" if size is None else "both"
        raise InvalidInput(
            f"{where}: expected either data or parameters.binary_data_size, got {got}"
        )
    return size


def wanted_outputs(asked: Request, model: Model) -> list[Wanted]:
    """Return which outputs are to be answered, and how; all if none are named.

    Raises InvalidInput.
    """
    by_default = _flag(asked.parameters or {}, "binary_data_output", "parameters") or False
    names = [each.name for each in model.outputs]
    wanted = [] if asked.outputs else [Wanted(place, by_default) for place in range(len(names))]
    for index, each in enumerate(asked.outputs or []):
        where = f"outputs[{index}]"
        if each.name in model.left_out:
            raise InvalidInput(
                f"{where}.name: {each.name} is {model.left_out[each.name]}, which the protocol "
                f"cannot carry; expected one of {', '.join(names)}"
            )
        if each.name not in names:
            raise InvalidInput(
                f"{where}.name: expected one of {', '.join(names)}; got {shown(each.name)}"
            )
        if any(names[one.place] == each.name for one in wanted):
            raise InvalidInput(f"{where}.name: expected each output once, got {each.name} again")
        parameters = each.parameters or {}
        if parameters.get("shared_memory_region") is not None:
            raise InvalidInput(f"{where}: expected none, as shared memory is not served")
        most = _whole(parameters, "classification", f"{where}.parameters")
        is_binary = _flag(parameters, "binary_data", f"{where}.parameters")
        is_binary = by_default if is_binary is None else is_binary
        wanted.append(Wanted(names.index(each.name), is_binary, most or 0))
    for one in wanted:
        _check_form(one, model.outputs[one.place])
    return wanted


def _check_form(wanted: Wanted, tensor: Tensor) -> None:
    """Raise InvalidInput if the output has not the form that is asked for."""
    if wanted.most_classes:
        if np.dtype(tensor.dtype).kind not in "fiu":
            raise InvalidInput(f"output {tensor.name}: expected numbers for a classification")
    elif tensor.dtype is np.float16 and not wanted.is_binary:
        raise InvalidInput(f"output {tensor.name}: {tensors.NO_FP16}")


def _whole(
    parameters: dict[str, Any] | None,
    name: str,
    where: str,
    expected: str = "a whole number from 0",
) -> int | None:
    """Return a parameter that is a whole number, also one that was written as 2.0."""
    value = _parameter(parameters, name)
    if type(value) is float and value.is_integer():
        value = int(value)
    if value is not None and (type(value) is not int or value < 0):
        raise InvalidInput(f"{where}.{name}: expected {expected}, got {shown(value)}")
    return value


def _flag(parameters: dict[str, Any], name: str, where: str) -> bool | None:
    value = parameters.get(name)
    if value is not None and type(value) is not bool:
        raise InvalidInput(f"{where}.{name}: expected true or false, got {shown(value)}")
    return value


def reply(served: ServedModel, reply_id: str, wanted: list[Wanted], outputs: Outputs) -> Parts:
    """Return the reply's body: JSON, and the binary data that was asked for behind it.

    Raises InferenceFailed for NaN in JSON.
    """
    model = served.model
    described: list[dict[str, Any]] = []
    binary: Parts = []
    for each in wanted:
        array, tensor = outputs[each.place], model.outputs[each.place]
        if each.most_classes:
            labels = served.card.labels if served.card else []
            array = tensors.classified(array, each.most_classes, labels, has_rows=model.is_batched)
        datatype = "BYTES" if each.most_classes else tensors.NAMES[tensor.dtype]
        output: dict[str, Any] = {"name": tensor.name, "datatype": datatype, "shape": array.shape}
        if each.is_binary:
            binary.append(tensors.as_binary(array))
            output["parameters"] = {"binary_data_size": len(binary[-1])}
        else:
            served.check_finite([array])
            output["data"] = tensors.as_json(array)
        described.append(output)
    head = encode(
        {
            "model_name": served.name,
            "model_version": str(served.version),
            "id": reply_id,
            "outputs": described,
        }
    )
    return [head, *binary]


async def _told(request: Incoming, parts: Parts) -> Parts:
    """Return a reply's body, packed if that is worth it and the caller takes it.

    Sets the headers that say what it is, when nothing can fail any more.
    """
    headers = []
    content_type = JSON
    if len(parts) > 1:
        content_type = BINARY
        headers.append((HEADER_LENGTH, b"%d" % len(parts[0])))
    accept = request.headers.get(b"accept-encoding")
    if accept is not None and sum(map(len, parts)) >= compression.SHORTEST:
        encoding = compression.wanted(accept)
        if encoding is not None:
            parts = [await compression.packed(b"".join(parts), encoding)]
            headers.append((b"content-encoding", encoding.encode()))
            headers.append((b"vary", b"accept-encoding"))
    request.content_type = content_type
    request.reply_headers += headers
    return parts
