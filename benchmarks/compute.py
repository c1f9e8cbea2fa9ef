"""Rows per second of the whole service, as a share of what `session.run` alone does with the
same number of rows on the same core: one call after the other from Python, one thread, the rows
ready as an array. wrk has another core. Median of the rounds (least to most).

The table of the CNN has requests of one row, against the batch of the most rows per second.

The last table is of `session.run` with one row, in microseconds: the median of calls one after the
other, and of calls that each come after 0.1 ms of sleep, as requests do on a quiet service.
"""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter, sleep

import numpy as np
import onnxruntime as ort

from benchmarks.processes import ROOT, SERVER_CORE, Server, pinned
from benchmarks.report import in_turn, ratio, say, spread, table
from benchmarks.rivals import torchlit
from benchmarks.workloads import Workload, housing, iris, mnist
from benchmarks.wrk import drive

ROWS = (1, 8, 64, 256)  # of a request
BATCHES = (1, 2, 4, 8, 16, 32, 64)
ALONE_S = 1.0
CALLS = 2000
SLEEP_S = 1e-4


def run(rounds: int, seconds: int) -> Iterator[str]:
    """Yield one table: a row for each model and number of rows."""
    lines = []
    with torchlit(SERVER_CORE) as server:
        for rows in ROWS:
            for work, model in ((iris(rows), "iris/1"), (mnist(1, rows), "mnist/1")):
                say(f"compute: {work.name}, rounds: {rounds}")
                measures = {
                    "alone": partial(alone, onnx_of(model), work),
                    "one": partial(served, server, work, 1, seconds),
                    "sixteen": partial(served, server, work, 16, seconds),
                }
                limit, one, sixteen = in_turn(rounds, measures).values()
                cells = [spread(limit), spread(one), ratio(one, limit)]
                lines.append([work.name, *cells, spread(sixteen), ratio(sixteen, limit)])
    header = ["request", "session.run alone, rows/s", "1 connection, rows/s", "share"]
    yield table([*header, "16 connections, rows/s", "share"], lines)
    yield table(
        [
            "",
            "session.run alone, rows/s",
            "best rows of a batch",
            "64 connections, rows/s",
            "share",
        ],
        [cnn(rounds, seconds)],
    )
    one_row = {"iris": iris(), "housing": housing(), "MNIST MLP": mnist(1), "MNIST CNN": mnist(2)}
    paths = ("iris/1", "housing/1", "mnist/1", "mnist/2")
    yield table(
        ["one row", "at once, us", "after a sleep, us"],
        [
            [name, *(spread(each, 0) for each in in_turn(rounds, after(path, work)).values())]
            for (name, work), path in zip(one_row.items(), map(onnx_of, paths), strict=True)
        ],
    )


def cnn(rounds: int, seconds: int) -> list[str]:
    """Return the row of the network that computes most: single rows against its best batch."""
    say(f"compute: MNIST CNN, best batch, rounds: {rounds}")
    onnx = onnx_of("mnist/2")
    best = max(BATCHES, key=lambda rows: alone(onnx, mnist(2, rows)))
    with torchlit(SERVER_CORE) as server:
        measures = {
            "alone": partial(alone, onnx, mnist(2, best)),
            "served": partial(served, server, mnist(2), 64, seconds),
        }
        limit, ours = in_turn(rounds, measures).values()
    return ["MNIST CNN, 1 row of 784", spread(limit), str(best), spread(ours), ratio(ours, limit)]


def onnx_of(model: str) -> Path:
    """Return the file of a committed model, such as iris/1."""
    return ROOT / "models" / model / "model.onnx"


def served(server: Server, work: Workload, connections: int, seconds: int) -> float:
    """Return the rows per second of the service."""
    return work.rows * drive(server, work, connections, seconds).rate


def alone(path: Path, work: Workload) -> float:
    """Return the rows per second of `session.run` on the server's core."""
    with pinned(SERVER_CORE):
        run_once, rows = prepared(path, work)
        calls, start = 0, perf_counter()
        while perf_counter() < start + ALONE_S:
            run_once()
            calls += 1
        return calls * rows / (perf_counter() - start)


def after(path: Path, work: Workload) -> dict[str, Callable[[], float]]:
    """Return what measures the median microseconds of a call, without and with a sleep before."""
    return {
        "at once": partial(call_us, path, work, 0.0),
        "after a sleep": partial(call_us, path, work, SLEEP_S),
    }


def call_us(path: Path, work: Workload, sleep_s: float) -> float:
    """Return the median microseconds of `session.run` on the server's core."""
    with pinned(SERVER_CORE):
        run_once, _ = prepared(path, work)
        seconds = []
        for _ in range(CALLS):
            if sleep_s:
                sleep(sleep_s)
            start = perf_counter()
            run_once()
            seconds.append(perf_counter() - start)
        return median(seconds) * 1e6


def prepared(path: Path, work: Workload) -> tuple[Callable[[], object], int]:
    """Return a call of `session.run`, which has run once, and its number of rows."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(path, options)
    instances = json.loads(work.body)["instances"]
    if isinstance(instances[0], dict):
        instances = [list(instance.values()) for instance in instances]
    feed = {"input": np.array(instances, np.float32)}  # (n, features)
    run_once = partial(session.run, None, feed)
    run_once()
    return run_once, len(instances)
