import gzip
import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from training.data import File, read
from training.errors import DataUnavailable, InvalidData

CONTENT = b"thirty-two grey values or so"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
PLAIN = File(path="toy/values.bin", sha256=SHA256, urls=("https://one/v", "https://two/v"))
COMPRESSED = File(path="toy/values.gz", sha256=SHA256, urls=("https://one/v.gz",))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data folder."""
    monkeypatch.setenv("TORCHLIT_DATA_DIR", str(tmp_path))
    (tmp_path / "toy").mkdir()
    return tmp_path


def test_file_is_read_from_the_folder_of_the_setting(folder: Path) -> None:
    (folder / PLAIN.path).write_bytes(CONTENT)
    assert read(PLAIN) == CONTENT


def test_data_is_the_folder_without_the_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TORCHLIT_DATA_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/toy").mkdir(parents=True)
    (tmp_path / "data" / PLAIN.path).write_bytes(CONTENT)
    assert read(PLAIN) == CONTENT


@pytest.mark.parametrize("level", [0, 9])
def test_digest_is_of_the_decompressed_content(folder: Path, level: int) -> None:
    (folder / COMPRESSED.path).write_bytes(gzip.compress(CONTENT, level))
    assert read(COMPRESSED) == CONTENT


def test_wrong_digest_is_named_with_both_digests(folder: Path) -> None:
    (folder / PLAIN.path).write_bytes(b"other")
    other = hashlib.sha256(b"other").hexdigest()
    with pytest.raises(InvalidData) as caught:
        read(PLAIN)
    assert str(caught.value) == (
        f"{folder / PLAIN.path}: expected content with SHA-256 {SHA256}, got {other}"
    )


@pytest.mark.parametrize(
    ("damage", "got"),
    [
        (lambda compressed: compressed[:-9], "ended before"),
        (lambda compressed: b"not gzip", "Not a gzipped file"),
        (lambda compressed: compressed[:10] + b"\xff\xff" + compressed[12:], "invalid block type"),
    ],
    ids=["truncated", "not gzip", "damaged"],
)
def test_bad_gzip_is_named(folder: Path, damage: Callable[[bytes], bytes], got: str) -> None:
    (folder / COMPRESSED.path).write_bytes(damage(gzip.compress(CONTENT)))
    with pytest.raises(InvalidData, match=rf"values\.gz: expected a complete gzip file: .*{got}"):
        read(COMPRESSED)


def test_unreadable_file_is_named(folder: Path) -> None:
    (folder / PLAIN.path).mkdir()
    with pytest.raises(DataUnavailable, match=r"values\.bin: cannot be read: Is a directory"):
        read(PLAIN)


def test_missing_file_is_downloaded_and_verified(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(file: File, path: Path) -> None:
        path.write_bytes(CONTENT)

    monkeypatch.setattr("training.download.download", download)
    assert read(PLAIN) == CONTENT
    assert (folder / PLAIN.path).read_bytes() == CONTENT


@pytest.mark.slow
def test_neither_a_file_that_is_there_nor_the_training_loop_needs_httpx(folder: Path) -> None:
    (folder / PLAIN.path).write_bytes(CONTENT)
    code = f"""
import sys
import training.loop, training.rows
from training.data import File, read
read(File(path={PLAIN.path!r}, sha256={SHA256!r}, urls=()))
print({{"httpx", "sklearn", "matplotlib", "onnx", "onnxruntime"}} & sys.modules.keys())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
