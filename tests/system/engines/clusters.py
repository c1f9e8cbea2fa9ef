"""Clusters of Ray on this machine."""

import contextlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.support.processes import environment
from tests.system.engines.programs import PYTHON, ROOT, called, descendants, kill


class Cluster(NamedTuple):
    """A cluster: its process, the settings with which programs find it, a process of each node."""

    pid: int
    settings: dict[str, str]
    raylets: list[int]


@contextlib.contextmanager
def cluster(nodes: int, cores: int) -> Iterator[Cluster]:
    folder = tempfile.mkdtemp(dir="/tmp")  # short, as the paths of sockets in it must be
    settings = {"RAY_TMPDIR": folder, "RAY_USAGE_STATS_ENABLED": "0"}
    of_nodes = environment(models_dir=ROOT / "models") | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [PYTHON, Path(__file__).with_name("cluster.py"), str(nodes), str(cores)],
        env=of_nodes | settings,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        said = json.loads(process.stdout.readline())
        yield Cluster(process.pid, settings | {"RAY_ADDRESS": said["address"]}, said["raylets"])
    finally:
        all_of_it = descendants(process.pid)
        process.communicate()
        for pid in called(all_of_it, "ray"):
            kill(pid)
        shutil.rmtree(folder, ignore_errors=True)
