"""The servers that are compared: the ceiling, torchlit and FastAPI, each one process."""

import json
import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.processes import ROOT, SERVER_CORE, BenchmarkError, Server, serving
from benchmarks.workloads import Workload

UVICORN = "--http httptools --loop uvloop --lifespan off --no-access-log --log-level error"
TRITON_PYTHON = ROOT / ".venv/triton/bin/python"  # made by `make .venv/triton`
TOLERANCE = 1e-4  # of two numbers, absolute or relative


def torchlit(
    cores: Sequence[int], folder: Path = ROOT, **settings: object
) -> AbstractContextManager[Server]:
    """Run the service of `folder`, with everything on but for the `settings` that are given."""
    environment = {f"TORCHLIT_{name.upper()}": str(value) for name, value in settings.items()}
    return serving(
        "-m service", cores=cores, ready="/health/ready", environment=environment, folder=folder
    )


def uvicorn(app: str, ready: str, **environment: str) -> AbstractContextManager[Server]:
    """Run an app of this folder in uvicorn, with what torchlit runs uvicorn with."""
    arguments = f"-m uvicorn benchmarks.{app}:app {UVICORN}"
    return serving(arguments, cores=SERVER_CORE, ready=ready, environment=environment)


def triton() -> AbstractContextManager[Server]:
    """Run Triton with the perceptron; of a virtual environment of its own."""
    return serving(
        "-m benchmarks.triton_app",
        cores=SERVER_CORE,
        ready="/v2/models/mnist/versions/1/ready",
        environment={},
        python=str(TRITON_PYTHON),
    )


@contextmanager
def all_rivals(works: list[Workload]) -> Iterator[dict[str, Server]]:
    """Run all three on the same core, to be driven in turn.

    Raises BenchmarkError unless they answer each workload alike.
    """
    with (
        torchlit(SERVER_CORE) as ours,
        uvicorn("fastapi_app", "/health") as fastapi,
        ceiling_of(ours, works) as ceiling,
    ):
        for work in works:
            ask_all(work, {"torchlit": ours, "FastAPI": fastapi, "ceiling": ceiling})
        yield {"ceiling": ceiling, "torchlit": ours, "FastAPI": fastapi}


@contextmanager
def ceiling_of(server: Server, works: list[Workload]) -> Iterator[Server]:
    """Run what answers each workload with the bytes that `server` has answered it with."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as replies:
        asked = {work.query: server.ask(work.path, work.body, work.headers) for work in works}
        json.dump({query: reply.decode("latin-1") for query, reply in asked.items()}, replies)
        replies.flush()
        with uvicorn("ceiling", f"/?{works[0].query}", BENCH_REPLIES=replies.name) as ceiling:
            yield ceiling


def ask_all(work: Workload, servers: dict[str, Server]) -> None:
    """Raise BenchmarkError unless every server answers as the first."""
    answers = (each.ask(work.path, work.body, work.headers) for each in servers.values())
    expected, *others = map(decoded, answers)
    for name, answer in zip(list(servers)[1:], others, strict=True):
        if not alike(expected, answer):
            raise BenchmarkError(f"{work.name}: expected {expected} of {name}, got {answer}")


def decoded(reply: bytes) -> Any:
    """Return what a reply says, and the float32 behind its JSON."""
    text = reply.decode("latin-1")
    document, end = json.JSONDecoder().raw_decode(text)
    return [document, np.frombuffer(reply[end:], "<f4").tolist()]


def alike(one: Any, other: Any) -> bool:
    """Whether two JSON documents say the same, numbers within TOLERANCE."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(alike, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return bool(one == other)
