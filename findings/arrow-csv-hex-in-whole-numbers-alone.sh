#!/usr/bin/env bash
# pyarrow 26.0.1 (Linux, Python 3.11)
#
# The CSV reader takes hexadecimal numbers, 0x1F, in columns of whole numbers, and refuses them in
# columns of floats. Where it chooses the types itself, a column of 0x10 and 0x20 becomes int64, so the
# ids, colours and hashes in it lose their text; one cell of 1.5 beside them makes all of it text again.
#
# Expected: one rule for numbers, and 0x10 text, as for Python's int() and float() and for pandas.
# Seen: int64 gives 16 and 32; float64 raises "CSV conversion error to double: invalid value '0x10'"; the
# type that it finds is int64, and string when 1.5 stands below.
#
# Who is hurt: who reads the same file through Arrow for a model and otherwise beside it: a cell that is
# refused as no number in one place is a value in the other.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check pyarrow==26.0.1
cd "$work"

"$work/venv/bin/python" - <<'PY'
import pyarrow as pa
from pyarrow import csv

HEXADECIMAL = b"id\n0x10\n0x20\n"


def read(data: bytes, **types: pa.DataType) -> pa.Table:
    return csv.read_csv(
        pa.BufferReader(data), convert_options=csv.ConvertOptions(column_types=types)
    )


whole = read(HEXADECIMAL, id=pa.int64())["id"].to_pylist()
found = read(HEXADECIMAL)["id"].type
mixed = read(HEXADECIMAL + b"1.5\n")["id"].type
print(f"int64: {whole}; the type that it finds: {found}, and with 1.5: {mixed}")
try:
    read(HEXADECIMAL, id=pa.float64())
except pa.ArrowInvalid as error:
    print(f"float64: {error}")
    assert "invalid value '0x10'" in str(error)
else:
    raise AssertionError("float64 takes it")
assert (whole, found, mixed) == ([16, 32], pa.int64(), pa.string())
PY
