"""Bodies of up to 16 MB that are long, odd or wrong, and the models that they are for."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from onnx import TensorProto

from tests.support.toys import save_same
from tests.system.stress.load import COMMITTED_MODELS

ROWS = 4096
ZEROS = [[0] * 784] * ROWS


def tensors(data: Any, shape: list[int], datatype: str = "FP32", *, name: str = "input") -> bytes:
    """Return the body of /v2 with one input."""
    sent = {"name": name, "shape": shape, "datatype": datatype, "data": data}
    return json.dumps({"inputs": [sent]}).encode()


def instances(rows: Any) -> bytes:
    """Return the body of /predict."""
    return json.dumps({"instances": rows}).encode()


def last(value: Any) -> list[Any]:
    """Return rows of zeros, the last of which ends with a value."""
    return [*ZEROS[:-1], [*ZEROS[0][:-1], value]]


MNIST, WIDE = "/v2/models/mnist/versions/1/infer", "/v2/models/wide/infer"


def kinds() -> Iterator[tuple[str, str, bytes, int, str]]:
    """Yield bodies of up to 16 MB: a name, a path, the body, its status, its media type."""
    json_, wide = "application/json", "/predict/wide"
    flat = [0] * (784 * ROWS)
    yield "a wrong last value of /v2", MNIST, tensors([*flat[:-1], "x"], [ROWS, 784]), 400, json_
    yield "a wrong last value", wide, instances(last("x")), 400, json_
    yield "NaN at the end", wide, instances(last(float("nan"))), 400, json_
    yield "images of uint8", "/predict/bytes", instances([[255] * 784] * 4000), 200, json_
    yield "whole numbers", "/predict/whole", instances([[255] * 784] * 4000), 200, json_
    yield "whole numbers as floats", "/predict/whole", instances([[1.0] * 784] * 3000), 200, json_
    yield "large integers", wide, instances([[10**20] * 784] * 400), 200, json_
    words = tensors(["a"] * 2**21, [ROWS, 512], "BYTES")
    yield "strings", "/v2/models/words/infer", words, 200, json_
    flags = tensors([True] * 2**21, [ROWS, 512], "BOOL")
    yield "booleans", "/v2/models/flags/infer", flags, 200, json_
    yield "nested /v2", WIDE, tensors(ZEROS[:3000], [3000, 784]), 200, json_
    yield "a long reply", WIDE, tensors(flat[: 784 * 3000], [3000, 784]), 200, json_
    yield "many numbers, no rows", wide, instances([0] * 5_000_000), 400, json_
    yield "one row of millions", wide, instances([[0] * 5_000_000]), 400, json_
    yield "empty rows", wide, instances([[]] * 4_000_000), 400, json_
    yield "deep brackets", wide, b'{"instances":[' + b"[" * 7_000_000 + b"]}", 400, json_
    yield "many fields", wide, instances([{f"f{n}": 0 for n in range(10**6)}]), 400, json_
    yield "a long shape", WIDE, tensors([0], [1] * 5_000_000), 400, json_
    yield "many inputs", WIDE, b'{"inputs":[' + b"{}," * 5_000_000 + b"{}]}", 400, json_
    yield "CSV", wide, b"\n".join([b",".join([b"7"] * 784)] * 3000), 200, "text/csv"
    quoted = b"\n".join([b",".join([b'"7"'] * 784)] * 900)
    yield "CSV with quotes", wide, quoted, 200, "text/csv"
    lines = b"\n".join([json.dumps([7] * 784).encode()] * 3000)
    yield "JSON Lines", wide, lines, 200, "application/jsonlines"


def save_models(folder: Path) -> None:
    """Write the models that these bodies are for."""
    shutil.copytree(COMMITTED_MODELS / "mnist", folder / "mnist")
    save_same(folder, ["batch", 784], name="wide")
    save_same(folder, ["batch", 784], TensorProto.UINT8, name="bytes")
    save_same(folder, ["batch", 784], TensorProto.INT64, name="whole")
    save_same(folder, ["batch", 512], TensorProto.STRING, name="words")
    save_same(folder, ["batch", 512], TensorProto.BOOL, name="flags")
