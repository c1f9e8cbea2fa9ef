#!/usr/bin/env bash
# onnx 1.23.2, onnxruntime 1.31.1 (CPU), numpy 2.4.6
#
# session.get_inputs()[0].shape is [] for an input that the file declares a scalar, and [] too for an
# input of which the file says no shape at all. Both inputs then take arrays of any rank.
#
# Expected: None, or an error, where nothing is known; [] for a scalar only, and an array of rank 2
# refused for a scalar as it is for a vector.
# Seen: [] twice; both sessions take a scalar and a (2, 3) matrix. The file tells them apart: its
# tensor type has the field `shape` or does not.
#
# Who is hurt: a server that learns from the session what a model takes. It refuses all but scalars
# for models that take anything, or checks nothing for models that take a scalar.
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


def model(shape):
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


options = ort.SessionOptions()
options.log_severity_level = 3
for shape, in_file in (([], True), (None, False)):
    made = model(shape)
    session = ort.InferenceSession(made.SerializeToString(), options)
    ranks = [
        session.run(None, {"x": np.zeros(given, np.float32)})[0].ndim for given in ((), (2, 3))
    ]
    said = session.get_inputs()[0].shape
    print(f"declared {shape}: session says {said}, takes ranks {ranks}")
    assert made.graph.input[0].type.tensor_type.HasField("shape") == in_file
    assert said == []
    assert ranks == [0, 2]

vector = ort.InferenceSession(model(["n"]).SerializeToString(), options)
try:
    vector.run(None, {"x": np.zeros((2, 3), np.float32)})
except Exception as error:
    print("declared ['n']:", str(error).splitlines()[0])
else:
    raise SystemExit("a vector's rank is not checked either")
PY
