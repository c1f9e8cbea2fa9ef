"""The folder of the shared counters: none is left behind, and none that is used is taken away."""

import errno
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


def test_a_folder_that_is_named_has_one_of_each_service_and_stays(tmp_path: Path) -> None:
    (tmp_path / "worker-7.cells").touch()  # of a service before folders of their own
    (tmp_path / "notes").touch()
    settings = Settings(metrics_dir=tmp_path)
    with metrics_folder(settings) as one, metrics_folder(settings) as other:
        assert one != other
        assert one.parent == other.parent == tmp_path
        assert [each.name for each in one.iterdir()] == [LOCK]
    assert sorted(each.name for each in tmp_path.iterdir()) == ["notes", "worker-7.cells"]


def test_what_a_killed_process_left_in_a_folder_that_is_named_goes_too(tmp_path: Path) -> None:
    abandoned = left(tmp_path, "old")
    with metrics_folder(Settings(metrics_dir=tmp_path)):
        assert not abandoned.exists()


def test_a_folder_that_is_not_there_is_made(tmp_path: Path) -> None:
    with metrics_folder(Settings(metrics_dir=tmp_path / "not/yet")) as path:
        assert path.parent == tmp_path / "not/yet"


def test_a_full_disk_does_not_stop_the_start(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, *_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", full)
        service = metrics_folder(Settings())
        path = service.__enter__()
    assert not path.exists()
    path.mkdir()  # as a worker does once there is a place
    service.__exit__(None, None, None)
    assert not path.exists()
