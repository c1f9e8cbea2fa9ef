"""What a slow model does to everyone else: while 16 connections keep it busy without a pause, a
second client asks for the health and for irises, in turn, every 5 ms. The server and both
clients share two cores. The target: p99 of /health/live under 20 ms.
"""

import contextlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import onnx

from benchmarks.processes import ROOT, TWO_CORES, Server, ask, pinned
from benchmarks.report import percentile, say, table
from benchmarks.rivals import torchlit
from benchmarks.workloads import Workload, iris
from benchmarks.wrk import Measured, send

CONNECTIONS = 16
WIDTH, PRODUCTS = 2048, 24  # 100 million multiplications a row
PAUSE_S = 0.005
SETTLE_S = 0.5  # until the load is at its height

Latencies = dict[str, list[float]]  # seconds, by path


def run(rounds: int, seconds: int) -> Iterator[str]:
    """Yield one table: latencies idle, then under load, for `rounds` times `seconds` each."""
    say(f"slow: {rounds * seconds} s idle, {rounds * seconds} s at full load")
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder)
        shutil.copytree(ROOT / "models/iris", models / "iris")
        save_slow_model(models / "slow/1/model.onnx")
        with torchlit(TWO_CORES, models_dir=models) as server, pinned(TWO_CORES):
            end = time.monotonic() + rounds * seconds
            idle = ask_in_turn(server, lambda: time.monotonic() < end)
            measured, busy = ask_under_load(server, rounds * seconds)
            batches, rows, compute_s = (
                server.counted(f"torchlit_{metric}", 'model="slow"')
                for metric in ("batch_rows_count", "batch_rows_sum", "compute_seconds_sum")
            )
    yield (
        f"The slow model: {measured.rate:.0f} requests/s, p99 {measured.p99_ms:.0f} ms; a batch "
        f"has {rows / batches:.1f} rows and takes {1000 * compute_s / batches:.0f} ms (means)."
    )
    lines = []
    for path in idle:
        for state, latencies in (("idle", idle[path]), ("slow model busy", busy[path])):
            ms = [f"{1000 * percentile(latencies, share):.2f}" for share in (0.5, 0.99, 1.0)]
            lines.append([path.partition("?")[0], state, *ms, f"{len(latencies):,}"])
    yield table(["request", "state", "p50 ms", "p99 ms", "max ms", "requests"], lines)


def ask_under_load(server: Server, seconds: int) -> tuple[Measured, Latencies]:
    """Keep the slow model busy for `seconds`; return that and what others waited meanwhile."""
    body = json.dumps({"instances": [[1.0] * WIDTH]}).encode()
    work = Workload("the slow model, 1 row", "/predict/slow", body, rows=1)
    with ThreadPoolExecutor(1) as pool:
        load = pool.submit(send, server, work, CONNECTIONS, seconds, TWO_CORES)
        time.sleep(SETTLE_S)
        latencies = ask_in_turn(server, lambda: not load.done())
        return load.result(), latencies


def ask_in_turn(server: Server, going_on: Callable[[], bool]) -> Latencies:
    """Time one request after the other, over one connection, with a pause after each."""
    flower = iris()
    requests = {"/health/live": None, flower.path: flower.body}
    took: Latencies = {path: [] for path in requests}
    with contextlib.closing(server.connect()) as connection:
        while going_on():
            for path, body in requests.items():
                start = time.perf_counter()
                ask(connection, path, body)
                took[path].append(time.perf_counter() - start)
                time.sleep(PAUSE_S)
    return took


def save_slow_model(path: Path) -> None:
    """Write a chain of products with a matrix that averages: float32 (n, WIDTH) -> (n, WIDTH)."""
    products = "".join(f"x{n + 1} = MatMul(x{n}, w)\n" for n in range(PRODUCTS))
    model = onnx.parser.parse_model(f"""
        <ir_version: 10, opset_import: ["": 20]>
        slow (float[batch, {WIDTH}] x0) => (float[batch, {WIDTH}] x{PRODUCTS}) {{
            shape = Constant <value = int64[2] {{{WIDTH}, {WIDTH}}}> ()
            w = ConstantOfShape <value = float[1] {{{1 / WIDTH}}}> (shape)
            {products}
        }}""")
    path.parent.mkdir(parents=True)
    onnx.save(model, path)
