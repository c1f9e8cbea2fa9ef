"""The outputs that an inference request wants, and how large the reply to it may be."""

from typing import Any

import numpy as np
from msgspec import Struct

from service.catalog.served import ServedModel
from service.engine.model import Model
from service.engine.spec import Tensor
from service.errors import InvalidInput
from service.formats import tensors
from service.formats.reply_size import UNKNOWN, WIDTH, times, values_of
from service.v2.parameters import flag, whole_number
from service.words import shown

_LONGEST_CLASS = 70  # bytes of "value:index:", where the value is below 1e39


class RequestedOutput(Struct):
    """One output that a request wants."""

    name: str
    parameters: dict[str, Any] | None = None


class Wanted(Struct):
    """How one output is to be answered."""

    place: int  # among the outputs of the model
    is_binary: bool
    most_classes: int = 0  # 0: the tensor as it is


def wanted_outputs(
    outputs: list[RequestedOutput] | None, model: Model, is_binary: bool
) -> list[Wanted]:
    """Return which outputs are to be answered, and how; all if none are named.

    is_binary: what counts where an output does not say it. Raises InvalidInput.
    """
    if outputs:
        wanted = _named_outputs(outputs, model, is_binary)
    else:
        wanted = [Wanted(place, is_binary) for place in range(len(model.outputs))]
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
            longest = max(map(len, labels_of(model, each.place)), default=0)
            size += times(min(values, rows * each.most_classes), _LONGEST_CLASS + 4 * longest)
        elif each.is_binary and tensor.dtype is not np.object_:
            size += times(values, np.dtype(tensor.dtype).itemsize)
        else:
            size += times(values, WIDTH[tensor.dtype])
    return min(size, UNKNOWN)


def labels_of(model: Model, place: int) -> list[str]:
    """Return the labels of the columns of an output, nothing if it has none."""
    classifier = model.classifier
    return classifier.names if classifier and classifier.scores == place else []
