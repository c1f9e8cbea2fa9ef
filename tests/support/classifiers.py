"""Classifiers as converters of scikit-learn, LightGBM, XGBoost and CatBoost write them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tests.support.toys import WEIGHTS, save_graph, tensor, toy_answer

NAMES = ["red", "green", "blue"]
NUMBERS = [7, -1, 3]
ROWS = np.array([[1, 2, 3, 4], [0, 9, 0, 0], [9, 0, 0, 1]], np.float32)
ANSWERS = toy_answer(ROWS)  # (3, 3)
MARGINS: NDArray[Any] = ROWS @ WEIGHTS


def save_classifier(
    folder: Path,
    labels: Sequence[str] | Sequence[int] = NAMES,
    *,
    label: str = "label",
    scores: str = "probabilities",
    is_zipped: bool = False,
    are_margins: bool = False,
    is_swapped: bool = False,
    is_place: bool = False,
    says_labels: bool = True,
    beside: str = "",
    name: str = "kinds",
) -> Path:
    """Write `folder`/kinds: the label of the highest of three numbers, and these.

    is_zipped: they are maps. are_margins: no softmax. is_swapped: it is the label of the lowest.
    is_place: the label is its place. says_labels: else nothing in the graph does.
    beside: the name of one more output, twice the input.
    """
    array = np.array(labels, np.object_ if isinstance(labels[0], str) else np.int64)
    dtype = TensorProto.STRING if array.dtype == np.object_ else TensorProto.INT64
    key = "classlabels_strings" if array.dtype == np.object_ else "classlabels_int64s"
    highest = helper.make_node("ArgMin" if is_swapped else "ArgMax", ["given"], ["place"], axis=1)
    chosen = helper.make_node("Gather", ["classes", "place"], ["chosen"])
    classes = numpy_helper.from_array(array, "classes")
    nodes = [
        helper.make_node("MatMul", ["input", "weights"], ["logits"]),
        helper.make_node("Softmax" if not are_margins else "Identity", ["logits"], ["given"]),
        highest,
        chosen,
        helper.make_node("Reshape", ["place" if is_place else "chosen", "flat"], [label]),
    ]
    if not says_labels:
        nodes[3:4] = [
            helper.make_node("Unsqueeze", ["classes", "first"], ["row"]),
            helper.make_node("Squeeze", ["row", "first"], ["same"]),
            helper.make_node("Gather", ["same", "place"], ["chosen"]),
        ]
    outputs = [tensor(label, ["n"], TensorProto.INT64 if is_place else dtype)]
    if is_zipped:
        zipped = helper.make_node("ZipMap", ["given"], [scores], domain="ai.onnx.ml")
        zipped.attribute.append(helper.make_attribute(key, labels))
        nodes.append(zipped)
        maps = helper.make_map_type_proto(dtype, helper.make_tensor_type_proto(1, []))
        kind = helper.make_sequence_type_proto(maps)
        outputs.append(helper.make_value_info(scores, kind))
    else:
        nodes.append(helper.make_node("Identity", ["given"], [scores]))
        outputs.append(tensor(scores, ["n", 3]))
    if beside:
        nodes.append(helper.make_node("Add", ["input", "input"], [beside]))
        outputs.append(tensor(beside, ["n", 4]))
    path = folder / name / "1" / "model.onnx"
    weights: list[onnx.TensorProto] = [
        numpy_helper.from_array(WEIGHTS, "weights"),
        numpy_helper.from_array(np.array([-1]), "flat"),
        numpy_helper.from_array(np.array([0]), "first"),
        classes,
    ]
    save_graph(path, nodes, [tensor("input", ["n", 4])], outputs, weights, None)
    return path
