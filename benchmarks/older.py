"""Requests per second of torchlit as it is, as it was at an older commit (`--against`) with the
same packages, and of uvicorn with a constant reply of the same size (the ceiling). All have one
core, wrk has another, and they are driven in turn, round by round: a ratio is of two numbers of one
round. Median of the rounds (least to most). All gave the same replies before, and all were 200.
"""

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks.processes import ROOT, SERVER_CORE, BenchmarkError
from benchmarks.report import in_turn, ratio, say, spread, table
from benchmarks.rivals import ask_all, ceiling_of, torchlit
from benchmarks.workloads import all_workloads, tensor_workloads
from benchmarks.wrk import drive

AGAINST = "81a9757"  # the last commit before the redesign


def run(rounds: int, seconds: int, *, against: str = AGAINST) -> Iterator[str]:
    """Yield a table of rates and latencies for each number of connections, then start and memory.

    Raises BenchmarkError where there is no such commit, or the two answer differently.
    """
    works = [*all_workloads(), *tensor_workloads()]
    with (
        checked_out(against) as folder,
        torchlit(SERVER_CORE, folder) as old,
        torchlit(SERVER_CORE) as new,
        ceiling_of(new, works) as ceiling,
    ):
        servers = {"ceiling": ceiling, "old": old, "new": new}
        for work in works:
            ask_all(work, servers)
        for connections in (64, 16, 1):
            rows = []
            for work in works:
                say(f"older: {work.name}, connections: {connections}, rounds: {rounds}")
                drives = {
                    name: partial(drive, server, work, connections, seconds)
                    for name, server in servers.items()
                }
                runs = in_turn(rounds, drives)
                most, before, now = ([each.rate for each in runs[name]] for name in servers)
                rates = [spread(most), spread(before), spread(now), ratio(now, before)]
                middle = [[each.p50_ms for each in runs[name]] for name in ("old", "new")]
                slowest = [[each.p99_ms for each in runs[name]] for name in ("old", "new")]
                latencies = (spread(each, 2) for each in (*middle, *slowest))
                rows.append([work.name, *rates, ratio(now, most), *latencies])
            yield f"### Connections: {connections}, rounds: {rounds}, against {against}"
            header = ["workload", "ceiling, requests/s", "then", "now", "now / then"]
            header += ["now / ceiling", "p50 then, ms", "p50 now", "p99 then", "p99 now"]
            yield table(header, rows)
        rows = [
            ["seconds to ready", f"{old.start_s:.2f}", f"{new.start_s:.2f}"],
            ["MB after all of this", *(f"{sum(each.resident_mb()):.0f}" for each in (old, new))],
        ]
        yield table(["", "then", "now"], rows)


@contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """Yield a folder with the files of a commit. Raises BenchmarkError if there is none."""
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True)
        if archive.returncode:
            raise BenchmarkError(f"--against: {archive.stderr.decode().strip()}")
        subprocess.run(["tar", "-x"], cwd=folder, input=archive.stdout, check=True)
        yield Path(folder)
