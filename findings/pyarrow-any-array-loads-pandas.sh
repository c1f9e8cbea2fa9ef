#!/usr/bin/env bash
# pyarrow 26.0.1 with pandas 2.3.3 (Linux, Python 3.11)
#
# pyarrow imports pandas, where that is installed, as soon as an array is made of values or read, without
# any data frame: pa.scalar, pa.array of a list and Array.to_numpy all do. `import pyarrow`, pyarrow.csv
# and pyarrow.parquet do not, so a program whose imports are quick has it nevertheless.
#
# Expected: pandas is imported by to_pandas, and by what is given a data frame.
# Seen: after pa.scalar("a") pandas is in sys.modules; Array.from_buffers alone leaves it out. The first
# call took 260 to 470 ms, and the process grew by 50 MB.
#
# Who is hurt: who starts many small processes, each of which reads a table: workers of a pool, functions
# of a cloud.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check pyarrow==26.0.1 pandas==2.3.3
cd "$work"

for call in 'pa.scalar("a")' 'pa.array(["a"])' 'NUMBERS.to_numpy()'; do
    CALL=$call "$work/venv/bin/python" - <<'PY'
import os
import resource
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet


def resident_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


NUMBERS = pa.Array.from_buffers(pa.float64(), 3, [None, pa.py_buffer(np.arange(3.0))])
assert "pandas" not in sys.modules
before, start = resident_mb(), time.monotonic()
eval(os.environ["CALL"])
took, grew = time.monotonic() - start, resident_mb() - before
print(f"{os.environ['CALL']}: {took * 1000:.0f} ms, {grew:.0f} MB; pandas: {'pandas' in sys.modules}")
assert "pandas" in sys.modules
PY
done
