#!/usr/bin/env bash
# onnx 1.23.2, onnxruntime 1.31.1 (CPU)
#
# onnx.helper.make_model without opset_imports and ir_version marks the model with the newest that
# onnx itself knows: opset 28, IR version 14. onnxruntime 1.31.1 opens neither, however plain the
# graph is. onnx's own checker finds the model in order.
#
# Expected: a model of one Identity node, made with all defaults, opens in a runtime of its time.
# Seen: IR 14 is refused (at most 13), with IR 13 the opsets 28 and 27 are refused; opset 26 with IR
# 13 opens, and so does opset 13 with IR 7.
#
# Who is hurt: whoever makes or edits models with onnx.helper in one environment and serves them in
# another: an upgrade of onnx alone makes the next model one that does not open. Always say both.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check onnx==1.23.2 onnxruntime==1.31.1
export ORT_DISABLE_TELEMETRY=1
cd "$work"

"$work/venv/bin/python" - <<'PY'
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

options = ort.SessionOptions()
options.log_severity_level = 4
value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", value[:1], value[1:])


def refusal(model):
    onnx.checker.check_model(model)
    try:
        ort.InferenceSession(model.SerializeToString(), options)
    except Exception as error:
        return str(error)
    return ""


default = helper.make_model(graph)
assert (default.opset_import[0].version, default.ir_version) == (28, 14)
assert "max supported IR version: 13" in refusal(default)
print("the defaults, opset 28 and IR 14: refused")
for opset, ir, opens in ((28, 13, 0), (27, 13, 0), (26, 14, 0), (26, 13, 1), (13, 7, 1)):
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir
    )
    said = refusal(model)
    print(f"opset {opset}, IR {ir}:", "refused" if said else "opens")
    assert (not said) == bool(opens)
PY
