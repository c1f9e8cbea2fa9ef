"""ONNX files as other people write them, and what is right for each: written into a models folder.

They are held against ONNX Runtime alone, so no function says what a model answers.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Inputs = dict[str, NDArray[Any]]
FLOAT, INT64, STRING = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING
node, info = helper.make_node, helper.make_tensor_value_info


class Foreign(NamedTuple):
    """A model, whether its rows may share a run, and inputs of n rows or steps for it."""

    model: onnx.ModelProto
    is_batched: bool
    inputs: Callable[[np.random.Generator, int], Inputs]


def graph(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    **weights: Any,
) -> onnx.ModelProto:
    arrays = [numpy_helper.from_array(np.asarray(each), name) for name, each in weights.items()]
    body = helper.make_graph(list(nodes), "graph", list(inputs), list(outputs), arrays)
    opsets = [helper.make_opsetid("", 20)]
    return helper.make_model(body, opset_imports=opsets, ir_version=9)


def save(folder: Path, name: str, model: onnx.ModelProto, version: int = 1) -> Path:
    path = folder / name / str(version) / "model.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


def session(path: Path) -> ort.InferenceSession:
    """ONNX Runtime alone: the oracle."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def weights(*shape: int, scale: float = 1) -> NDArray[np.float32]:
    return (np.random.default_rng(7).standard_normal(shape) * scale).astype(np.float32)


def outside(model: onnx.ModelProto, folder: Path, **names: str) -> onnx.ModelProto:
    """Put weights into files of `folder`, each by its name; return the model."""
    for tensor in model.graph.initializer:
        if tensor.name in names:
            path = folder / names[tensor.name]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(tensor.raw_data)
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (
                ("location", names[tensor.name]),
                ("offset", "0"),
                ("length", str(path.stat().st_size)),
            ):
                tensor.external_data.add(key=key, value=value)
    return model


def counting() -> onnx.ModelProto:
    """Adds 1 as often as its input says."""
    body = helper.make_graph(
        [node("Identity", ["go"], ["on"]), node("Add", ["sum", "one"], ["more"])],
        "body",
        [info("i", INT64, []), info("go", TensorProto.BOOL, []), info("sum", FLOAT, [1])],
        [info("on", TensorProto.BOOL, []), info("more", FLOAT, [1])],
        [numpy_helper.from_array(np.ones(1, np.float32), "one")],
    )
    return graph(
        [node("Squeeze", ["x"], ["count"]), node("Loop", ["count", "", "start"], ["y"], body=body)],
        [info("x", INT64, ["n"])],
        [info("y", FLOAT, [1])],
        start=np.zeros(1, np.float32),
    )


def linear() -> onnx.ModelProto:
    return graph(
        [node("MatMul", ["x", "w"], ["m"]), node("Add", ["m", "b"], ["y"])],
        [info("x", FLOAT, ["n", 4])],
        [info("y", FLOAT, ["n", 3])],
        w=weights(4, 3),
        b=weights(3),
    )


def floats(name: str, *shape: int) -> Callable[[np.random.Generator, int], Inputs]:
    """Inputs (n, ...) of one name."""
    return lambda random, n: {name: random.standard_normal((n, *shape)).astype(np.float32)}


def _rows(name: str = "x", *shape: int | str) -> onnx.ValueInfoProto:
    return info(name, FLOAT, ["n", *(shape or (4,))])


def time_first() -> Foreign:
    """A GRU whose first dimension is time, as PyTorch's is unless told otherwise."""
    made = graph(
        [node("GRU", ["x", "W", "R", "B"], ["y"], hidden_size=3)],
        [info("x", FLOAT, ["time", 1, 2])],
        [info("y", FLOAT, ["time", 1, 1, 3])],
        W=weights(1, 9, 2),
        R=weights(1, 9, 3),
        B=weights(1, 18),
    )
    return Foreign(made, False, floats("x", 1, 2))


def attention(*, is_batch_first: bool) -> Foreign:
    """Each place with every place of its sequence; the first dimension is the batch or is not."""
    first, second = ([0, 1, 2], [0, 2, 1]) if is_batch_first else ([1, 0, 2], [1, 2, 0])
    made = graph(
        [
            node("Transpose", ["x"], ["queries"], perm=first),
            node("Transpose", ["x"], ["keys"], perm=second),
            node("MatMul", ["queries", "keys"], ["scores"]),
            node("Softmax", ["scores"], ["shares"], axis=-1),
            node("MatMul", ["shares", "queries"], ["mixed"]),
            node("Transpose", ["mixed"], ["y"], perm=first),
        ],
        [info("x", FLOAT, ["first", 2, 8])],
        [info("y", FLOAT, ["first", 2, 8])],
    )
    return Foreign(made, is_batch_first, floats("x", 2, 8))


def pairs() -> Foreign:
    """Every row of one input with every row of the other: (n, 3) and (n, 3) -> (n, n)."""
    made = graph(
        [node("Gemm", ["a", "b"], ["y"], transB=1)],
        [_rows("a", 3), _rows("b", 3)],
        [info("y", FLOAT, ["n", "n"])],
    )
    return Foreign(made, False, lambda r, n: floats("a", 3)(r, n) | floats("b", 3)(r, n))


def quantized() -> Foreign:
    """Dynamic int8 behind an embedding: one scale for the batch, moved by one word in fifty."""
    words = weights(50, 8)
    words[33] *= 40
    made = graph(
        [
            node("Gather", ["words", "id"], ["x"]),
            node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"]),
            node("MatMulInteger", ["q", "w", "zero"], ["i"]),
            node("Cast", ["i"], ["c"], to=FLOAT),
            node("Mul", ["c", "scale"], ["y"]),
        ],
        [info("id", INT64, ["n"])],
        [info("y", FLOAT, ["n", 2])],
        words=words,
        w=(weights(8, 2) * 9).astype(np.int8),
    )
    return Foreign(made, False, lambda random, n: {"id": random.integers(0, 50, n)})


def scaled_by_all() -> Foreign:
    """What dynamic quantisation does, written out: divided by the largest number of all."""
    made = graph(
        [
            node("Abs", ["x"], ["size"]),
            node("ReduceMax", ["size"], ["largest"], keepdims=1),
            node("Div", ["x", "largest"], ["y"]),
        ],
        [_rows()],
        [_rows("y")],
    )
    return Foreign(made, False, floats("x", 4))


def of_pixels() -> Foreign:
    """Numbers up to 255, minus the mean of the batch: for small numbers it hardly shows."""
    made = graph(
        [
            node("Div", ["x", "most"], ["share"]),
            node("ReduceMean", ["share", "first"], ["mean"], keepdims=1),
            node("Sub", ["share", "mean"], ["centred"]),
            node("MatMul", ["centred", "w"], ["product"]),
            node("Add", ["product", "bias"], ["y"]),
        ],
        [_rows()],
        [_rows("y", 3)],
        most=np.float32(255),
        first=np.array([0]),
        w=weights(4, 3, scale=0.1),
        bias=np.ones(3, np.float32),
    )
    return Foreign(made, False, lambda random, n: {"x": random.random((n, 4), np.float32) * 255})


def numbered() -> Foreign:
    """Each row plus its place in the batch."""
    made = graph(
        [
            node("Mul", ["x", "nothing"], ["none"]),
            node("Add", ["none", "one"], ["ones"]),
            node("CumSum", ["ones", "zero"], ["places"]),
            node("Add", ["x", "places"], ["y"]),
        ],
        [_rows()],
        [_rows("y")],
        zero=np.array(0),
        nothing=np.float32(0),
        one=np.float32(1),
    )
    return Foreign(made, False, floats("x", 4))


def masked() -> Foreign:
    """Sums from row to row, but for a choice that is masked with the lowest float32."""
    made = graph(
        [node("CumSum", ["x", "first"], ["sums"]), node("Where", ["may", "sums", "low"], ["y"])],
        [_rows()],
        [_rows("y")],
        first=np.array(0),
        may=np.array([True, True, True, False]),
        low=np.finfo(np.float32).min,
    )
    return Foreign(made, False, floats("x", 4))


def beside_large() -> Foreign:
    """Shares of all rows beside numbers that are 10,000 times larger."""
    made = graph(
        [
            node("Mul", ["x", "large"], ["pixels"]),
            node("Softmax", ["x"], ["shares"], axis=0),
            node("Concat", ["pixels", "shares"], ["y"], axis=1),
        ],
        [_rows()],
        [_rows("y", 8)],
        large=np.float32(1e4),
    )
    return Foreign(made, False, floats("x", 4))


def time_stamps() -> Foreign:
    """Seconds since 1970, scaled in the graph; the mean of the batch is added."""
    made = graph(
        [
            node("Sub", ["x", "mean"], ["distance"]),
            node("Div", ["distance", "deviation"], ["scaled"]),
            node("ReduceMean", ["scaled", "first"], ["all"], keepdims=1),
            node("Add", ["scaled", "all"], ["y"]),
        ],
        [_rows("x", 1)],
        [_rows("y", 1)],
        mean=np.float32(1.7e9),
        deviation=np.float32(3e7),
        first=np.array([0]),
    )

    def inputs(random: np.random.Generator, n: int) -> Inputs:
        return {"x": (1.6e9 + 2e8 * random.random((n, 1))).astype(np.float32)}

    return Foreign(made, False, inputs)


def lagged() -> Foreign:
    """The larger of each row and the third before it; the first three keep themselves."""
    made = graph(
        [
            node("Slice", ["x", "zero", "three", "zero"], ["head"]),
            node("Slice", ["x", "zero", "minus", "zero"], ["body"]),
            node("Concat", ["head", "body"], ["long"], axis=0),
            node("Shape", ["x"], ["rows"], start=0, end=1),
            node("Slice", ["long", "zero", "rows", "zero"], ["lag"]),
            node("Max", ["x", "lag"], ["y"]),
        ],
        [_rows()],
        [_rows("y")],
        zero=np.array([0]),
        three=np.array([3]),
        minus=np.array([-3]),
    )
    return Foreign(made, False, floats("x", 4))


def windows() -> Foreign:
    """Windows of 4 along each row: what is no multiple of 4 long cannot be run alone."""
    made = graph(
        [
            node("Reshape", ["x", "window"], ["cut"]),
            node("Softmax", ["cut"], ["shares"], axis=-1),
            node("Shape", ["x"], ["shape"]),
            node("Reshape", ["shares", "shape"], ["y"]),
        ],
        [_rows("x", "length")],
        [_rows("y", "length")],
        window=np.array([-1, 4]),
    )
    return Foreign(made, True, floats("x", 8))


def broadcast() -> Foreign:
    """Two inputs whose first dimensions have no name: one row of the second is for all."""
    made = graph(
        [node("Add", ["x", "z"], ["y"])],
        [info("x", FLOAT, [None, 4]), info("z", FLOAT, [None, 4])],
        [info("y", FLOAT, [None, 4])],
    )
    return Foreign(made, True, lambda r, n: floats("x", 4)(r, n) | floats("z", 4)(r, 1))


def best() -> Foreign:
    """The highest of each column of the batch: (n, 4) -> (1, 4)."""
    made = graph(
        [node("TopK", ["x", "k"], ["y", "place"], axis=0)],
        [_rows()],
        [info("y", FLOAT, ["k", 4])],
        k=np.array([1]),
    )
    return Foreign(made, False, floats("x", 4))


def detector() -> Foreign:
    """Any image size, (n, 3, h, w) -> what was found (m, 2); images below 9 x 9 are too small."""
    made = graph(
        [
            node("Conv", ["x", "w"], ["maps"], strides=[2, 2]),
            node("Transpose", ["maps"], ["last"], perm=[0, 2, 3, 1]),
            node("Reshape", ["last", "flat"], ["boxes"]),
            node("ReduceMax", ["boxes", "axis"], ["score"], keepdims=0),
            node("Greater", ["score", "zero"], ["found"]),
            node("Compress", ["boxes", "found"], ["y"], axis=0),
        ],
        [info("x", FLOAT, ["n", 3, "h", "w"])],
        [info("y", FLOAT, ["m", 2])],
        w=weights(2, 3, 9, 9),
        flat=np.array([-1, 2]),
        axis=np.array([1]),
        zero=np.float32(0),
    )
    return Foreign(made, False, floats("x", 3, 20, 20))


def image_of_any_size() -> Foreign:
    """A small convolutional network over images of any size: each image is a row."""
    made = graph(
        [
            node("Conv", ["x", "w"], ["maps"], strides=[8, 8]),
            node("GlobalAveragePool", ["maps"], ["mean"]),
            node("Flatten", ["mean"], ["y"]),
        ],
        [info("x", FLOAT, ["n", 3, "h", "w"])],
        [_rows("y", 5)],
        w=weights(5, 3, 16, 16, scale=0.05),
    )
    return Foreign(made, True, floats("x", 3, 40, 30))


def cache() -> Foreign:
    """A decoder's cache, empty at the first step: (n, past, 4), past may be 0."""
    made = graph(
        [node("Concat", ["past", "new"], ["present"], axis=1)],
        [_rows("past", "past", 4), _rows("new", "length", 4)],
        [info("present", FLOAT, ["n", "past + length", 4])],
    )

    def inputs(random: np.random.Generator, n: int) -> Inputs:
        past, new = (
            floats(name, size, 4)(random, n) for name, size in (("past", n % 3), ("new", 2))
        )
        return past | new

    return Foreign(made, True, inputs)


def label_of_one() -> Foreign:
    """The label is declared [1], and has as many entries as there are rows (onnxmltools 1.16)."""
    made = graph(
        [
            node("ArgMax", ["x"], ["label"], axis=1, keepdims=0),
            node("Softmax", ["x"], ["probabilities"], axis=1),
        ],
        [info("x", FLOAT, [None, 4])],
        [info("label", INT64, [1]), info("probabilities", FLOAT, [None, 4])],
    )
    return Foreign(made, True, floats("x", 4))


def column() -> Foreign:
    """The answer is declared [n], and is a column (n, 1), as CatBoost writes regressors."""
    outputs = [info("y", FLOAT, ["n"])]
    made = graph([node("MatMul", ["x", "w"], ["y"])], [_rows()], outputs, w=weights(4, 1))
    return Foreign(made, True, floats("x", 4))


def of_any_rank() -> Foreign:
    """No shape in the file at all."""
    made = graph(
        [node("Sigmoid", ["x"], ["y"])], [info("x", FLOAT, None)], [info("y", FLOAT, None)]
    )
    return Foreign(made, False, floats("x", 2, 2))


def with_scalar() -> Foreign:
    """A second input that is a single number, as a sample rate; [1] is how clients send it."""
    made = graph(
        [node("Mul", ["x", "rate"], ["y"])], [_rows(), info("rate", FLOAT, [])], [_rows("y")]
    )
    return Foreign(made, False, lambda r, n: floats("x", 4)(r, n) | {"rate": np.full(1, n, "f4")})


def one_row_inside() -> Foreign:
    """Declared open, but a row at a time is all it takes, as from a trace of one example."""
    made = graph(
        [node("Reshape", ["x", "shape"], ["row"]), node("MatMul", ["row", "w"], ["y"])],
        [_rows()],
        [_rows("y", 2)],
        shape=np.array([1, 4]),
        w=weights(4, 2),
    )
    return Foreign(made, False, lambda random, n: floats("x", 4)(random, 1))


def columns() -> Foreign:
    """An input for each column of a table, numbers and strings, as skl2onnx writes pipelines."""
    made = graph(
        [
            node("Equal", ["sex", "female"], ["is_female"]),
            node("Cast", ["is_female"], ["flag"], to=FLOAT),
            node("Concat", ["age", "flag"], ["x"], axis=1),
            node("MatMul", ["x", "w"], ["y"]),
        ],
        [info("age", FLOAT, [None, 1]), info("sex", STRING, [None, 1])],
        [info("y", FLOAT, [None, 2])],
        female=np.array([["female"]], object),
        w=weights(2, 2),
    )

    def inputs(random: np.random.Generator, n: int) -> Inputs:
        sexes = np.array(["female", "male"], object)[random.integers(0, 2, (n, 1))]
        return floats("age", 1)(random, n) | {"sex": sexes}

    return Foreign(made, True, inputs)


FOREIGN: dict[str, Foreign] = {
    "time_first": time_first(),
    "attention": attention(is_batch_first=True),
    "attention_time_first": attention(is_batch_first=False),
    "pairs": pairs(),
    "quantized": quantized(),
    "scaled_by_all": scaled_by_all(),
    "of_pixels": of_pixels(),
    "numbered": numbered(),
    "masked": masked(),
    "beside_large": beside_large(),
    "time_stamps": time_stamps(),
    "lagged": lagged(),
    "windows": windows(),
    "broadcast": broadcast(),
    "best": best(),
    "detector": detector(),
    "image_of_any_size": image_of_any_size(),
    "cache": cache(),
    "label_of_one": label_of_one(),
    "column": column(),
    "of_any_rank": of_any_rank(),
    "with_scalar": with_scalar(),
    "one_row_inside": one_row_inside(),
    "columns": columns(),
}
