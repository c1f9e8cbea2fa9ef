#!/usr/bin/env bash
# pysimdjson 7.0.2, numpy 2.4.6
#
# Array.as_buffer(of_type="d") is the fast way from a JSON list of numbers to doubles. It gives +0.0
# for `-0` and -0.0 for `-0.0`: `-0` is read as the integer 0 first and made a double after that.
# Python's json does the same, as it makes the int 0 of it.
#
# Expected: of doubles, the same -0.0 for `-0`, `-0.0` and `-0e0`, as float("-0") gives and as parsers
# give that know only doubles (JSON.parse of JavaScript; which itself writes -0 as `0`).
# Seen: signs lost for `-0` only.
#
# Who is hurt: tests that compare two JSON readers bit by bit, and models where the sign of zero
# counts (1/x, atan2): -0.0 as a double, written by an encoder that drops `.0`, changes its sign.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check pysimdjson==7.0.2 numpy==2.4.6
cd "$work"

"$work/venv/bin/python" - <<'PY'
import json

import numpy as np
import simdjson

text = "[-0, -0.0, -0e0]"
fast = np.frombuffer(simdjson.Parser().parse(text).as_buffer(of_type="d"))
plain = np.array(json.loads(text), np.float64)
right = np.array([float(each) for each in text[1:-1].split(",")])
for name, values in (("as_buffer", fast), ("json", plain), ("float()", right)):
    print(name, values)
    assert (values == 0).all()
assert np.signbit(fast).tolist() == [False, True, True]
assert np.signbit(plain).tolist() == [False, True, True]
assert np.signbit(right).tolist() == [True, True, True]
PY
