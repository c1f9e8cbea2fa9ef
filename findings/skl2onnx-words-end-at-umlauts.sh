#!/usr/bin/env bash
# skl2onnx 1.20.0, scikit-learn 1.9.1, onnx 1.23.2, onnxruntime 1.31.1 (CPU, Linux), numpy 2.4.6
#
# CountVectorizer and TfidfVectorizer split text at what is no letter, digit or _ of Unicode. The
# converted file splits it with [a-zA-Z0-9_]+, so a word ends at each other letter. The vocabulary in
# the file still has the whole word, which no text can match any more. Nothing is said at conversion.
#
# Expected: the counts of the vectorizer, or an error where the vocabulary has words that cannot match.
# Seen: "old trees" is counted right; "schöne bäume" and "старые деревья" count as no word at all.
#
# Who is hurt: text models in every language but English. With text wholly of another script each row
# is zeros, so the classifier always answers its intercept, and a test with English text is green.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check skl2onnx==1.20.0 \
    scikit-learn==1.9.1 onnx==1.23.2 onnxruntime==1.31.1 numpy==2.4.6
export ORT_DISABLE_TELEMETRY=1
cd "$work"

"$work/venv/bin/python" - <<'PY'
import numpy as np
import onnxruntime as ort
from skl2onnx import to_onnx
from skl2onnx.common.data_types import StringTensorType
from sklearn.feature_extraction.text import CountVectorizer

texts = ["old trees", "schöne bäume", "старые деревья"]
model = CountVectorizer(lowercase=False).fit(texts)  # with it the file needs a locale
made = to_onnx(model, initial_types=[("text", StringTensorType([None, 1]))], target_opset=20)
session = ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
(counts,) = session.run(None, {"text": np.array(texts, object)[:, None]})
expected = model.transform(texts).toarray().sum(axis=1).tolist()
got = counts.sum(axis=1).tolist()
print(f"words that were counted: {got}, by scikit-learn {expected}")
assert expected == [2, 2, 2]
assert got == [2, 0, 0]
PY
