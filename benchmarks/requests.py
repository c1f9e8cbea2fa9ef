"""Requests per second of torchlit, of uvicorn with a constant reply of the same size (the
ceiling), and of FastAPI with ONNX Runtime by hand, without batching. All have one core, wrk has
another, and they are driven in turn, round by round: a ratio is of two numbers of one round.
Median of the rounds (least to most). The replies were compared before, and all were 200.
"""

from collections.abc import Iterator
from functools import partial

from benchmarks.processes import Server
from benchmarks.report import in_turn, ratio, say, spread, table
from benchmarks.rivals import all_rivals
from benchmarks.workloads import all_workloads
from benchmarks.wrk import Measured, drive

TARGETS = {  # with 64 connections: against the ceiling, against FastAPI
    "iris, 1 row": ("0.60", "3.0"),
    "MNIST MLP, 1 row of 784": ("0.48", "4.0"),
    "MNIST MLP, 64 rows of 784": ("0.17", "5.0"),
    "MNIST CNN, 1 row of 784": ("", "1.9"),
}
P50_TARGET = "at most 0.72"  # with 1 connection, against FastAPI

ByRival = dict[str, list[Measured]]  # a measurement for each round


def run(rounds: int, seconds: int) -> Iterator[str]:
    """Yield the tables of rates and of latencies for each number of connections, then memory."""
    works = all_workloads()
    with all_rivals(works) as servers:
        for connections, times in ((64, rounds), (1, rounds), (16, max(1, rounds // 3))):
            measured: dict[str, ByRival] = {}
            for work in works:
                say(f"requests: {work.name}, connections: {connections}, rounds: {times}")
                drives = {
                    name: partial(drive, server, work, connections, seconds)
                    for name, server in servers.items()
                }
                measured[work.name] = in_turn(times, drives)
            yield f"### Connections: {connections}, rounds: {times}"
            yield rates(measured, TARGETS if connections == 64 else {})
            yield latencies(measured, P50_TARGET if connections == 1 else "")
        yield memory(servers)


def rates(measured: dict[str, ByRival], targets: dict[str, tuple[str, str]]) -> str:
    """Return the table of requests per second: a row for each workload."""
    rows = []
    for workload, by_rival in measured.items():
        ceiling, ours, theirs = ([each.rate for each in runs] for runs in by_rival.values())
        target, target_fastapi = targets.get(workload, ("", ""))
        ratios = [ratio(ours, ceiling, target), ratio(ours, theirs, target_fastapi)]
        rows.append([workload, spread(ceiling), spread(ours), spread(theirs), *ratios])
    header = ["workload", "ceiling, requests/s", "torchlit, requests/s", "FastAPI, requests/s"]
    return table([*header, "torchlit / ceiling", "torchlit / FastAPI"], rows)


def latencies(measured: dict[str, ByRival], p50_target: str) -> str:
    """Return the table of p50 and p99: a row for each workload."""
    rows = []
    for workload, by_rival in measured.items():
        _, ours, theirs = ([each.p50_ms for each in runs] for runs in by_rival.values())
        _, our_p99, their_p99 = ([each.p99_ms for each in runs] for runs in by_rival.values())
        cells = [spread(ours, 2), spread(our_p99, 2), ratio(our_p99, ours)]
        cells += [spread(theirs, 2), spread(their_p99, 2), ratio(ours, theirs, p50_target)]
        rows.append([workload, *cells])
    header = ["workload", "torchlit, p50 ms", "p99 ms", "p99 / p50"]
    return table([*header, "FastAPI, p50 ms", "p99 ms", "p50, torchlit / FastAPI"], rows)


def memory(servers: dict[str, Server]) -> str:
    """Return the table of what each server holds now."""
    resident = (f"{sum(server.resident_mb()):.0f}" for server in servers.values())
    return table(["resident memory", *servers], [["MB after all of this", *resident]])
