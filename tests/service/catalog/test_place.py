import os
from hashlib import sha256
from pathlib import Path

import onnx
import pytest

from service.catalog.place import File, Place, files_of, find, sentence
from service.errors import ModelError, NotFound, StartupError
from service.settings import Settings
from service.settings.versions import Versions
from tests.support.toys import save_toy

WHOLE_NUMBER = "version: expected a whole number from 1 to 9223372036854775807"


def test_a_model_is_a_name_a_version_of_it_or_a_path(models_dir: Path) -> None:
    for version in (2, 1732700000):
        save_toy(models_dir, version)
    settings = Settings(models_dir=models_dir)
    for model, version in (("toy", 1732700000), ("toy/2", 2), ("toy/1732700000/", 1732700000)):
        path = models_dir / f"toy/{version}/model.onnx"
        assert find(model, settings) == Place(f"toy/{version}", path, "toy")
    assert find("no/such.onnx", settings) == Place("no/such.onnx", Path("no/such.onnx"))


def test_the_highest_version_is_none_that_is_left_out(models_dir: Path) -> None:
    save_toy(models_dir, 2)
    settings = Settings(models_dir=models_dir, versions=Versions("1"))
    assert find("toy", settings).name == "toy/1"
    assert find("toy/2", settings).name == "toy/2"  # who names it may have it


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ("toi", "nor a file that ends in .onnx; did you mean toy?"),
        ("x", "nor a file that ends in .onnx; expected mean, toy"),
        ("toy/3", "toy/3: version: expected one of 1; got '3'"),
        ("toy/001", f"{WHOLE_NUMBER}, without zeros in front, got '001'"),
        ("toy/x/y", f"{WHOLE_NUMBER}, got 'x/y'"),
    ],
)
def test_what_is_not_there_is_told(models_dir: Path, model: str, sentence: str) -> None:
    with pytest.raises(NotFound) as raised:
        find(model, Settings(models_dir=models_dir))
    assert str(raised.value).startswith(f"{model}: ")
    assert str(raised.value).endswith(sentence)


def test_without_a_models_folder_only_a_path_can_be_found(tmp_path: Path) -> None:
    settings = Settings(models_dir=tmp_path / "absent")
    with pytest.raises(StartupError, match=r"^TORCHLIT_MODELS_DIR: .*absent: expected a folder"):
        find("toy", settings)
    assert find("toy.onnx", settings).path == Path("toy.onnx")


def test_a_folder_that_holds_no_version_is_told_with_the_reason(tmp_path: Path) -> None:
    settings = Settings(models_dir=tmp_path)
    (tmp_path / "toy").mkdir()
    for model in ("toy", "toy/1"):
        with pytest.raises(NotFound, match="toy: expected a version folder such as toy/1/"):
            find(model, settings)
    if os.getuid():  # root may read all
        (tmp_path / "toy").chmod(0)
        with pytest.raises(NotFound, match="toy: cannot be read: Permission denied"):
            find("toy/1", settings)


def as_said(path: Path, name: str) -> File:
    content = (path.parent / name).read_bytes()
    return File(name, len(content), sha256(content).hexdigest())


@pytest.mark.parametrize("location", ["model.onnx.data", "weights.bin", "sub/weights.bin"])
def test_weights_outside_the_model_are_files_of_it(tmp_path: Path, location: str) -> None:
    path = save_toy(tmp_path)
    model = onnx.load(path)
    (path.parent / location).parent.mkdir(exist_ok=True)
    onnx.save(model, path, save_as_external_data=True, location=location, size_threshold=0)
    for beside in ("notes.txt", "model.onnx.old"):
        (path.parent / beside).write_text("of no model")
    assert files_of(path) == [as_said(path, "model.onnx"), as_said(path, location)]
    (path.parent / location).unlink()
    assert files_of(path) == [as_said(path, "model.onnx")]


def test_a_name_of_any_letters_is_a_name(tmp_path: Path) -> None:
    path = save_toy(tmp_path).rename(tmp_path / "[a]*.onnx")
    assert files_of(path) == [as_said(path, "[a]*.onnx")]


def test_a_file_that_cannot_be_read_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_toy(tmp_path)

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")  # root may read all

    monkeypatch.setattr("os.open", refuse)
    with pytest.raises(ModelError, match=r"^model\.onnx: cannot be read: Permission denied$"):
        files_of(path)


def test_why_a_file_cannot_be_served_is_one_line_with_what_onnx_runtime_said() -> None:
    place = Place("toy/1", Path("models/toy/1/model.onnx"), "toy")
    error = ModelError("model.onnx: cannot  be\nopened")
    assert sentence(place, error) == "toy/1: cannot be opened"
    error.__cause__ = RuntimeError("a\n  node is missing")
    assert sentence(place, error) == "toy/1: cannot be opened (a node is missing)"
    told = ModelError("model.onnx: a node is missing")
    told.__cause__ = RuntimeError("a node is missing")
    assert sentence(place, told) == "toy/1: a node is missing"  # said once
