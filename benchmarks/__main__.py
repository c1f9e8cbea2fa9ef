"""Measure requests per second with wrk, as a share of what plain uvicorn does at most.

Each server has one core and wrk another. The servers are driven in turn, round by round, and
only the ratio of two numbers of one run says something: the machine's own speed drifts.
Replies are compared with the model's before anything is measured.
"""

import argparse
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path

import httpx
from msgspec import Struct

ROOT = Path(__file__).parent.parent
SERVER_CORE, WRK_CORE = 0, 1
CEILING, TORCHLIT = "http://127.0.0.1:8390", "http://127.0.0.1:8391"
UVICORN = "-m uvicorn benchmarks.ceiling:app --port 8390 --http httptools --loop uvloop"
QUIET = "--lifespan off --no-access-log --log-level error"


class Workload(Struct, frozen=True):
    """A request that is sent again and again."""

    name: str
    path: str
    body: bytes


class Measured(Struct, frozen=True):
    """One run of wrk: requests per second, and latency percentiles in milliseconds."""

    rate: float
    p50_ms: float
    p99_ms: float


def workloads() -> list[Workload]:
    """Return the requests, made from the committed models' examples."""
    instances = {
        name: json.loads((ROOT / f"models/{name}/1/request.json").read_text())["instances"]
        for name in ("iris", "housing", "mnist")
    }
    iris = [list(instances["iris"][0].values())]
    image = [pixel for row in instances["mnist"][0] for pixel in row]  # (28, 28) -> (784,)
    return [
        Workload(name, f"/predict/{model}?{number}", json.dumps({"instances": rows}).encode())
        for number, (name, model, rows) in enumerate(
            [
                ("iris, 1 row", "iris", iris),
                ("housing, 1 row of named features", "housing", instances["housing"]),
                ("MNIST MLP, 1 row of 784", "mnist", [image]),
                ("MNIST MLP, 64 rows of 784", "mnist", [image] * 64),
            ]
        )
    ]


@contextmanager
def running(arguments: str, url: str, **environment: str) -> Iterator[None]:
    """Run a server of ours on its core until the block ends."""
    process = subprocess.Popen(
        [sys.executable, *arguments.split()],
        cwd=ROOT,
        env=os.environ | environment,
        stderr=subprocess.DEVNULL,
        preexec_fn=partial(os.sched_setaffinity, 0, {SERVER_CORE}),
    )
    try:
        wait_until_it_answers(url, process)
        yield
    finally:
        process.terminate()
        process.wait(timeout=20)


def wait_until_it_answers(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(200):
        if process.poll() is not None:
            raise SystemExit(f"{url}: the server ended with {process.returncode}: port in use?")
        try:
            httpx.get(url)
            return
        except httpx.ConnectError:
            time.sleep(0.05)
    raise SystemExit(f"{url}: expected an answer within 10 s, got none")


def wrk(url: str, workload: Workload, seconds: int, connections: int) -> Measured:
    """Drive a server with one workload. Raises SystemExit on any reply but 200."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(f'wrk.method = "POST"\nwrk.body = [=[{workload.body.decode()}]=]\n')
        script.flush()
        command = f"wrk -t1 -c{connections} -d{seconds}s --latency -s {script.name}"
        done = subprocess.run(
            [*command.split(), url + workload.path],
            capture_output=True,
            text=True,
            check=True,
            preexec_fn=partial(os.sched_setaffinity, 0, {WRK_CORE}),
        )
    if "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        raise SystemExit(f"{workload.name}: expected replies of 200 only, got\n{done.stdout}")
    rate = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    assert rate is not None
    p50, p99 = (_milliseconds(done.stdout, share) for share in ("50%", "99%"))
    return Measured(float(rate[1]), p50, p99)


def _milliseconds(text: str, share: str) -> float:
    found = re.search(rf"{share}\s+([\d.]+)(us|ms|s)\b", text)
    assert found is not None
    return float(found[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[found[2]]


def check_answers(works: list[Workload]) -> dict[str, str]:
    """Return the reply to each workload by query string, after a look at all of them."""
    replies = {}
    for work in works:
        reply = httpx.post(TORCHLIT + work.path, content=work.body)
        rows = json.loads(work.body)["instances"]
        if reply.status_code != 200 or len(reply.json()["predictions"]) != len(rows):
            raise SystemExit(f"{work.name}: expected {len(rows)} predictions, got {reply.text}")
        replies[work.path.split("?")[1]] = reply.text
    return replies


def line(name: str, ceiling: list[Measured], torchlit: list[Measured]) -> str:
    """Return a row of the table: medians over the rounds, and the spread of the ratio."""
    ratios = [ours.rate / most.rate for ours, most in zip(torchlit, ceiling, strict=True)]
    cells = [
        name,
        f"{statistics.median(each.rate for each in ceiling):,.0f}",
        f"{statistics.median(each.rate for each in torchlit):,.0f}",
        f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
        f"{statistics.median(each.p50_ms for each in torchlit):.2f}",
        f"{statistics.median(each.p99_ms for each in torchlit):.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> int:
    """Run the benchmark and print its table; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3, help="of each measurement")
    parser.add_argument("--connections", type=int, default=64)
    options = parser.parse_args()
    if shutil.which("wrk") is None or len(os.sched_getaffinity(0)) < 2:
        print("expected wrk (a Debian package) and two cores to run on", file=sys.stderr)
        return 1
    works = workloads()
    versions = ", ".join(f"{each} {version(each)}" for each in ("uvicorn", "onnxruntime"))
    print(f"{platform.machine()}, Python {platform.python_version()}, {versions}, one core;")
    print(f"{options.connections} connections, {options.rounds} rounds of {options.seconds} s\n")
    print("| workload | ceiling, requests/s | torchlit | ratio | p50 ms | p99 ms |")
    print("| --- | --- | --- | --- | --- | --- |")
    with (
        tempfile.NamedTemporaryFile("w", suffix=".json") as replies,
        running("-m service", TORCHLIT, TORCHLIT_PORT="8391"),
    ):
        json.dump(check_answers(works), replies)
        replies.flush()
        with running(f"{UVICORN} {QUIET}", f"{CEILING}/?0", BENCH_REPLIES=replies.name):
            for work in works:
                measured = [
                    wrk(url, work, options.seconds, options.connections)
                    for _ in range(options.rounds)
                    for url in (CEILING, TORCHLIT)
                ]
                print(line(work.name, measured[::2], measured[1::2]), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
