"""What Triton's clients send in the tests, over HTTP and over gRPC: the same data."""

import itertools
from typing import Any

import numpy as np
import tritonclient.http as triton
from numpy.typing import NDArray
from tritonclient.utils import np_to_triton_dtype

ROW = np.array([[1, 2, 3, 4]], np.float32)

# The ends of each datatype, and what is easily lost between them: signs, tiny values, empty texts.
VALUES: dict[str, NDArray[Any]] = {
    "BOOL": np.array([[True, False], [False, True]]),
    "FP16": np.array([[-65504, 65504], [6e-8, -0.0]], np.float16),
    "FP32": np.array([[-3.4028235e38, 3.4028235e38], [1e-45, -0.0]], np.float32),
    "FP64": np.array([[-1.7976931348623157e308, 1.7976931348623157e308], [5e-324, -0.0]]),
    "BYTES": np.array([["", "Grüße, 東京 🚀"], ['"[\\', "line\nand\x00zero"]], np.object_),
} | {
    f"{'U' * unsigned}INT{bits}": np.array(
        [[limits.min, limits.max], [limits.max - 1, 1]], limits.dtype
    )
    for bits, unsigned in itertools.product((8, 16, 32, 64), (False, True))
    for limits in [np.iinfo(f"{'u' * unsigned}int{bits}")]
}


def given(name: str, array: NDArray[Any], *, binary: bool = True) -> triton.InferInput:
    given = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    return given.set_data_from_numpy(array, binary_data=binary)


def wanted(name: str, *, binary: bool = True, classes: int = 0) -> triton.InferRequestedOutput:
    return triton.InferRequestedOutput(name, binary_data=binary, class_count=classes)


TOY = "probabilities"
FOUR = np.ones(4, np.float32)


# Status of HTTP, beginning of the sentence, inputs and outputs for toy.
REFUSALS: list[tuple[int, str, list[triton.InferInput], list[triton.InferRequestedOutput]]] = [
    (
        400,
        "inputs[0].shape: expected [-1, 4] for input input, with sizes from 1 for -1; got [1, 5]",
        [given("input", np.ones((1, 5), np.float32))],
        [],
    ),
    (400, "inputs[0].shape: expected [-1, 4] for ", [given("input", FOUR)], []),
    (400, "inputs[0].shape: expected [-1, 4] for ", [given("input", FOUR[:0])], []),
    (
        400,
        "inputs[0].shape: expected [-1, 4] for ",
        [given("input", np.ones((0, 4), np.float32))],
        [],
    ),
    (
        413,
        "inputs: expected at most 4096 rows in one request, got 4097",
        [given("input", np.ones((4097, 4), np.float32))],
        [],
    ),
    (
        400,
        "inputs[0].datatype: expected FP32 for input input, got INT64",
        [given("input", np.ones((1, 4), np.int64))],
        [],
    ),
    (
        400,
        "inputs[0].datatype: expected FP32 for input input, got BYTES",
        [given("input", np.full((1, 4), "1", np.object_), binary=False)],
        [],
    ),
    (
        400,
        "inputs[0].datatype: expected one of BOOL, UINT8, ",
        [triton.InferInput("input", [1, 4], "BF16")],
        [],
    ),
    (
        400,
        'inputs[0].name: expected one of input; got "inputs"',
        [given("inputs", ROW)],
        [],
    ),
    (
        400,
        "inputs[1].name: expected each input once, got input again",
        [given("input", ROW), given("input", ROW)],
        [],
    ),
    (400, "inputs: expected input; got no input", [], []),
    (
        400,
        f'outputs[1].name: expected one of {TOY}; got "logits"',
        [given("input", ROW)],
        [wanted(TOY), wanted("logits")],
    ),
    (
        400,
        "inputs[0]: expected either data or parameters.binary_data_size, got none",
        [triton.InferInput("input", [1, 4], "FP32")],
        [],
    ),
]
