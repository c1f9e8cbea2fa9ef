#!/usr/bin/env bash
# tritonclient[http] 2.69.0, numpy 2.4.6
#
# An output without elements (shape [1, 0]) that the server sends as binary data, zero bytes of it,
# comes back from InferResult.as_numpy as float64, whatever its datatype. The same output sent as
# JSON has the right dtype. No server is needed to see it: the bodies below are written by hand.
#
# Expected: float32 for FP32, int64 for INT64, bool for BOOL, object for BYTES.
# Seen: float64 for each of them in binary; in JSON each is right.
#
# Who is hurt: clients of models whose answers may be empty (no box found, no word left). The dtype
# changes with the data: indices of float64 raise IndexError, and concatenating the answers of a few
# calls turns int64 into float64, which rounds large ids.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check 'tritonclient[http]==2.69.0' numpy==2.4.6
cd "$work"

"$work/venv/bin/python" - <<'PY'
import json

import numpy as np
from tritonclient.http import InferenceServerClient

right = {"FP32": np.float32, "FP16": np.float16, "INT64": np.int64, "BOOL": bool, "BYTES": object}


def parsed(datatype, binary):
    output = {"name": "y", "datatype": datatype, "shape": [1, 0]}
    if binary:
        output["parameters"] = {"binary_data_size": 0}
    else:
        output["data"] = []
    body = json.dumps({"model_name": "m", "outputs": [output]}).encode()
    length = len(body) if binary else None
    result = InferenceServerClient.parse_response_body(body, header_length=length)
    return result.as_numpy("y")


for datatype, dtype in right.items():
    as_json, as_binary = parsed(datatype, False), parsed(datatype, True)
    print(f"{datatype}: JSON {as_json.dtype}, binary {as_binary.dtype}")
    assert as_json.shape == as_binary.shape == (1, 0)
    assert as_json.dtype == dtype
    assert as_binary.dtype == np.float64
PY
