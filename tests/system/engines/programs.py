"""The programs of docs/engines.md, each run as it stands by the Python that has the engines."""

import os
import re
import signal
import subprocess
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.processes import environment

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "engines.md"
ENVIRONMENT = ROOT / ".venv/engines"
PYTHON = ENVIRONMENT / "bin/python"
TIMEOUT_S = 120


def blocks() -> dict[str, str]:
    """Return the program that stands below each heading."""
    heading, *sections = PAGE.read_text().split("\n## ")
    found = {
        each.splitlines()[0]: code
        for each in sections
        for code in re.findall(r"^```python\n(.*?)^```$", each, re.M | re.S)
    }
    assert len(found) == "".join([heading, *sections]).count("```python\n")
    return found


class Program(NamedTuple):
    """A program that runs, and what it has printed until now."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait(self) -> str:
        """Return what it printed; fail if it does not come to a good end."""
        status = self.process.wait(timeout=TIMEOUT_S)
        assert status == 0, self.log.read_text()
        return self.log.read_text()

    def wait_until(self, is_so: Callable[[], bool]) -> None:
        """Return when something outside this process is so; fail if the program ends before."""
        deadline = time.monotonic() + TIMEOUT_S
        while not is_so():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)


@contextmanager
def started(program: str, folder: Path, **settings: str) -> Iterator[Program]:
    """Yield a program that runs in a folder, with settings in its environment; end all of it."""
    (folder / "program.py").write_text(program)
    with started_command([PYTHON, "program.py"], folder, **settings) as running:
        yield running


@contextmanager
def started_command(command: list[Any], folder: Path, **settings: str) -> Iterator[Program]:
    """Yield a command that runs in a folder; end all of it."""
    log = folder / "program.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment() | {"PYTHONPATH": str(ROOT)} | settings,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
        )
    try:
        yield Program(process, log)
    finally:
        for pid in (*descendants(process.pid), process.pid):
            kill(pid)
        process.wait()


def run(program: str, folder: Path, **settings: str) -> str:
    """Return what a program prints that comes to its end."""
    with started(program, folder, **settings) as running:
        return running.wait()


def descendants(pid: int) -> list[int]:
    """Return the processes that a process started, those that these started, and so on."""
    try:
        tasks = [each.read_text() for each in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:
        return []
    children = [int(each) for text in tasks for each in text.split()]
    return [*children, *(each for child in children for each in descendants(child))]


def called(pids: list[int], words: str) -> list[int]:
    """Return those of some processes whose command line has these words."""
    return [pid for pid in pids if words in _command(pid)]


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def kill(pid: int) -> None:
    """End a process as one that is out of memory ends."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def packages() -> Path:
    """Return the folder of the packages of the engines."""
    return Path(sysconfig.get_path("purelib", vars={"base": str(ENVIRONMENT)}))
