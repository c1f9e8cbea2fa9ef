"""A program with all processes that it starts: how long it takes, and the memory they have."""

import contextlib
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from benchmarks.processes import TWO_CORES, BenchmarkError, pinned

SAMPLE_EVERY_S = 0.1


class Ran(Struct, frozen=True):
    """What a program took: seconds from its exec to its end, and its peak memory in 10^6 bytes."""

    seconds: float
    peak_mb: float


def ran(
    command: Sequence[str],
    *,
    folder: Path,
    environment: Mapping[str, str],
    statuses: tuple[int, ...] = (0,),
) -> Ran:
    """Run a program on two cores, to its end.

    Its memory is what all its processes have to themselves and their shares of what they have
    together (PSS). Raises BenchmarkError, with the end of what it printed, where it fails.
    """
    start = time.perf_counter()
    with pinned(TWO_CORES):
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a Ctrl-C is ours to pass on
        )
    peak = _Peak(process.pid)
    try:
        peak.start()
        printed, _ = process.communicate()
        seconds = time.perf_counter() - start
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        peak.stop()
    if process.returncode not in statuses:
        said = printed[-1000:].decode(errors="replace")
        raise BenchmarkError(f"{' '.join(command)}: expected it to end well, it said: {said}")
    return Ran(seconds, peak.most / 1e6)


def with_children(pid: int) -> list[int]:
    """Return a process, those that it started, those that these started, and so on."""
    try:
        tasks = [each.read_text() for each in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:
        return []
    children = [int(each) for text in tasks for each in text.split()]
    return [pid, *(each for child in children for each in with_children(child))]


class _Peak(threading.Thread):
    """The most memory that a tree of processes had, as far as was seen."""

    def __init__(self, pid: int) -> None:
        super().__init__()
        self.most = 0  # bytes
        self._pid = pid
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(SAMPLE_EVERY_S):
            self.most = max(self.most, sum(map(_pss_bytes, with_children(self._pid))))

    def stop(self) -> None:
        self._ended.set()
        self.join()


def _pss_bytes(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:  # it is gone
        return 0
    found = re.search(r"^Pss: +(\d+) kB$", text, re.M)
    return int(found[1]) * 1024 if found else 0
