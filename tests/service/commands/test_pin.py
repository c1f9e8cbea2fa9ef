"""`python -m service pin`: which files are approved; coreutils' sha256sum is the oracle."""

import os
import shutil
import subprocess
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from service.__main__ import main
from service.commands.pin import pin
from service.errors import CannotPin, InvalidPins, NotFound, NotWritten
from service.settings import Settings
from tests.support.foreign_models import linear, outside, save
from tests.support.toys import save_toy

TOY, LINEAR, WEIGHTS = "toy/1/model.onnx", "linear/1/model.onnx", "linear/1/w.bin"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A models folder with two versions of toy, and linear, whose weights are outside."""
    folder = tmp_path / "models"
    for version in (1, 2):
        save_toy(folder, version)
    save(folder, "linear", outside(linear(), folder / "linear/1", w="./w.bin"))
    return folder


def settings(folder: Path, **changes: Any) -> Settings:
    return Settings(models_dir=folder, **changes)


def listed(path: Path) -> list[str]:
    return [line.split("  ", 1)[1] for line in path.read_text().splitlines()]


def as_sha256sum_says(folder: Path) -> bool:
    command = ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"]
    return not subprocess.run(command, cwd=folder, capture_output=True).returncode


def test_all_models_and_their_weights_are_listed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCHLIT_MODELS_DIR", str(folder))
    assert main(["pin"]) == 0
    sums = folder / "SHA256SUMS"
    assert listed(sums) == [LINEAR, WEIGHTS, TOY, "toy/2/model.onnx"]
    assert as_sha256sum_says(folder)
    digest = sha256((folder / TOY).read_bytes()).hexdigest()
    assert f"{TOY}: sha256 {digest}, new\n" in capfd.readouterr().out
    before = sums.read_bytes()
    assert main(["pin", "--check"]) == 0
    assert capfd.readouterr().out == "4 files are as SHA256SUMS says\n"
    assert main(["pin"]) == 0
    assert capfd.readouterr().out.count("as before") == 4
    assert sums.read_bytes() == before


def test_named_models_alone_are_listed_and_other_lines_stay(folder: Path) -> None:
    sums = folder / "SHA256SUMS"
    comment, other = "# approved by Ada", f"{'0' * 64} *elsewhere/notes.txt"
    sums.write_text(f"{comment}\n{other}\n")
    pin(["toy/2"], settings(folder), only_check=False)
    pin(["linear"], settings(folder), only_check=False)
    assert sums.read_text().startswith(f"{comment}\n{other}\n")
    assert [line[66:] for line in sums.read_text().splitlines()[2:]] == [
        "toy/2/model.onnx",
        LINEAR,
        WEIGHTS,
    ]


def test_what_differs_is_told_and_nothing_is_written(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pin([], settings(folder), only_check=False)
    before = (folder / "SHA256SUMS").read_bytes()
    (folder / WEIGHTS).write_bytes(b"other" * 20)
    (folder / "toy/2/model.onnx").unlink()
    save_toy(folder, 3)
    capfd.readouterr()
    assert pin([], settings(folder), only_check=True) == 1
    out = capfd.readouterr().out.splitlines()
    assert len(out) == 3
    assert out[0].startswith(f"{WEIGHTS}: expected sha256 ")
    assert out[0].endswith(sha256(b"other" * 20).hexdigest())
    assert out[1].startswith("toy/3/model.onnx: not listed, sha256 ")
    assert out[2] == "toy/2/model.onnx: listed, and not there"
    assert (folder / "SHA256SUMS").read_bytes() == before
    assert pin(["toy/1"], settings(folder), only_check=True) == 0
    pin([], settings(folder), only_check=False)
    assert as_sha256sum_says(folder)


def test_a_file_elsewhere_is_written_and_checked(folder: Path, tmp_path: Path) -> None:
    chosen = settings(folder, pins_file=tmp_path / "approved", pins="required")
    assert pin([], chosen, only_check=True) == 1  # nothing is approved yet
    assert pin([], chosen, only_check=False) == 0
    assert pin([], chosen, only_check=True) == 0
    assert listed(tmp_path / "approved")[0] == LINEAR
    assert not (folder / "SHA256SUMS").exists()


def test_what_is_no_model_is_not_approved(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    with pytest.raises(CannotPin, match=r"^linear/1: its weights are in '\./w\.bin': no such file"):
        pin([], settings(folder), only_check=False)
    (folder / LINEAR).write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(CannotPin, match=r"^linear/1: expected an ONNX file, got a pointer of Git"):
        pin(["linear"], settings(folder), only_check=False)
    with pytest.raises(CannotPin, match=r"expected a model of .*, got a path"):
        pin([str(folder / TOY)], settings(folder), only_check=False)
    with pytest.raises(NotFound, match="did you mean toy"):
        pin(["toi"], settings(folder), only_check=False)
    assert not (folder / "SHA256SUMS").exists()


def test_a_file_that_is_no_list_or_cannot_be_written_stays(folder: Path, tmp_path: Path) -> None:
    (folder / "SHA256SUMS").write_text("mine\n")
    with pytest.raises(InvalidPins, match=r"SHA256SUMS: line 1: expected 64"):
        pin([], settings(folder), only_check=False)
    assert (folder / "SHA256SUMS").read_text() == "mine\n"
    nowhere = settings(folder, pins_file=tmp_path / "no/such/file")
    with pytest.raises(NotWritten, match=r"no/such/file: cannot be written: No such file"):
        pin([], nowhere, only_check=False)


def test_all_that_is_broken_is_told_and_hides_nothing(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pin([], settings(folder), only_check=False)
    capfd.readouterr()
    (folder / "linear/2").mkdir()
    (folder / "linear/3").mkdir()
    os.mkfifo(folder / "linear/3/model.onnx")  # opening it would wait for ever
    (folder / "linear/4").mkdir()
    (folder / "linear/4/model.onnx").symlink_to("model.onnx")
    (folder / "empty").mkdir()
    (folder / WEIGHTS).unlink()
    os.mkfifo(folder / WEIGHTS)
    save_toy(folder, 3)
    (folder / "toy/2/model.onnx").write_text("no model")
    assert pin([], settings(folder), only_check=True) == 1
    out = sorted(capfd.readouterr().out.splitlines())
    expected = [
        "empty: expected a version folder such as empty/1/model.onnx, got none",
        "linear/1/w.bin: cannot be read: not a file",
        "linear/1: its weights are in './w.bin': not a file",
        "linear/2: cannot be read: No such file or directory",
        "linear/3: cannot be read: not a file",
        "linear/4: cannot be read: Too many levels of symbolic links",
        "toy/2/model.onnx: expected sha256",
        "toy/2: not a model that ONNX Runtime can open",
        "toy/3/model.onnx: not listed",
    ]
    assert all(line.startswith(each) for line, each in zip(out, expected, strict=True))
    before = (folder / "SHA256SUMS").read_bytes()
    with pytest.raises(
        CannotPin, match=r"^empty: .*; linear/1: .*; linear/3: .*; toy/2: not a mod"
    ):
        pin([], settings(folder), only_check=False)
    assert (folder / "SHA256SUMS").read_bytes() == before
    assert pin(["toy/1"], settings(folder), only_check=True) == 0
    assert capfd.readouterr().out == "1 file is as SHA256SUMS says\n"


@pytest.mark.parametrize("name", ["notes.txt", "toy/old/notes.txt", ".hidden/model.onnx"])
def test_other_lines_are_checked_too_as_sha256sum_does(
    folder: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    pin([], settings(folder), only_check=False)
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("one")
    with (folder / "SHA256SUMS").open("a") as file:
        file.write(f"{sha256(b'one').hexdigest()}  {name}\n")

    def says() -> str:
        capfd.readouterr()
        is_right = pin([], settings(folder), only_check=True) == 0
        assert is_right == as_sha256sum_says(folder)
        return capfd.readouterr().out

    assert says() == "5 files are as SHA256SUMS says\n"
    path.write_text("two")
    assert says().startswith(f"{name}: expected sha256 ")
    assert pin(["toy"], settings(folder), only_check=True) == name.startswith("toy/")
    path.unlink()
    assert says() == f"{name}: listed, and not there\n"


def test_all_versions_of_a_model_are_also_those_that_are_gone(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pin([], settings(folder), only_check=False)
    shutil.rmtree(folder / "toy/2")
    capfd.readouterr()
    assert pin(["toy"], settings(folder), only_check=True) == 1
    assert capfd.readouterr().out == "toy/2/model.onnx: listed, and not there\n"
    pin(["toy"], settings(folder), only_check=False)
    assert listed(folder / "SHA256SUMS") == [LINEAR, WEIGHTS, TOY]


def test_help_has_the_name_of_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["pin", "--help"])
    assert "list their digests in SHA256SUMS." in capsys.readouterr().out


def test_our_own_models_are_as_they_were_approved() -> None:
    """Training gives equal bytes, and lists them."""
    root = Path(__file__).parents[3]
    models = sorted(path for path in (root / "models").glob("*/*/model.onnx"))
    assert listed(root / "models/SHA256SUMS") == [
        str(path.relative_to(root / "models")) for path in models
    ]
    assert pin([], settings(root / "models", pins="required"), only_check=True) == 0
