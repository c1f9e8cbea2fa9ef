"""What this process may use: CPUs and memory, as its affinity and its cgroup say.

A container's limits are those of its cgroup; `os.cpu_count()` and /proc/meminfo say what the
machine has. Of a cgroup and those above it the strictest limit counts (kernel documentation,
"Control Group v2": cpu.max, memory.max; of version 1: cpu.cfs_quota_us, memory.limit_in_bytes).
"""

import math
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

BYTES_OF_A_WORKER = 160 * 2**20  # 120 MB at start, 135 MB after the heaviest load that was tried
MOST_WORKERS = 256
OTHER_FILES = 128  # that a worker opens beside its connections
SHARED_MEMORY = "/dev/shm"  # writable also where all else is not, as in a locked container
_UNLIMITED_V1 = 2**60  # version 1 says nearly 2**63 where there is no limit


class Resources(Struct, frozen=True):
    """What may be used of the machine; None is no limit."""

    cpus: int  # that this process may run on
    cpu_quota: float | None  # CPU seconds a second, of all processes together
    memory_bytes: int | None
    physical_bytes: int = sys.maxsize  # of memory that the machine has

    @property
    def workers(self) -> int:
        """How many workers there is room for, from 1: each gets a whole CPU, and its memory."""
        room = min(self.memory_bytes or math.inf, self.physical_bytes) / BYTES_OF_A_WORKER
        quota = self.cpu_quota or math.inf
        return max(1, math.floor(min(self.cpus, quota, room, MOST_WORKERS)))

    def threads(self, workers: int) -> int:
        """How many threads each of so many workers may run at the same time, from 1."""
        return max(1, math.ceil(min(self.cpus, self.cpu_quota or math.inf)) // workers)

    def __str__(self) -> str:
        """Say it for the log."""
        quota = "no quota" if self.cpu_quota is None else f"a quota of {self.cpu_quota:g}"
        memory = self.memory_bytes
        limit = "no limit" if memory is None else f"a limit of {memory / 2**20:.0f} MiB"
        return f"{self.cpus} CPUs with {quota}, memory with {limit}"


def available(
    cgroups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")
) -> Resources:
    """Read what this process may use. `own` says which cgroup of the mount `cgroups` it is in."""
    # macOS has no affinity.
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas: list[float] = []
    limits: list[int] = []
    for folder in _folders(cgroups, own, ""):
        quota, _, period = _read(folder / "cpu.max").partition(" ")
        if quota.isdigit():
            quotas.append(int(quota) / int(period))
        limits += _numbers(folder / "memory.max")
    for folder in _folders(cgroups / "cpu", own, "cpu"):
        for quota_us in _numbers(folder / "cpu.cfs_quota_us"):  # -1 is none
            quotas += [quota_us / period for period in _numbers(folder / "cpu.cfs_period_us")]
    for folder in _folders(cgroups / "memory", own, "memory"):
        limits += _numbers(folder / "memory.limit_in_bytes")
    limits = [each for each in limits if each < _UNLIMITED_V1]
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Resources(cpus, min(quotas, default=None), min(limits, default=None), physical)


def _folders(mount: Path, own: Path, controller: str) -> Iterator[Path]:
    """Yield the folder of this process's cgroup and those above it, up to the mount.

    In a container the mount is most often the cgroup itself, and the path says nothing.
    """
    for line in _read(own).splitlines():  # "4:cpu,cpuacct:/a/b", of version 2 "0::/a/b"
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            folder = mount / path.lstrip("/")
            yield from (each for each in (folder, *folder.parents) if each.is_relative_to(mount))
            return


def _read(file: Path) -> str:
    """Return what a file says, nothing if there is none."""
    try:
        return file.read_text().strip()
    except OSError:
        return ""


def _numbers(file: Path) -> list[int]:
    """Return the number that a file holds, as a list; none where it says max, -1 or nothing."""
    text = _read(file)
    return [int(text)] if text.isdigit() else []


def temporary_folder() -> str:
    """Return the folder for what goes at the end."""
    try:
        return tempfile.gettempdir()
    except FileNotFoundError:  # none can be written
        return SHARED_MEMORY
