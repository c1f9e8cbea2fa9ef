"""Probes as an orchestrator sends them, from a process of their own: how long each takes.

    .venv/bin/python -m tests.system.stress.probes URL

probes until its standard input ends, then prints what it saw as JSON.
"""

import http.client
import json
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from typing import Any

from tests.support.clients import address

PATHS = {"/health/live": {200}, "/health/ready": {200, 503}, "/metrics": {200}}
EVERY_S = 0.05
PATIENCE_S = 10.0


def probe(url: str, path: str) -> int:
    """Return the status of one probe, on a connection of its own, read to its end."""
    connection = http.client.HTTPConnection(*address(url), timeout=PATIENCE_S)
    try:
        connection.request("GET", path)
        reply = connection.getresponse()
        reply.read()
        return reply.status
    finally:
        connection.close()


def main() -> None:
    url = sys.argv[1]
    longest_s = dict.fromkeys(PATHS, 0.0)
    count, failed = 0, []
    for path in cycle(PATHS):
        readable, _, _ = select.select([sys.stdin], [], [], EVERY_S)
        if readable:
            break
        start = time.monotonic()
        try:
            status = probe(url, path)
            problem = "" if status in PATHS[path] else f"status {status}"
        except (OSError, http.client.HTTPException) as error:
            problem = repr(error)
        end = time.monotonic()
        count += 1
        if problem:
            failed.append((start, end, f"{path}: {problem}"))
        else:
            longest_s[path] = max(longest_s[path], end - start)
    print(json.dumps({"count": count, "longest_s": longest_s, "failed": failed}))


@contextmanager
def probing(url: str, seen: dict[str, Any]) -> Iterator[None]:
    """Probe meanwhile; what was seen is in `seen` at the end."""
    command = [sys.executable, "-m", __spec__.name, url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield
        finally:
            printed, _ = process.communicate(timeout=2 * PATIENCE_S)
    seen |= json.loads(printed)


if __name__ == "__main__":
    main()
