#!/usr/bin/env bash
# onnx 1.23.2, onnxruntime 1.31.1 (CPU), numpy 2.4.6
#
# A BatchNormalization with training_mode=1 (opset 17) answers y, and the running mean and variance.
# It has to name all three outputs, also in a graph that only hands out y. In such a graph the same
# session, asked the same x again and again, answers something else each time: the statistics of one
# run are the start of the next, although the graph holds them as constants.
#
# Expected: in training mode y is x normalised by the mean and variance of x itself, at every run.
# Seen: the first y is already far from that (by more than 1), and four runs give four answers.
# With the running statistics among the outputs of the graph, or with the optimizers of the session
# off, every run is right.
#
# Who is hurt: whoever serves a network that was exported in training mode. What one caller gets
# depends on what others sent before, and a test that asks once sees nothing of it.
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
from onnx import TensorProto, helper, numpy_helper

x = np.random.default_rng(0).normal(5, 2, (8, 3)).astype(np.float32)
right = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)
shapes = {"y": ["n", 3], "new_mean": [3], "new_var": [3]}


def answers(outputs, optimize=True):
    def value(name, shape):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    start = {"scale": np.ones(3), "bias": np.zeros(3), "mean": np.zeros(3), "var": np.ones(3)}
    node = helper.make_node("BatchNormalization", ["x", *start], list(shapes), training_mode=1)
    graph = helper.make_graph(
        [node], "g", [value("x", ["n", 3])], [value(name, shapes[name]) for name in outputs],
        [numpy_helper.from_array(v.astype(np.float32), name) for name, v in start.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = ort.SessionOptions()
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options)
    return [session.run(["y"], {"x": x})[0] for _ in range(4)]


alone = answers(["y"])
for number, y in enumerate(alone, 1):
    print(f"only y, run {number}: {y[0]}, off by {abs(y - right).max():.2f}")
assert len({y.tobytes() for y in alone}) == 4
assert abs(alone[0] - right).max() > 1
for kept in (answers(list(shapes)), answers(["y"], optimize=False)):
    assert len({y.tobytes() for y in kept}) == 1
    np.testing.assert_allclose(kept[0], right, atol=1e-5)
print("with the statistics as outputs, or not optimized:", kept[0][0])
PY
