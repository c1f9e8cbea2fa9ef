"""The command line: an interrupt at any time ends it without a traceback."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.processes import environment

LIBRARIES = ("msgspec", "numpy", "onnxruntime")  # mapped one after the other as it starts


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["score", "iris", "-", "-"], ["inspect", "iris"], []])
@pytest.mark.parametrize("library", LIBRARIES)
def test_an_interrupt_while_it_imports_is_no_traceback(arguments: list[str], library: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "service", *arguments],
        env={"TORCHLIT_PORT": "0", "PATH": ""},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    maps = Path(f"/proc/{process.pid}/maps")
    until = time.monotonic() + 20
    while process.poll() is None and library not in maps.read_text() and time.monotonic() < until:
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert "Traceback" not in said
    assert process.returncode in (0, 130, -signal.SIGINT), said


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_start_that_failed_ends_though_nobody_reads_why(tmp_path: Path, workers: int) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"." * 4096)
    os.set_blocking(writer, True)  # for the service too
    settings = environment(models_dir=tmp_path / "absent", workers=workers, port=0)
    with subprocess.Popen([sys.executable, "-m", "service"], env=settings, stderr=writer) as made:
        try:
            assert made.wait(timeout=20) == 1
        finally:
            made.kill()
            os.close(reader)
            os.close(writer)
