#!/usr/bin/env bash
# onnx 1.23.2, numpy 2.4.6
#
# onnx.save_model(model, path, save_as_external_data=True) takes the weights out of the model that it
# is given, not only out of the file. The model in hand then only points to the file's name, so a
# second save of it, elsewhere, writes a model without weights, and raises nothing. Saving a loaded
# model to its old place again does not replace the file of weights but makes it longer.
#
# Expected: saving reads the model and changes nothing of it; saving over a file replaces it.
# Seen: 4000 bytes of weights are gone from the model in hand after the first save; the second file
# cannot be loaded; the file of weights has 8000 bytes after the model was loaded and saved over.
#
# Who is hurt: training that saves the best model so far and once more at its end, or that checks or
# copies the model after saving it; and deployments that edit in place: the file grows at every edit.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check onnx==1.23.2 numpy==2.4.6
cd "$work"

"$work/venv/bin/python" - <<'PY'
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1000]) for name in "xy"]
weights = numpy_helper.from_array(np.ones(1000, np.float32), "w")
node = helper.make_node("Add", ["x", "w"], ["y"])
graph = helper.make_graph([node], "g", value[:1], value[1:], [weights])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
Path("first").mkdir()
Path("second").mkdir()


def save(model, path):
    onnx.save_model(
        model, path, save_as_external_data=True, location="w.bin", size_threshold=0
    )


before = len(model.SerializeToString())
save(model, "first/model.onnx")
after = len(model.SerializeToString())
print(f"the model in hand: {before} bytes before the save, {after} after it")
assert before > 4000 > 400 > after
save(model, "second/model.onnx")
print("second folder:", sorted(each.name for each in Path("second").iterdir()))
assert not Path("second/w.bin").exists()
try:
    onnx.load("second/model.onnx")
except Exception as error:
    print("loading it:", type(error).__name__)
else:
    raise SystemExit("the second file has its weights")

loaded = onnx.load("first/model.onnx")
assert Path("first/w.bin").stat().st_size == 4000
save(loaded, "first/model.onnx")
print("weights saved over:", Path("first/w.bin").stat().st_size, "bytes")
assert Path("first/w.bin").stat().st_size == 8000
PY
