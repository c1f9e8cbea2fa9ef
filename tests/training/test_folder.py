"""Where a training saves: it is checked before, and two trainings do not mix their files."""

import threading
from pathlib import Path

import pytest

from service.checksums import alone_in
from training import __main__ as command
from training.errors import NotSaved
from training.folder import check_can_save


def test_a_folder_that_can_be_written_is_left_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "models/clouds/1"
    check_can_save(folder)
    assert not list(tmp_path.iterdir())
    folder.mkdir(parents=True)
    check_can_save(folder)
    assert not list(folder.iterdir())


@pytest.mark.parametrize("file", ["models", "models/clouds", "models/clouds/1"])
def test_one_that_cannot_is_told(tmp_path: Path, file: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("no folder")
    with pytest.raises(NotSaved, match=r"models/clouds/1: cannot be written: "):
        check_can_save(tmp_path / "models/clouds/1")


def test_a_list_of_digests_that_is_none_is_told_before(tmp_path: Path) -> None:
    (tmp_path / "SHA256SUMS").write_text("mine\n")
    with pytest.raises(NotSaved, match=r"/SHA256SUMS: line 1: expected 64 hexadecimal digits"):
        check_can_save(tmp_path / "clouds/1")


def test_nothing_is_trained_for_a_folder_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "xor").write_text("no folder")
    monkeypatch.setattr("training.recipe.train", None)
    assert command.main(["xor", "--models-dir", str(tmp_path)]) == 1
    assert "xor/1: cannot be written: " in capsys.readouterr().err


def test_a_second_training_waits_for_the_first_to_put_its_files(tmp_path: Path) -> None:
    order: list[str] = []

    def second() -> None:
        with alone_in(tmp_path):
            order.append("second")

    thread = threading.Thread(target=second)
    with alone_in(tmp_path):
        thread.start()
        thread.join(0.1)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]
