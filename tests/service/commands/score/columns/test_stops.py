"""What stops `score` in columns, and how much memory it takes: real processes, a million rows."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import csv, parquet

from tests.support.processes import environment
from tests.support.toys import save_toy, toy_card

pytestmark = pytest.mark.slow

COUNT = 1_000_000
SAVES_OFTEN = """
import sys
from service.__main__ import main
from service.commands.score import scoring
scoring.SAVE_EVERY_S = 0.05
sys.exit(main(sys.argv[1:]))
"""
ROOT = Path(__file__).parents[5]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, and a million rows as CSV and as one row group of Parquet."""
    folder = tmp_path_factory.mktemp("million")
    save_toy(folder / "models", card=toy_card())
    random = np.random.default_rng(0)
    rows = pa.table({each: random.uniform(0, 9, COUNT).round(3) for each in "abcd"})
    csv.write_csv(rows, folder / "in.csv")
    parquet.write_table(rows, folder / "in.parquet", row_group_size=COUNT)
    process = score(folder, "in.parquet", "whole.parquet")
    said = process.communicate()[1]
    assert process.returncode == 0, said
    return folder


def score(folder: Path, *arguments: str, limit: int | None = None) -> "subprocess.Popen[str]":
    def restrict() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell lets what is behind & ignore it
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.Popen(
        [sys.executable, "-c", SAVES_OFTEN, "score", "toy", *arguments],
        cwd=folder,
        env=environment(models_dir="models") | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=restrict,
    )


def children(process: "subprocess.Popen[str]") -> list[int]:
    pid = process.pid
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def workers(process: "subprocess.Popen[str]") -> list[int]:
    """The processes that answer."""
    return [
        pid
        for pid in children(process)
        if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


def wait_until_begun(process: "subprocess.Popen[str]", part: Path, least: int = 0) -> None:
    """Wait until a part has answers."""
    deadline = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size > least):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def wait_until_saved(process: "subprocess.Popen[str]", sidecar: Path) -> None:
    """Wait until it says of rows that they are answered."""
    deadline = time.monotonic() + 60
    while not (sidecar.exists() and json.loads(sidecar.read_bytes() or b"{}").get("rows")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_worker_that_is_killed_is_replaced(folder: Path) -> None:
    process = score(folder, "in.parquet", "worker.parquet", "--workers", "2")
    wait_until_begun(process, folder / "worker.parquet.part", 100_000)
    os.kill(workers(process)[0], signal.SIGKILL)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 0, said
    assert (folder / "worker.parquet").read_bytes() == (folder / "whole.parquet").read_bytes()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_parent_that_is_stopped_leaves_no_process_and_goes_on(
    folder: Path, number: signal.Signals
) -> None:
    output = f"{number.name}.parquet"
    process = score(folder, "in.parquet", output, "--workers", "2")
    wait_until_saved(process, folder / f"{output}.part.json")
    left = children(process)
    assert len(workers(process)) == 2
    process.send_signal(number)
    said = process.communicate(timeout=60)[1]
    if number == signal.SIGINT:
        assert (process.returncode, said) == (130, "torchlit: interrupted; run it again to go on\n")
    deadline = time.monotonic() + 20
    while any(map(is_alive, left)):
        assert time.monotonic() < deadline, "an orphan is left"
        time.sleep(0.05)
    process = score(folder, "in.parquet", output)  # with one: the bytes are the same
    said = process.communicate(timeout=120)[1]
    assert said.startswith("torchlit: goes on after row ")
    assert (folder / output).read_bytes() == (folder / "whole.parquet").read_bytes()


def test_a_disk_that_fills_up_keeps_what_is_done(folder: Path) -> None:
    process = score(folder, "in.parquet", "full.parquet", limit=10_000_000)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 1
    assert said.endswith("full.parquet.part: cannot be written: File too large\n")
    process = score(folder, "in.parquet", "full.parquet")
    assert process.communicate(timeout=120)[1].startswith("torchlit: goes on after row ")
    assert (folder / "full.parquet").read_bytes() == (folder / "whole.parquet").read_bytes()


@pytest.mark.parametrize("input", ["in.csv", "in.parquet"])
@pytest.mark.parametrize("count", [1, 2])
def test_memory_is_bounded(folder: Path, input: str, count: int) -> None:
    """Resident memory of all processes together, seen fifty times a second."""
    process = score(folder, input, f"{count}-{input}", "--workers", str(count))
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, sum(map(resident_mb, [process.pid, *children(process)])))
        time.sleep(0.02)
    assert process.communicate()[0] is None
    assert process.returncode == 0
    print(f"{input}, {count} processes: peak of {peak:.0f} MB for {COUNT} rows")
    assert peak < 350 + (count > 1) * count * 250


def resident_mb(pid: int) -> float:
    """Return the resident memory of a process, in 10^6 bytes; 0 if it has ended."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = re.search(r"^VmRSS:\s+(\d+) kB$", text, re.M)
    return 0 if found is None else int(found[1]) * 1024 / 1e6
