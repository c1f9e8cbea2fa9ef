"""Requests per second of one worker and of two, driven in turn by wrk over 64 connections.
Nothing is pinned: on two cores wrk takes its share of one of them. Then torchlit_requests_total
as any worker shows it, beside the requests that wrk counted: at most 64 a run were on the way
when wrk left. Median of the rounds (least to most).
"""

from collections.abc import Iterator
from functools import partial

from benchmarks.processes import ALL_CORES, BenchmarkError
from benchmarks.report import in_turn, ratio, say, spread, table
from benchmarks.rivals import torchlit
from benchmarks.workloads import all_workloads
from benchmarks.wrk import drive

CONNECTIONS = 64


def run(rounds: int, seconds: int) -> Iterator[str]:
    """Yield the table of rates, then that of counts; raises BenchmarkError if they differ."""
    rows, counts = [], []
    sent = {1: 0, 2: 0}
    works = all_workloads()
    with torchlit(ALL_CORES, workers=1) as one, torchlit(ALL_CORES, workers=2) as two:
        servers = {1: one, 2: two}
        for work in works:
            say(f"workers: {work.name}, rounds: {rounds}")
            drives = {
                workers: partial(drive, server, work, CONNECTIONS, seconds, ALL_CORES)
                for workers, server in servers.items()
            }
            rates = {}
            for workers, measured in in_turn(rounds, drives).items():
                rates[workers] = [each.rate for each in measured]
                sent[workers] += sum(each.requests for each in measured)
            rows.append([work.name, *map(spread, rates.values()), ratio(rates[2], rates[1])])
        yield table(["workload", "1 worker, requests/s", "2 workers, requests/s", "2 / 1"], rows)
        for workers, server in servers.items():
            counted = int(server.counted("torchlit_requests_total"))
            most = sent[workers] + CONNECTIONS * rounds * len(works)
            if not sent[workers] <= counted <= most:
                raise BenchmarkError(
                    f"torchlit_requests_total with {workers} workers: expected "
                    f"{sent[workers]:,} to {most:,}, got {counted:,}"
                )
            memory = ", ".join(f"{each:.0f}" for each in server.resident_mb())
            counts.append([str(workers), f"{sent[workers]:,}", f"{counted:,}", memory])
    header = ["workers", "wrk's requests", "torchlit_requests_total"]
    yield table([*header, "resident MB of each process"], counts)
