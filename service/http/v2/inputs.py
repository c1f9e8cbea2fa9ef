"""The inputs of an inference request -> arrays in the model's order."""

import math
from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from service.batching import Inputs
from service.engine.model import Model
from service.engine.spec import Tensor
from service.errors import InvalidInput, TooLarge
from service.formats import tensors
from service.http.v2.message import NULL, AnyTensor
from service.http.v2.parameters import parameter, whole_number
from service.words import shown

_MANY_ROWS = 10_000
_LARGEST_SIZE = 2**31 - 1  # of a dimension
_MOST_NUMBERS = 2**40  # of a tensor; beside a size of 0 too, as NumPy multiplies the others


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
            names = ", ".join(model.input_named)
            raise InvalidInput(f"{where}.name: expected one of {names}; got {shown(each.name)}")
        if each.name in arrays:
            raise InvalidInput(f"{where}.name: expected each input once, got {each.name} again")
        _check_tensor(each, tensor, where)
        if model.is_batched and each.shape[0] > max_rows:
            raise TooLarge(
                f"inputs: expected at most {max_rows} rows in one request, got {each.shape[0]}"
            )
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
    expected = model.input_named
    if len(arrays) < len(expected):
        missing = next(name for name in expected if name not in arrays)
        raise InvalidInput(f"inputs: expected {', '.join(expected)}; got no {missing}")
    return [arrays[name] for name in expected]


def count_rows(inputs: Inputs, model: Model) -> int:
    """Return how many rows a request has; 1 where there are none. Raises InvalidInput."""
    if not model.is_batched:
        return 1
    rows = len(inputs[0])
    if len(inputs) == 1:
        return rows
    for tensor, array in zip(model.inputs, inputs, strict=True):
        if len(array) != rows and model.has_named_rows:
            raise InvalidInput(
                f"inputs: expected as many rows in {tensor.name} as in {model.inputs[0].name}, "
                f"{rows}, got {len(array)}"
            )
    return max(map(len, inputs))


def _check_tensor(sent: AnyTensor, tensor: Tensor, where: str) -> None:
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
    rows, *row = sent or (0,)
    if 0 < rows <= _MANY_ROWS and tensor.shape == (-1, *row) and -1 not in row:
        return True  # as nearly always: its rows are open, and nothing else
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
