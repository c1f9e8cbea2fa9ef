"""How cost grows with the rows of a request (1 connection), with connections, and with loaded
models (64 connections, copies of iris). The server has one core, wrk another. Median of the
rounds (least to most).
"""

import shutil
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.processes import ROOT, SERVER_CORE
from benchmarks.report import in_turn, say, spread, table
from benchmarks.rivals import torchlit
from benchmarks.workloads import iris
from benchmarks.wrk import drive

ROWS = (1, 4, 16, 64, 256, 1024, 4096)
CONNECTIONS = (1, 4, 16, 64, 256, 1024)
MODELS = (1, 10, 50, 100)


def run(rounds: int, seconds: int) -> Iterator[str]:
    """Yield three tables."""
    with torchlit(SERVER_CORE) as server:
        say(f"scaling: {len(ROWS)} numbers of rows, rounds: {rounds}")
        by_rows = {rows: partial(drive, server, iris(rows), 1, seconds) for rows in ROWS}
        lines = []
        for rows, measured in in_turn(rounds, by_rows).items():
            request_us = [1e6 / each.rate for each in measured]
            row_us = [us / rows for us in request_us]
            lines.append([f"{rows:,}", spread(request_us), spread(row_us, 2)])
        yield table(["rows", "us per request", "us per row"], lines)

        say(f"scaling: {len(CONNECTIONS)} numbers of connections, rounds: {rounds}")
        by_connections = {
            connections: partial(drive, server, iris(), connections, seconds)
            for connections in CONNECTIONS
        }
        lines = []
        for connections, measured in in_turn(rounds, by_connections).items():
            rate = spread([each.rate for each in measured])
            p50 = spread([each.p50_ms for each in measured], 2)
            p99 = spread([each.p99_ms for each in measured], 2)
            lines.append([f"{connections:,}", rate, p50, p99])
        yield table(["connections", "requests/s", "p50 ms", "p99 ms"], lines)

    lines = []
    for models in MODELS:
        say(f"scaling: models: {models}, starts: {rounds}")
        start_s, memory_mb, rates = zip(
            *(start(models, seconds) for _ in range(rounds)), strict=True
        )
        lines.append([str(models), spread(start_s, 2), spread(memory_mb), spread(rates)])
    yield table(["models", "exec to ready, s", "resident MB after the load", "requests/s"], lines)


def start(models: int, seconds: int) -> tuple[float, float, float]:
    """Return seconds to ready, resident MB after the load, and requests/s of one of `models`."""
    with tempfile.TemporaryDirectory() as folder:
        for number in range(models):
            shutil.copytree(ROOT / "models/iris", Path(folder, f"iris-{number}"))
        with torchlit(SERVER_CORE, models_dir=folder) as server:
            rate = drive(server, iris(model=f"iris-{models // 2}"), 64, seconds).rate
            return server.start_s, max(server.resident_mb()), rate
