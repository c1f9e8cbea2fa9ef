"""wrk: one thread that sends a workload again and again over open connections."""

import re
import subprocess
import tempfile
from collections.abc import Sequence

from msgspec import Struct

from benchmarks.processes import LOAD_CORE, BenchmarkError, Server, pinned
from benchmarks.workloads import Workload

MILLISECONDS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}


class Measured(Struct, frozen=True):
    """One run: its requests, requests per second, and percentiles of the latency."""

    requests: int
    rate: float
    p50_ms: float
    p99_ms: float


def drive(
    server: Server, work: Workload, connections: int, seconds: int, cores: Sequence[int] = LOAD_CORE
) -> Measured:
    """Send `work` as `send` does, then wait until the server has done what was on the way.

    The rest of its work would slow down the server that is driven next.
    """
    measured = send(server, work, connections, seconds, cores)
    server.wait_until_idle()
    return measured


def send(
    server: Server, work: Workload, connections: int, seconds: int, cores: Sequence[int]
) -> Measured:
    """Send `work` for `seconds`. Raises BenchmarkError when any reply is not as it should be."""
    with (
        tempfile.NamedTemporaryFile("w", suffix=".lua") as script,
        tempfile.NamedTemporaryFile() as body,
        pinned(cores),
    ):
        body.write(work.body)
        body.flush()
        headers = [f'wrk.headers["{name}"] = "{value}"' for name, value in work.headers.items()]
        read = f'wrk.body = io.open("{body.name}", "rb"):read("*a")'
        script.write("\n".join(['wrk.method = "POST"', *headers, read]))
        script.flush()
        command = f"wrk -t1 -c{connections} -d{seconds}s --timeout 20s --latency -s {script.name}"
        done = subprocess.run(
            [*command.split(), f"http://127.0.0.1:{server.port}{work.path}"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds + 60,
        )
    try:
        return parse(done.stdout)
    except BenchmarkError as error:
        said = f" ({done.stderr.strip()})" if done.stderr else ""
        raise BenchmarkError(f"{work.name}, {connections} connections: {error}{said}") from error


def parse(text: str) -> Measured:
    """Read what wrk printed. Raises BenchmarkError when it counted an error, or nothing."""
    if wrong := re.findall(r"^ *((?:Non-2xx|Socket errors).*)$", text, re.M):
        raise BenchmarkError(f"expected replies of 200 only, got {'; '.join(wrong)}")
    requests = re.search(r"^ +(\d+) requests in ", text, re.M)
    rate = re.search(r"^Requests/sec: +([\d.]+)$", text, re.M)
    if requests is None or rate is None or requests[1] == "0":
        raise BenchmarkError(f"expected requests from wrk, got {text!r}")
    p50_ms, p99_ms = (_milliseconds(text, share) for share in (50, 99))
    return Measured(int(requests[1]), float(rate[1]), p50_ms, p99_ms)


def _milliseconds(text: str, share: int) -> float:
    found = re.search(rf"^ +{share}% +([\d.]+)(us|ms|s|m) *$", text, re.M)
    if found is None:
        raise BenchmarkError(f"expected a latency at {share} %, got {text!r}")
    return float(found[1]) * MILLISECONDS[found[2]]
