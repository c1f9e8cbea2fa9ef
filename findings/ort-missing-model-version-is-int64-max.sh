#!/usr/bin/env bash
# onnx 1.23.2, onnxruntime 1.31.1 (CPU)
#
# session.get_modelmeta().version of a model that has no model_version is 9223372036854775807, the
# largest int64. The format's default for a missing number is 0, and onnx says 0 for the same file. A
# model whose version is written as 0 does answer 0.
#
# Expected: 0, or None. The missing texts beside it (description, domain, producer) are "".
# Seen: 9223372036854775807.
#
# Who is hurt: whoever shows the version, compares it, or serves "the newest": a model without one is
# the newest for ever. In JSON, readers that know only doubles make 9223372036854775808 of it.
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

value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", value[:1], value[1:])
for version, said in ((None, 2**63 - 1), (0, 0), (3, 3)):
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if version is not None:
        model.model_version = version
    data = model.SerializeToString()
    meta = ort.InferenceSession(data).get_modelmeta()
    in_onnx = onnx.load_model_from_string(data).model_version
    print(f"written {version}: onnx says {in_onnx}, onnxruntime {meta.version}")
    assert meta.version == said
    assert in_onnx == (version or 0)
    assert meta.description == meta.domain == meta.producer_name == ""
PY
