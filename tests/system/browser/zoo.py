"""Models whose names, shapes and types a page for the committed models alone would not stand."""

from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from service.__main__ import main
from service.card import Example, Feature, Image
from tests.support.toys import (
    save_bounded,
    save_columns,
    save_graph,
    save_imputed,
    softmax,
    tensor,
    toy_card,
)

COLOURS = [[255.0, 0.0, 0.0], [0.0, 128.0, 255.0]]
HOUSES = """age,rooms,city,paid
30.5,2,Łódź,true
41,3,rome,false
20,3,rome,false
"""
SIZES = """age,size
,1
3,1
"""
LONG = "averylongwordwithoutanyblank" * 8


def fill_zoo(folder: Path) -> None:
    _save_classifier(folder, "numbered", ["10", "2", "x", "1"])  # JSON would sort these
    _save_classifier(folder, "proto", ["__proto__", "constructor", "toString"])
    _save_classifier(folder, f"long-{'y' * 50}", [LONG, "a_very_" * 30], unit=LONG)
    save_bounded(folder, 3)
    _save_colour(folder, "rgb", 16, 24)
    _save_colour(folder, "large", 128, 128)
    _save_without_card(folder, "halves", TensorProto.FLOAT16, ["batch", 2])
    _save_without_card(folder, "integers", TensorProto.INT64, ["batch", 3])
    _save_without_card(folder, "numbers", TensorProto.FLOAT, ["batch"])
    _save_without_card(folder, "words", TensorProto.STRING, ["batch", 2])
    save_columns(folder)
    made = folder / ".made"  # no model's name
    _describe(save_columns(made, has_town=False), folder / "houses", HOUSES, "--units", "age=years")
    _describe(save_imputed(made), folder / "sizes", SIZES)
    for i in range(8):
        _save_without_card(folder, f"z{i}", TensorProto.FLOAT, ["batch", 2])


def _describe(path: Path, to: Path, rows: str, *options: str) -> None:
    """Write a copy of a model with a card, as `card` writes it."""
    examples = path.with_name("rows.csv")
    examples.write_text(rows)
    arguments = [path, "--examples", examples, "--output", to / "1/model.onnx"]
    assert main(["card", *map(str, arguments), *options]) == 0


def _save_classifier(folder: Path, name: str, features: list[str], unit: str = "cm") -> None:
    """Write a softmax over the features, of which each weighs another power of 2."""
    weights = np.outer(2.0 ** np.arange(len(features)), [1, -1]).astype(np.float32) / 64
    row = [float(i + 1) for i in range(len(features))]
    card = toy_card(
        features=[
            Feature(
                name=each,
                unit=unit,
                description="d" * 300,
                minimum=0,
                maximum=10,
                mean=5,
                std=1,
                default=value,
            )
            for each, value in zip(features, row, strict=True)
        ],
        labels=["L" * 150, "no"],
        examples=[
            Example(name="e", input=row, output=softmax(np.array([row]) @ weights)[0].tolist())
        ],
    )
    save_graph(
        folder / name / "1/model.onnx",
        [
            helper.make_node("MatMul", ["input", "weights"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        ],
        [tensor("input", ["batch", len(features)])],
        [tensor("probabilities", ["batch", 2])],
        [numpy_helper.from_array(weights, "weights")],
        card,
    )


def _save_colour(folder: Path, name: str, height: int, width: int) -> None:
    """Write a softmax over the mean of red and of blue."""

    def example(name: str, colour: list[float]) -> Example:
        means = np.array([[colour[0], colour[2]]]) / 200
        return Example(
            name=name, input=colour * (height * width), output=softmax(means)[0].tolist()
        )

    card = toy_card(
        features=[],
        image=Image(height=height, width=width, channels=3, preparation="It is scaled."),
        labels=["red", "blue"],
        examples=[example("red", COLOURS[0]), example("sky", COLOURS[1])],
    )
    save_graph(
        folder / name / "1/model.onnx",
        [
            helper.make_node("ReduceMean", ["input", "axes"], ["means"], keepdims=0),
            helper.make_node("Gather", ["means", "ends"], ["two"], axis=1),
            helper.make_node("Mul", ["two", "scale"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        ],
        [tensor("input", ["batch", height, width, 3])],
        [tensor("probabilities", ["batch", 2])],
        [
            numpy_helper.from_array(np.array([1, 2], np.int64), "axes"),
            numpy_helper.from_array(np.array([0, 2], np.int64), "ends"),
            numpy_helper.from_array(np.array([1 / 200], np.float32), "scale"),
        ],
        card,
    )


def _save_without_card(folder: Path, name: str, dtype: int, shape: list[Any]) -> None:
    save_graph(
        folder / name / "1/model.onnx",
        [helper.make_node("Identity", ["input"], ["output"])],
        [tensor("input", shape, dtype)],
        [tensor("output", shape, dtype)],
        [],
        None,
    )
