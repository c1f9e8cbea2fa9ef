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

ROOT = Path(__file__).parents[2]
LONG_S = 120.0  # on a machine that is busy
INTERRUPTED = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)  # as the command line has it
when, module, *arguments = sys.argv[1:]
class Finder:
    def find_spec(self, name, *_):
        if name == module and when == "as it is imported":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
from service.__main__ import main
status = main(arguments)
print(f"{status}: it is imported" if module in sys.modules else "not imported", flush=True)
if when == "when it has ended":
    os.kill(os.getpid(), signal.SIGINT)
sys.exit(status)
"""
LIBRARIES = ("msgspec", "numpy", "onnxruntime")  # mapped one after the other as it starts


def heed_interrupts() -> None:
    """Undo what a shell does to what it runs in the background: it ignores Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [["score", "iris", "-", "-", "--format", "csv"], ["inspect", "iris"], []],  # two do not end
)
@pytest.mark.parametrize("library", LIBRARIES)
def test_an_interrupt_while_it_imports_is_no_traceback(arguments: list[str], library: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "service", *arguments],
        env={"TORCHLIT_PORT": "0", "PATH": ""},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_interrupts,
    )
    try:
        wait_until_mapped(process, library)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=LONG_S)
    finally:
        process.kill()
    assert "Traceback" not in said
    assert process.returncode in (0, 130, -signal.SIGINT), said


def wait_until_mapped(process: "subprocess.Popen[str]", library: str) -> None:
    """Wait until a process has a library, or has ended. Before that Python's own start is hit."""
    maps = Path(f"/proc/{process.pid}/maps")
    until = time.monotonic() + LONG_S
    while process.poll() is None and library not in maps.read_text():
        assert time.monotonic() < until, f"{library} is not there"
        time.sleep(0.001)


@pytest.mark.slow
@pytest.mark.parametrize("when", ["as it is imported", "when it has ended"])
def test_an_interrupt_has_one_line_or_none(when: str, tmp_path: Path) -> None:
    """As it is imported it waits until that is done: what is written in C makes errors of it."""
    (tmp_path / "in.jsonl").touch()
    (tmp_path / "in.csv").touch()
    for module, arguments in (
        ("service.commands.score.job", ["in.jsonl", "out.jsonl"]),
        ("service.commands.score.columns.job", ["in.csv", "out.csv"]),
    ):
        done = subprocess.run(
            [sys.executable, "-c", INTERRUPTED, when, module, "score", "iris", *arguments],
            cwd=tmp_path,
            env=environment(models_dir=ROOT / "models") | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            preexec_fn=heed_interrupts,
            check=False,
        )
        if when == "as it is imported":
            assert (done.returncode, done.stderr) == (130, "torchlit: interrupted\n")
            assert done.stdout == "130: it is imported\n"
        else:
            assert done.returncode == -signal.SIGINT
            assert done.stderr.startswith("torchlit: ")
            assert done.stderr.count("\n") == 1
            assert done.stdout == "1: it is imported\n"


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
