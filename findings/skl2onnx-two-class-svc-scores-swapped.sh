#!/usr/bin/env bash
# skl2onnx 1.20.0, scikit-learn 1.9.1, onnx 1.23.2, onnxruntime 1.31.1 (CPU), numpy 2.4.6
#
# An SVC of two classes that was fitted without probability=True, converted with the default options:
# the second output has a column for each class, but the decision value stands under the other class.
# The label beside it is right. Three classes are right, and so are two with raw_scores=True.
#
# Expected: the class with the higher number is the label, as of every other classifier; so for
# decision_function d the columns -d and d.
# Seen: columns d and -d. Of 300 rows the highest column is the label's for none by default, and for
# all with raw_scores=True.
#
# Who is hurt: whoever ranks or thresholds by the column of a class (the output is even named
# "probabilities", though it holds margins): the safest cases come last. A test of labels sees nothing.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check skl2onnx==1.20.0 \
    scikit-learn==1.9.1 onnx==1.23.2 onnxruntime==1.31.1 numpy==2.4.6
export ORT_DISABLE_TELEMETRY=1
cd "$work"

"$work/venv/bin/python" -W ignore - <<'PY'
import numpy as np
import onnxruntime as ort
from skl2onnx import to_onnx
from sklearn.datasets import make_classification
from sklearn.svm import SVC

rows, classes = make_classification(300, 6, random_state=0)
rows = rows.astype(np.float32)
model = SVC().fit(rows, classes)
decision = model.decision_function(rows)


def agreeing(options):
    made = to_onnx(model, rows[:1], target_opset=20, options={id(model): options})
    session = ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    label, scores = session.run(None, {"X": rows})
    assert (label == model.predict(rows)).all()
    np.testing.assert_allclose(np.abs(scores[:, 1]), np.abs(decision), atol=1e-4)
    return int((scores.argmax(axis=1) == label).sum())


by_default = agreeing({"zipmap": False})
raw = agreeing({"zipmap": False, "raw_scores": True})
print(f"the highest column is the label's: {by_default} of 300 by default, {raw} with raw_scores")
assert (by_default, raw) == (0, 300)
PY
