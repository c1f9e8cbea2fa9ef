"""Seconds from the exec of `python -m service` to the first 200 of /health/ready, and resident
memory of the largest worker a second later, with the committed models. Nothing is pinned. Median
of five starts (least to most). The target: under 1.0 s and 130 MB.
"""

import time
from collections.abc import Iterator

from benchmarks.processes import ALL_CORES
from benchmarks.report import say, spread, table
from benchmarks.rivals import torchlit

STARTS = 5
SETTLE_S = 1.0  # until the second of two workers is ready too


def run(rounds: int, seconds: int) -> Iterator[str]:
    """Yield one table; `rounds` and `seconds` are not used."""
    rows = []
    for workers in (1, 2):
        say(f"start: {STARTS} starts, workers: {workers}")
        start_s, memory_mb = [], []
        for _ in range(STARTS):
            with torchlit(ALL_CORES, workers=workers) as server:
                start_s.append(server.start_s)
                time.sleep(SETTLE_S)
                memory_mb.append(max(server.resident_mb()))
        rows.append([str(workers), spread(start_s, 2), spread(memory_mb)])
    yield table(["workers", "exec to ready, s", "resident per worker, MB"], rows)
