#!/usr/bin/env bash
# onnx 1.23.2, onnxruntime 1.31.1 (CPU, Linux), numpy 2.4.6
#
# TreeEnsembleClassifier with two classes, both of which have weights, answers 0 and 1 and not its
# labels (classlabels_int64s); where all weights are positive, 1 for a row of the first class too.
# With weights for one of the two classes alone the labels are right.
#
# Expected: the label of the higher score, as onnx's reference implementation answers.
# Seen: [0, 1] and [1, 1], where it is [5, 9]. The scores are right.
#
# Who is hurt: CatBoost saves weights for both. Its two-class models whose labels are not 0 and 1
# answer labels that do not exist.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check onnx==1.23.2 onnxruntime==1.31.1 numpy==2.4.6
export ORT_DISABLE_TELEMETRY=1
cd "$work"

"$work/venv/bin/python" - <<'PY'
import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

ROWS = np.array([[0], [1]], np.float32)


def trees(class_ids, weights):
    """Return a tree with two leaves: rows up to 0.5, and others."""
    leaves = [1, 2] if len(class_ids) == 2 else [1, 1, 2, 2]
    node = helper.make_node(
        "TreeEnsembleClassifier", ["x"], ["label", "scores"], domain="ai.onnx.ml",
        nodes_treeids=[0] * 3, nodes_nodeids=[0, 1, 2], nodes_featureids=[0] * 3,
        nodes_values=[0.5, 0.0, 0.0], nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"],
        nodes_truenodeids=[1, 0, 0], nodes_falsenodeids=[2, 0, 0],
        class_treeids=[0] * len(class_ids), class_nodeids=leaves, class_ids=class_ids,
        class_weights=weights, classlabels_int64s=[5, 9], post_transform="NONE",
    )
    graph = helper.make_graph(
        [node], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1])],
        [helper.make_tensor_value_info("label", TensorProto.INT64, ["n"]),
         helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 2])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("ai.onnx.ml", 2)], ir_version=7)


for name, class_ids, weights, seen in (
    ("both classes", [0, 1, 0, 1], [2.0, -2.0, -3.0, 3.0], [0, 1]),
    ("both, all positive", [0, 1, 0, 1], [0.9, 0.1, 0.2, 0.8], [1, 1]),
    ("one class", [0, 0], [-2.0, 3.0], [5, 9]),
):
    model = trees(class_ids, weights)
    label, scores = ort.InferenceSession(model.SerializeToString()).run(None, {"x": ROWS})
    print(f"weights for {name}: {label.tolist()}, scores {scores.tolist()}")
    assert label.tolist() == seen
    if len(class_ids) == 4:
        expected, same = ReferenceEvaluator(model).run(None, {"x": ROWS})
        assert expected.tolist() == [5, 9], expected
        assert np.allclose(scores, same)
PY
