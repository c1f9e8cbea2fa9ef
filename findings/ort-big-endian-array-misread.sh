#!/usr/bin/env bash
# onnx 1.23.2, onnxruntime 1.31.1 (CPU, little-endian), numpy 2.4.6
#
# session.run takes a numpy array of big-endian numbers (dtype `>f4`, `>i4`, `>f8`) without a word and
# reads its bytes as little-endian ones.
#
# Expected: converted as non-contiguous arrays are, or refused as every other wrong dtype is (float64
# for a float32 input raises).
# Seen: 1, 2, 3 of `>f4` arrive as numbers near 1e-41, and of `>i4` as 16777216, 33554432, 50331648.
#
# Who is hurt: whoever reads features from formats that are big-endian (FITS, NetCDF classic, IDX,
# network buffers through np.frombuffer with `>`). numpy counts with such arrays as with any other,
# so all looks right up to the model, which then answers as if everything were zero.
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

for code in ("f4", "f8", "i4"):
    native = np.array([1, 2, 3], code)
    kind = helper.np_dtype_to_tensor_dtype(native.dtype)
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])], "g",
        [helper.make_tensor_value_info("x", kind, ["n"])],
        [helper.make_tensor_value_info("y", kind, ["n"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = ort.InferenceSession(model.SerializeToString())
    swapped = native.astype(">" + code)
    assert (swapped == native).all()
    answer = session.run(None, {"x": swapped})[0]
    print(f">{code} {swapped} arrives as {answer}")
    assert answer.tobytes() == swapped.tobytes()
    assert not (answer == native).any()
    right = session.run(None, {"x": swapped.astype(code)})[0]
    assert (right == native).all()
    backwards = session.run(None, {"x": native[::-1]})[0]
    assert (backwards == native[::-1]).all()
PY
