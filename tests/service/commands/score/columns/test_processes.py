"""Worker processes as this machine starts them.

Each test has a process of its own: the first worker starts multiprocessing's resource tracker.
"""

import signal
import subprocess
import sys

import pytest

from service.settings.machine import available

PRINTS_BLOCKED = """
import re
from pathlib import Path
from service.commands.score.columns.processes import Processes
if __name__ == "__main__":
    with Processes(2) as processes:
        for worker in [processes.start(), processes.start()]:
            status = Path(f"/proc/{worker.pid}/status").read_text()
            print(re.search(r"^SigBlk:\\s+(\\w+)$", status, re.M)[1])
            worker.stop()
"""
IS_STOPPED = """
import os, signal
from multiprocessing import util
from service.commands.score.columns.processes import Processes
start = util.spawnv_passfds
def stopped(path, arguments, *rest):
    pid = start(path, arguments, *rest)
    if "spawn_main" in str(arguments):
        os.kill(os.getpid(), signal.SIGTERM)
    return pid
util.spawnv_passfds = stopped
if __name__ == "__main__":
    Processes(2)
"""
STOPS_ONE = """
import os, signal
from service.commands.score.columns.processes import Processes
if __name__ == "__main__":
    with Processes(2) as processes:
        worker = processes.start()
        os.kill(worker.pid, signal.{how})
        print(worker.ended())
"""
STARTS = """
from service.commands.score.columns.processes import Processes
if __name__ == "__main__":
    with Processes(200) as processes:
        print(len(processes._started))
"""
SIGINT_BIT = 1 << (signal.SIGINT - 1)


def ran(code: str) -> "subprocess.CompletedProcess[str]":
    """Run a program to its end, and to that of all the processes that it started."""
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )


def test_ctrl_c_is_blocked_in_each_worker_from_its_first_moment() -> None:
    first, second = (int(each, 16) & SIGINT_BIT for each in ran(PRINTS_BLOCKED).stdout.split())
    assert (first, second) == (SIGINT_BIT, SIGINT_BIT)


def test_a_parent_that_is_stopped_as_it_starts_one_leaves_no_traceback() -> None:
    done = ran(IS_STOPPED)
    assert (done.returncode, done.stderr) == (-signal.SIGTERM, "")


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("SIGTERM", "SIGTERM"),
        ("SIGKILL", "SIGKILL, as where memory is short"),
        ("SIGRTMIN + 1", f"signal {signal.SIGRTMIN + 1}"),
    ],
)
def test_a_worker_can_be_stopped(how: str, said: str) -> None:
    assert ran(STOPS_ONE.format(how=how)).stdout == f"{said}\n"


@pytest.mark.slow
def test_no_more_are_started_before_there_is_work_than_there_are_cores() -> None:
    assert int(ran(STARTS).stdout) == min(200, available().workers)
