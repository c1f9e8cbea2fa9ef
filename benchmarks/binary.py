"""MNIST images as binary tensors of the Open Inference Protocol. All have one core, wrk has
another, and they are driven in turn, over 16 connections or, with 1,024 rows, 4. What one core
allows is the time of a constant reply to the same body (the ceiling) plus that of `session.run`
with the same rows. The perceptron takes float32; torchlit takes bytes too, and widens them. Triton
serves the same file by way of PyTriton. Median of the rounds (least to most); the answers were
compared before.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

import numpy as np

from benchmarks import compute
from benchmarks.processes import SERVER_CORE, BenchmarkError, Server
from benchmarks.report import in_turn, ratio, say, spread, table
from benchmarks.rivals import TOLERANCE, TRITON_PYTHON, ceiling_of, torchlit, triton
from benchmarks.workloads import Workload, mnist, mnist_tensor
from benchmarks.wrk import drive

CONNECTIONS = {64: 16, 1024: 4}  # by the rows of a request; more would fill the queue
CLASSES = 10
TARGET = "at least 0.85"
NO_TRITON = "Triton is left out: `make .venv/triton` installs it."


def run(rounds: int, seconds: int) -> Iterator[str]:
    """Yield one table: a row for each number of rows and type."""
    works = [mnist_tensor(rows, datatype) for rows in CONNECTIONS for datatype in ("FP32", "UINT8")]
    lines = []
    with ExitStack() as stack:
        ours = stack.enter_context(torchlit(SERVER_CORE))
        ceiling = stack.enter_context(ceiling_of(ours, works))
        rival = stack.enter_context(triton()) if TRITON_PYTHON.exists() else None
        for work in works:
            say(f"binary: {work.name}, rounds: {rounds}")
            drives = {"ceiling": ceiling, "torchlit": ours}
            if rival is not None and "FP32" in work.name:
                drives["Triton"] = rival
            check_alike(work, drives)
            measures = {name: partial(rate, each, work, seconds) for name, each in drives.items()}
            measures["alone"] = partial(
                compute.alone, compute.onnx_of("mnist/1"), mnist(1, work.rows)
            )
            measured = in_turn(rounds, measures)
            alone = [each / work.rows for each in measured["alone"]]
            bound = [
                1 / (1 / constant + 1 / run_alone)
                for constant, run_alone in zip(measured["ceiling"], alone, strict=True)
            ]
            theirs = measured.get("Triton")
            lines.append(
                [
                    work.name,
                    *map(spread, (measured["ceiling"], alone, bound, measured["torchlit"])),
                    ratio(measured["torchlit"], bound, TARGET),
                    "" if theirs is None else spread(theirs),
                    "" if theirs is None else ratio(measured["torchlit"], theirs),
                ]
            )
    header = ["request", "ceiling, requests/s", "session.run alone", "both on one core"]
    yield table(
        [*header, "torchlit", "share of that", "Triton", "torchlit / Triton"],
        lines,
    )
    if rival is None:
        yield NO_TRITON


def rate(server: Server, work: Workload, seconds: int) -> float:
    """Return the requests per second of a server."""
    return drive(server, work, CONNECTIONS[work.rows], seconds).rate


def check_alike(work: Workload, servers: dict[str, Server]) -> None:
    """Raise BenchmarkError unless all answer with the same probabilities, at the reply's end."""
    size = work.rows * CLASSES * np.dtype("<f4").itemsize
    answers = {
        name: np.frombuffer(server.ask(work.path, work.body, work.headers)[-size:], "<f4")
        for name, server in servers.items()
    }
    for name, answer in answers.items():
        if not np.allclose(answer, answers["torchlit"], rtol=TOLERANCE, atol=TOLERANCE):
            raise BenchmarkError(f"{work.name}: expected of {name} what torchlit answers")
