"""Graphs of every kind, without cards, as people bring them: written into a models folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tests.support.toys import save_graph, tensor

ONNX_TYPES = {
    "BOOL": TensorProto.BOOL,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}


def save(
    folder: Path,
    name: str,
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    version: int = 1,
    **constants: NDArray[Any],
) -> Path:
    """Write `folder`/`name`; `constants` are arrays that the nodes take by their names."""
    path = folder / name / str(version) / "model.onnx"
    arrays = [numpy_helper.from_array(array, key) for key, array in constants.items()]
    save_graph(path, list(nodes), list(inputs), list(outputs), arrays, None)
    return path


def save_typed(folder: Path, datatype: str) -> None:
    """Write a model named as its datatype, in lower case: `same` and another form of its input.

    Two forms, as an identity alone would not see what is wrong in both directions: `as_double`
    of numbers and booleans, `twice` of strings.
    """
    kind = ONNX_TYPES[datatype]
    if datatype == "BYTES":
        other = helper.make_node("StringConcat", ["input", "input"], ["twice"])
        described = tensor("twice", ["batch", 2], TensorProto.STRING)
    else:
        other = helper.make_node("Cast", ["input"], ["as_double"], to=TensorProto.DOUBLE)
        described = tensor("as_double", ["batch", 2], TensorProto.DOUBLE)
    save(
        folder,
        datatype.lower(),
        [helper.make_node("Identity", ["input"], ["same"]), other],
        [tensor("input", ["batch", 2], kind)],
        [tensor("same", ["batch", 2], kind), described],
    )


def save_several(folder: Path) -> None:
    """Write `several`: price (n,), counts int64 (n, 3), name of strings (n, 1) -> four outputs.

    less and more (n,) are of one form, price - 1 and price + the sum of counts; counts_twice is
    (n, 3), greeting "hello " + name (n, 1).
    """
    save(
        folder,
        "several",
        [
            helper.make_node("Sub", ["price", "one"], ["less"]),
            helper.make_node("ReduceSum", ["counts", "axis"], ["count"], keepdims=0),
            helper.make_node("Cast", ["count"], ["real_count"], to=TensorProto.FLOAT),
            helper.make_node("Add", ["price", "real_count"], ["more"]),
            helper.make_node("Add", ["counts", "counts"], ["counts_twice"]),
            helper.make_node("StringConcat", ["hello", "name"], ["greeting"]),
        ],
        [
            tensor("price", ["batch"]),
            tensor("counts", ["batch", 3], TensorProto.INT64),
            tensor("name", ["batch", 1], TensorProto.STRING),
        ],
        [
            tensor("less", ["batch"]),
            tensor("more", ["batch"]),
            tensor("counts_twice", ["batch", 3], TensorProto.INT64),
            tensor("greeting", ["batch", 1], TensorProto.STRING),
        ],
        one=np.ones(1, np.float32),
        axis=np.array([1], np.int64),
        hello=np.array(["hello "], np.object_),
    )


def save_turned(folder: Path) -> None:
    """Write `turned`, which has no batch dimension: (2, 3) -> (3, 2)."""
    save(
        folder,
        "turned",
        [helper.make_node("Transpose", ["input"], ["output"], perm=[1, 0])],
        [tensor("input", [2, 3])],
        [tensor("output", [3, 2])],
    )


def save_three_rows(folder: Path) -> None:
    """Write `three_rows`, exported with a fixed batch: (3, 2) -> (3, 2), its double."""
    save(
        folder,
        "three_rows",
        [helper.make_node("Add", ["input", "input"], ["output"])],
        [tensor("input", [3, 2])],
        [tensor("output", [3, 2])],
    )


def save_series(folder: Path) -> None:
    """Write `series`, whose rows have any length: (n, length) -> sum (n,) and doubled (n, length).

    The sum is that of one row, so it shows a row that was cut or padded.
    """
    save(
        folder,
        "series",
        [
            helper.make_node("ReduceSum", ["input", "axis"], ["sum"], keepdims=0),
            helper.make_node("Add", ["input", "input"], ["doubled"]),
        ],
        [tensor("input", ["batch", "length"])],
        [tensor("sum", ["batch"]), tensor("doubled", ["batch", "length"])],
        axis=np.array([1], np.int64),
    )


def save_scalar(folder: Path) -> None:
    """Write `scalar`: a number -> its double, both without dimensions."""
    save(
        folder,
        "scalar",
        [helper.make_node("Add", ["input", "input"], ["output"])],
        [tensor("input", [])],
        [tensor("output", [])],
    )


def save_labels(folder: Path) -> None:
    """Write `labels`: (n, 4) -> the place of the largest of each row, int64 (n,)."""
    save(
        folder,
        "labels",
        [helper.make_node("ArgMax", ["input"], ["label"], axis=1, keepdims=0)],
        [tensor("input", ["batch", 4])],
        [tensor("label", ["batch"], TensorProto.INT64)],
    )


def save_logarithm(folder: Path) -> None:
    """Write `logarithm`, which answers NaN below 0, and minus infinity at 0: (n, 2) -> (n, 2)."""
    save(
        folder,
        "logarithm",
        [helper.make_node("Log", ["input"], ["output"])],
        [tensor("input", ["batch", 2])],
        [tensor("output", ["batch", 2])],
    )


def save_positive(folder: Path) -> None:
    """Write `positive`: (4,) -> those above 0, of which there may be none: (m,)."""
    save(
        folder,
        "positive",
        [
            helper.make_node("Greater", ["input", "zero"], ["above"]),
            helper.make_node("Compress", ["input", "above"], ["output"]),
        ],
        [tensor("input", [4])],
        [tensor("output", ["some"])],
        zero=np.zeros(1, np.float32),
    )
