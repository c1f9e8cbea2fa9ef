#!/usr/bin/env bash
# onnx 1.23.2, onnxruntime 1.31.1 (CPU), numpy 2.4.6
#
# An output bound once with io_binding.bind_output(name), without a buffer of the caller's, is made by
# the first run and used again by the next. get_outputs()[0].numpy() is a view of it, so the array of
# the first answer changes when the binding runs again.
#
# Expected: as with session.run, an answer is the caller's: onnxruntime made it, the caller gave no
# buffer to be used again.
# Seen: the array with [2, 2, 2] reads [10, 10, 10] after the second run. copy_outputs_to_cpu(), or
# binding the output anew before each run, keeps the first answer.
#
# Who is hurt: servers that keep a binding per worker, and put answers aside until they are sent: the
# caller may get the answer of the next one.
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

value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in "xy"]
graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "g", value[:1], value[1:])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
session = ort.InferenceSession(model.SerializeToString())
one, five, nine = (np.full(3, each, np.float32) for each in (1, 5, 9))

binding = session.io_binding()
binding.bind_output("y")


def run(x):
    binding.bind_cpu_input("x", x)
    session.run_with_iobinding(binding)
    return binding.get_outputs()[0]


first = run(one)
view = first.numpy()
copy = binding.copy_outputs_to_cpu()[0]
assert view.tolist() == copy.tolist() == [2, 2, 2]
second = run(five)
print("first answer after the second run:", view, "its copy:", copy)
assert view.tolist() == [10, 10, 10]
assert np.shares_memory(view, second.numpy())
assert copy.tolist() == [2, 2, 2]
binding.bind_output("y")
third = run(nine)
print("after a third run, output bound anew:", view, "third:", third.numpy())
assert view.tolist() == [10, 10, 10] and third.numpy().tolist() == [18, 18, 18]

plain = session.run(None, {"x": one})[0]
session.run(None, {"x": five})
assert plain.tolist() == [2, 2, 2]
PY
