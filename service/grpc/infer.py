"""ModelInfer: the Open Inference Protocol over gRPC, from message to answer.

    message -> model, held -> tensors -> outputs -> tensors -> message

What is sent and answered: https://github.com/kserve/open-inference-protocol
(open_inference_grpc.proto), and Triton's extensions as over HTTP (http/v2/infer.py). What was sent
raw is answered raw; typed contents are answered by typed contents.
"""

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any, TypeAlias

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from service.batching import Inputs, Outputs
from service.catalog.served import ServedModel
from service.engine.model import Model
from service.engine.protobuf import head
from service.engine.spec import Tensor
from service.entrance.services import Services
from service.errors import InvalidInput
from service.formats import tensors
from service.formats.message import LARGEST_IN_LOOP
from service.formats.reply_size import MOST_NUMBERS_IN_LOOP, STRING, check_size, values_of
from service.grpc.messages import (
    InferOutputTensor,
    Message,
    ModelInferRequest,
    ModelInferResponse,
    parsed,
)
from service.grpc.outline import LONG, Outline, outline
from service.grpc.tensors import NO_FP16, contents_of, read_contents
from service.inference import Call, Slowly, Work, work_of_tensors
from service.settings import Settings
from service.v2.inputs import (
    check_tensor,
    count_rows,
    input_again,
    missing_input,
    too_many_rows,
    unknown_input,
    wrong_datatype,
)
from service.v2.outputs import RequestedOutput, Wanted, labels_of, reply_bytes, wanted_outputs
from service.v2.parameters import check_parameters, parameter

Parts: TypeAlias = list[bytes | memoryview]
_ID, _OUTPUTS, _RAW_OUTPUT = 3, 5, 6  # numbers of fields of the answer
_CONTENTS = 5  # of an output
_MOST_KEPT = 512  # beginnings of answers, and outputs: those of a program are alike


class Asked(Struct, frozen=True):
    """How an answer is wanted."""

    id: str
    wanted: list[Wanted]
    is_raw: bool


def read(services: Services, call: Call, data: bytes) -> Work | Slowly:
    """Find the model of a message, and read the tensors that are its inputs.

    Raises RequestError.
    """
    settings = services.settings
    if len(data) > LONG:
        parts = outline(data)
        served = services.inference.model(call, parts.name, parts.version or None)
        work = partial(_work_of_outline, call, served, parts, settings)
        is_long = (
            len(parts.rest) > LARGEST_IN_LOOP
            or any(each is not None for each in parts.contents)
            or _has_strings(served.model)
        )
    else:
        message = parsed(ModelInferRequest, data)
        version = message.model_version or None
        served = services.inference.model(call, message.model_name, version)
        raw = message.raw_input_contents
        if len(data) <= LARGEST_IN_LOOP or (raw and not _has_strings(served.model)):
            return _work(call, served, message, raw, settings)
        work, is_long = partial(_work, call, served, message, raw, settings), True
    if is_long:
        return Slowly(served, partial(services.bodies.in_thread, work, call.deadline))
    return work()


def _has_strings(model: Model) -> bool:
    return any(each.dtype is np.object_ for each in model.inputs)


def _work_of_outline(call: Call, served: ServedModel, parts: Outline, settings: Settings) -> Work:
    message = parsed(ModelInferRequest, parts.rest)
    return _work(call, served, message, parts.raw, settings, parts.contents)


def _work(
    call: Call,
    served: ServedModel,
    message: Message,
    raw: Sequence[bytes | memoryview],
    settings: Settings,
    contents: Sequence[memoryview | None] = (),
) -> Work:
    """Return what a message wants of a model. Raises RequestError."""
    if message.parameters:
        timeout_s = check_parameters(_values(message.parameters))
        call.deadline = min(call.deadline, call.start + timeout_s)
    model = served.model
    inputs = _inputs(message, raw, contents, model, settings.max_request_rows, call.deadline)
    rows = count_rows(inputs, model)
    named = message.outputs[: len(model.outputs) + 1]  # one more is refused, as each comes once
    outputs = [RequestedOutput(each.name, _values(each.parameters)) for each in named]
    wanted = wanted_outputs(outputs, model, True)
    is_raw = len(raw) > 0
    if not is_raw:
        _check_typed(wanted, model)
    size = reply_bytes(wanted, served, rows)
    check_size(size, settings.most_reply_bytes, rows, "inputs")
    return work_of_tensors(served, inputs, rows, Asked(message.id, wanted, is_raw), size)


def _inputs(
    message: Message,
    raw: Sequence[bytes | memoryview],
    typed: Sequence[memoryview | None],
    model: Model,
    max_rows: int,
    deadline: float,
) -> Inputs:
    """Return the arrays in the model's order.

    Raises InvalidInput with the place, TooLarge, DeadlineExceeded.
    """
    sent = message.inputs
    if raw and len(raw) != len(sent):
        raise InvalidInput(
            f"raw_input_contents: expected one for each input, {len(sent)}, got {len(raw)}"
        )
    arrays: dict[str, NDArray[Any]] = {}
    for index, each in enumerate(sent):
        where, name, datatype = f"inputs[{index}]", each.name, each.datatype
        shape = list(each.shape)
        tensor = model.input_named.get(name)
        if tensor is None:
            raise unknown_input(name, model, where)
        if name in arrays:
            raise input_again(name, where)
        check_tensor(datatype, shape, tensor, where)
        if model.is_batched and shape[0] > max_rows:
            raise too_many_rows(shape[0], max_rows)
        if each.parameters and parameter(_values(each.parameters), "shared_memory_region"):
            raise InvalidInput(
                f"{where}: expected data in the request, as shared memory is not served"
            )
        cut = typed[index] if typed else None
        if not raw:
            contents = f"{where}.contents"
            array = read_contents(cut or each.contents, shape, datatype, contents, deadline)
        elif cut is not None or each.HasField("contents"):
            raise InvalidInput(f"{where}: expected contents or raw_input_contents, got both")
        else:
            array = tensors.read_binary(memoryview(raw[index]), shape, datatype, where)
        arrays[name] = _fitting(array, datatype, tensor, where)
    if len(arrays) < len(model.input_named):
        raise missing_input(arrays, model)
    return [arrays[name] for name in model.input_named]


def array_of(
    raw: memoryview, shape: list[int], datatype: str, tensor: Tensor, where: str
) -> NDArray[Any]:
    """Return the array of an input, whose shape and datatype are known to fit; see `_inputs`."""
    array = tensors.read_binary(raw, shape, datatype, where)
    return _fitting(array, datatype, tensor, where)


def _fitting(array: NDArray[Any], datatype: str, tensor: Tensor, where: str) -> NDArray[Any]:
    """Return an array as the model takes it. Raises InvalidInput."""
    if not tensor.shape and tensor.has_shape:
        array = array.reshape(())  # Triton's clients send a single number as [1]
    wide = tensors.widened(array, tensor.dtype)
    if wide is None:
        raise wrong_datatype(datatype, tensor, where)
    return wide


def _values(parameters: Message) -> dict[str, Any]:
    """Return parameters as over HTTP; those without a value say nothing."""
    chosen = {name: each.WhichOneof("parameter_choice") for name, each in parameters.items()}
    return {name: getattr(parameters[name], choice) for name, choice in chosen.items() if choice}


def _check_typed(wanted: list[Wanted], model: Model) -> None:
    """Raise InvalidInput for outputs that have no typed contents."""
    for each in wanted:
        tensor = model.outputs[each.place]
        if tensor.dtype is np.float16 and not each.most_classes:
            raise InvalidInput(f"output {tensor.name}: {NO_FP16}")


def is_slowly_written(work: Work, sizes: Sequence[int] | None = None) -> bool:
    """Whether an answer takes long to write; numbers that are raw are only copied.

    sizes: of each output, where the model does not say it.
    """
    asked, model = work.asked, work.served.model
    count = 0
    for each in asked.wanted:
        is_text = model.outputs[each.place].dtype is np.object_
        if asked.is_raw and not is_text and not each.most_classes:
            continue
        values = values_of(model, each.place, work.rows) if sizes is None else sizes[each.place]
        texts = min(values, work.rows * each.most_classes) if each.most_classes else values
        count += values + STRING * texts if is_text or each.most_classes else values
    return count > MOST_NUMBERS_IN_LOOP


def written(asked: Asked, served: ServedModel, outputs: Outputs, request_id: bytes) -> Parts:
    """Return the message that holds the outputs which are wanted, in parts."""
    model = served.model
    id = asked.id.encode() or request_id
    begin = [_begin_of_answer(served.name, served.version), head(_ID, len(id)), id]
    behind: Parts = []
    for each in asked.wanted:
        array, tensor = outputs[each.place], model.outputs[each.place]
        datatype = tensors.NAMES[tensor.dtype]
        if each.most_classes:
            labels = labels_of(model, each.place)
            array = tensors.classified(array, each.most_classes, labels, has_rows=model.is_batched)
            datatype = "BYTES"
        output = _output(tensor.name, datatype, array.shape)
        if asked.is_raw:
            begin += (head(_OUTPUTS, len(output)), output)
            data = tensors.as_binary(array)
            behind += (head(_RAW_OUTPUT, len(data)), data)
        else:
            behind += _typed(output, contents_of(array, datatype))
    return [b"".join(begin), *behind]


@lru_cache(_MOST_KEPT)
def _begin_of_answer(name: str, version: int) -> bytes:
    answer = ModelInferResponse(model_name=name, model_version=str(version))
    data: bytes = answer.SerializeToString()
    return data


@lru_cache(_MOST_KEPT)
def _output(name: str, datatype: str, shape: tuple[int, ...]) -> bytes:
    output = InferOutputTensor(name=name, datatype=datatype, shape=shape)
    data: bytes = output.SerializeToString()
    return data


def _typed(begin: bytes, contents: Parts) -> Parts:
    """Return an output with its contents."""
    size = sum(map(len, contents))
    inner = [begin, head(_CONTENTS, size), *contents]
    return [head(_OUTPUTS, sum(map(len, inner))), *inner]
