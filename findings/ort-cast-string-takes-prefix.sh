#!/usr/bin/env bash
# onnx 1.23.2, onnxruntime 1.31.1 (CPU, Linux), numpy 2.4.6
#
# Cast from strings takes what a text begins with and forgets the rest, and cuts what does not fit the
# integer type. It raises only where the text begins with no number. (The specification leaves the
# texts that are no plain numbers undefined.)
#
# Expected: an error, as there is one for "abc"; and 1000 for "1e3", also as an integer.
# Seen: to float32 "1,5" is 1 and "12 apples" is 12; to int32 "1e3" is 1 and "99999999999" is
# 1215752191; to uint8 "300" is 44 and "-1" is 255.
#
# Who is hurt: models that take a table's columns as text. A decimal comma or a thousands separator
# gives a number a thousand times off, and no error tells of the row.
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


def cast(kind):
    graph = helper.make_graph(
        [helper.make_node("Cast", ["x"], ["y"], to=kind)], "g",
        [helper.make_tensor_value_info("x", TensorProto.STRING, ["n"])],
        [helper.make_tensor_value_info("y", kind, ["n"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options)
    return lambda *texts: session.run(None, {"x": np.array(texts, object)})[0].tolist()


for name, texts, seen in (
    ("FLOAT", ("1e3", "1,5", "1,234.5", "12 apples"), [1000, 1, 1, 12]),
    ("INT32", ("1e3", "1,234", "99999999999"), [1, 1, 1215752191]),
    ("UINT8", ("300", "-1"), [44, 255]),
):
    run = cast(getattr(TensorProto, name))
    answer = run(*texts)
    print(f"to {name}: {dict(zip(texts, answer))}")
    assert answer == seen
    try:
        run("abc")
    except Exception:
        continue
    raise SystemExit(f"to {name}: 'abc' raises nothing")
PY
