"""Small ONNX models built in the tests, and the service over them in one event loop."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from service.card import (
    METADATA_KEY,
    Card,
    Dataset,
    Example,
    Feature,
    Image,
    Interval,
    Picture,
    Target,
)
from service.entrance.services import Host
from service.http.app import App, create_app
from service.settings import Settings

DATASET = Dataset(name="toy", source="made up", sha256="0" * 64, licence="MIT")
PNG = b"\x89PNG\r\n\x1a\nwhatever the service does not read"
WEIGHTS = np.array([[1, 0, -1], [0, 1, 0], [2, -1, 0.5], [0, 0, 1]], np.float32)  # (4, 3)


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
ONE = numpy_helper.from_array(np.ones(1, np.float32))


def softmax(logits: NDArray[Any]) -> NDArray[Any]:
    """The NumPy formula the toy models are compared with."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def toy_answer(rows: NDArray[Any]) -> NDArray[Any]:
    """What the toy classifier answers, by NumPy: (n, 4) -> (n, 3)."""
    return softmax(np.asarray(rows, np.float64) @ WEIGHTS)


def toy_card(**changes: Any) -> Card:
    example = [1.0, 2.0, 3.0, 4.0]
    fields: dict[str, Any] = {
        "task": "classification",
        "description": "A toy.",
        "features": [
            Feature(
                name=name,
                unit="cm",
                description=name,
                minimum=0,
                maximum=10,
                mean=5,
                std=1,
                default=5,
            )
            for name in ("a", "b", "c", "d")
        ],
        "labels": ["red", "green", "blue"],
        "metrics": {"accuracy": 1.0},
        "dataset": DATASET,
        "training": {"seed": 0},
        "versions": {"torch": "none"},
        "examples": [
            Example(name="one", input=example, output=toy_answer(np.array([example]))[0].tolist())
        ],
    }
    return Card(**(fields | changes))


def save_graph(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    initializers: list[onnx.TensorProto],
    card: Card | None,
) -> None:
    """Write an ONNX file, with its card if it has one."""
    graph = helper.make_graph(nodes, "toy", inputs, outputs, initializers)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    if card is not None:
        helper.set_model_props(model, {METADATA_KEY: card.to_json()})
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)


def tensor(name: str, shape: list[Any], dtype: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def save_toy(folder: Path, version: int = 1, *, card: Card | None = None, scale: float = 1) -> Path:
    """Write models folder `folder`/toy: softmax(x @ WEIGHTS * scale)."""
    path = folder / "toy" / str(version) / "model.onnx"
    save_graph(
        path,
        [
            helper.make_node("MatMul", ["input", "weights"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        ],
        [tensor("input", ["batch", 4])],
        [tensor("probabilities", ["batch", 3])],
        [numpy_helper.from_array(WEIGHTS * np.float32(scale), "weights")],
        card,
    )
    return path


def save_pictured(folder: Path) -> Path:
    """Write the toy with a card that lists loss.png, and that file; return its path."""
    card = toy_card(pictures=[Picture(file="loss.png", title="Loss")])
    path = save_toy(folder, card=card).with_name("loss.png")
    path.write_bytes(PNG)
    return path


def save_bounded(folder: Path, targets: int = 1) -> Path:
    """Write `folder`/bounded: `targets` values 2 x, each with an interval 2 x - 1 to 2 x + 1."""
    names = [f"twice_{number}" for number in range(targets)]
    input, output = [3.0] * targets, [6.0] * targets
    card = toy_card(
        task="regression",
        features=[
            Feature(
                name=f"x_{number}",
                unit="cm",
                description="x",
                default=5,
                minimum=0,
                maximum=10,
                mean=5,
                std=1,
            )
            for number in range(targets)
        ],
        labels=[],
        targets=[Target(name=name, unit="cm", description="twice x") for name in names],
        interval=Interval(coverage=0.9),
        examples=[Example(name="e", input=input, output=output, interval=[5.0, 7.0] * targets)],
    )
    path = folder / "bounded" / "1" / "model.onnx"
    save_graph(
        path,
        [
            helper.make_node("Add", ["input", "input"], ["value"]),
            helper.make_node("Unsqueeze", ["value", "axes"], ["column"]),
            helper.make_node("Add", ["column", "margins"], ["interval"]),
        ],
        [tensor("input", ["batch", targets])],
        [tensor("value", ["batch", targets]), tensor("interval", ["batch", targets, 2])],
        [
            numpy_helper.from_array(np.array([2], np.int64), "axes"),
            numpy_helper.from_array(np.array([-1, 1], np.float32), "margins"),
        ],
        card,
    )
    return path


def save_dear(folder: Path, side: int = 1500) -> Path:
    """Write `folder`/dear: a model without a card that takes a tenth of a second for any batch.

    It adds `side` to each number, by way of a product of two matrices of side x side ones.
    """
    path = folder / "dear" / "1" / "model.onnx"
    save_graph(
        path,
        [  # the ones are made from the input, so that nothing is computed ahead
            helper.make_node("ReduceSum", ["input"], ["sum"], keepdims=0),
            helper.make_node("Mul", ["sum", "zero"], ["nothing"]),
            helper.make_node("ConstantOfShape", ["shape"], ["ones"], value=ONE),
            helper.make_node("Add", ["ones", "nothing"], ["left"]),
            helper.make_node("MatMul", ["left", "ones"], ["product"]),
            helper.make_node("ReduceMax", ["product"], ["most"], keepdims=0),
            helper.make_node("Add", ["input", "most"], ["output"]),
        ],
        [tensor("input", ["batch", 4])],
        [tensor("output", ["batch", 4])],
        [
            numpy_helper.from_array(np.float32(0), "zero"),
            numpy_helper.from_array(np.array([side, side], np.int64), "shape"),
        ],
        None,
    )
    return path


def save_mean(folder: Path) -> Path:
    """Write `folder`/mean: a regression model of a 2 x 3 image, the mean of its pixels."""
    card = toy_card(
        task="regression",
        features=[],
        image=Image(height=2, width=3, channels=1, preparation="none"),
        labels=[],
        targets=[Target(name="mean", unit="grey", description="mean of the pixels")],
        examples=[Example(name="ramp", input=[0, 1, 2, 3, 4, 5], output=[2.5])],
    )
    path = folder / "mean" / "1" / "model.onnx"
    save_graph(
        path,
        [helper.make_node("ReduceMean", ["input", "axes"], ["value"], keepdims=1)],
        [tensor("input", ["batch", 6])],
        [tensor("value", ["batch", 1])],
        [numpy_helper.from_array(np.array([1], np.int64), "axes")],
        card,
    )
    return path


def save_sum(folder: Path, card: Card | None = None) -> Path:
    """Write `folder`/sum: a model of two inputs, left + right, each a row of 2 numbers."""
    path = folder / "sum" / "1" / "model.onnx"
    save_graph(
        path,
        [helper.make_node("Add", ["left", "right"], ["sum"])],
        [tensor("left", ["batch", 2]), tensor("right", ["batch", 2])],
        [tensor("sum", ["batch", 2])],
        [],
        card,
    )
    return path


def save_same(
    folder: Path, shape: list[Any], dtype: int = TensorProto.FLOAT, *, name: str = "same"
) -> Path:
    """Write `folder`/same: it answers what it is asked, a tensor of this shape and type."""
    path = folder / name / "1" / "model.onnx"
    nodes = [helper.make_node("Identity", ["input"], ["output"])]
    inputs, outputs = [tensor("input", shape, dtype)], [tensor("output", shape, dtype)]
    save_graph(path, nodes, inputs, outputs, [], None)
    return path


def save_fussy(folder: Path) -> Path:
    """Write `folder`/fussy: 1 / (x - 7). Zeros pass, 7 gives infinity."""
    path = folder / "fussy" / "1" / "model.onnx"
    save_graph(
        path,
        [
            helper.make_node("Sub", ["input", "seven"], ["shifted"]),
            helper.make_node("Reciprocal", ["shifted"], ["output"]),
        ],
        [tensor("input", ["batch", 1])],
        [tensor("output", ["batch", 1])],
        [numpy_helper.from_array(np.array([7], np.float32), "seven")],
        None,
    )
    return path


def save_zipped(folder: Path) -> Path:
    """Write `folder`/zipped: the place of the highest of two numbers, and these in a list of maps.

    So skl2onnx ends a classifier.
    """
    path = folder / "zipped" / "1" / "model.onnx"
    maps = helper.make_map_type_proto(
        TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.FLOAT, [])
    )
    zipped = helper.make_value_info("zipped", helper.make_sequence_type_proto(maps))
    labels = ["no", "yes"]
    save_graph(
        path,
        [
            helper.make_node("ArgMax", ["input"], ["highest"], axis=1, keepdims=0),
            helper.make_node(
                "ZipMap", ["input"], ["zipped"], domain="ai.onnx.ml", classlabels_strings=labels
            ),
        ],
        [tensor("input", ["batch", 2])],
        [tensor("highest", ["batch"], TensorProto.INT64), zipped],
        [],
        None,
    )
    return path


def save_picky(folder: Path, card: Card | None = None, *, least: float) -> Path:
    """Write `folder`/picky: it answers the rows whose 4 numbers are all `least` or more, only.

    Its graph says that it answers each: only a run can tell that it does not.
    """
    path = folder / "picky" / "1" / "model.onnx"
    save_graph(
        path,
        [
            helper.make_node("ReduceMin", ["input", "axes"], ["lowest"], keepdims=0),
            helper.make_node("GreaterOrEqual", ["lowest", "least"], ["is_taken"]),
            helper.make_node("Compress", ["input", "is_taken"], ["taken"], axis=0),
            helper.make_node("Gemm", ["taken", "weights"], ["output"]),
        ],
        [tensor("input", ["batch", 4])],
        [tensor("output", ["batch", 3])],
        [
            numpy_helper.from_array(np.array([1], np.int64), "axes"),
            numpy_helper.from_array(np.float32(least), "least"),
            numpy_helper.from_array(WEIGHTS, "weights"),
        ],
        card,
    )
    return path


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


def save_sequenced(folder: Path, *, only_sequence: bool = False) -> Path:
    """Write `folder`/sequenced: a copy of its input, and its rows as a sequence, or only that."""
    sequence = helper.make_tensor_sequence_value_info("several", TensorProto.FLOAT, [1, 2])
    path = folder / "sequenced" / "1" / "model.onnx"
    save_graph(
        path,
        [
            helper.make_node("Identity", ["input"], ["output"]),
            helper.make_node("SplitToSequence", ["input"], ["several"], axis=0),
        ],
        [tensor("input", ["batch", 2])],
        [sequence] if only_sequence else [tensor("output", ["batch", 2]), sequence],
        [],
        None,
    )
    return path


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


def save_seen(folder: Path, channels: int = 1, side: int = 28, name: str = "seen") -> None:
    """Write a model of images that answers the mean of each."""
    count = side * side * channels
    model_card = toy_card(
        task="regression",
        features=[],
        image=Image(height=side, width=side, channels=channels, preparation="none"),
        labels=[],
        targets=[Target(name="mean", unit="grey", description="mean of the pixels")],
        examples=[Example(name="seven", input=[7.0] * count, output=[7.0])],
    )
    save_graph(
        folder / name / "1" / "model.onnx",
        [helper.make_node("ReduceMean", ["input", "axes"], ["value"], keepdims=1)],
        [tensor("input", ["batch", count])],
        [tensor("value", ["batch", 1])],
        [numpy_helper.from_array(np.array([1], np.int64), "axes")],
        model_card,
    )


class Client(httpx.AsyncClient):
    """A client in the event loop of the service that it asks: `app`, whose parts are `services`."""

    def __init__(self, app: App) -> None:
        super().__init__(transport=httpx.ASGITransport(app=app), base_url="http://toy")
        self.app, self.services = app, app.services


@asynccontextmanager
async def serving(settings: Settings, host: Host | None = None) -> AsyncIterator[Client]:
    """The service with its lifespan, and a client in the same event loop."""
    app = create_app(settings, host=host)
    async with app.lifespan(), Client(app) as client:
        yield client


def body(model: str, instances: list[Any], **fields: Any) -> bytes:
    return json.dumps({"model": model, "instances": instances, **fields}).encode()


def save_columns(folder: Path, *, has_town: bool = True) -> Path:
    """Write `folder`/columns: an input for each of its columns, of each kind.

    age float32 (n, 1), rooms int64 (n,), city of strings (n, 1), paid of booleans (n, 1); the price
    (n, 1) is age + rooms, and 10 more in Rome, 100 if paid; the town (n, 1) is the city.
    """
    town = [tensor("town", ["batch", 1], TensorProto.STRING)] if has_town else []
    path = folder / "columns" / "1" / "model.onnx"
    save_graph(
        path,
        [
            helper.make_node("Cast", ["rooms"], ["count"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["count", "axes"], ["counts"]),
            helper.make_node("Equal", ["city", "rome"], ["is_rome"]),
            helper.make_node("Where", ["is_rome", "ten", "zero"], ["of_city"]),
            helper.make_node("Where", ["paid", "hundred", "zero"], ["of_paid"]),
            helper.make_node("Sum", ["age", "counts", "of_city", "of_paid"], ["price"]),
            helper.make_node("Identity", ["city"], ["town"]),
        ],
        [
            tensor("age", ["batch", 1]),
            tensor("rooms", ["batch"], TensorProto.INT64),
            tensor("city", ["batch", 1], TensorProto.STRING),
            tensor("paid", ["batch", 1], TensorProto.BOOL),
        ],
        [tensor("price", ["batch", 1]), *town],
        [
            numpy_helper.from_array(np.array([1], np.int64), "axes"),
            numpy_helper.from_array(np.array(["rome"], np.object_), "rome"),
            numpy_helper.from_array(np.float32(0), "zero"),
            numpy_helper.from_array(np.float32(10), "ten"),
            numpy_helper.from_array(np.float32(100), "hundred"),
        ],
        None,
    )
    return path


def save_imputed(folder: Path) -> Path:
    """Write `folder`/imputed: age + size, columns of float32 (n, 1); a missing age is 7."""
    path = folder / "imputed" / "1" / "model.onnx"
    imputer = helper.make_node(
        "Imputer",
        ["age"],
        ["known"],
        domain="ai.onnx.ml",
        imputed_value_floats=[7.0],
        replaced_value_float=float("nan"),
    )
    save_graph(
        path,
        [imputer, helper.make_node("Add", ["known", "size"], ["sum"])],
        [tensor("age", ["batch", 1]), tensor("size", ["batch", 1])],
        [tensor("sum", ["batch", 1])],
        [],
        None,
    )
    return path


def save_rectified(folder: Path) -> Path:
    """Write `folder`/rectified: of each of 2 numbers, 0 if it is less; of NaN it may be 0 too."""
    path = folder / "rectified" / "1" / "model.onnx"
    nodes = [helper.make_node("Relu", ["input"], ["output"])]
    inputs, outputs = [tensor("input", ["batch", 2])], [tensor("output", ["batch", 2])]
    save_graph(path, nodes, inputs, outputs, [], None)
    return path
