"""The folder of the shared counters: none is left behind, and none that is used is taken away."""

import os
import time
from pathlib import Path

import pytest

from service.process import folder
from service.process.folder import LOCK, PREFIX, metrics_folder
from service.settings import Settings


@pytest.fixture
def parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary folders."""
    monkeypatch.setattr(folder.machine, "temporary_folder", lambda: str(tmp_path))
    return tmp_path


def left(parent: Path, name: str, age_s: float = 100.0) -> Path:
    """Leave a folder behind, as a process that was killed does."""
    path = parent / f"{PREFIX}{name}"
    path.mkdir()
    (path / "worker-0.cells").write_bytes(b"1")
    (path / LOCK).touch()
    os.utime(path / LOCK, (time.time() - age_s,) * 2)
    return path


def test_a_temporary_folder_goes_at_the_end(parent: Path) -> None:
    with metrics_folder(Settings()) as path:
        assert path.parent == parent
        (path / "worker-0.cells").touch()
    assert not path.exists()


def test_what_a_killed_process_left_goes_at_the_next_start(parent: Path) -> None:
    abandoned, young = left(parent, "old"), left(parent, "young", 1.0)
    other = parent / f"{PREFIX}other"
    other.mkdir()  # without a lock it is nobody's we know
    with metrics_folder(Settings()):
        assert not abandoned.exists()
        assert young.exists()
        assert other.exists()


def test_a_folder_that_is_used_stays(parent: Path) -> None:
    with metrics_folder(Settings()) as used:
        os.utime(used / LOCK, (time.time() - 100.0,) * 2)
        with metrics_folder(Settings()) as other:
            assert used != other
            assert used.exists()


def test_a_folder_that_is_named_is_emptied_of_counters_and_stays(tmp_path: Path) -> None:
    (tmp_path / "worker-7.cells").touch()
    (tmp_path / "notes").touch()
    with metrics_folder(Settings(metrics_dir=tmp_path)) as path:
        assert [each.name for each in path.iterdir()] == ["notes"]
    assert tmp_path.exists()
