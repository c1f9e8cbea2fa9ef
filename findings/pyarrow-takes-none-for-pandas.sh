#!/usr/bin/env bash
# pyarrow 26.0.1 with numpy 2.4.6 and without pandas (Linux, Python 3.11)
#
# None in sys.modules is Python's own way to say that a module may not be imported: `import pandas`
# raises ModuleNotFoundError then, and importlib.util.find_spec says None. pyarrow looks for pandas in
# compiled code of Cython, and an import of that code takes the None for the module itself.
#
# Expected: pa.array([1]) makes an array, as it does where pandas is not installed.
# Seen: the first array raises AttributeError: 'NoneType' object has no attribute '__version__'. The
# second one is made: pyarrow tries only once.
#
# Who is hurt: who keeps pandas out of small processes, or blocks it in tests of what works without it.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check pyarrow==26.0.1 numpy==2.4.6
cd "$work"

"$work/venv/bin/python" - <<'PY'
import sys
from importlib.util import find_spec

sys.modules["pandas"] = None

try:
    import pandas
except ModuleNotFoundError as error:
    print(f"import pandas: {error!r}; find_spec: {find_spec('pandas')}")
else:
    sys.exit("pandas was imported")

import pyarrow as pa

try:
    pa.array([1])
except AttributeError as error:
    print(f"pa.array([1]): {error!r}")
    assert "__version__" in str(error)
else:
    sys.exit("an array was made: pyarrow knows None now")
print("once more:", pa.array([1]).to_pylist())
PY
