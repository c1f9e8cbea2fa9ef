#!/usr/bin/env bash
# scikit-learn 1.9.1, skl2onnx 1.20.0, onnx 1.23.2, onnxruntime 1.31.1 (CPU), numpy 2.4.6, protobuf 6.33.6
#
# SimpleImputer(add_indicator=True) is converted without a word, but for its indicator columns. The
# logistic regression behind it gets 3 columns for its 5 coefficients.
#
# Expected: the same answers; or an error at the conversion; or one of ONNX Runtime, as the sizes do
# not fit.
# Seen: it converts, opens and runs. Probabilities are up to 0.97 off, those of rows without a
# missing value up to 0.95, and rows add up to 0.03 to 1.92.
#
# Who is hurt: tables with gaps. The file answers plausible labels.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    scikit-learn==1.9.1 skl2onnx==1.20.0 onnx==1.23.2 onnxruntime==1.31.1 numpy==2.4.6 protobuf==6.33.6
export ORT_DISABLE_TELEMETRY=1
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import onnxruntime
from skl2onnx import to_onnx
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

random = np.random.default_rng(0)
rows = random.normal(size=(200, 3)).astype(np.float32)
kinds = (rows[:, 0] + rows[:, 1] > 0).astype(int)
rows[random.random((200, 3)) < [0.3, 0.3, 0]] = np.nan  # two columns have missing values

model = make_pipeline(SimpleImputer(add_indicator=True), LogisticRegression()).fit(rows, kinds)
assert model[-1].coef_.shape == (1, 5)  # 3 columns, and an indicator for two of them
file = to_onnx(model, rows[:1], options={"zipmap": False})
session = onnxruntime.InferenceSession(file.SerializeToString())
_, got = session.run(None, {session.get_inputs()[0].name: rows})
expected = model.predict_proba(rows)
gap = np.abs(got - expected).max(axis=1)
sums = got.sum(axis=1)
known = ~np.isnan(rows).any(axis=1)
print(f"columns {got.shape[1]}, largest gap {gap.max():.3f}, without missing {gap[known].max():.3f}")
print(f"rows add up to {sums.min():.3f} to {sums.max():.3f}")
assert got.shape == expected.shape
assert gap.max() > 0.05
assert np.abs(sums - 1).max() > 0.05
PYTHON
