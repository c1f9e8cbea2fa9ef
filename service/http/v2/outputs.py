"""The outputs that a request wants, and the reply that holds them."""

from typing import Any

import numpy as np
from msgspec import UNSET, Struct

from service.batching import Outputs
from service.catalog.served import ServedModel
from service.engine.model import Model
from service.engine.spec import Tensor
from service.errors import InvalidInput
from service.formats import tensors
from service.formats.predictions import encode
from service.formats.reply_size import UNKNOWN, WIDTH, times, values_of
from service.http.reply import Fragments, Reply
from service.http.v2.message import HEADER_LENGTH, AnyRequest, RequestedOutput
from service.http.v2.parameters import flag, whole_number
from service.words import shown

BINARY = b"application/octet-stream"
_LONGEST_CLASS = 70  # bytes of "value:index:", where the value is below 1e39


class OutputTensor(Struct):
    """One output of a reply: `data`, or binary data behind the JSON."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    parameters: Any = UNSET
    data: Any = UNSET


class InferReply(Struct):
    """The JSON of a reply."""

    model_name: str
    model_version: str
    id: str
    outputs: list[OutputTensor]


class Wanted(Struct):
    """How one output is to be answered."""

    place: int  # among the outputs of the model
    is_binary: bool
    most_classes: int = 0  # 0: the tensor as it is


def wanted_outputs(message: AnyRequest, model: Model) -> list[Wanted]:
    """Return which outputs are to be answered, and how; all if none are named.

    Raises InvalidInput.
    """
    parameters = message.parameters
    by_default = bool(parameters and flag(parameters, "binary_data_output", "parameters"))
    if message.outputs:
        wanted = _named_outputs(message.outputs, model, by_default)
    else:
        wanted = [Wanted(place, by_default) for place in range(len(model.outputs))]
    for one in wanted:
        _check_form(one, model.outputs[one.place])
    return wanted


def _named_outputs(outputs: list[RequestedOutput], model: Model, by_default: bool) -> list[Wanted]:
    """Return how those that are named are to be answered; `by_default` whether in binary."""
    names, wanted = [each.name for each in model.outputs], list[Wanted]()
    for index, each in enumerate(outputs):
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
        most = whole_number(parameters, "classification", f"{where}.parameters")
        is_binary = flag(parameters, "binary_data", f"{where}.parameters")
        is_binary = by_default if is_binary is None else is_binary
        wanted.append(Wanted(names.index(each.name), is_binary, most or 0))
    return wanted


def _check_form(wanted: Wanted, tensor: Tensor) -> None:
    """Raise InvalidInput if the output has not the form that is wanted."""
    if wanted.most_classes:
        if np.dtype(tensor.dtype).kind not in "fiu":
            raise InvalidInput(f"output {tensor.name}: expected numbers for a classification")
    elif tensor.dtype is np.float16 and not wanted.is_binary:
        raise InvalidInput(f"output {tensor.name}: {tensors.NO_FP16}")


def reply_bytes(wanted: list[Wanted], served: ServedModel, rows: int) -> int:
    """Return how many bytes a reply has at most; UNKNOWN where only the outputs tell."""
    model, size = served.model, 500  # what stands beside the data
    for each in wanted:
        tensor, values = model.outputs[each.place], values_of(model, each.place, rows)
        if each.most_classes:
            longest = max(map(len, _labels(model, each.place)), default=0)
            size += times(min(values, rows * each.most_classes), _LONGEST_CLASS + 4 * longest)
        elif each.is_binary and tensor.dtype is not np.object_:
            size += times(values, np.dtype(tensor.dtype).itemsize)
        else:
            size += times(values, WIDTH[tensor.dtype])
    return min(size, UNKNOWN)


def _labels(model: Model, place: int) -> list[str]:
    """Return the labels of the columns of an output, nothing if it has none."""
    classifier = model.classifier
    return classifier.names if classifier and classifier.scores == place else []


def infer_reply(
    served: ServedModel, reply_id: str, wanted: list[Wanted], outputs: Outputs
) -> Reply:
    """Return the reply: JSON, and the binary data that was wanted behind it.

    Raises InferenceFailed for NaN in JSON.
    """
    model = served.model
    described: list[OutputTensor] = []
    binary: Fragments = []
    for each in wanted:
        array, tensor = outputs[each.place], model.outputs[each.place]
        if each.most_classes:
            labels = _labels(model, each.place)
            array = tensors.classified(array, each.most_classes, labels, has_rows=model.is_batched)
        datatype = "BYTES" if each.most_classes else tensors.NAMES[tensor.dtype]
        output = OutputTensor(tensor.name, datatype, array.shape)
        if each.is_binary:
            binary.append(tensors.as_binary(array))
            output.parameters = {"binary_data_size": len(binary[-1])}
        else:
            served.check_finite([array])
            output.data = tensors.as_json(array)
        described.append(output)
    head = encode(InferReply(served.name, str(served.version), reply_id, described))
    if not binary:
        return Reply([head], is_compressible=True)
    headers = [(HEADER_LENGTH, b"%d" % len(head))]
    return Reply([head, *binary], content_type=BINARY, headers=headers, is_compressible=True)
