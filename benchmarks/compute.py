"""Rows per second of the whole service, as a share of what `session.run` alone does with the
same number of rows on the same core: one call after the other from Python, one thread, the rows
ready as an array. wrk has another core. Median of the rounds (least to most).
"""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np
import onnxruntime as ort

from benchmarks.processes import ROOT, SERVER_CORE, Server, pinned
from benchmarks.report import in_turn, ratio, say, spread, table
from benchmarks.rivals import torchlit
from benchmarks.workloads import Workload, iris, mnist
from benchmarks.wrk import drive

ROWS = (1, 8, 64, 256)  # of a request
ALONE_S = 1.0


def run(rounds: int, seconds: int) -> Iterator[str]:
    """Yield one table: a row for each model and number of rows."""
    lines = []
    with torchlit(SERVER_CORE) as server:
        for rows in ROWS:
            for work, model in ((iris(rows), "iris/1"), (mnist(1, rows), "mnist/1")):
                say(f"compute: {work.name}, rounds: {rounds}")
                path = ROOT / "models" / model / "model.onnx"
                measures = {
                    "alone": partial(alone, path, work),
                    "one": partial(served, server, work, 1, seconds),
                    "sixteen": partial(served, server, work, 16, seconds),
                }
                limit, one, sixteen = in_turn(rounds, measures).values()
                cells = [spread(limit), spread(one), ratio(one, limit)]
                lines.append([work.name, *cells, spread(sixteen), ratio(sixteen, limit)])
    header = ["request", "session.run alone, rows/s", "1 connection, rows/s", "share"]
    yield table([*header, "16 connections, rows/s", "share"], lines)


def served(server: Server, work: Workload, connections: int, seconds: int) -> float:
    """Return the rows per second of the service."""
    return work.rows * drive(server, work, connections, seconds).rate


def alone(path: Path, work: Workload) -> float:
    """Return the rows per second of `session.run` on the server's core."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    rows = np.array(json.loads(work.body)["instances"], np.float32)  # (n, features)
    with pinned(SERVER_CORE):
        session = ort.InferenceSession(path, options)
        session.run(None, {"input": rows})
        calls, start = 0, perf_counter()
        while perf_counter() < start + ALONE_S:
            session.run(None, {"input": rows})
            calls += 1
        return calls * len(rows) / (perf_counter() - start)
