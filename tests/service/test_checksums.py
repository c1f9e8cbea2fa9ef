"""The file of digests; coreutils' own sha256sum is the oracle."""

import contextlib
import os
import posixpath
import subprocess
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.checksums import FILE_NAME, line_of, parsed, update
from service.errors import InvalidPins

A, B = "a" * 64, "B" * 64
NAMES = ["iris/1/model.onnx", "iris/1/we igh  ts", "back\\slash", "new\nline", "re\rturn", "\udcff"]


def sha256sum(folder: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["sha256sum", *arguments], cwd=folder, capture_output=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of files with names of all kinds."""
    for number, name in enumerate(NAMES):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes([number]))
    return tmp_path


def digests(folder: Path) -> dict[str, str]:
    return {name: sha256((folder / name).read_bytes()).hexdigest() for name in NAMES}


@pytest.mark.parametrize("mark", ["--text", "--binary"])
def test_what_sha256sum_writes_is_read(folder: Path, mark: str) -> None:
    written = sha256sum(folder, mark, *(f"./{name}" for name in NAMES)).stdout
    assert parsed(written, "SHA256SUMS") == digests(folder)


def test_sha256sum_checks_what_is_written(folder: Path) -> None:
    path = folder / FILE_NAME
    update(path, digests(folder))
    checked = sha256sum(folder, "--check", "--strict", FILE_NAME)
    assert (checked.returncode, checked.stderr) == (0, b"")
    assert parsed(path.read_bytes(), "") == digests(folder)
    assert path.stat().st_mode & 0o777 == (folder / NAMES[0]).stat().st_mode & 0o777


@given(st.text(min_size=1).filter(lambda name: name.isprintable() or "\n" in name), st.binary())
def test_any_name_is_read_as_it_was_written(name: str, junk: bytes) -> None:
    name = posixpath.normpath(f"d/{name}".replace("..", "").replace(chr(0), ""))
    assert parsed(os.fsencode(line_of(name, A)), "") == {name: A}
    with contextlib.suppress(InvalidPins):  # and nothing else
        parsed(junk, "")


def test_comments_empty_lines_and_ends_of_windows_say_nothing() -> None:
    content = f"# approved by Ada\r\n\r\n{B} *./a/1/model.onnx\r\n{B.lower()}  a/1/model.onnx"
    assert parsed(content.encode(), "") == {"a/1/model.onnx": B.lower()}


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("hello", "expected 64 hexadecimal digits, two blanks (or a blank and *) and a name, "),
        (f"{A} name", "expected 64 hexadecimal digits, two blanks"),
        (f"SHA256 (name) = {A}", "got 'SHA256 (name) = aaaaaaaaaa"),
        (f"{A}  ", "expected 64 hexadecimal digits, two blanks"),
        (f"{A[:40]}  name", "expected the 64 hexadecimal digits of SHA-256, got 40"),
        (f"{A}{A}  name", "expected the 64 hexadecimal digits of SHA-256, got 128"),
        (f"{A}  /etc/passwd", "expected a file in the folder of models, got '/etc/passwd'"),
        (f"{A}  a/../../b", "expected a file in the folder of models, got 'a/../../b'"),
        (f"{A}  a/..", "expected a file in the folder of models, got 'a/..'"),
        (f"\\{A}  a\\b", r"expected a name with \\, \n or \r for what is escaped"),
        (f"{B}  ./x", "x: expected the digest of line 2, got another"),
    ],
)
def test_a_line_that_is_none_is_told_with_its_number(line: str, sentence: str) -> None:
    with pytest.raises(InvalidPins) as raised:
        parsed(f"# first\n{A}  x\n{line}\n".encode(), "SHA256SUMS")
    assert str(raised.value).startswith("SHA256SUMS: line 3: ")
    assert sentence in str(raised.value)


def test_other_lines_stay_and_old_ones_of_the_same_file_go(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    path.write_text(f"# why\n{A} *x\n{A}  ./y\n\n{A}  z\n{A}  z", newline="")
    path.chmod(0o600)
    update(path, {"y": B.lower(), "x": A, "n": A}, gone={"z"})
    assert path.read_text() == f"# why\n{A} *x\n\n{A}  n\n{B.lower()}  y\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == [FILE_NAME]


def test_where_nothing_is_new_nothing_is_written(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    path.write_text(f"{A} *x\n")
    before = path.stat()
    update(path, {"x": A}, gone={"y"})
    assert path.stat() == before


def test_a_file_that_is_none_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    path.write_text("mine\n")
    with pytest.raises(InvalidPins, match=r"^SHA256SUMS: line 1: expected 64"):
        update(path, {"x": A})
    assert path.read_text() == "mine\n"


def test_a_link_to_the_file_stays(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / FILE_NAME).symlink_to("real/sums")
    update(tmp_path / FILE_NAME, {"x": A})
    assert (tmp_path / FILE_NAME).is_symlink()
    assert (tmp_path / "real/sums").read_text() == f"{A}  x\n"
