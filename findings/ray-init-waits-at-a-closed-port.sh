#!/usr/bin/env bash
# ray 2.60.0 (Linux, Python 3.11)
#
# ray.init("HOST:PORT") where nobody listens does not fail: it tries for 41 s, and begins again, several
# times. That the system refuses each connection at once makes no difference. It has no parameter for how
# long, and SIGTERM ends it only when such a round is over.
#
# Expected: ConnectionError within seconds, as from a socket, or a limit that can be chosen.
# Seen: a socket is refused within a millisecond; after 45 s ray.init has neither returned nor raised, and
# stderr says "Failed to connect to GCS at address 127.0.0.2:1 within 5 seconds".
#
# Who is hurt: commands with the address of a cluster that is down or misspelt: they seem to hang. Who tries
# a connection first says so immediately.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check ray==2.60.0
cd "$work"

"$work/venv/bin/python" - <<'PY'
import socket
import subprocess
import sys
import time

HOST, PORT = "127.0.0.2", 1  # of this machine alone, and nobody listens there

began = time.monotonic()
try:
    socket.create_connection((HOST, PORT), 5)
except ConnectionRefusedError:
    print(f"a socket is refused after {time.monotonic() - began:.3f} s")
else:
    raise AssertionError("somebody listens there")

code = f"import ray; ray.init('{HOST}:{PORT}')"
with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) as process:
    try:
        process.wait(45)
    except subprocess.TimeoutExpired:
        print("ray.init has not given up after 45 s")
    else:
        raise AssertionError(f"it ended with {process.returncode}")
    finally:
        process.kill()
    said = process.stderr.read()
assert f"Failed to connect to GCS at address {HOST}:{PORT}" in said, said
PY
