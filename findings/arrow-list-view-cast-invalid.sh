#!/usr/bin/env bash
# pyarrow 26.0.1 (Linux, Python 3.11)
#
# A cast of a list_view column to list, or of a large_list_view to large_list, gives an array that is
# not valid: n lists need n + 1 offsets, and it has n. No null and no odd order is needed for that; any
# column of two lists shows it. The cast itself reports nothing.
#
# Expected: the same lists, as the cast from list to large_list and back gives them.
# Seen: [[1], [2]] of list_view<int32>, cast to list<int32>: validate() raises "Offsets buffer size
# (bytes): 8 isn't large enough for length: 2 and offset: 0". By way of Python's lists it is right.
# The script only asks whether the arrays are valid; it reads none that is not.
#
# Who is hurt: who takes columns from an engine whose lists are views and casts them to what most
# kernels take, for example to flatten them into the rows of a model.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check pyarrow==26.0.1
cd "$work"

"$work/venv/bin/python" - <<'PY'
import pyarrow as pa

LISTS = [[1], [2]]


def says(array: pa.Array) -> str:
    try:
        array.validate(full=True)
    except pa.ArrowInvalid as error:
        return str(error)
    return "valid"


for view, plain in ((pa.list_view, pa.list_), (pa.large_list_view, pa.large_list)):
    of_view = pa.array(LISTS, view(pa.int32()))
    assert says(of_view) == "valid"
    cast = says(of_view.cast(plain(pa.int32())))
    print(f"{of_view.type} -> {plain(pa.int32())}: {cast}")
    assert cast.startswith("Offsets buffer size")
    assert says(pa.array(of_view.to_pylist(), plain(pa.int32()))) == "valid"
assert says(pa.array(LISTS, pa.list_(pa.int32())).cast(pa.large_list(pa.int32()))) == "valid"
PY
