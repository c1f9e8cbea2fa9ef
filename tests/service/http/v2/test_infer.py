import asyncio
import json
import math
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from service.formats.tensors import DATATYPES
from service.settings import Settings
from tests.support.processes import running
from tests.support.toys import body as predict_body
from tests.support.toys import (
    save_fussy,
    save_graph,
    save_mean,
    save_same,
    save_toy,
    serving,
    tensor,
    toy_answer,
    toy_card,
)

pytestmark = pytest.mark.anyio

TOY = "/v2/models/toy/infer"
KINDS = "/v2/models/kinds/infer"
LENGTH = "Inference-Header-Content-Length"
MAX_BODY_BYTES = 1_000_000
MAX_ROWS = 10
ONNX_TYPES = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}
INTEGERS = [name for name, dtype in DATATYPES.items() if np.dtype(dtype).kind in "iu"]


def save_kinds(folder: Path) -> None:
    """Write `folder`/kinds: an input and an output, its copy, of each datatype."""
    save_graph(
        folder / "kinds" / "1" / "model.onnx",
        [helper.make_node("Identity", [name], [f"{name}_out"]) for name in ONNX_TYPES],
        [tensor(name, ["batch", 2], number) for name, number in ONNX_TYPES.items()],
        [tensor(f"{name}_out", ["batch", 2], number) for name, number in ONNX_TYPES.items()],
        [],
        None,
    )


def save_lengths(folder: Path) -> None:
    """Write `folder`/lengths: the sum of each row, whose length is open."""
    save_graph(
        folder / "lengths" / "1" / "model.onnx",
        [helper.make_node("ReduceSum", ["input", "axis"], ["output"], keepdims=0)],
        [tensor("input", ["batch", "length"])],
        [tensor("output", ["batch"])],
        [numpy_helper.from_array(np.array([1], np.int64), "axis")],
        None,
    )


def save_scores(folder: Path) -> None:
    """Write `folder`/scores: queries times keys, of which there may be another number."""
    save_graph(
        folder / "scores" / "1" / "model.onnx",
        [helper.make_node("Gemm", ["queries", "keys"], ["scores"], transB=1)],
        [tensor("queries", ["queries", 2]), tensor("keys", ["keys", 2])],
        [tensor("scores", ["queries", "keys"])],
        [],
        None,
    )


def save_sequenced(folder: Path) -> None:
    """Write `folder`/sequenced: a copy of its input, and a sequence of that."""
    sequence = helper.make_tensor_sequence_value_info("several", TensorProto.FLOAT, ["batch", 2])
    save_graph(
        folder / "sequenced" / "1" / "model.onnx",
        [
            helper.make_node("Identity", ["input"], ["output"]),
            helper.make_node("SequenceConstruct", ["input"], ["several"]),
        ],
        [tensor("input", ["batch", 2])],
        [tensor("output", ["batch", 2]), sequence],
        [],
        None,
    )


def save_table(folder: Path) -> None:
    """Write `folder`/table: the square of its input, which fails from 3."""
    save_graph(
        folder / "table" / "1" / "model.onnx",
        [helper.make_node("Gather", ["squares", "input"], ["output"])],
        [tensor("input", ["batch", 1], TensorProto.INT64)],
        [tensor("output", ["batch", 1])],
        [numpy_helper.from_array(np.arange(3, dtype=np.float32) ** 2, "squares")],
        None,
    )


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    save_toy(folder, card=toy_card())
    save_kinds(folder)
    save_same(folder, [2, 3], name="fixed")
    save_same(folder, [], name="scalar")
    save_same(folder, ["batch", 1], TensorProto.STRING, name="word")
    save_same(folder, ["batch", 3], TensorProto.BOOL, name="flags")
    save_lengths(folder)
    save_scores(folder)
    save_sequenced(folder)
    save_fussy(folder)
    save_table(folder)
    return folder


@pytest.fixture(scope="module")
async def client(folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    """One service for the whole file: what a test did shall not show in the next."""
    settings = Settings(
        models_dir=folder, max_body_bytes=MAX_BODY_BYTES, max_request_rows=MAX_ROWS, watch=False
    )
    async with serving(settings) as client:
        yield client


def given(name: str, datatype: str, shape: list[Any], data: Any = None, **more: Any) -> Any:
    """Return one input as it stands in the JSON."""
    described = {"name": name, "datatype": datatype, "shape": shape, **more}
    return described if data is None else {**described, "data": data}


def four(data: Any = (1, 2, 3, 4), **changes: Any) -> Any:
    """Return the toy's input of one row, with changes."""
    fields = {"name": "input", "datatype": "FP32", "shape": [1, 4]} | changes
    return given(data=data, **fields)


def asked(*inputs: Any, **fields: Any) -> bytes:
    """Return the JSON of a request."""
    return json.dumps({"inputs": inputs, **fields}).encode()


def sized(size: Any, **changes: Any) -> Any:
    """Return the toy's input of one row whose data is binary."""
    return four(None, parameters={"binary_data_size": size}, **changes)


ROW = np.array([1, 2, 3, 4], "<f4").tobytes()
GOOD = asked(four())
EXPECTED = toy_answer(np.array([[1, 2, 3, 4]]))[0]


class Bad(NamedTuple):
    """A request that is refused, and how."""

    what: str
    content: bytes
    sentence: str
    status: int = 400
    path: str = TOY
    headers: dict[str, str] = {}  # noqa: RUF012 (never changed)


def bad_binary(what: str, head: bytes, data: bytes, sentence: str, path: str = TOY) -> Bad:
    return Bad(what, head + data, sentence, path=path, headers={LENGTH: str(len(head))})


def bad_length(what: str, length: str, got: str | None = None) -> Bad:
    """A length of the JSON that is none."""
    content = asked(sized(16)) + ROW
    shown = json.dumps(length) if got is None else got
    sentence = (
        f"{LENGTH}: expected a whole number from 0 to {len(content)}, the size of the body, "
        f"got {shown}"
    )
    return Bad(what, content, sentence, headers={LENGTH: length})


def bad_kind(what: str, datatype: str, value: str, sentence: str) -> Bad:
    """A second element of JSON that does not fit its datatype."""
    first = {"BOOL": "true", "BYTES": '"a"'}.get(datatype, "1")
    described = json.dumps(given(datatype, datatype, [1, 2]))[:-1]
    content = f'{{"inputs":[{described},"data":[{first},{value}]}}]}}'.encode()
    return Bad(what, content, f"inputs[0].data[1]: {sentence}", path=KINDS)


def bad_bytes(what: str, data: bytes, sentence: str, shape: tuple[int, ...] = (1, 2)) -> Bad:
    described = given("BYTES", "BYTES", list(shape), parameters={"binary_data_size": len(data)})
    return bad_binary(what, asked(described), data, sentence, KINDS)


def bad_parameter(name: str, value: Any, sentence: str, what: str = "") -> Bad:
    content = asked(four(), parameters={name: value})
    return Bad(
        what or f"parameter {name} {value!r}"[:60], content, f"parameters.{name}: {sentence}"
    )


def text(characters: str) -> bytes:
    """Return an element of BYTES as binary data."""
    encoded = characters.encode()
    return len(encoded).to_bytes(4, "little") + encoded


def bounds(datatype: str) -> str:
    limits = np.iinfo(DATATYPES[datatype])
    return f"expected a whole number from {limits.min} to {limits.max}"


HEADERS = [
    Bad(
        "no header length",
        asked(sized(16)) + ROW,
        f"{LENGTH}: expected the length of the JSON, as binary data follows it; got no such header",
    ),
    bad_length("header length negative", "-1"),
    bad_length("header length beyond the body", "9999"),
    bad_length("header length is a word", "all"),
    bad_length("header length empty", ""),
    bad_length("header length with a point", "12.0"),
    bad_length("header length with a sign", "+12"),
    bad_length("header length hexadecimal", "0x10"),
    bad_length("header length twice", "12, 12"),
    bad_length("header length beyond 64 bits", "1" * 30),
    bad_length("header length of 10,000 digits", "1" * 10_000, f'"{"1" * 39}...'),
    Bad(
        "header length cuts the JSON",
        asked(sized(16)) + ROW,
        "body: expected JSON, got: Input data was truncated",
        headers={LENGTH: "10"},
    ),
    Bad(
        "header length takes data for JSON",
        asked(sized(16)) + ROW,
        f"body: expected JSON, got: JSON is malformed: trailing characters (byte "
        f"{len(asked(sized(16))) + 1})",
        headers={LENGTH: str(len(asked(sized(16))) + 16)},
    ),
    Bad(
        "timeout header",
        GOOD,
        'X-Request-Timeout-Ms: expected whole milliseconds from 1, got "0"',
        headers={"X-Request-Timeout-Ms": "0"},
    ),
]
SIZES = [
    bad_binary(
        "too few bytes",
        asked(sized(16)),
        ROW[:15],
        "inputs[0].parameters.binary_data_size: expected 16 bytes behind the JSON, got 15",
    ),
    bad_binary(
        "no bytes",
        asked(sized(16)),
        b"",
        "inputs[0].parameters.binary_data_size: expected 16 bytes behind the JSON, got 0",
    ),
    bad_binary(
        "too many bytes",
        asked(sized(16)),
        ROW + b"\0",
        "body: expected 16 bytes behind the JSON as binary_data_size says, got 17",
    ),
    bad_binary(
        "bytes behind JSON data",
        GOOD,
        b"\0",
        "body: expected 0 bytes behind the JSON as binary_data_size says, got 1",
    ),
    bad_binary(
        "size smaller than the shape",
        asked(sized(12)),
        ROW[:12],
        "inputs[0]: expected 16 bytes as shape [1, 4] of FP32 says, got 12",
    ),
    bad_binary(
        "size larger than the shape",
        asked(sized(32)),
        ROW + ROW,
        "inputs[0]: expected 16 bytes as shape [1, 4] of FP32 says, got 32",
    ),
    bad_binary(
        "size zero",
        asked(sized(0)),
        b"",
        "inputs[0]: expected 16 bytes as shape [1, 4] of FP32 says, got 0",
    ),
    *(
        bad_binary(
            f"size {size!r}",
            asked(sized(size)),
            ROW,
            f"inputs[0].parameters.binary_data_size: expected a whole number from 0, "
            f"got {json.dumps(size)}",
        )
        for size in (-1, 16.5, "16", True)
    ),
    bad_binary(
        "size is a list",
        asked(sized([16])),
        ROW,
        "inputs[0].parameters.binary_data_size: expected a whole number from 0, got a list of 1",
    ),
    bad_binary(
        "size beyond 64 bits",
        asked(sized(2**70)),
        ROW,
        f"inputs[0].parameters.binary_data_size: expected {2**70} bytes behind the JSON, got 16",
    ),
    bad_binary(
        "second input's bytes are missing",
        asked(
            given("FP32", "FP32", [1, 2], parameters={"binary_data_size": 8}),
            given("INT8", "INT8", [1, 2], parameters={"binary_data_size": 2}),
        ),
        ROW[:9],
        "inputs[1].parameters.binary_data_size: expected 2 bytes behind the JSON, got 1",
        KINDS,
    ),
    bad_binary(
        "data and size",
        asked(four(parameters={"binary_data_size": 16})),
        ROW,
        "inputs[0]: expected either data or parameters.binary_data_size, got both",
    ),
    Bad(
        "neither data nor size",
        asked(four(None)),
        "inputs[0]: expected either data or parameters.binary_data_size, got none",
    ),
    Bad(
        "shared memory",
        asked(four(None, parameters={"shared_memory_region": "a"})),
        "inputs[0]: expected data in the request, as shared memory is not served",
    ),
    bad_binary(
        "raw, not a whole row",
        b"",
        ROW + ROW[:5],
        "inputs[0]: expected 16 bytes as shape [1, 4] of FP32 says, got 21",
    ),
    bad_binary(
        "raw, nothing",
        b"",
        b"",
        "inputs[0].shape: expected [-1, 4] for input input, with sizes from 1 for -1; got [0, 4]",
    ),
    bad_binary(
        "raw, fixed shape",
        b"",
        ROW,
        "inputs[0]: expected 24 bytes as shape [2, 3] of FP32 says, got 16",
        "/v2/models/fixed/infer",
    ),
    bad_binary(
        "raw, two open dimensions",
        b"",
        ROW,
        f"{LENGTH}: 0: expected a model with one input, and one open dimension, got one with 1 "
        "and 2 in input",
        "/v2/models/lengths/infer",
    ),
    bad_binary(
        "raw, several inputs",
        b"",
        ROW,
        f"{LENGTH}: 0: expected a model with one input, and one open dimension, got one with 13 "
        "and 1 in BOOL",
        KINDS,
    ),
    bad_binary(
        "raw, not UTF-8",
        b"",
        b"a\xff",
        "inputs[0]: element 0: expected UTF-8, got byte 1 that is not",
        "/v2/models/word/infer",
    ),
]


def bad_shape(what: str, shape: list[Any], got: str | None = None) -> Bad:
    sentence = (
        "inputs[0].shape: expected [-1, 4] for input input, with sizes from 1 for -1; "
        f"got {shape if got is None else got}"
    )
    return Bad(what, asked(four(shape=shape)), sentence)


ANY_LENGTH = "[-1, -1] for input input, with sizes from 1 for -1, from 0 where it is not the first"
SHAPES = [
    bad_shape("rank too low", [4]),
    bad_shape("rank too high", [1, 1, 4]),
    bad_shape("rank zero", []),
    bad_shape("rank 100", [1] * 100, "[1, 1, 1, 1, 1, ...]"),
    bad_shape("another size", [1, 3]),
    bad_shape("transposed", [4, 1]),
    bad_shape("zero rows", [0, 4]),
    bad_shape("a size of zero", [1, 0]),
    bad_shape("negative rows", [-1, 4]),
    bad_shape("two negatives", [-2, -2]),
    bad_shape("overflowing product", [2**62, 2**62]),
    *(
        Bad(
            f"sizes {first} and {second} where they are open",
            asked(given("input", "FP32", [first, second], [1])),
            f"inputs[0].shape: expected {ANY_LENGTH}; got [{first}, {second}]",
            path="/v2/models/lengths/infer",
        )
        for first, second in (
            *((2**62, 2**62), (1, 2**31), (2**64, 1), (0, 1), (0, 0), (-1, -1), (1, -1)),
        )
    ),
    Bad(
        "no rows of a model that takes no batch",
        asked(
            given("queries", "FP32", [1, 2], [1, 2]),
            given("keys", "FP32", [0, 2], []),
        ),
        "inputs[1].shape: expected [-1, 2] for input keys, with sizes from 1 for -1; got [0, 2]",
        path="/v2/models/scores/infer",
    ),
    Bad(
        "a count beyond 64 bits",
        asked(given("input", "FP32", [2, 2**31 - 1], [1])),
        f"inputs[0].data: expected {2 * (2**31 - 1)} elements as shape "
        f"{[2, 2**31 - 1]} says, got 1",
        path="/v2/models/lengths/infer",
    ),
    bad_binary(
        "a size beyond 64 bits",
        asked(given("input", "FP32", [2, 2**31 - 1], parameters={"binary_data_size": 16})),
        ROW,
        f"inputs[0]: expected {8 * (2**31 - 1)} bytes as shape {[2, 2**31 - 1]} of FP32 "
        "says, got 16",
        "/v2/models/lengths/infer",
    ),
    Bad(
        "2^62 empty rows",
        asked(given("input", "FP32", [2**62, 0], [])),
        f"inputs[0].shape: expected {ANY_LENGTH}; got {[2**62, 0]}",
        path="/v2/models/lengths/infer",
    ),
    *(
        Bad(
            f"scalar of shape {shape}",
            asked(given("input", "FP32", shape, [1] * count)),
            f"inputs[0].shape: expected [] or [1] for input input; got {shape}",
            path="/v2/models/scalar/infer",
        )
        for shape, count in (([2], 2), ([0], 0), ([1, 1], 1))
    ),
    Bad(
        "fixed rows",
        asked(given("input", "FP32", [1, 3], [1, 2, 3])),
        "inputs[0].shape: expected [2, 3] for input input, with sizes from 1 for -1; got [1, 3]",
        path="/v2/models/fixed/infer",
    ),
    *(
        Bad(f"size {size!r} in a shape", asked(four(shape=[1, size])), f"inputs[0].shape[1]: {got}")
        for size, got in (
            (4.0, "expected `int`, got `float`"),
            (4.5, "expected `int`, got `float`"),
            ("4", "expected `int`, got `str`"),
            (True, "expected `int`, got `bool`"),
            (None, "expected `int`, got `null`"),
            ([4], "expected `int`, got `array`"),
        )
    ),
    Bad("shape is a number", asked(four(shape=4)), "inputs[0].shape: expected `array`, got `int`"),
    Bad(
        "no shape",
        b'{"inputs":[{"name":"input","datatype":"FP32","data":[1,2,3,4]}]}',
        "inputs[0]: object missing required field `shape`",
    ),
    Bad(
        "size of 5,000 digits in a shape",
        b'{"inputs":[{"name":"input","datatype":"FP32","shape":[1%b]}]}' % (b"0" * 5000),
        "inputs[0].shape[0]: integer value out of range",
    ),
]
NAMES = [
    Bad(
        "datatype unknown",
        asked(four(datatype="FLOAT")),
        f"inputs[0].datatype: expected one of {', '.join(DATATYPES)}; got " + '"FLOAT"',
    ),
    Bad(
        "datatype in lower case",
        asked(four(datatype="fp32")),
        f"inputs[0].datatype: expected one of {', '.join(DATATYPES)}; got " + '"fp32"',
    ),
    Bad(
        "datatype BF16",
        asked(four(datatype="BF16")),
        f"inputs[0].datatype: expected one of {', '.join(DATATYPES)}; got " + '"BF16"',
    ),
    Bad(
        "datatype is null",
        asked(four(datatype=None)),
        "inputs[0].datatype: expected `str`, got `null`",
    ),
    *(
        Bad(
            f"datatype {datatype} for FP32",
            asked(four(data=data, datatype=datatype)),
            f"inputs[0].datatype: expected FP32 for input input, got {datatype}",
        )
        for datatype, data in (
            ("FP64", [1, 2, 3, 4]),
            ("INT32", [1, 2, 3, 4]),
            ("INT64", [1, 2, 3, 4]),
            ("BOOL", [True, True, True, False]),
            ("BYTES", ["1", "2", "3", "4"]),
        )
    ),
    Bad(
        "input unknown",
        asked(four(name="imput")),
        'inputs[0].name: expected one of input; got "imput"',
    ),
    Bad(
        "input without a name",
        asked(four(name="")),
        'inputs[0].name: expected one of input; got ""',
    ),
    Bad(
        "input with a long name",
        asked(four(name="n" * 5000)),
        f'inputs[0].name: expected one of input; got "{"n" * 39}...',
    ),
    Bad(
        "input twice",
        asked(four(), four()),
        "inputs[1].name: expected each input once, got input again",
    ),
    Bad("no inputs", asked(), "inputs: expected input; got no input"),
    Bad("no field inputs", b"{}", "body: object missing required field `inputs`"),
    Bad("inputs is null", b'{"inputs":null}', "inputs: expected `array`, got `null`"),
    Bad("an input is a number", b'{"inputs":[1]}', "inputs[0]: expected `object`, got `int`"),
    Bad(
        "one input of several is missing",
        asked(
            *(
                given(name, name, [1, 2], parameters=None, data=data)
                for name, data in (("BOOL", [True, False]), ("UINT8", [1, 2]))
            )
        ),
        f"inputs: expected {', '.join(DATATYPES)}; got no UINT16",
        path=KINDS,
    ),
    Bad(
        "output unknown",
        asked(four(), outputs=[{"name": "logits"}]),
        'outputs[0].name: expected one of probabilities; got "logits"',
    ),
    Bad(
        "second output unknown",
        asked(four(), outputs=[{"name": "probabilities"}, {"name": "ä"}]),
        'outputs[1].name: expected one of probabilities; got "ä"',
    ),
    Bad(
        "output is a word",
        asked(four(), outputs=["probabilities"]),
        "outputs[0]: expected `object`, got `str`",
    ),
    Bad(
        "output is a sequence",
        asked(given("input", "FP32", [1, 2], [1, 2]), outputs=[{"name": "several"}]),
        "outputs[0].name: several is seq(tensor(float)), which the protocol cannot carry; "
        "expected one of output",
        path="/v2/models/sequenced/infer",
    ),
    Bad(
        "output in shared memory",
        asked(
            four(),
            outputs=[{"name": "probabilities", "parameters": {"shared_memory_region": "a"}}],
        ),
        "outputs[0]: expected none, as shared memory is not served",
    ),
    Bad(
        "rows differ",
        asked(
            *(given(name, name, [1, 2], [1, 2]) for name in INTEGERS if name != "INT8"),
            given("INT8", "INT8", [2, 2], [1, 2, 3, 4]),
            given("BOOL", "BOOL", [1, 2], [True, True]),
            given("FP32", "FP32", [1, 2], [1, 2]),
            given("FP64", "FP64", [1, 2], [1, 2]),
            given("BYTES", "BYTES", [1, 2], ["", ""]),
            given("FP16", "UINT8", [1, 2], [1, 2]),
        ),
        "inputs: expected as many rows in INT8 as in BOOL, 1, got 2",
        path=KINDS,
    ),
    Bad(
        "too many rows",
        asked(four([0] * 44, shape=[11, 4])),
        "inputs: expected at most 10 rows in one request, got 11",
        413,
    ),
    Bad(
        "body too large",
        b" " * (MAX_BODY_BYTES + 1),
        f"body: expected at most {MAX_BODY_BYTES} bytes, got {MAX_BODY_BYTES + 1}",
        413,
    ),
]
VALUES = [
    Bad(
        "FP16 in JSON",
        asked(given("FP16", "FP16", [1, 2], [1, 2])),
        "inputs[0].data: FP16 has no form in JSON; use binary data",
        path=KINDS,
    ),
    *(
        bad_kind(f"{datatype} {value}", datatype, value, f"{bounds(datatype)}, got {value}")
        for datatype in INTEGERS
        for value in (
            str(np.iinfo(DATATYPES[datatype]).max + 1),
            str(np.iinfo(DATATYPES[datatype]).min - 1),
            "1.5",
        )
    ),
    bad_kind("huge for UINT64", "UINT64", "1e300", f"{bounds('UINT64')}, got 1e+300"),
    bad_kind("infinite for INT8", "INT8", "1e999", f"{bounds('INT8')}, got Infinity"),
    bad_kind("400 digits for INT64", "INT64", "1" * 400, f"{bounds('INT64')}, got {'1' * 40}..."),
    bad_kind(
        "400 digits for FP32",
        "FP32",
        "1" * 400,
        f"expected a finite number that fits float32 (at most 3.4e+38), got {'1' * 40}...",
    ),
    bad_kind(
        "1e39 for FP32",
        "FP32",
        "1e39",
        "expected a finite number that fits float32 (at most 3.4e+38), got 1e+39",
    ),
    bad_kind(
        "-1e999 for FP64",
        "FP64",
        "-1e999",
        "expected a finite number that fits float64 (at most 1.8e+308), got -Infinity",
    ),
    *(
        bad_kind(f"{value} for {datatype}", datatype, value, f"expected a number, got {got}")
        for datatype in ("FP32", "UINT8")
        for value, got in (
            ("true", "true"),
            ("null", "null"),
            ('"1"', '"1"'),
            ('{"a": 1}', "an object of 1 fields"),
        )
    ),
    bad_kind("1 for BOOL", "BOOL", "1", "expected true or false, got 1"),
    bad_kind("text for BOOL", "BOOL", '"true"', 'expected true or false, got "true"'),
    bad_kind("null for BOOL", "BOOL", "null", "expected true or false, got null"),
    bad_kind("1 for BYTES", "BYTES", "1", "expected a string, got 1"),
    bad_kind("null for BYTES", "BYTES", "null", "expected a string, got null"),
    Bad(
        "lone surrogate",
        b'{"inputs":[{"name":"BYTES","datatype":"BYTES","shape":[1,2],"data":["","\\udc00"]}]}',
        "body: expected JSON, got: JSON is malformed: invalid utf-16 surrogate pair (byte 78)",
        path=KINDS,
    ),
    Bad(
        "lone surrogate in bytes",
        b'{"inputs":[{"name":"BYTES","datatype":"BYTES","shape":[1,2],'
        b'"data":["","\xed\xa0\x80"]}]}',
        "inputs[0].data: expected JSON in UTF-8, got byte 5 that is not",
        path=KINDS,
    ),
    Bad(
        "string not UTF-8 in JSON",
        b'{"inputs":[{"name":"BYTES","datatype":"BYTES","shape":[1,2],"data":["","\xff"]}]}',
        "inputs[0].data: expected JSON in UTF-8, got byte 5 that is not",
        path=KINDS,
    ),
    bad_binary(
        "BOOL of 2",
        asked(given("BOOL", "BOOL", [1, 2], parameters={"binary_data_size": 2})),
        b"\1\2",
        "inputs[0]: expected bytes of 0 and 1, got 2",
        KINDS,
    ),
    bad_bytes(
        "string longer than the data",
        text("a") + b"\x05\0\0\0abcd",
        "inputs[0]: element 1: expected 5 bytes, got 4",
    ),
    bad_bytes(
        "string of 4 GB",
        text("a") + b"\xff\xff\xff\xff",
        f"inputs[0]: element 1: expected {2**32 - 1} bytes, got 0",
    ),
    bad_bytes(
        "length cut short",
        text("a") + text("b") + b"\1\0",
        "inputs[0]: expected 2 elements as the shape says, got 2, and 2 bytes behind them",
    ),
    bad_bytes(
        "too many strings",
        text("a") * 3,
        "inputs[0]: expected 2 elements as the shape says, got 2, and 5 bytes behind them",
    ),
    bad_bytes(
        "too few strings",
        text("a"),
        "inputs[0]: expected 2 elements as the shape says, got 1",
    ),
    bad_bytes("no strings", b"", "inputs[0]: expected 2 elements as the shape says, got 0"),
    bad_bytes(
        "string not UTF-8",
        text("a") + b"\x02\0\0\0a\xff",
        "inputs[0]: element 1: expected UTF-8, got byte 1 that is not",
    ),
    bad_bytes(
        "string cut in a character",
        text("a") + b"\x01\0\0\0\xc3" + b"\xa4",
        "inputs[0]: element 1: expected UTF-8, got byte 0 that is not",
    ),
]


def bad_data(what: str, data: str, sentence: str, shape: tuple[int, ...] = (2, 4)) -> Bad:
    described = json.dumps(four(None, shape=list(shape)))[:-1]
    return Bad(what, f'{{"inputs":[{described},"data":{data}}}]}}'.encode(), sentence)


NESTS = [
    bad_data(
        "too few elements",
        "[1,2,3]",
        "inputs[0].data: expected 8 elements as shape [2, 4] says, got 3",
    ),
    bad_data(
        "too many elements",
        "[1,2,3,4,5,6,7,8,9]",
        "inputs[0].data: expected 8 elements as shape [2, 4] says, got 9",
    ),
    bad_data(
        "no elements", "[]", "inputs[0].data: expected 8 elements as shape [2, 4] says, got 0"
    ),
    bad_data(
        "unequal rows",
        "[[1,2,3],[4,5,6,7,8]]",
        "inputs[0].data[0]: expected a list of 4, got a list of 3",
    ),
    bad_data(
        "a row too few", "[[1,2,3,4]]", "inputs[0].data: expected a list of 2, got a list of 1"
    ),
    bad_data(
        "a row and numbers", "[[1,2,3,4],5]", "inputs[0].data[1]: expected a list of 4, got 5"
    ),
    bad_data(
        "numbers and a row", "[1,[2,3,4,5]]", "inputs[0].data[0]: expected a list of 4, got 1"
    ),
    bad_data(
        "a list for a number",
        "[[1,2,3,4],[5,[6],7,8]]",
        "inputs[0].data[1][1]: expected a number, got a list of 1",
    ),
    bad_data(
        "brackets that even out",
        "[[1,[2,3],4],[5,6,7,8]]",
        "inputs[0].data[0]: expected a list of 4, got a list of 3",
    ),
    bad_data(
        "another nesting",
        "[[[1,2],[3,4]],[[5,6],[7,8]]]",
        "inputs[0].data[0]: expected a list of 4, got a list of 2",
    ),
    bad_data(
        "transposed data",
        "[[1,2],[3,4],[5,6],[7,8]]",
        "inputs[0].data: expected a list of 2, got a list of 4",
    ),
    bad_data("empty rows", "[[],[]]", "inputs[0].data[0]: expected a list of 4, got a list of 0"),
    bad_data("data is a number", "1", "inputs[0].data: expected a list of elements, got 1", (1, 4)),
    bad_data(
        "data is a string", '"1234"', 'inputs[0].data: expected a list of elements, got "1234"'
    ),
    bad_data(
        "data is an object",
        '{"0":1}',
        "inputs[0].data: expected a list of elements, got an object of 1 fields",
    ),
    bad_data("data is false", "false", "inputs[0].data: expected a list of elements, got false"),
    bad_data(
        "900 deep", "[" * 900 + "]" * 900, "inputs[0].data: expected a list of 2, got a list of 1"
    ),
    bad_data(
        "100,000 deep",
        "[" * 100_000 + "]" * 100_000,
        "body: expected JSON, got lists or objects nested too deeply",
    ),
    bad_data(
        "100,000 deep without an end",
        "[" * 100_000,
        "body: expected JSON, got lists or objects nested too deeply",
    ),
    Bad(
        "parameters 100,000 deep",
        b'{"inputs":[],"parameters":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
        "body: expected JSON, got lists or objects nested too deeply",
    ),
    bad_data(
        "5,000 digits",
        "[" + "1" * 5000 + ",2,3,4,5,6,7,8]",
        "inputs[0].data: expected JSON, got a number of too many digits",
    ),
]
SYNTAX = [
    Bad("empty body", b"", "body: expected JSON, got: Input data was truncated"),
    Bad("blank body", b" \n", "body: expected JSON, got: Input data was truncated"),
    Bad("truncated", GOOD[:-1], "body: expected JSON, got: Input data was truncated"),
    Bad("a list", b"[]", "body: expected `object`, got `array`"),
    Bad("null", b"null", "body: expected `object`, got `null`"),
    Bad(
        "two objects",
        GOOD + GOOD,
        f"body: expected JSON, got: JSON is malformed: trailing characters (byte {len(GOOD) + 1})",
    ),
    Bad(
        "Python",
        b"{'inputs': []}",
        "body: expected JSON, got: JSON is malformed: object keys must be strings (byte 1)",
    ),
    Bad(
        "UTF-16",
        GOOD.decode().encode("utf-16"),
        "body: expected JSON, got: JSON is malformed: invalid character (byte 0)",
    ),
    Bad(
        "id not UTF-8",
        b'{"id":"\xff","inputs":[]}',
        "body: expected JSON in UTF-8, got something else",
    ),
    Bad("id is a number", asked(four(), id=1), "id: expected `str | null`, got `int`"),
    *(
        bad_data(
            f"{token} in data",
            f"[1,2,3,{token},5,6,7,8]",
            f"body: expected JSON, got: JSON is malformed: invalid character (byte {place})",
        )
        for token, place in (("NaN", 79), ("Infinity", 79), ("-Infinity", 80))
    ),
    bad_data(
        "1e999 in data",
        "[1,2,3,1e999,5,6,7,8]",
        "inputs[0].data[3]: expected a finite number that fits float32 (at most 3.4e+38), got "
        "Infinity",
    ),
]
PARAMETERS = [
    *(
        bad_parameter(
            "timeout", value, f"expected whole microseconds from 0, got {json.dumps(value)}"
        )
        for value in (-1, "1000", True, 1.5)
    ),
    bad_parameter(
        "timeout", {"ms": 1}, "expected whole microseconds from 0, got an object of 1 fields"
    ),
    *(
        bad_parameter(name, value, f"expected none, as it is not served; got {json.dumps(value)}")
        for name, value in (
            ("priority", 1),
            ("priority", "high"),
            ("sequence_id", 7),
            ("sequence_id", "seven"),
            ("sequence_start", True),
            ("sequence_end", True),
        )
    ),
    bad_parameter(
        "triton_enable_empty_final_response", True, "expected no name that begins with triton_"
    ),
    bad_parameter("binary_data_output", 1, "expected true or false, got 1"),
    bad_parameter("binary_data_output", "true", 'expected true or false, got "true"'),
    Bad(
        "parameters is a list",
        asked(four(), parameters=[]),
        "parameters: expected `object | null`, got `array`",
    ),
    *(
        Bad(
            f"output parameter {name} {value!r}",
            asked(four(), outputs=[{"name": "probabilities", "parameters": {name: value}}]),
            f"outputs[0].parameters.{name}: expected {expected}, got {json.dumps(value)}",
        )
        for name, value, expected in (
            ("binary_data", 1, "true or false"),
            ("binary_data", "yes", "true or false"),
            ("classification", -1, "a whole number from 0"),
            ("classification", 1.5, "a whole number from 0"),
            ("classification", True, "a whole number from 0"),
            ("classification", "2", "a whole number from 0"),
        )
    ),
    Bad(
        "classification of strings",
        asked(
            given("input", "BYTES", [1, 1], ["a"]),
            outputs=[{"name": "output", "parameters": {"classification": 1}}],
        ),
        "output output: expected numbers for a classification",
        path="/v2/models/word/infer",
    ),
]


def bad_version(version: str, got: str | None = None) -> Bad:
    return Bad(
        f"version {version[:20]!r}",
        GOOD,
        f"version: expected a whole number from 1 to 999999999, got {got or repr(version)}",
        404,
        f"/v2/models/toy/versions/{version}/infer",
    )


PATHS = [
    bad_version("0"),
    bad_version("x"),
    bad_version("v1"),
    bad_version("1.0"),
    bad_version("-1"),
    bad_version("01"),
    bad_version("1" * 5000, repr("1" * 40 + "...")),
    Bad(
        "version 2",
        GOOD,
        "model toy: version: expected one of 1; got 2",
        404,
        "/v2/models/toy/versions/2/infer",
    ),
    *(
        Bad(
            f"model {name[:20]!r}",
            GOOD,
            "model: expected one of fixed, flags, fussy, kinds, lengths, scalar, scores, "
            f"sequenced, table, toy, word; got {got}",
            404,
            f"/v2/models/{name}/infer",
        )
        for name, got in (
            ("tyo", "'tyo'"),
            ("TOY", "'TOY'"),
            ("m" * 5000, repr("m" * 40 + "...")),
        )
    ),
    Bad(
        "unknown model and no JSON",
        b"{",
        "model: expected one of fixed, flags, fussy, kinds, lengths, scalar, scores, "
        "sequenced, table, toy, word; got 'tyo'",
        404,
        "/v2/models/tyo/infer",
    ),
]
FAILURES = [
    Bad(
        "the model raises",
        asked(given("input", "INT64", [1, 1], [9])),
        "the model failed on this input",
        500,
        "/v2/models/table/infer",
    ),
    Bad(
        "infinity in JSON",
        asked(given("input", "FP32", [1, 1], [7])),
        "the model answered NaN or infinity for this input",
        500,
        "/v2/models/fussy/infer",
    ),
]
BAD = [*HEADERS, *SIZES, *SHAPES, *NAMES, *VALUES, *NESTS, *SYNTAX, *PARAMETERS, *PATHS]


async def send(client: httpx.AsyncClient, bad: Bad) -> httpx.Response:
    return await client.post(bad.path, content=bad.content, headers=bad.headers)


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.what)
async def test_bad_input_gets_its_status_and_one_sentence_and_the_next_request_an_answer(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture, bad: Bad
) -> None:
    caplog.clear()
    reply = await send(client, bad)
    assert reply.json() == {"error": bad.sentence}
    assert reply.status_code == bad.status
    assert reply.headers["content-type"] == "application/json"
    assert len(reply.content) < 350
    assert caplog.records == []  # a caller's mistake is no event of ours
    (output,) = (await client.post(TOY, content=GOOD)).json()["outputs"]
    assert output["data"] == pytest.approx(EXPECTED, abs=1e-6)


@pytest.mark.parametrize("bad", FAILURES, ids=lambda bad: bad.what)
async def test_what_the_model_cannot_answer_is_500_and_the_next_request_is_answered(
    client: httpx.AsyncClient, bad: Bad
) -> None:
    reply = await send(client, bad)
    assert (reply.status_code, reply.json()) == (500, {"error": bad.sentence})
    await check_good(client, 1)


@pytest.mark.parametrize(
    "content",
    [
        b'{"inputs":[{"name":"input","datatype":"FP32","shape":[%b,4],"data":[1]}]}' % (b"9" * 400),
        b'{"inputs":[{"name":"input","datatype":"FP32","shape":[1,4],'
        b'"parameters":{"binary_data_size":%b}}]}' % (b"9" * 400),
        b'{"inputs":[],"parameters":{"timeout":-%b}}' % (b"9" * 400),
        b'{"inputs":[],"parameters":{"timeout":%b}}' % (b"9" * 5000),
        asked(sized(1e300)),
        asked(four(), outputs=[{"name": "n" * 9000}]),
        asked(four(), parameters={"priority": "n" * 9000}),
        asked(four(), parameters={"triton_" + "n" * 9000: 1}),
        asked(four(shape=["n" * 9000])),
        asked(four(datatype="n" * 9000)),
    ],
    ids=[
        *("shape", "size", "timeout", "digits", "size 1e300", "output", "priority", "triton_"),
        *("word", "datatype"),
    ],
)
async def test_what_is_long_is_told_in_short(client: httpx.AsyncClient, content: bytes) -> None:
    reply = await client.post(TOY, content=content, headers={LENGTH: str(len(content))})
    assert reply.status_code == 400
    assert len(reply.content) < 350


async def check_good(client: httpx.AsyncClient, seed: int) -> None:
    """Send a row to the toy, of its own, and check the answer."""
    row = np.random.default_rng(seed).uniform(0, 10, (1, 4)).round(3)
    reply = await client.post(TOY, content=asked(four(row[0].tolist())))
    assert reply.status_code == 200, reply.text
    (output,) = reply.json()["outputs"]
    assert output["data"] == pytest.approx(toy_answer(row)[0], abs=1e-6)


async def test_bad_requests_do_no_harm_to_good_ones_that_come_with_them(
    client: httpx.AsyncClient,
) -> None:
    async def check_sum(length: int) -> None:
        content = asked(given("input", "FP32", [1, length], [length] * length))
        reply = await client.post("/v2/models/lengths/infer", content=content)
        assert reply.json()["outputs"][0]["data"] == [length**2]

    async def check_inverse(number: int) -> None:
        content = asked(given("input", "FP32", [1, 1], [number]))
        reply = await client.post("/v2/models/fussy/infer", content=content)
        assert reply.json()["outputs"][0]["data"] == [pytest.approx(1 / (number - 7))]

    async def check_square(number: int) -> None:
        content = asked(given("input", "INT64", [1, 1], [number]))
        reply = await client.post("/v2/models/table/infer", content=content)
        assert reply.json()["outputs"][0]["data"] == [number**2]

    async def check_word(number: int) -> None:
        content = asked(given("input", "BYTES", [1, 1], [f"word {number}"]))
        reply = await client.post("/v2/models/word/infer", content=content)
        assert reply.json()["outputs"][0]["data"] == [f"word {number}"]

    async def check_bad(bad: Bad) -> None:
        reply = await send(client, bad)
        assert (reply.status_code, reply.json()) == (bad.status, {"error": bad.sentence}), bad.what

    calls = [
        *(check_bad(bad) for bad in [*BAD, *FAILURES * 20]),
        *(check_good(client, seed) for seed in range(300)),
        *(check_sum(1 + number % 7) for number in range(50)),
        *(check_inverse(8 + number) for number in range(50)),
        *(check_square(number % 3) for number in range(50)),
        *(check_word(number) for number in range(50)),
    ]
    random.Random(5).shuffle(calls)
    await asyncio.gather(*calls)


def test_the_process_answers_bad_requests_as_the_app_does(folder: Path) -> None:
    limits = {"max_body_bytes": MAX_BODY_BYTES, "max_request_rows": MAX_ROWS}
    with (
        running(models_dir=folder, **limits) as service,
        httpx.Client(base_url=service.url) as client,
    ):
        for bad in [*BAD, *FAILURES]:
            reply = client.post(bad.path, content=bad.content, headers=bad.headers)
            assert (reply.status_code, reply.json()) == (bad.status, {"error": bad.sentence})
        reply = client.post(TOY, content=GOOD)
        np.testing.assert_allclose(answered(reply)["probabilities"], [EXPECTED], atol=1e-6)


async def test_each_bad_request_is_counted_once(client: httpx.AsyncClient) -> None:
    async def counted() -> float:
        lines = (await client.get("/metrics")).text.splitlines()
        names = ("torchlit_requests_total", "torchlit_unmatched_requests_total")
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(names))

    before = await counted()
    for bad in [*BAD, *FAILURES]:
        await send(client, bad)
    assert await counted() - before == len(BAD) + len(FAILURES)


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize("path", [TOY, TOY + "/", "/v2/models/toy/versions/1/infer"])
async def test_another_method_is_refused_with_the_right_one(
    client: httpx.AsyncClient, method: str, path: str
) -> None:
    reply = await client.request(method, path, content=GOOD)
    assert (reply.status_code, reply.headers["allow"]) == (405, "POST")
    if method != "HEAD":
        assert reply.json() == {"error": f"method: expected POST, got {method}"}


def answered(reply: httpx.Response) -> dict[str, NDArray[Any]]:
    """Read a reply as clients do, by the protocol's text and nothing of ours: name -> array."""
    assert reply.status_code == 200, reply.text
    if "content-encoding" not in reply.headers:
        assert int(reply.headers["content-length"]) == len(reply.content)
    length = reply.headers.get(LENGTH)
    head = json.loads(
        reply.content[: None if length is None else int(length)],
        parse_constant=lambda name: pytest.fail(name),
    )
    place, binary = 0, b"" if length is None else reply.content[int(length) :]
    arrays = {}
    for output in head["outputs"]:
        assert set(output) in (
            {"name", "datatype", "shape", "data"},
            {"name", "datatype", "shape", "parameters"},
        )
        size = output.get("parameters", {}).get("binary_data_size")
        dtype = np.dtype(DATATYPES[output["datatype"]])
        if size is None:
            array = np.array(output["data"], dtype)
        elif output["datatype"] == "BYTES":
            array = np.array(texts_in(binary[place : place + size]), dtype)
        else:
            array = np.frombuffer(binary[place : place + size], dtype)
        place += size or 0
        arrays[output["name"]] = array.reshape(output["shape"])
    assert place == len(binary)
    assert reply.headers["content-type"] == (
        "application/json" if length is None else "application/octet-stream"
    )
    return arrays


def texts_in(data: bytes) -> list[str]:
    texts, place = [], 0
    while place < len(data):
        size = int.from_bytes(data[place : place + 4], "little")
        texts.append(data[place + 4 : place + 4 + size].decode())
        place += 4 + size
    return texts


def binary_output(name: str, **parameters: Any) -> Any:
    return {"name": name, "parameters": {"binary_data": True, **parameters}}


async def post_binary(
    client: httpx.AsyncClient, path: str, head: bytes, data: bytes = b""
) -> httpx.Response:
    return await client.post(path, content=head + data, headers={LENGTH: str(len(head))})


async def test_a_reply_says_model_version_id_and_outputs(client: httpx.AsyncClient) -> None:
    reply = await client.post(TOY, content=asked(four(), id="mine"))
    assert reply.status_code == 200
    assert reply.headers["content-type"] == "application/json"
    assert LENGTH not in reply.headers
    assert reply.json() == {
        "model_name": "toy",
        "model_version": "1",
        "id": "mine",
        "outputs": [
            {
                "name": "probabilities",
                "datatype": "FP32",
                "shape": [1, 3],
                "data": pytest.approx(EXPECTED, abs=1e-6),
            }
        ],
    }


@pytest.mark.parametrize("path", [TOY, TOY + "/", "/v2/models/toy/versions/1/infer"])
async def test_the_version_may_be_named(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.post(path, content=GOOD)).json()["model_version"] == "1"


async def test_the_highest_version_answers_if_none_is_named(tmp_path: Path) -> None:
    save_toy(tmp_path, 1, scale=2)
    save_toy(tmp_path, 3)
    row = np.array([[1, 2, 3, 4]])
    async with serving(Settings(models_dir=tmp_path)) as client:
        for path, version, expected in (
            (TOY, "3", toy_answer(row)),
            ("/v2/models/toy/versions/3/infer", "3", toy_answer(row)),
            ("/v2/models/toy/versions/1/infer", "1", toy_answer(row * 2)),
        ):
            reply = await client.post(path, content=GOOD)
            assert reply.json()["model_version"] == version
            np.testing.assert_allclose(answered(reply)["probabilities"], expected, atol=1e-6)


async def test_data_may_be_nested_or_flat(client: httpx.AsyncClient) -> None:
    rows = np.random.default_rng(1).uniform(0, 10, (3, 4)).round(3)
    for data in (rows.tolist(), rows.ravel().tolist()):
        reply = await client.post(TOY, content=asked(four(data, shape=[3, 4])))
        np.testing.assert_allclose(answered(reply)["probabilities"], toy_answer(rows), atol=1e-6)


def of_all_kinds() -> dict[str, NDArray[Any]]:
    """Return two rows of each datatype, with the least and the largest of each type."""
    kinds: dict[str, NDArray[Any]] = {}
    for name, dtype in DATATYPES.items():
        kind = np.dtype(dtype).kind
        if kind in "iu":
            low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
            kinds[name] = np.array([[low, high], [1, high // 3]], dtype)
        elif kind == "f":
            limits = np.finfo(dtype)
            kinds[name] = np.array([[limits.min, limits.max], [limits.tiny, -1 / 3]], dtype)
    kinds["BOOL"] = np.array([[True, False], [False, False]])
    kinds["BYTES"] = np.array([["", "ä€😀"], ["two words\n", '[1, "2"]']], object)
    return kinds


def as_binary(array: NDArray[Any]) -> bytes:
    if array.dtype == object:
        return b"".join(map(text, array.ravel()))
    return array.astype(array.dtype.newbyteorder("<")).tobytes()


async def test_each_datatype_comes_and_goes_as_json_and_binary(client: httpx.AsyncClient) -> None:
    arrays = of_all_kinds()
    assert list(arrays) != []
    for is_binary_in in (True, False):
        for is_binary_out in (True, False):
            inputs, data, outputs = [], b"", []
            for name, array in arrays.items():
                if is_binary_in or name == "FP16":
                    raw = as_binary(array)
                    parameters = {"binary_data_size": len(raw)}
                    inputs.append(given(name, name, [2, 2], parameters=parameters))
                    data += raw
                else:
                    inputs.append(given(name, name, [2, 2], array.tolist()))
                as_bytes = {"binary_data": is_binary_out or name == "FP16"}
                outputs.append({"name": f"{name}_out", "parameters": as_bytes})
            reply = await post_binary(client, KINDS, asked(*inputs, outputs=outputs), data)
            back = answered(reply)
            assert list(back) == [f"{name}_out" for name in arrays]
            for name, array in arrays.items():
                assert back[f"{name}_out"].dtype == array.dtype
                np.testing.assert_array_equal(back[f"{name}_out"], array)


async def test_inputs_may_come_in_any_order_json_and_binary_mixed(
    client: httpx.AsyncClient,
) -> None:
    arrays = of_all_kinds()
    names = list(arrays)
    for seed in range(5):
        chance = random.Random(seed)
        chance.shuffle(names)
        wanted = names[: chance.randint(1, 13)]
        inputs, data = [], b""
        for name in names:
            if name == "FP16" or chance.random() < 0.5:
                raw = as_binary(arrays[name])
                data += raw
                size = {"binary_data_size": len(raw)}
                inputs.append(given(name, name, [2, 2], parameters=size))
            else:
                inputs.append(given(name, name, [2, 2], arrays[name].tolist()))
        outputs = [
            {
                "name": f"{name}_out",
                "parameters": {"binary_data": name == "FP16" or chance.random() < 0.5},
            }
            for name in wanted
        ]
        back = answered(await post_binary(client, KINDS, asked(*inputs, outputs=outputs), data))
        assert list(back) == [f"{name}_out" for name in wanted]  # as asked
        for name in wanted:
            np.testing.assert_array_equal(back[f"{name}_out"], arrays[name])


@pytest.mark.parametrize("padding", range(9))
async def test_binary_data_may_begin_anywhere(client: httpx.AsyncClient, padding: int) -> None:
    rows = np.random.default_rng(2).uniform(0, 10, (2, 4)).astype("<f4")
    head = asked(sized(32, shape=[2, 4])) + b" " * padding
    reply = await post_binary(client, TOY, head, rows.tobytes())
    np.testing.assert_allclose(answered(reply)["probabilities"], toy_answer(rows), atol=1e-6)


@pytest.mark.parametrize("datatype", ["UINT8", "INT8", "UINT16", "INT16"])
async def test_narrow_numbers_may_be_sent_for_wide_ones(
    client: httpx.AsyncClient, datatype: str
) -> None:
    numbers = np.array([[1, 2, 3, 4]], DATATYPES[datatype])
    raw = numbers.tobytes()
    binary = await post_binary(client, TOY, asked(sized(len(raw), datatype=datatype)), raw)
    flat = await client.post(TOY, content=asked(four(datatype=datatype)))
    for reply in (binary, flat):
        np.testing.assert_allclose(answered(reply)["probabilities"], [EXPECTED], atol=1e-6)


@pytest.mark.parametrize("count", [1, 2, 3, 10])
async def test_a_raw_body_is_rows_of_the_only_input(client: httpx.AsyncClient, count: int) -> None:
    rows = np.random.default_rng(3).uniform(0, 10, (count, 4)).astype("<f4")
    reply = await post_binary(client, TOY, b"", rows.tobytes())
    back = answered(reply)
    np.testing.assert_allclose(back["probabilities"], toy_answer(rows), atol=1e-6)
    assert LENGTH in reply.headers


async def test_a_raw_body_may_be_of_any_datatype(client: httpx.AsyncClient) -> None:
    words = await post_binary(client, "/v2/models/word/infer", b"", "raw ä".encode())
    assert answered(words)["output"].tolist() == [["raw ä"]]
    nothing = await post_binary(client, "/v2/models/word/infer", b"", b"")
    assert answered(nothing)["output"].tolist() == [[""]]
    flags = await post_binary(client, "/v2/models/flags/infer", b"", b"\1\0\1\0\0\1")
    assert answered(flags)["output"].tolist() == [[True, False, True], [False, False, True]]
    numbers = np.arange(6, dtype="<f4").reshape(2, 3)
    fixed = await post_binary(client, "/v2/models/fixed/infer", b"", numbers.tobytes())
    np.testing.assert_array_equal(answered(fixed)["output"], numbers)
    scalar = await post_binary(client, "/v2/models/scalar/infer", b"", numbers[0, 1].tobytes())
    assert answered(scalar)["output"] == 1


@pytest.mark.parametrize("is_binary", [False, True])
async def test_rows_may_be_empty_inside_where_that_is_open(
    client: httpx.AsyncClient, is_binary: bool
) -> None:
    """As the past of a decoder is, in its first step."""
    nothing: dict[str, Any] = {"parameters": {"binary_data_size": 0}} if is_binary else {"data": []}
    empty = asked(given("input", "FP32", [2, 0], **nothing))
    full = asked(given("input", "FP32", [1, 2], [3, 4]))
    replies = await asyncio.gather(
        *(post_binary(client, "/v2/models/lengths/infer", each, b"") for each in (empty, full) * 2)
    )
    assert [answered(reply)["output"].tolist() for reply in replies] == [[0, 0], [7]] * 2


async def test_too_many_raw_rows_are_refused(client: httpx.AsyncClient) -> None:
    reply = await post_binary(client, TOY, b"", ROW * 11)
    assert reply.status_code == 413
    assert reply.json() == {"error": "inputs: expected at most 10 rows in one request, got 11"}


@pytest.mark.parametrize("shape", [[], [1]])  # Triton's clients send [1]
async def test_a_tensor_without_dimensions_is_a_list_of_one(
    client: httpx.AsyncClient, shape: list[int]
) -> None:
    path = "/v2/models/scalar/infer"
    reply = await client.post(path, content=asked(given("input", "FP32", shape, [2.5])))
    assert answered(reply)["output"] == 2.5
    assert reply.json()["outputs"][0] == {
        "name": "output",
        "datatype": "FP32",
        "shape": [],
        "data": [2.5],
    }


@pytest.mark.parametrize(
    ("parameters", "outputs", "is_binary"),
    [
        (None, None, False),
        ({}, [], False),
        ({"binary_data_output": None}, None, False),
        ({"binary_data_output": True}, None, True),
        ({"binary_data_output": True}, [], True),
        ({"binary_data_output": True}, [{"name": "probabilities"}], True),
        ({"binary_data_output": True}, [{"name": "probabilities", "parameters": None}], True),
        (
            {"binary_data_output": True},
            [{"name": "probabilities", "parameters": {"binary_data": False}}],
            False,
        ),
        (None, [{"name": "probabilities", "parameters": {"binary_data": True}}], True),
        (
            {"binary_data_output": False},
            [{"name": "probabilities", "parameters": {"binary_data": True}}],
            True,
        ),
        ({"binary_data_output": False}, [{"name": "probabilities", "parameters": {}}], False),
    ],
)
async def test_an_output_is_binary_as_it_says_or_as_the_request_says(
    client: httpx.AsyncClient, parameters: Any, outputs: Any, is_binary: bool
) -> None:
    reply = await client.post(TOY, content=asked(four(), parameters=parameters, outputs=outputs))
    np.testing.assert_allclose(answered(reply)["probabilities"], [EXPECTED], atol=1e-6)
    assert (LENGTH in reply.headers) is is_binary


async def test_an_output_may_be_asked_for_once(client: httpx.AsyncClient) -> None:
    """A reply is as large as the model makes it, whatever a small request asks for."""
    outputs = [{"name": "probabilities"}, binary_output("probabilities")]
    reply = await client.post(TOY, content=asked(four(), outputs=outputs))
    assert reply.status_code == 400
    sentence = "outputs[1].name: expected each output once, got probabilities again"
    assert reply.json() == {"error": sentence}


@pytest.mark.parametrize("sent", ["mine", "a b", "ä€😀", '"\\\n', "x" * 1000])
async def test_the_id_comes_back(client: httpx.AsyncClient, sent: str) -> None:
    reply = await client.post(TOY, content=asked(four(), id=sent))
    assert reply.json()["id"] == sent
    binary = await client.post(
        TOY, content=asked(four(), id=sent, outputs=[binary_output("probabilities")])
    )
    assert json.loads(binary.content[: int(binary.headers[LENGTH])])["id"] == sent


@pytest.mark.parametrize("fields", [{}, {"id": ""}, {"id": None}])
async def test_who_gives_no_id_gets_that_of_the_reply(
    client: httpx.AsyncClient, fields: dict[str, Any]
) -> None:
    reply = await client.post(TOY, content=asked(four(), **fields))
    assert reply.json()["id"] == reply.headers["x-request-id"] != ""
    named = await client.post(TOY, content=asked(four()), headers={"X-Request-Id": "header-7"})
    assert named.json()["id"] == "header-7"


@pytest.mark.parametrize(
    "content",
    [
        asked(four(), model_name="toy", model_version="9", anything={"a": [1]}),
        asked(four(), id=None, parameters=None, outputs=None),
        asked({**four(), "parameters": None, "note": "mine"}),
        asked(four(parameters={"binary_data_size": None, "mine": [1, {}]})),
        asked(four(), parameters={"mine": {"a": 1}, "content_type": "np", "headers": {}}),
        asked(four(), outputs=[{"name": "probabilities", "parameters": None, "mine": 1}]),
        asked(
            four(),
            outputs=[
                {
                    "name": "probabilities",
                    "parameters": {"binary_data": None, "classification": 0, "mine": 1},
                }
            ],
        ),
        asked(
            four(),
            parameters={
                "priority": 0,
                "sequence_id": 0,
                "sequence_start": False,
                "sequence_end": False,
                "timeout": 0,
            },
        ),
        asked(four(), parameters={"sequence_id": ""}),
        asked(four(), parameters={"timeout": 5_000_000}),
        asked(four(), parameters={"timeout": 5e6}),
        asked(four(), parameters={"timeout": 1e300}),
        asked(four(), parameters={"timeout": None, "priority": None, "sequence_id": None}),
        b'{"inputs":[%b],"parameters":{"timeout":%b}}' % (json.dumps(four()).encode(), b"9" * 400),
        b" \n\t" + GOOD + b"\r\n ",
        GOOD.replace(b'"data": [1, 2, 3, 4]', b'"data" : [ 1.0e0,2 ,\n3.0, 0.4E+1 ]'),
        GOOD.replace(b'"name"', b'"n\\u0061me"'),
        GOOD.replace(b'"inputs"', b'"inputs": 5, "inputs"').replace(b"5, ", b"[], "),
        GOOD.replace(b'"data"', b'"data": ["no"], "data"'),
        asked(four(), id="binary_data_size"),
    ],
    ids=[
        *("unknown fields", "nulls", "nulls in an input", "custom parameters of an input"),
        *("custom parameters", "custom parameters of an output", "nulls of an output"),
        *("values that ask for nothing", "no sequence", "timeout", "timeout with a point"),
        *("timeout of 10^300", "nulls of parameters", "timeout of 400 digits"),
        *("blanks around", "blanks within", "escaped name", "inputs twice", "data twice"),
        "id that is a parameter's name",
    ],
)
async def test_what_clients_send_besides_is_tolerated(
    client: httpx.AsyncClient, content: bytes
) -> None:
    reply = await client.post(TOY, content=content)
    np.testing.assert_allclose(answered(reply)["probabilities"], [EXPECTED], atol=1e-6)


async def test_a_string_may_be_the_name_of_a_parameter(client: httpx.AsyncClient) -> None:
    content = asked(given("input", "BYTES", [1, 1], ["binary_data_size"]))
    reply = await client.post("/v2/models/word/infer", content=content)
    assert answered(reply)["output"].tolist() == [["binary_data_size"]]


@pytest.mark.parametrize("word", ["a\0b", "\0", "", "line\r\n", "\ufeff", "\U0010ffff", "é" * 5000])
async def test_a_string_comes_back_whole(client: httpx.AsyncClient, word: str) -> None:
    path = "/v2/models/word/infer"
    flat = asked(given("input", "BYTES", [1, 1], [word]))
    assert answered(await client.post(path, content=flat))["output"].tolist() == [[word]]
    size = {"binary_data_size": len(text(word))}
    head = asked(
        given("input", "BYTES", [1, 1], parameters=size), outputs=[binary_output("output")]
    )
    reply = await post_binary(client, path, head, text(word))
    assert answered(reply)["output"].tolist() == [[word]]


@pytest.mark.parametrize(
    "content_type", [None, "text/plain", "application/octet-stream", "multipart/form-data", "?"]
)
async def test_the_content_type_does_not_matter(
    client: httpx.AsyncClient, content_type: str | None
) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    for content, length in ((GOOD, None), (asked(sized(16)) + ROW, str(len(asked(sized(16)))))):
        more = {} if length is None else {LENGTH: length}
        reply = await client.post(TOY, content=content, headers=headers | more)
        np.testing.assert_allclose(answered(reply)["probabilities"], [EXPECTED], atol=1e-6)


async def test_the_header_may_say_that_all_is_json(client: httpx.AsyncClient) -> None:
    for length in (str(len(GOOD)), f" {len(GOOD)} ", f"000{len(GOOD)}"):
        reply = await client.post(TOY, content=GOOD, headers={LENGTH: length})
        np.testing.assert_allclose(answered(reply)["probabilities"], [EXPECTED], atol=1e-6)


@pytest.mark.parametrize("is_binary", [False, True])
async def test_a_classification_names_the_highest_with_their_labels(
    client: httpx.AsyncClient, is_binary: bool
) -> None:
    rows = np.array([[1, 2, 3, 4], [0, 9, 0, 0]], np.float32)
    probabilities = toy_answer(rows)
    for most, count in ((1, 1), (2, 2), (3, 3), (10**30, 3)):
        parameters = {"classification": most, "binary_data": is_binary}
        outputs = [{"name": "probabilities", "parameters": parameters}]
        reply = await client.post(
            TOY, content=asked(four(rows.tolist(), shape=[2, 4]), outputs=outputs)
        )
        classes = answered(reply)["probabilities"]
        assert classes.shape == (2, count)
        for row, texts in zip(probabilities, classes.tolist(), strict=True):
            order = np.argsort(-row)[:count].tolist()
            for index, said in zip(order, texts, strict=True):
                value, place, label = said.split(":")
                assert (int(place), label) == (index, ["red", "green", "blue"][index])
                assert float(value) == pytest.approx(row[index], abs=1e-6)


async def test_a_classification_without_card_and_rows_has_no_labels(
    client: httpx.AsyncClient,
) -> None:
    outputs = [{"name": "output", "parameters": {"classification": 2}}]
    content = asked(given("input", "FP32", [2, 3], [1, 5, 3, -1, 5, 0]), outputs=outputs)
    reply = await client.post("/v2/models/fixed/infer", content=content)
    assert answered(reply)["output"].tolist() == ["5.000000:1", "5.000000:4"]
    outputs = [{"name": "INT8_out", "parameters": {"classification": 1}}]
    arrays = of_all_kinds()
    inputs = [
        given(name, name, [2, 2], parameters={"binary_data_size": len(as_binary(array))})
        for name, array in arrays.items()
    ]
    data = b"".join(map(as_binary, arrays.values()))
    reply = await post_binary(client, KINDS, asked(*inputs, outputs=outputs), data)
    assert answered(reply)["INT8_out"].tolist() == [["127:1"], ["42:1"]]


async def test_infinity_goes_out_as_binary_and_mates_get_their_answers(
    client: httpx.AsyncClient,
) -> None:
    async def ask(number: float, is_binary: bool) -> httpx.Response:
        parameters = {"binary_data_output": is_binary}
        content = asked(given("input", "FP32", [1, 1], [number]), parameters=parameters)
        return await client.post("/v2/models/fussy/infer", content=content)

    numbers = [7, 8, 9, 7, 11, 7]
    replies = await asyncio.gather(
        *(ask(number, index % 2 == 0) for index, number in enumerate(numbers))
    )
    for index, (number, reply) in enumerate(zip(numbers, replies, strict=True)):
        if number == 7 and index % 2:
            assert (reply.status_code, reply.json()) == (500, {"error": FAILURES[1].sentence})
        else:
            expected = math.inf if number == 7 else 1 / (number - 7)
            assert answered(reply)["output"] == pytest.approx(expected)


async def test_nan_comes_in_as_binary(client: httpx.AsyncClient) -> None:
    numbers = np.array([[np.nan, np.inf, 0], [-np.inf, -0.0, 1]], "<f4")
    size = {"binary_data_size": numbers.nbytes}
    described = given("input", "FP32", [2, 3], parameters=size)
    head = asked(described, outputs=[binary_output("output")])
    reply = await post_binary(client, "/v2/models/fixed/infer", head, numbers.tobytes())
    assert answered(reply)["output"].tobytes() == numbers.tobytes()
    reply = await post_binary(client, "/v2/models/fixed/infer", asked(described), numbers.tobytes())
    assert (reply.status_code, reply.json()) == (500, {"error": FAILURES[1].sentence})


async def test_fp16_has_no_json_reply(client: httpx.AsyncClient) -> None:
    arrays = of_all_kinds()
    inputs = [
        given(name, name, [2, 2], parameters={"binary_data_size": len(as_binary(array))})
        for name, array in arrays.items()
    ]
    data = b"".join(map(as_binary, arrays.values()))
    for outputs in (None, [{"name": "FP16_out"}]):
        reply = await post_binary(client, KINDS, asked(*inputs, outputs=outputs), data)
        assert reply.status_code == 400
        assert reply.json() == {
            "error": "output FP16_out: FP16 has no form in JSON; use binary data"
        }


@pytest.mark.parametrize("is_binary", [False, True])
async def test_more_rows_than_a_batch_are_answered_in_order(
    tmp_path: Path, is_binary: bool
) -> None:
    save_toy(tmp_path)
    save_same(tmp_path, ["batch", 1], TensorProto.STRING, name="word")
    rows = np.random.default_rng(4).uniform(0, 10, (50, 4)).astype("<f4")
    words = [[f"word {number}"] for number in range(20)]
    parameters = {"binary_data_output": is_binary}
    async with serving(Settings(models_dir=tmp_path, max_batch_size=8)) as client:
        head = asked(sized(rows.nbytes, shape=[50, 4]), parameters=parameters)
        toy, word = await asyncio.gather(
            post_binary(client, TOY, head, rows.tobytes()),
            client.post(
                "/v2/models/word/infer",
                content=asked(given("input", "BYTES", [20, 1], words), parameters=parameters),
            ),
        )
    np.testing.assert_allclose(answered(toy)["probabilities"], toy_answer(rows), atol=1e-6)
    assert answered(word)["output"].tolist() == words


async def test_many_callers_at_once_share_batches_and_get_their_own_answers(
    tmp_path: Path,
) -> None:
    save_toy(tmp_path)
    random_numbers = np.random.default_rng(5)
    sets = [random_numbers.uniform(0, 10, (1 + n % 3, 4)).astype("<f4") for n in range(90)]

    async def ask(rows: NDArray[Any], is_binary: bool) -> httpx.Response:
        if is_binary:
            head = asked(sized(rows.nbytes, shape=list(rows.shape)))
            return await post_binary(client, TOY, head, rows.tobytes())
        return await client.post(TOY, content=asked(four(rows.tolist(), shape=list(rows.shape))))

    async with serving(Settings(models_dir=tmp_path)) as client:
        replies = await asyncio.gather(*(ask(rows, n % 2 == 0) for n, rows in enumerate(sets)))
        (stats,) = (await client.get("/v2/models/toy/stats")).json()["model_stats"]
    for rows, reply in zip(sets, replies, strict=True):
        np.testing.assert_allclose(answered(reply)["probabilities"], toy_answer(rows), atol=1e-6)
    assert stats["inference_count"] == sum(map(len, sets))
    assert stats["execution_count"] < 30


@pytest.mark.parametrize(
    ("header_ms", "timeout_us", "is_late"),
    [
        (None, None, False),
        (None, 10_000, True),
        ("10", None, True),
        ("10", 60_000_000, True),
        ("60000", 10_000, True),
        ("60000", 60_000_000, False),
        ("60000", 0, False),
        ("10", 0, True),
    ],
)
async def test_the_shorter_of_two_deadlines_counts(
    tmp_path: Path, header_ms: str | None, timeout_us: int | None, is_late: bool
) -> None:
    save_mean(tmp_path)
    headers = {} if header_ms is None else {"X-Request-Timeout-Ms": header_ms}
    parameters = {} if timeout_us is None else {"timeout": timeout_us}
    content = asked(given("input", "FP32", [1, 6], [1, 2, 3, 4, 5, 6]), parameters=parameters)
    async with serving(Settings(models_dir=tmp_path, max_queue_delay_ms=100)) as client:
        reply = await client.post("/v2/models/mean/infer", content=content, headers=headers)
    if is_late:
        assert reply.status_code == 504
        assert reply.json()["error"].startswith("the deadline passed ")
    else:
        assert answered(reply)["value"].tolist() == [[3.5]]


async def test_no_deadline_is_longer_than_the_setting(tmp_path: Path) -> None:
    save_toy(tmp_path)
    settings = Settings(models_dir=tmp_path, max_queue_delay_ms=300, request_timeout_s=0.01)
    content = asked(four(), parameters={"timeout": 60_000_000})
    async with serving(settings) as client:
        assert (await client.post(TOY, content=content)).status_code == 504


async def test_predict_gives_the_same_numbers_and_sends_other_models_here(
    client: httpx.AsyncClient,
) -> None:
    reply = await client.post("/predict", content=predict_body("toy", [[1, 2, 3, 4]]))
    (prediction,) = reply.json()["predictions"]
    assert list(prediction["probabilities"].values()) == pytest.approx(
        answered(await client.post(TOY, content=GOOD))["probabilities"][0], abs=0
    )
    for model, why in (
        ("kinds", "it has 13 inputs"),
        (
            "fixed",
            "the first dimension of input input is fixed at 2; an export with dynamic_shapes lets "
            "it vary",
        ),
        ("scalar", "input input is a single number, without rows"),
        ("scores", "it has 2 inputs"),
        ("lengths", "the shape of its rows is open"),
        ("word", "its input is not numbers"),
    ):
        reply = await client.post("/predict", content=predict_body(model, [[1]]))
        assert (reply.status_code, reply.json()) == (
            400,
            {
                "error": f"model {model}: expected one that takes rows of numbers, but {why}: "
                f"use /v2/models/{model}/infer"
            },
        )


async def test_numbers_in_json_come_as_their_text_says(tmp_path: Path) -> None:
    save_same(tmp_path, ["batch", 2], name="fp32")
    save_same(tmp_path, ["batch", 2], TensorProto.DOUBLE, name="fp64")
    save_same(tmp_path, ["batch", 2], TensorProto.INT64, name="int64")

    async def ask(datatype: str, text: str) -> httpx.Response:
        content = asked(given("input", datatype, [1, 2], ["here"])).replace(
            b'["here"]', text.encode()
        )
        return await client.post(f"/v2/models/{datatype.lower()}/infer", content=content)

    async with serving(Settings(models_dir=tmp_path)) as client:
        for datatype, largest in (("FP32", "3.4028235e38"), ("FP64", "1.7976931348623158e308")):
            reply = await ask(datatype, f"[-0,{largest}]")
            numbers = reply.json()["outputs"][0]["data"]
            assert str(numbers[0]) == "-0.0"
            assert numbers[1] == np.finfo(DATATYPES[datatype]).max
        exact = await ask("INT64", "[9007199254740993,-0]")
        rounded = await ask("INT64", "[1,9007199254740993.0]")
    assert exact.json()["outputs"][0]["data"] == [9007199254740993, 0]
    assert rounded.status_code == 400
    assert "written without a fraction" in rounded.json()["error"]
