#!/usr/bin/env bash
# mlflow-skinny 3.17.2, pandas 2.3.3, numpy 2.4.6, scipy 1.17.0 (Linux)
#
# The client of MLflow's own scoring server writes a body from what it is given; its docstring allows a
# dictionary of arrays, which is what models with named inputs take. It goes through such a dictionary
# as if that were a list of pairs, so it takes the letters of a name apart.
#
# Expected: {"inputs": {"x1": [1.0]}}, or an error that says that no dictionary is taken.
# Seen: with a name of two letters "Incompatible input type:<class 'str'> for input x", with a longer
# one "too many values to unpack (expected 2)". The same as lists instead of arrays is refused too; as
# a DataFrame it is sent.
#
# Who is hurt: whoever has a model of several named inputs and believes the docstring; the message names
# a thing that was never passed.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check mlflow-skinny==3.17.2 \
    pandas==2.3.3 numpy==2.4.6 scipy==1.17.0
export MLFLOW_DISABLE_TELEMETRY=true
cd "$work"

"$work/venv/bin/python" - <<'PY'
import numpy as np
import pandas as pd
from mlflow.utils.proto_json_utils import dump_input_data


def written(data: object) -> str:
    try:
        return str(dump_input_data(data))
    except Exception as error:
        return f"{type(error).__name__}: {error}"


short = written({"x1": np.array([1.0])})
longer = written({"length": np.array([1.0])})
table = written(pd.DataFrame({"x1": [1.0]}))
lists = written({"x1": [1.0]})
print(short, longer, lists, table, sep="\n")
assert "input x" in short
assert longer.startswith("ValueError: too many values to unpack")
assert table.startswith('{"dataframe_split"')
PY
