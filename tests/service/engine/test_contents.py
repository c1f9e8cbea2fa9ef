"""What is read of a model is checked, and what is checked is opened."""

import os
import sys
from collections import Counter
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.engine import contents
from service.engine.contents import File, Pins, read_contents, read_weights
from service.engine.model import Model
from service.errors import ModelError, NotApproved
from tests.support.foreign_models import linear, outside, save, weights

ROWS = weights(5, 4)


def digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A model with weights in two files, linear/1."""
    folder = tmp_path / "linear" / "1"
    return save(tmp_path, "linear", outside(linear(), folder, w="weights.bin", b="deep/er/b"))


def pins(path: Path, *, are_required: bool = False) -> Pins:
    """Pins of a model and its weights as they are now."""
    names = ("model.onnx", "weights.bin", "deep/er/b")
    digests = {name: digest(path.parent / name) for name in names}
    return Pins(digests, "linear/1", "SHA256SUMS", are_required)


def change(path: Path) -> None:
    """Change the last byte of a file."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_a_model_is_read_with_its_weights_and_their_digests(path: Path) -> None:
    found = read_contents(path)
    assert found.own == path.read_bytes()
    assert found.weights["weights.bin"] == weights(4, 3).tobytes()
    names = ("model.onnx", "weights.bin", "deep/er/b")
    assert found.files == [
        File(name, (path.parent / name).stat().st_size, digest(path.parent / name))
        for name in names
    ]
    assert Model.open(path, pins=pins(path, are_required=True)).files == found.files


@pytest.mark.parametrize(
    ("name", "where"),
    [("model.onnx", "model.onnx: "), ("deep/er/b", "model.onnx: its weights in 'deep/er/b': ")],
)
def test_a_changed_byte_is_told_with_both_digests(path: Path, name: str, where: str) -> None:
    approved = pins(path)
    expected = digest(path.parent / name)
    change(path.parent / name)
    got = digest(path.parent / name)
    with pytest.raises(NotApproved) as raised:
        read_contents(path, approved)
    assert str(raised.value) == (
        f"{where}expected sha256 {expected[:16]}... as SHA256SUMS says, got {got[:16]}...: put the "
        "file back that was approved, or approve this one with `python -m service pin linear/1`"
    )


def test_what_is_not_listed_is_refused_where_it_must_be(path: Path) -> None:
    approved = pins(path)
    some = Pins({"model.onnx": approved.digests["model.onnx"]}, "linear/1", "SHA256SUMS")
    read_contents(path, some)
    with pytest.raises(NotApproved, match=r"weights.bin': expected a file that SHA256SUMS lists"):
        read_contents(path, Pins(some.digests, "linear/1", "SHA256SUMS", are_required=True))


def test_nothing_is_made_of_a_file_that_differs(path: Path) -> None:
    """It may be written to hurt who reads it."""
    approved = pins(path)
    path.write_bytes(b"\x1f\x8b of another kind")
    with pytest.raises(NotApproved):
        read_contents(path, approved)


def test_weights_are_found_by_whatever_path_the_model_names_them(tmp_path: Path) -> None:
    folder = tmp_path / "linear" / "1"
    path = save(tmp_path, "linear", outside(linear(), folder, w="./w.bin"))
    approved = {"model.onnx": digest(path), "w.bin": "0" * 64}
    with pytest.raises(NotApproved, match=r"weights in './w.bin': expected sha256 0000"):
        read_contents(path, Pins(approved, "linear/1", "SHA256SUMS"))


def test_files_that_change_once_they_are_read_are_opened_as_they_were(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also by the sessions that are opened later; each file is opened once."""
    approved, expected = pins(path), Model.open(path).run([ROWS])
    opened: Counter[str] = Counter()
    really_opened = Path.open

    def count(self: Path, *arguments: Any, **options: Any) -> Any:
        opened[self.name] += path.parent in self.parents
        return really_opened(self, *arguments, **options)

    def read_then_change(*arguments: Any) -> contents.Contents:
        found = read_contents(*arguments)
        for name in approved.digests:
            with open(path.parent / name, "wb") as file:
                file.write(b"something else")
        return found

    monkeypatch.setattr(Path, "open", count)
    monkeypatch.setattr("service.engine.model.read_contents", read_then_change)
    model = Model.open(path, threads=2, only_slow_in_threads=False, pins=approved)
    np.testing.assert_array_equal(model.run([ROWS]), expected)
    assert model.threads == 2
    assert +opened == {"model.onnx": 1, "weights.bin": 1, "b": 1}


def test_no_bytes_are_kept_once_a_model_is_open(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = read_contents(path)
    held = [found.own, *found.weights.values()]
    before = [sys.getrefcount(each) for each in held]
    monkeypatch.setattr("service.engine.model.read_contents", lambda *_: found)
    model = Model.open(path)
    assert [sys.getrefcount(each) for each in held] == before
    assert len(model.run([ROWS])[0]) == len(ROWS)


def test_a_file_that_grows_is_read_as_far_as_it_went(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path, "linear", linear())
    content = path.read_bytes()
    really = os.fstat

    def grow(descriptor: int) -> os.stat_result:
        status = really(descriptor)
        with path.open("ab") as file:
            file.write(b"more")
        return status

    monkeypatch.setattr(os, "fstat", grow)
    assert read_contents(path).own == content


def test_what_is_too_large_for_protobuf_is_not_read(tmp_path: Path) -> None:
    path = save(tmp_path, "linear", linear())
    with path.open("ab") as file:  # a field of 2 GiB that ONNX does not know, and passes over
        file.write(b"\x82\x7d" + b"\x80\x80\x80\x80\x08")
        file.truncate(file.tell() + 2**31)
    with pytest.raises(ModelError, match=r"^model.onnx: it is larger than 2 GiB"):
        read_contents(path)


@pytest.mark.parametrize("name", ["/etc/hostname", "../up.bin", "a/../../up.bin", "nul\0.bin"])
def test_weights_outside_the_folder_are_not_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / "in" / "model.onnx"
    path.parent.mkdir()
    (tmp_path / "up.bin").write_bytes(b"1234")
    with pytest.raises(ModelError, match="expected a file in the model's folder"):
        list(read_weights(path, {name: 0}))


def test_weights_that_are_missing_or_short_are_named_with_their_folder(path: Path) -> None:
    (path.parent / "weights.bin").write_bytes(b"short")
    with pytest.raises(ModelError, match=r"'weights.bin': expected 48 bytes or more, got 5"):
        read_contents(path)
    (path.parent / "weights.bin").unlink()
    sentence = r"its weights are in 'weights.bin', expected in the folder linear/1: no such file$"
    with pytest.raises(ModelError, match=sentence):
        read_contents(path)


def test_weights_in_a_pipe_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "w.bin")
    with pytest.raises(ModelError, match=r"'w.bin', expected in the folder .*: not a file$"):
        list(read_weights(tmp_path / "model.onnx", {"w.bin": 0}))
