#!/usr/bin/env bash
# onnx 1.23.2, onnxruntime 1.31.1 (CPU, Linux), numpy 2.4.6
#
# SessionOptions.add_external_initializers_from_files_in_memory takes the bytes of weight files under
# their names. Which name matches the location that the model writes? A leading `./` (also `././`
# and `.//`) is dropped on both sides; every other way to write the same path is another name.
#
# Expected: the location is a path, so either all spellings of one path match or only the exact text.
# Seen: location `././w.bin` is found under `w.bin` and `w.bin` under `./w.bin`; but `a/../w.bin` is
# not found under `w.bin`, nor `a//w.bin` or `a/./w.bin` under `a/w.bin`. As written, all are found.
#
# Who is hurt: whoever reads the weights themselves (to hash them, or from an archive) and names them
# by their normalised paths, which works with `./` and so seems right.
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

weights = np.arange(4, dtype=np.float32)
data = weights.tobytes()


def found(location, name):
    initializer = TensorProto(
        name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL
    )
    for key, value in (("location", location), ("offset", "0"), ("length", "16")):
        initializer.external_data.add(key=key, value=value)
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])], [initializer],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.add_external_initializers_from_files_in_memory([name], [data], [len(data)])
    try:
        session = ort.InferenceSession(model.SerializeToString(), options)
    except Exception as error:
        assert "InjectExternalInitializersFromFilesInMemory" in str(error), error
        return False
    return bool((session.run(None, {"x": np.zeros(4, np.float32)})[0] == weights).all())


same = ["./w.bin", "././w.bin", ".//w.bin"]
for one, other in [*((each, "w.bin") for each in same), ("./a/w.bin", "a/w.bin")]:
    print(f"{one} and {other} are one name")
    assert found(one, other) and found(other, one)
for one, other in (("a/../w.bin", "w.bin"), ("a//w.bin", "a/w.bin"), ("a/./w.bin", "a/w.bin")):
    print(f"{one} and {other} are two")
    assert found(one, one) and not found(one, other) and not found(other, one)
PY
