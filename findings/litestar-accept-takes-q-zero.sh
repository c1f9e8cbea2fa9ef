#!/usr/bin/env bash
# litestar 2.25.0
#
# litestar.datastructures.headers.Accept.best_match returns a media type that the header refuses:
# a quality of 0 counts as the lowest wish, not as "not acceptable" (RFC 9110, sections 12.4.2 and
# 12.5.1). `accepts` says yes to it too.
#
# Expected: Accept: text/csv;q=0 matches nothing of [application/json, text/csv] but application/json
# at most, as nothing else is said; and with */* beside it, anything but text/csv.
# Seen: "text/csv;q=0" gives text/csv. "text/csv;q=0, application/json;q=0.1" gives application/json,
# so it is only seen where nothing better is offered or named.
#
# Who is hurt: a server that chooses the form of its answer with it sends what its caller cannot
# read, with status 200. Take entries of quality 0 out of the header before.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check litestar==2.25.0
cd "$work"

"$work/venv/bin/python" - <<'PY'
from litestar.datastructures.headers import Accept

offered = ["application/json", "text/csv"]
for header, expected in (
    ("text/csv;q=0", "text/csv"),  # refused, and returned
    ("text/csv;q=0.0", "text/csv"),
    ("text/csv;q=0, application/json;q=0.1", "application/json"),
    ("application/xml;q=0", None),
):
    got = Accept(header).best_match(offered)
    print(f"{header!r}: {got}")
    assert got == expected, (header, got)
assert Accept("text/csv;q=0").accepts("text/csv")
PY
