import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from service.catalog import beside
from service.catalog.folder import (
    LEFT_OUT,
    NO_FOLDER,
    Found,
    check_readable,
    files_of,
    fingerprint,
    scan,
)
from service.errors import ModelError, OutOfResources, StartupError
from service.settings.versions import Versions
from tests.support.foreign_models import linear, outside, save
from tests.support.toys import save_toy

ALL = Versions()
NANOSECONDS = 1732700000123456789


def test_a_folder_of_models_is_names_and_versions(models_dir: Path) -> None:
    for version in (12, 1732700000, NANOSECONDS, 2**63 - 1):  # also as Unix time
        save_toy(models_dir, version)
    found = scan(models_dir, ALL).models
    assert list(found) == ["mean", "toy"]
    numbers = (1, 12, 1732700000, NANOSECONDS, 2**63 - 1)
    assert found["toy"] == Found(
        {number: fingerprint(models_dir / f"toy/{number}") for number in numbers}
    )
    assert list(found["toy"].versions or ()) == list(numbers)


def test_hidden_folders_and_files_are_not_models(models_dir: Path) -> None:
    (models_dir / ".git").mkdir()
    (models_dir / "README.md").write_text("about")
    (models_dir / "toy/.cache").mkdir()
    (models_dir / "toy/notes.txt").write_text("about")
    contents = scan(models_dir, ALL)
    assert list(contents.models) == ["mean", "toy"]
    assert contents.models["toy"].others == contents.others == []


def test_folders_that_are_no_version_are_named(models_dir: Path) -> None:
    for name in ("001", "0", "latest", str(2**63)):
        (models_dir / "toy" / name).mkdir()
    contents = scan(models_dir, ALL)
    expected = "is no version: expected a whole number from 1 to 9223372036854775807"
    assert sorted(contents.warnings()) == [
        f"model toy: '0' {expected}",
        f"model toy: '001' {expected}, without zeros in front",
        f"model toy: '9223372036854775808' {expected}",
        f"model toy: 'latest' {expected}",
    ]
    assert list(contents.models["toy"].versions or ()) == [1]


def test_why_a_folder_holds_no_version_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "zeros/001").mkdir(parents=True)
    (tmp_path / "bad name/1").mkdir(parents=True)
    os.makedirs(os.fsencode(tmp_path) + b"/b\xffd/1")
    found = scan(tmp_path, ALL).models
    assert {name: each.reason for name, each in found.items()} == {
        "empty": "empty: expected a version folder such as empty/1/model.onnx, got none",
        "zeros": (
            "zeros: expected a version folder such as zeros/1/model.onnx, got none; '001' is no "
            "version: expected a whole number from 1 to 9223372036854775807, without zeros in front"
        ),
        "bad name": "'bad name': expected a name of letters, digits, . _ -",
        "b\\xffd": "'b\\\\xffd': expected a name of letters, digits, . _ -",
    }
    assert all(each.versions == {} for each in found.values())


def put(folder: Path, *files: str) -> None:
    """Make a folder with these files in it; folders end with a slash."""
    folder.mkdir(parents=True)
    for file in files:
        path = folder / file
        (path if file.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if not file.endswith("/"):
            path.write_text("")


# What volumes, archives and other programs have there, and what somebody may have put there in
# the hope that it is served.
NO_MODELS = {
    "lost+found": ["#12/"],
    "__MACOSX": ["._iris", "iris/1/._model.onnx", "1/._model.onnx"],
    "@eaDir": ["model.onnx@SynoEAStream"],
    "System Volume Information": ["1/"],
    "code": ["inference.py", "requirements.txt"],
    "tmp": [],
    "Temp": ["upload/iris/1/model.onnx", "model.onnx.part"],
    "logs": ["2024/app.log"],
    "bad name": [],
    "notebooks": ["model.ipynb", ".ipynb_checkpoints/", "figures/roc.png"],
    "about": ["README.md"],
    "_drafts": ["iris.txt"],
}
MEANT = {
    "empty": [],
    "hidden": [".DS_Store"],
    "flat": ["model.onnx"],
    "pickled": ["model.pkl"],
    "triton": ["config.pbtxt"],
    "zeros": ["001/"],
    "named": ["v1/"],
    "staged": ["production/model.onnx"],
    "2024": ["1/"],
    "begun": ["1/"],
    "code": ["1/model.onnx"],
    "bad name": ["1/model.onnx"],
    "modèle": ["model.onnx"],
}


@pytest.mark.parametrize("name", NO_MODELS)
def test_a_folder_that_can_be_no_model_is_passed_over(models_dir: Path, name: str) -> None:
    put(models_dir / name, *NO_MODELS[name])
    contents = scan(models_dir, ALL)
    assert list(contents.models) == ["mean", "toy"]
    assert list(contents.warnings()) == [
        f"folder {name!r} is passed over: it is no model with a version such as 1/model.onnx"
    ]


@pytest.mark.parametrize("name", MEANT)
def test_a_folder_that_may_be_meant_as_a_model_is_not(tmp_path: Path, name: str) -> None:
    put(tmp_path / name, *MEANT[name])
    assert list(scan(tmp_path, ALL).models) == [name]


def test_a_folder_of_which_the_settings_say_a_version_is_a_model(models_dir: Path) -> None:
    put(models_dir / "code", "inference.py")
    assert list(scan(models_dir, Versions("all code=1")).models) == ["code", "mean", "toy"]
    assert scan(models_dir, Versions("1")).others == ["code"]  # said of all models


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_what_can_be_no_model_need_not_be_readable(models_dir: Path) -> None:
    for name in ("lost+found", "tmp", "bad name", "iris"):
        put(models_dir / name)
        (models_dir / name).chmod(0)
    contents = scan(models_dir, ALL)
    assert contents.others == ["bad name", "lost+found", "tmp"]
    assert contents.models["iris"].reason == "iris: cannot be read: Permission denied"


def test_links_that_lead_nowhere_make_no_model(models_dir: Path) -> None:
    put(models_dir / "links")
    for name, target in (("round", "round"), ("gone", "nowhere"), ("deep", "round/x")):
        (models_dir / "links" / name).symlink_to(target)
    assert scan(models_dir, ALL).others == ["links"]


def test_a_folder_of_many_files_is_not_read_to_its_end(
    models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beside, "_MOST", 2)
    put(models_dir / "many", *(f"{each}.txt" for each in range(5)))
    assert scan(models_dir, ALL).others == ["many"]


def test_versions_that_are_not_chosen_are_left_out_and_listed_ones_may_be_missing(
    models_dir: Path,
) -> None:
    save_toy(models_dir, 2)
    found = scan(models_dir, Versions("latest toy=2,3")).models["toy"].versions
    assert found == {1: LEFT_OUT, 2: fingerprint(models_dir / "toy/2"), 3: NO_FOLDER}


def test_no_folder_or_an_empty_one_is_told(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"^TORCHLIT_MODELS_DIR: .*No such file"):
        scan(tmp_path / "absent", ALL)
    with pytest.raises(StartupError, match="DIR: expected folders <name>/<version>"):
        scan(tmp_path, ALL)
    (tmp_path / "lost+found").mkdir()
    with pytest.raises(StartupError, match=r"got none in .* beside lost\+found$"):
        scan(tmp_path, ALL)
    (tmp_path / "file").write_text("")
    with pytest.raises(StartupError, match=r"^TORCHLIT_MODELS_DIR: .*Not a directory"):
        scan(tmp_path / "file", ALL)


def test_a_file_that_was_replaced_by_one_of_the_same_size_and_time_has_changed(
    models_dir: Path,
) -> None:
    folder = models_dir / "toy/1"
    path = folder / "model.onnx"
    before = fingerprint(folder)
    assert fingerprint(folder) == before
    (folder / "loss.png").write_bytes(b"x")  # none of its files
    assert fingerprint(folder) == before
    status, content = path.stat(), path.read_bytes()
    path.write_bytes(bytes(reversed(content)))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert fingerprint(folder) != before
    assert fingerprint(models_dir / "absent/1") == NO_FOLDER


def test_of_files_beside_the_model_only_those_that_the_graph_names_are_followed(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "linear" / "1"
    save(tmp_path, "linear", outside(linear(), folder, w="w.bin"))
    before = fingerprint(folder)
    assert [each[0] for each in before] == ["model.onnx", "w.bin"]
    (folder / "model.onnx.bak").write_bytes(b"a copy")
    assert fingerprint(folder) == before
    (folder / "w.bin").write_bytes(b"other")
    assert fingerprint(folder) != before


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_an_unreadable_file_is_told(models_dir: Path) -> None:
    path = models_dir / "toy/1/model.onnx"
    path.chmod(0)
    with pytest.raises(ModelError, match=r"^model.onnx: cannot be read: Permission denied$"):
        check_readable(path)


def test_a_file_that_leads_nowhere_is_told(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.symlink_to(path)
    with pytest.raises(ModelError, match=r"cannot be read: Too many levels of symbolic links$"):
        check_readable(path)
    assert fingerprint(tmp_path) != NO_FOLDER


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_what_is_no_file_is_told(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "model.onnx"
    make(path)
    with pytest.raises(ModelError, match=r"^model.onnx: cannot be read: not a file$"):
        check_readable(path)


def test_a_version_without_a_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"^no such folder$"):
        check_readable(tmp_path / "1/model.onnx")
    with pytest.raises(ModelError, match=r"^model.onnx: cannot be read: No such file"):
        check_readable(tmp_path / "model.onnx")


def test_files_that_cannot_be_read_now_are_not_forgotten(
    models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The names of the files with weights are remembered, but not that there were none to read."""
    path = models_dir / "split/1/model.onnx"
    path.parent.mkdir(parents=True)
    save(models_dir, "split", outside(linear(), path.parent, w="w.bin"))
    opened = Path.open

    def fail(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(Path, "open", fail)
    without = fingerprint(path.parent)
    with pytest.raises(OutOfResources, match=r"^model\.onnx: cannot be read: Too many open files$"):
        check_readable(path)
    monkeypatch.setattr(Path, "open", opened)
    files = fingerprint(path.parent)
    assert files != without
    assert list(files_of("split/1", files)) == ["split/1/model.onnx", "split/1/w.bin"]
    assert list(files_of("split/1", NO_FOLDER)) == []
