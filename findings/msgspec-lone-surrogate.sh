#!/usr/bin/env bash
# msgspec 0.22.0
#
# A JSON string may hold an escaped half of a surrogate pair (RFC 8259, section 8.2): Python's json
# reads it as one code point. msgspec cannot hold it as UTF-8, and refuses it; but of the first half
# alone it says that the text was cut off.
#
# Expected: a refusal that names the escape and its place, as of the second half alone ("invalid
# utf-16 surrogate pair (byte 9)").
# Seen: DecodeError "Input data was truncated" without a place, the same as for a text that really
# was cut off.
#
# Who is hurt: who passes the sentence on blames the caller's connection for one character.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check msgspec==0.22.0

"$folder/venv/bin/python" - <<'PYTHON'
import json

import msgspec

text = b'["a\\ud800b"]'
assert json.loads(text) == ["a\ud800b"]  # it is complete, and JSON


def said(text: bytes) -> str:
    try:
        return repr(msgspec.json.decode(text))
    except msgspec.DecodeError as error:
        return str(error)


high, cut, low = said(text), said(text[:-2]), said(b'["a\\udc00b"]')
print("a high half alone:", high)
print("really cut off:   ", cut)
print("a low half alone: ", low)
assert high == cut == "Input data was truncated", (high, cut)
assert "surrogate" in low, low
PYTHON
