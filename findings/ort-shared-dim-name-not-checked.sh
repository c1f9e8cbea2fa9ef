#!/usr/bin/env bash
# onnx 1.23.2, onnxruntime 1.31.1 (CPU), numpy 2.4.6
#
# Two inputs of shape ["n", 2]: the name says that both have the same number of rows. Nothing checks
# that at a run. Where the operators happen to accept it, the answer has the rows of whichever.
#
# Expected: an error that "n" is 1 and 5 at once, as there is one for a second dimension of 3.
# Seen: one row of `a` and five of `b` are added, with `a` broadcast, to five rows.
#
# Who is hurt: servers that leave checking to the runtime. A caller who forgot rows of one input gets
# an answer for each row of the other, made of data that does not belong together, and no error.
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


def value(name):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2])


graph = helper.make_graph(
    [helper.make_node("Add", ["a", "b"], ["y"])], "g", [value("a"), value("b")], [value("y")]
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
session = ort.InferenceSession(model.SerializeToString())
assert [each.shape for each in session.get_inputs()] == [["n", 2], ["n", 2]]

a = np.array([[10, 20]], np.float32)
b = np.arange(10, dtype=np.float32).reshape(5, 2)
y = session.run(None, {"a": a, "b": b})[0]
print(f"a {a.shape} and b {b.shape} give {y.shape}")
np.testing.assert_array_equal(y, a + b)

try:
    session.run(None, {"a": np.zeros((5, 3), np.float32), "b": b})
except Exception as error:
    assert "invalid dimensions" in str(error), error
    print("a fixed dimension is checked:", str(error).splitlines()[0])
else:
    raise SystemExit("a fixed dimension is not checked either")
PY
