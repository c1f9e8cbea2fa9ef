"""What a shadow does to callers: requests per second and latency of a version alone, and of the
same version with a shadow that is as expensive, driven in turn, round by round: a ratio is of two
numbers of one round. The third is the first once more, and shows how much ratios say here. The
target: p99 with a shadow within 5 % of that without. The service and wrk share two cores. Median of
the rounds (least to most).
"""

import shutil
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.processes import ALL_CORES, ROOT, TWO_CORES
from benchmarks.report import in_turn, ratio, say, spread, table
from benchmarks.rivals import torchlit
from benchmarks.workloads import iris, mnist
from benchmarks.wrk import drive

CONNECTIONS = (16, 2)
SHADOW = "iris/1=2 mnist/1=3 mnist/2=4"
OUTCOMES = ("agree", "disagree", "failed", "dropped")


def run(rounds: int, seconds: int) -> Iterator[str]:
    """Yield a table of rates and latencies for each number of connections, then what was compared.

    Raises BenchmarkError where a request is not answered with 200.
    """
    works = [iris(), iris(64), mnist(1), mnist(2)]
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder)
        for model, version, copy in (("iris", 1, 2), ("mnist", 1, 3), ("mnist", 2, 4)):
            for number in (version, copy):
                shutil.copytree(ROOT / f"models/{model}/{version}", models / f"{model}/{number}")
        alone = partial(torchlit, TWO_CORES, models_dir=models)
        with alone() as first, alone(shadow=SHADOW) as compared, alone() as again:
            servers = {"alone": first, "shadow": compared, "again": again}
            for connections in CONNECTIONS:
                rows = []
                for work in works:
                    say(f"shadow: {work.name}, connections: {connections}, rounds: {rounds}")
                    drives = {
                        name: partial(drive, server, work, connections, seconds, ALL_CORES)
                        for name, server in servers.items()
                    }
                    runs = in_turn(rounds, drives)
                    rates = {name: [each.rate for each in runs[name]] for name in runs}
                    slowest = {name: [each.p99_ms for each in runs[name]] for name in runs}
                    rows.append(
                        [
                            work.name,
                            spread(rates["alone"]),
                            ratio(rates["shadow"], rates["alone"]),
                            ratio(rates["again"], rates["alone"]),
                            spread(slowest["alone"], 2),
                            ratio(slowest["shadow"], slowest["alone"], "1.05"),
                            ratio(slowest["again"], slowest["alone"]),
                        ]
                    )
                yield f"### Connections: {connections}, rounds: {rounds}"
                header = ["workload", "requests/s", "with a shadow / alone", "again / alone"]
                header += ["p99, ms", "with a shadow / alone", "again / alone"]
                yield table(header, rows)
            labels = [f'outcome="{each}"' for each in OUTCOMES]
            counted = [compared.counted("torchlit_shadow_rows_total", each) for each in labels]
    yield table(["rows", *OUTCOMES], [["", *(f"{each:,.0f}" for each in counted)]])
