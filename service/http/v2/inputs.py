"""The inputs of an inference request -> arrays in the model's order."""

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from service.batching import Inputs
from service.engine.model import Model
from service.errors import InvalidInput
from service.formats import tensors
from service.http.v2.message import NULL, AnyTensor
from service.v2.inputs import (
    check_tensor,
    input_again,
    missing_input,
    too_many_rows,
    unknown_input,
    wrong_datatype,
)
from service.v2.parameters import parameter, whole_number
from service.words import shown


def read_inputs(
    sent: Sequence[AnyTensor], binary: memoryview, model: Model, max_rows: int, deadline: float
) -> Inputs:
    """Return the arrays in the model's order.

    Raises InvalidInput with the place, TooLarge, DeadlineExceeded.
    """
    arrays: dict[str, NDArray[Any]] = {}
    place = 0
    for index, each in enumerate(sent):
        where = f"inputs[{index}]"
        tensor = model.input_named.get(each.name)
        if tensor is None:
            raise unknown_input(each.name, model, where)
        if each.name in arrays:
            raise input_again(each.name, where)
        check_tensor(each.datatype, each.shape, tensor, where)
        if model.is_batched and each.shape[0] > max_rows:
            raise too_many_rows(each.shape[0], max_rows)
        size = _binary_size(each, where)
        if size is None:
            array = tensors.read_json(
                each.data,
                each.shape,
                each.datatype,
                f"{where}.data",
                deadline,
                takes_missing=each.name in model.takes_missing,
            )
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
            raise wrong_datatype(each.datatype, tensor, where)
        arrays[each.name] = wide
    if place != len(binary):
        raise InvalidInput(
            f"body: expected {place} bytes behind the JSON as binary_data_size says, "
            f"got {len(binary)}"
        )
    expected = model.input_named
    if len(arrays) < len(expected):
        raise missing_input(arrays, model)
    return [arrays[name] for name in expected]


def _binary_size(sent: AnyTensor, where: str) -> int | None:
    """Return how many bytes of binary data an input has, None if its data is JSON."""
    if sent.parameters is None and sent.data != NULL:
        return None
    if parameter(sent.parameters, "shared_memory_region") is not None:
        raise InvalidInput(f"{where}: expected data in the request, as shared memory is not served")
    size = whole_number(sent.parameters, "binary_data_size", f"{where}.parameters")
    if (size is None) == (sent.data == NULL):
        got = "none" if size is None else "both"
        raise InvalidInput(
            f"{where}: expected either data or parameters.binary_data_size, got {got}"
        )
    return size
