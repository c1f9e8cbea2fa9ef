"""`score` is stopped at any time, by Ctrl-C and SIGTERM: alone, and with all of its group."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.support.processes import environment
from tests.support.toys import save_toy, toy_card

pytestmark = pytest.mark.stress

ROWS, TIMES = 200_000, 10
ROOT = Path(__file__).parents[3]
LONG_S = 120.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stopped")
    save_toy(folder / "models", card=toy_card())
    rows = np.random.default_rng(0).uniform(0, 9, (ROWS, 4))
    np.savetxt(folder / "in.csv", rows, "%.3f", ",", header="a,b,c,d", comments="")
    return folder


def start(folder: Path, output: str, workers: int) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "service", "score", "toy", "in.csv", output, f"--workers={workers}"],
        cwd=folder,
        env=environment(models_dir="models") | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def finished(process: "subprocess.Popen[str]") -> str:
    """Wait until it has ended, and all who could write to its stderr; return what they said."""
    try:
        return process.communicate(timeout=LONG_S)[1]
    finally:
        process.kill()


def wait_until_ours(process: "subprocess.Popen[str]") -> None:
    """Wait until it is no longer Python itself that starts: that has a traceback for Ctrl-C."""
    maps, until = Path(f"/proc/{process.pid}/maps"), time.monotonic() + LONG_S
    while process.poll() is None and "msgspec" not in maps.read_text():
        assert time.monotonic() < until
        time.sleep(0.001)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("suffix", "is_group"), [(".csv", False), (".parquet", True)])
@pytest.mark.parametrize("workers", [1, 2])
def test_stopped_at_any_time_it_goes_on(
    folder: Path, workers: int, suffix: str, is_group: bool, number: signal.Signals
) -> None:
    whole, out = folder / f"whole{suffix}", folder / f"out{suffix}"
    began = time.monotonic()
    process = start(folder, whole.name, workers)
    said = finished(process)
    assert process.returncode == 0, said
    longest_s = time.monotonic() - began
    statuses = []
    for _ in range(TIMES):
        process = start(folder, out.name, workers)
        wait_until_ours(process)
        time.sleep(random.uniform(0, longest_s))
        if process.poll() is None:
            os.killpg(process.pid, number) if is_group else process.send_signal(number)
        said = finished(process)
        statuses.append(process.returncode)
        assert process.returncode in (0, -number, 130 if number == signal.SIGINT else 0), said
        assert all(line.startswith("torchlit: ") for line in said.splitlines()), said
        if out.exists():  # complete, whenever it is there
            assert out.read_bytes() == whole.read_bytes()
        process = start(folder, out.name, workers)
        said = finished(process)
        assert process.returncode == 0 or said.endswith("is there already; --force replaces it\n")
        assert out.read_bytes() == whole.read_bytes()
        out.unlink()
        assert not list(folder.glob("out*"))
    whole.unlink()
    print(f"{number.name}, {workers} workers, {suffix}: statuses {sorted(statuses)}")
