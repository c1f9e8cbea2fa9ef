"""What a container may use, from folders as the two versions of cgroups have them."""

import os
import re
from pathlib import Path

import pytest

from service.settings.machine import BYTES_OF_A_WORKER, Resources, available


def cgroups(mount: Path, files: dict[str, str], own: str) -> Resources:
    """Read a mount that holds these files, for a process of the cgroups `own`."""
    for name, text in files.items():
        file = mount / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")
    (mount / "own").write_text(own)
    return available(mount, mount / "own")


def test_a_container_of_version_2_sees_its_limits_at_the_mount(tmp_path: Path) -> None:
    files = {"cpu.max": "150000 100000", "memory.max": "268435456"}
    found = cgroups(tmp_path, files, "0::/\n")
    assert (found.cpu_quota, found.memory_bytes) == (1.5, 2**28)
    assert found.cpus == len(os.sched_getaffinity(0))


def test_the_strictest_limit_of_a_cgroup_and_those_above_it_counts(tmp_path: Path) -> None:
    files = {
        "cpu.max": "max 100000",
        "a/cpu.max": "200000 50000",
        "a/b/cpu.max": "50000 100000",
        "a/memory.max": "1000",
        "a/b/memory.max": "max",
        "c/cpu.max": "10000 100000",
    }
    found = cgroups(tmp_path, files, "1:name=systemd:/c\n0::/a/b\n")
    assert (found.cpu_quota, found.memory_bytes) == (0.5, 1000)


def test_version_1_has_a_mount_for_each_controller(tmp_path: Path) -> None:
    files = {
        "cpu/x/cpu.cfs_quota_us": "25000",
        "cpu/x/cpu.cfs_period_us": "100000",
        "cpu/cpu.cfs_quota_us": "-1",
        "cpu/cpu.cfs_period_us": "100000",
        "memory/memory.limit_in_bytes": "9223372036854771712",
        "memory/y/memory.limit_in_bytes": "2000",
    }
    found = cgroups(tmp_path, files, "4:memory:/y\n3:cpu,cpuacct:/x\n")
    assert (found.cpu_quota, found.memory_bytes) == (0.25, 2000)


def test_a_container_of_version_1_sees_its_limits_at_the_mount(tmp_path: Path) -> None:
    """Its path is that of the host, where it sees no such folder."""
    files = {
        "cpu/cpu.cfs_quota_us": "100000",
        "cpu/cpu.cfs_period_us": "100000",
        "memory/memory.limit_in_bytes": "268435456",
    }
    own = "2:memory:/libpod_parent/abc\n1:cpu:/libpod_parent/abc\n"
    found = cgroups(tmp_path, files, own)
    assert (found.cpu_quota, found.memory_bytes) == (1, 2**28)


@pytest.mark.parametrize(
    ("files", "own"),
    [
        ({}, ""),
        ({"cpu.max": "max 100000", "memory.max": "max"}, "0::/\n"),
        ({"cpu.max": "5 100000"}, "1:cpu:/\n"),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, "1:cpu:/\n"),
        ({"memory/memory.limit_in_bytes": "9223372036854771712"}, "1:memory:/\n"),
    ],
)
def test_without_a_limit_all_may_be_used(tmp_path: Path, files: dict[str, str], own: str) -> None:
    found = cgroups(tmp_path, files, own)
    assert (found.cpu_quota, found.memory_bytes) == (None, None)


def test_this_machine_can_be_read() -> None:
    found = available()
    assert found.workers >= 1
    total = re.search(r"MemTotal: +(\d+) kB", Path("/proc/meminfo").read_text())
    assert total is not None
    assert found.physical_bytes == int(total[1]) * 1024


WORKER = BYTES_OF_A_WORKER


@pytest.mark.parametrize(
    ("resources", "workers", "threads_of_one", "threads_of_each"),
    [
        (Resources(8, None, None), 8, 8, 1),
        (Resources(8, 2.0, None), 2, 2, 1),
        (Resources(8, 2.5, None), 2, 3, 1),  # a third worker would wait for the quota
        (Resources(2, 16.0, None), 2, 2, 1),
        (Resources(8, 0.1, None), 1, 1, 1),
        (Resources(8, None, 3 * WORKER), 3, 8, 2),
        (Resources(8, 4.0, 2 * WORKER - 1), 1, 4, 4),
        (Resources(4, 2.0, 1), 1, 2, 2),
        (Resources(16, None, None, 2 * WORKER), 2, 16, 8),
        (Resources(16, None, 3 * WORKER, 2 * WORKER), 2, 16, 8),
        (Resources(384, None, None), 256, 384, 1),
    ],
)
def test_each_worker_has_a_whole_cpu_and_its_memory(
    resources: Resources, workers: int, threads_of_one: int, threads_of_each: int
) -> None:
    assert resources.workers == workers
    assert resources.threads(1) == threads_of_one
    assert resources.threads(workers) == threads_of_each


def test_it_can_be_read_in_the_log() -> None:
    assert str(Resources(8, 1.5, 2**28)) == (
        "8 CPUs with a quota of 1.5, memory with a limit of 256 MiB"
    )
    assert str(Resources(2, None, None)) == "2 CPUs with no quota, memory with no limit"
