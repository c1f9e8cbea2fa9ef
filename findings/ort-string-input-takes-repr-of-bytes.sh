#!/usr/bin/env bash
# onnx 1.23.2, onnxruntime 1.31.1 (CPU), numpy 2.4.6
#
# A string input takes an object array of anything: each element that is no str goes through str().
# So b"red" arrives as the six characters b'red', and None as the word None.
#
# Expected: bytes decoded as UTF-8 (strings in ONNX are bytes of UTF-8), or an error; and an error for
# None, as a float input has for a wrong dtype.
# Seen: "b'red'", "None", "1.5".
#
# Who is hurt: whoever passes on what another library hands out: object arrays of bytes are how Triton's
# clients and HDF5 give strings, None is a missing value of a table. The vocabulary does not know
# "b'red'", so every text becomes the unknown word, and the answer looks like one.
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

node = helper.make_node(
    "LabelEncoder", ["x"], ["y"], domain="ai.onnx.ml",
    keys_strings=["red", "green"], values_int64s=[1, 2], default_int64=0,
)
value = helper.make_tensor_value_info
graph = helper.make_graph(
    [node, helper.make_node("Identity", ["x"], ["seen"])], "g",
    [value("x", TensorProto.STRING, ["n"])],
    [value("y", TensorProto.INT64, ["n"]), value("seen", TensorProto.STRING, ["n"])],
)
opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 2)]
model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
session = ort.InferenceSession(model.SerializeToString())

x = np.array(["red", b"red", None, 1.5], object)
y, seen = session.run(None, {"x": x})
for given, arrived, label in zip(x, seen, y):
    print(f"{given!r} arrives as {arrived!r}, label {label}")
assert seen.tolist() == ["red", "b'red'", "None", "1.5"]
assert y.tolist() == [1, 0, 0, 0]
PY
