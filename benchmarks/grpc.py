"""One row of iris over gRPC, by h2load with a fixed body: 64 streams of one connection, 64
connections, and one call after the other. All servers have one core, h2load another, and they are
driven in turn. Triton serves the same file by way of PyTriton's Python callable; grpc.aio is
Google's server with nothing but the model behind it. CPU is the server's, user and system; memory
is resident, after the load, and torchlit's before its first client of gRPC too. h2load counts an
error of gRPC as success, so a reply without outputs ends the measurement.
"""

import os
import re
import shutil
import socket
import statistics
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path

import numpy as np
from msgspec import Struct

from benchmarks.processes import (
    LOAD_CORE,
    ROOT,
    SERVER_CORE,
    BenchmarkError,
    Server,
    pinned,
    serving,
)
from benchmarks.report import in_turn, ratio, say, spread, table
from benchmarks.rivals import TRITON_PYTHON, torchlit

PATH = "/inference.GRPCInferenceService/ModelInfer"
PACKAGES = ROOT / ".venv/grpc/packages"  # of `make .venv/grpc/installed`
MLSERVER_PYTHON = ROOT / ".venv/mlserver/bin/python"
LOADS = {"64 streams": (1, 64), "64 connections": (64, 1), "one stream": (1, 1)}
TARGETS = {"Triton": "at least 2.0", "MLServer": "at least 4.0", "grpc.aio": "at least 2.0"}
CALLS_A_SECOND = (
    2000  # about: how many calls are made is said beforehand, for the bytes to be known
)
INSTALLED_BY = {
    "Triton": ".venv/triton",
    "MLServer": ".venv/mlserver",
    "grpc.aio": ".venv/grpc/installed",
}
NO_H2LOAD = "Left out: h2load (Debian's package nghttp2-client) is not here."


class Rival(Struct, frozen=True):
    """A server, and the port where it speaks gRPC."""

    server: Server
    port: int


class Measured(Struct, frozen=True):
    """What h2load found."""

    rate: float  # calls per second
    p50_us: float
    cpu_us: float  # of the server, a call
    data_bytes: float  # of a reply, without its headers


def run(rounds: int, seconds: int) -> Iterator[str]:
    """Yield a table of rates, and one of memory."""
    if shutil.which("h2load") is None:
        yield NO_H2LOAD
        return
    with ExitStack() as stack, tempfile.NamedTemporaryFile() as body:
        body.write(request())
        body.flush()
        ours = stack.enter_context(torchlit(SERVER_CORE))
        before = ours.resident_mb()
        rivals = {"torchlit": Rival(ours, ours.port)}
        for name, arguments, python, packages in (
            ("Triton", "-m benchmarks.triton_app", TRITON_PYTHON, None),
            ("MLServer", "-m benchmarks.mlserver_app", MLSERVER_PYTHON, None),
            ("grpc.aio", "-m benchmarks.grpc_aio_app", None, PACKAGES),
        ):
            installed = python or packages
            if installed is None or not installed.exists():
                yield f"{name} is left out: `make {INSTALLED_BY[name]}` installs it."
                continue
            port = free_port()
            server = stack.enter_context(beside(arguments, port, python, packages))
            rivals[name] = Rival(server, port)
        lines = []
        for load, (connections, streams) in LOADS.items():
            say(f"grpc: {load}, rounds: {rounds}")
            calls = CALLS_A_SECOND * seconds
            measures = {
                name: partial(drive, each, body.name, connections, streams, calls)
                for name, each in rivals.items()
            }
            measured = in_turn(rounds, measures)
            rates = {name: [each.rate for each in found] for name, found in measured.items()}
            for name, found in measured.items():
                lines.append(
                    [
                        load,
                        name,
                        spread(rates[name]),
                        spread([each.p50_us for each in found]),
                        spread([each.cpu_us for each in found]),
                        f"{found[0].data_bytes:g}",
                        ""
                        if name == "torchlit"
                        else ratio(rates["torchlit"], rates[name], TARGETS[name]),
                    ]
                )
        header = ["load", "server", "calls/s", "p50, us", "CPU, us a call", "bytes a reply"]
        yield table([*header, "torchlit / server"], lines)
        memory = [[name, f"{sum(each.server.resident_mb()):.0f}"] for name, each in rivals.items()]
        yield table(["server", "memory, MB"], [["torchlit before", f"{sum(before):.0f}"], *memory])


def request() -> bytes:
    """Return the body of a call: a flower, raw, and its length before it."""
    from service.grpc.framing import framed
    from service.grpc.messages import ModelInferRequest

    message = ModelInferRequest(model_name="iris")
    message.inputs.add(name="input", datatype="FP32", shape=[1, 4])
    message.raw_input_contents.append(np.array([5.0, 3.4, 1.5, 0.2], "<f4").tobytes())
    return framed([message.SerializeToString()])


def free_port() -> int:
    """Return a port that nobody has."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def beside(
    arguments: str, port: int, python: Path | None, packages: Path | None
) -> AbstractContextManager[Server]:
    """Run a rival that speaks gRPC at a port of its own."""
    environment = {"BENCH_GRPC_PORT": str(port)}
    if packages is not None:
        environment["PYTHONPATH"] = os.pathsep.join(
            [str(packages), os.environ.get("PYTHONPATH", "")]
        )
    ready = "/v2/models/iris/ready"  # Triton is ready before it has a model
    if python is None:
        return serving(arguments, cores=SERVER_CORE, ready=ready, environment=environment)
    return serving(
        arguments, cores=SERVER_CORE, ready=ready, environment=environment, python=str(python)
    )


def drive(rival: Rival, body: str, connections: int, streams: int, calls: int) -> Measured:
    """Make calls; return what was found. Raises BenchmarkError for one that was not answered."""
    rival.server.wait_until_idle()
    before = rival.server.cpu_s()
    with tempfile.NamedTemporaryFile() as log, pinned(LOAD_CORE):
        done = subprocess.run(
            [
                *("h2load", "-n", str(calls), "-c", str(connections), "-m", str(streams)),
                *("-d", body, "-H", "content-type: application/grpc", "-H", "te: trailers"),
                *("--log-file", log.name, f"http://127.0.0.1:{rival.port}{PATH}"),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        log.seek(0)
        times = [int(line.split(b"\t")[2]) for line in log.read().splitlines()]
    rival.server.wait_until_idle()
    return parsed(done.stdout, times, calls, rival.server.cpu_s() - before)


def parsed(printed: str, times_us: list[int], calls: int, cpu_s: float) -> Measured:
    """Return what h2load printed. Raises BenchmarkError."""
    rate = re.search(r"finished in .*?, ([\d.]+) req/s", printed)
    succeeded = re.search(r"(\d+) succeeded", printed)
    data = re.search(r"\((\d+)\) data", printed)
    if rate is None or succeeded is None or data is None or int(succeeded[1]) != calls:
        raise BenchmarkError(
            f"h2load: expected {calls} calls that succeeded, got: {printed[-800:]}"
        )
    size = int(data[1]) / calls
    if size < len(b"iris") + 3 * 4:  # an error has none
        raise BenchmarkError(f"h2load: expected replies with outputs, got {size:g} bytes each")
    return Measured(float(rate[1]), statistics.median(times_us), cpu_s / calls * 1e6, size)
