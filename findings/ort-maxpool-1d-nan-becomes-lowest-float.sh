#!/usr/bin/env bash
# onnx 1.23.2, onnxruntime 1.31.1 (CPU, x86-64), numpy 2.4.6
#
# MaxPool over one dimension, of float32: NaN is skipped, and a window of nothing but NaN answers
# -3.4028235e+38, the lowest float there is. Over two dimensions, or of float64, such a window answers
# NaN.
#
# Expected: NaN stays NaN at least where there is nothing else, in any number of dimensions.
# Seen: window (NaN, NaN): -3.4028235e+38 in 1-D float32, NaN in 2-D float32 and in 1-D float64.
#
# Who is hurt: 1-D networks (audio, sensors) whose check for broken input is a NaN in the answer: the
# NaN turns into a finite number on the way, and a ReLU after that makes a plain 0 of it.
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
from onnx import helper


def pooled(x, kernel):
    kind = helper.np_dtype_to_tensor_dtype(x.dtype)
    node = helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=kernel, strides=kernel)
    graph = helper.make_graph(
        [node], "g",
        [helper.make_tensor_value_info("x", kind, x.shape)],
        [helper.make_tensor_value_info("y", kind, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return ort.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0].ravel()


line = np.array([[[np.nan, np.nan, np.nan, 1, 5, 7]]], np.float32)
flat = pooled(line, [2])
double = pooled(line.astype(np.float64), [2])
square = pooled(np.full((1, 1, 4, 4), np.nan, np.float32), [2, 2])
print("1-D float32:", flat)
print("1-D float64:", double)
print("2-D float32:", square)
assert flat.tolist() == [np.finfo(np.float32).min, 1, 7]
assert np.isnan(double[0]) and double[2] == 7
assert np.isnan(square).all()
PY
