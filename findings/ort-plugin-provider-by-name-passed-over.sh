#!/usr/bin/env bash
# onnxruntime 1.31.1 with onnxruntime-ep-openvino 1.8.1 (Linux, Python 3.11)
#
# A plug-in execution provider that is registered stands in get_available_providers(), but its name in
# `providers=` of an InferenceSession is passed over without a word: the session runs on the CPU. A
# plug-in counts only by SessionOptions.add_provider_for_devices. (Registered as "....virtual" the library offers a device also
# where there is none of its makers; the name is not taken there either.)
#
# Expected: a session on the provider that was asked for, or an error that says how to ask.
# Seen: get_providers() is ['CPUExecutionProvider'], with enable_fallback=0 too.
#
# Who is hurt: who installs a plug-in for a faster device and names it as all others are named: everything
# works, on the CPU.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
    onnxruntime==1.31.1 onnxruntime-ep-openvino==1.8.1 onnx==1.23.2
cd "$work"

"$work/venv/bin/python" - <<'PY'
import onnxruntime as ort
import onnxruntime_ep_openvino as plugin
from onnx import TensorProto, helper

x, y = (helper.make_tensor_value_info(each, TensorProto.FLOAT, [None, 4]) for each in "xy")
graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", [x], [y])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)

name = plugin.get_ep_name()
ort.register_execution_provider_library("openvino.virtual", plugin.get_library_path())
available = ort.get_available_providers()
offered = [each for each in ort.get_ep_devices() if each.ep_name == name]
print(f"available: {available}; devices of {name}: {len(offered)}")
assert name in available and offered
for fallback in (1, 0):
    session = ort.InferenceSession(
        model.SerializeToString(), providers=[name], enable_fallback=fallback
    )
    print(f"providers=[{name!r}], enable_fallback={fallback}: {session.get_providers()}")
    assert session.get_providers() == ["CPUExecutionProvider"]
PY
