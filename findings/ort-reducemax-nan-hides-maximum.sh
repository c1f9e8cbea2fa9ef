#!/usr/bin/env bash
# onnx 1.23.2, onnxruntime 1.31.1 (CPU, x86-64), numpy 2.4.6
#
# One NaN in a row, and ReduceMax over the row answers by the place of the NaN: in front NaN, third or
# later the maximum of the others, and second *the first number*, which may be neither NaN nor the
# maximum. ArgMax of the same row points elsewhere, and TopK changes with k.
#
# Expected: NaN for each (as numpy's max) or the maximum of the others for each (as nanmax); and the
# element at ArgMax, the first of TopK and ReduceMax are one number.
# Seen, for 1 NaN 1 2: ReduceMax 1, while ArgMax points to the 2; TopK answers 2 for k=1, but 1 and
# NaN for k=2. With the rows as columns (reduced over axis 0) ReduceMax answers 2.
#
# Who is hurt: whoever trusts a maximum that is finite: scores, pooled features and the shift inside
# a hand-written softmax. A check for NaN in the answer does not see it.
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

nan = np.nan
rows = np.array([[nan, 1, 1, 2], [1, nan, 1, 2], [1, 1, nan, 2], [1, 2, 1, nan]], np.float32)


def run(node, x, outputs, *constants):
    def value(name, kind):
        return helper.make_tensor_value_info(name, kind, None)

    graph = helper.make_graph(
        [node], "g", [value("x", TensorProto.FLOAT)],
        [value(*each) for each in outputs.items()], constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return ort.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]


def reduce(x, axis):
    node = helper.make_node("ReduceMax", ["x"], ["y"], axes=[axis], keepdims=0)
    return run(node, np.ascontiguousarray(x), {"y": TensorProto.FLOAT})


by_row, by_column = reduce(rows, 1), reduce(rows.T, 0)
node = helper.make_node("ArgMax", ["x"], ["y"], axis=1, keepdims=0)
place = run(node, rows, {"y": TensorProto.INT64})
node = helper.make_node("TopK", ["x", "k"], ["y", "i"])
outputs = {"y": TensorProto.FLOAT, "i": TensorProto.INT64}
top = [
    run(node, rows, outputs, numpy_helper.from_array(np.array([k]), "k")) for k in (1, 2)
]
for number, row in enumerate(rows):
    print(row, "ReduceMax", by_row[number], "as column", by_column[number],
          "at ArgMax", row[place[number]], "TopK", top[0][number], top[1][number])
np.testing.assert_array_equal(by_row, [nan, 1, 2, 2])
np.testing.assert_array_equal(by_column[1:], [2, 2, 2])
assert rows[1, place[1]] == 2
assert top[0][1] == 2
np.testing.assert_array_equal(top[1][1], [1, nan])
PY
