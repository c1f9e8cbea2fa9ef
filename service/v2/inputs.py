"""What the inputs of an inference request have to be, and the sentences of those that are not."""

import math
from collections.abc import Collection

from service.batching import Inputs
from service.engine.model import Model
from service.engine.spec import Tensor
from service.errors import InvalidInput, TooLarge
from service.formats import tensors
from service.words import shown

_MANY_ROWS = 10_000
_LARGEST_SIZE = 2**31 - 1  # of a dimension
_MOST_NUMBERS = 2**40  # of a tensor; beside a size of 0 too, as NumPy multiplies the others


def check_tensor(datatype: str, shape: list[int], tensor: Tensor, where: str) -> None:
    """Raise InvalidInput unless datatype and shape are known and fit."""
    if datatype not in tensors.DATATYPES:
        known = ", ".join(tensors.DATATYPES)
        raise InvalidInput(f"{where}.datatype: expected one of {known}; got {shown(datatype)}")
    if not _fits(shape, tensor):
        raise InvalidInput(
            f"{where}.shape: expected {_expected_shape(tensor)}; got {_shown_shape(shape)}"
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


def unknown_input(name: str, model: Model, where: str) -> InvalidInput:
    """Return what to raise for a name that is no input's."""
    names = ", ".join(model.input_named)
    return InvalidInput(f"{where}.name: expected one of {names}; got {shown(name)}")


def input_again(name: str, where: str) -> InvalidInput:
    """Return what to raise for an input that came before."""
    return InvalidInput(f"{where}.name: expected each input once, got {name} again")


def too_many_rows(rows: int, max_rows: int) -> TooLarge:
    """Return what to raise for more rows than a request may have."""
    return TooLarge(f"inputs: expected at most {max_rows} rows in one request, got {rows}")


def wrong_datatype(datatype: str, tensor: Tensor, where: str) -> InvalidInput:
    """Return what to raise for a datatype whose values the model's own does not hold."""
    return InvalidInput(
        f"{where}.datatype: expected {tensors.NAMES[tensor.dtype]} for input {tensor.name}, "
        f"got {datatype}"
    )


def missing_input(given: Collection[str], model: Model) -> InvalidInput:
    """Return what to raise for fewer inputs than the model has."""
    expected = model.input_named
    missing = next(name for name in expected if name not in given)
    return InvalidInput(f"inputs: expected {', '.join(expected)}; got no {missing}")


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
