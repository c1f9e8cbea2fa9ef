"""Worker processes as this machine starts them."""

import subprocess
import sys

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
SIGINT_BIT = 1 << 1


def test_ctrl_c_is_blocked_in_each_worker_from_its_first_moment() -> None:
    """In a process of its own: the first worker starts multiprocessing's resource tracker."""
    said = subprocess.run(
        [sys.executable, "-c", PRINTS_BLOCKED], capture_output=True, text=True, check=True
    ).stdout
    first, second = (int(each, 16) & SIGINT_BIT for each in said.split())
    assert (first, second) == (SIGINT_BIT, SIGINT_BIT)
