import gzip
import hashlib
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch

from training.data import (
    DOWNLOAD_ROUNDS,
    File,
    Rows,
    download,
    parse_bytes_csv,
    parse_csv,
    parse_idx,
    read,
    split,
    to_idx,
)
from training.errors import DataUnavailable, InvalidData

CONTENT = b"thirty-two grey values or so"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
PLAIN = File(path="toy/values.bin", sha256=SHA256, urls=("https://one/v", "https://two/v"))
PACKED = File(path="toy/values.gz", sha256=SHA256, urls=("https://one/v.gz",))

Answer = Callable[[httpx.Request], httpx.Response]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data folder."""
    monkeypatch.setenv("TORCHLIT_DATA_DIR", str(tmp_path))
    (tmp_path / "toy").mkdir()
    return tmp_path


def client(answer: Answer) -> httpx.Client:
    return httpx.Client(transport=httpx.MockTransport(answer))


def served(content: bytes, **headers: str) -> httpx.Response:
    """Answer as from the wire: not read yet."""
    return httpx.Response(200, headers=headers, stream=httpx.ByteStream(content))


def fetch(file: File, folder: Path, answer: Answer) -> None:
    with client(answer) as mirror:
        download(file, folder / file.path, mirror, backoff_s=0)


def left_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# Reading


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
def test_digest_is_of_the_unpacked_content(folder: Path, level: int) -> None:
    (folder / PACKED.path).write_bytes(gzip.compress(CONTENT, level))
    assert read(PACKED) == CONTENT


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
        (lambda packed: packed[:-9], "ended before"),
        (lambda packed: b"not gzip", "Not a gzipped file"),
        (lambda packed: packed[:10] + b"\xff\xff" + packed[12:], "invalid block type"),
    ],
    ids=["truncated", "not gzip", "damaged"],
)
def test_bad_gzip_is_named(folder: Path, damage: Callable[[bytes], bytes], got: str) -> None:
    (folder / PACKED.path).write_bytes(damage(gzip.compress(CONTENT)))
    with pytest.raises(InvalidData, match=rf"values\.gz: expected a whole gzip file, got: .*{got}"):
        read(PACKED)


def test_unreadable_file_is_named(folder: Path) -> None:
    (folder / PLAIN.path).mkdir()
    with pytest.raises(DataUnavailable, match=r"values\.bin: cannot be read: Is a directory"):
        read(PLAIN)


# Downloading


def test_download_puts_the_mirrors_bytes_in_place(folder: Path) -> None:
    packed = gzip.compress(CONTENT)
    # A mirror that marks the file as encoded: it must arrive packed all the same.
    fetch(PACKED, folder, lambda request: served(packed, **{"Content-Encoding": "gzip"}))
    assert (folder / PACKED.path).read_bytes() == packed
    assert left_in(folder) == [PACKED.path]
    assert read(PACKED) == CONTENT


def test_download_makes_the_folder(folder: Path) -> None:
    fetch(PLAIN, folder / "new", lambda request: served(CONTENT))
    assert left_in(folder / "new") == [PLAIN.path]


@pytest.mark.parametrize(
    "bad",
    [httpx.Response(404), httpx.Response(503), served(CONTENT[:-1])],
    ids=["missing", "unavailable", "other bytes"],
)
def test_second_mirror_is_asked_when_the_first_fails(folder: Path, bad: httpx.Response) -> None:
    fetch(
        PLAIN,
        folder,
        lambda request: bad if request.url.host == "one" else served(CONTENT),
    )
    assert (folder / PLAIN.path).read_bytes() == CONTENT


def test_mirror_is_asked_again_after_a_failure(folder: Path) -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.host)
        if len(asked) < 2 * DOWNLOAD_ROUNDS:
            raise httpx.ConnectError("refused")
        return served(CONTENT)

    fetch(PLAIN, folder, answer)
    assert asked == ["one", "two"] * DOWNLOAD_ROUNDS
    assert (folder / PLAIN.path).read_bytes() == CONTENT


def test_wrong_bytes_are_never_put_in_place(folder: Path) -> None:
    with pytest.raises(DataUnavailable, match="expected content with SHA-256"):
        fetch(PLAIN, folder, lambda request: served(b"login first"))
    assert left_in(folder) == []


def test_connection_lost_midway_leaves_nothing(folder: Path) -> None:
    class Half(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            yield CONTENT[:9]
            raise httpx.ReadError("lost")

    with pytest.raises(DataUnavailable, match=r"could not be downloaded \(lost\)"):
        fetch(PLAIN, folder, lambda request: httpx.Response(200, stream=Half()))
    assert left_in(folder) == []


def test_closed_network_gives_one_sentence_with_file_place_and_digest(folder: Path) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("Name or service not known")

    with pytest.raises(DataUnavailable) as caught:
        fetch(PACKED, folder, refuse)
    assert str(caught.value) == (
        f"{folder / PACKED.path} is missing and could not be downloaded "
        "(Name or service not known): put the file there, from https://one/v.gz, "
        f"its unpacked content having SHA-256 {SHA256}"
    )


def test_error_page_is_told_in_one_line(folder: Path) -> None:
    with pytest.raises(DataUnavailable, match="404 Not Found") as caught:
        fetch(PLAIN, folder, lambda request: httpx.Response(404))
    assert "\n" not in str(caught.value)


def test_folder_that_cannot_be_written_is_named(folder: Path) -> None:
    (folder / "file").write_text("")
    with pytest.raises(DataUnavailable, match=r"values\.bin: cannot be written: Not a directory"):
        fetch(PLAIN, folder / "file", lambda request: served(CONTENT))


# Parsing


def idx(values: np.ndarray) -> bytes:
    """Write an IDX file by the format's description."""
    header = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    return header + values.astype(np.uint8).tobytes()


def test_idx_gives_back_what_was_written() -> None:
    values = np.arange(24).reshape(2, 3, 4) * 10 % 256
    read = parse_idx(idx(values), (2, 3, 4), "toy")
    assert np.array_equal(read.numpy(), values)
    assert to_idx(read) == idx(values)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "toy: expected an IDX file with magic number 00000802, got an empty file"),
        (b"P5 28", "toy: expected an IDX file with magic number 00000802, got 50352032"),
        (
            idx(np.zeros(6)),
            "toy: expected an IDX file with magic number 00000802, got 00000801",
        ),
        (idx(np.zeros((3, 3))), "toy: expected (2, 3) values in its header, got (3, 3)"),
        (idx(np.zeros((2, 3)))[:9], "toy: expected (2, 3) values in its header, got (2, 0)"),
        (idx(np.zeros((2, 3)))[:-1], "toy: expected 6 values, got 5"),
        (idx(np.zeros((2, 3))) + b"\0", "toy: expected 6 values, got 7"),
    ],
)
def test_bad_idx_is_named(content: bytes, sentence: str) -> None:
    with pytest.raises(InvalidData) as caught:
        parse_idx(content, (2, 3), "toy")
    assert str(caught.value) == sentence


def test_csv_columns_are_found_by_name() -> None:
    table = parse_csv(b'"a","b","c"\n1,"2",3\r\n4,5e-1,6\n', ["c", "b"], "toy")
    assert table.dtype == torch.float32
    assert table.tolist() == [[3, 2], [6, 0.5]]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "toy: expected a header and rows, got 0 lines"),
        (b"a,b\n", "toy: expected a header and rows, got 1 lines"),
        (b"a,c\n1,2\n", "toy: expected one column 'b', got a, c"),
        (b"a,b,b\n1,2,3\n", "toy: expected one column 'b', got a, b, b"),
        (b"a,b\n1,2\n3\n", "toy: line 3: expected 2 values, got 1"),
        (b"a,b\n1,2\n3,4,5\n", "toy: line 3: expected 2 values, got 3"),
        (b"a,b\n1,wide\n", "toy: line 2: b: expected a finite number, got 'wide'"),
        (b"a,b\n1,\n", "toy: line 2: b: expected a finite number, got ''"),
        (b"a,b\nnan,2\n", "toy: line 2: a: expected a finite number, got 'nan'"),
        (b"a,b\n1,1e999\n", "toy: line 2: b: expected a finite number, got '1e999'"),
        (b"a,b\n1,1e39\n", "toy: line 2: b: expected a finite number, got '1e39'"),
        (b"a,b\n\n1,x\n", "toy: line 3: b: expected a finite number, got 'x'"),
    ],
)
def test_bad_csv_is_named_with_its_line(content: bytes, sentence: str) -> None:
    with pytest.raises(InvalidData) as caught:
        parse_csv(content, ["a", "b"], "toy")
    assert str(caught.value) == sentence


def test_mark_at_the_begin_and_empty_lines_are_passed_over() -> None:
    content = b"\xef\xbb\xbfa,b\r\n1,2\r\n\r\n3,4\r\n\r\n"
    assert parse_csv(content, ["a", "b"], "toy").tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize("content", [b"a,b\n\xff,2\n", b'a,b\n1,"2\n'])
def test_what_is_no_csv_is_named(content: bytes) -> None:
    with pytest.raises(InvalidData, match=r"^toy: expected a CSV file in UTF-8, got: "):
        parse_csv(content, ["a", "b"], "toy")


@pytest.mark.parametrize(
    "content",
    [b"7,0\n0,255", b"7,0\r\n0,255\r\n", b"label,1x1\n7,0\n0,255\n", b'"a","b"\n7,0\n0,255'],
)
def test_csv_of_bytes_is_read_with_and_without_a_header(content: bytes) -> None:
    values = parse_bytes_csv(content, 2, "toy")
    assert values.dtype == torch.uint8
    assert values.tolist() == [[7, 0], [0, 255]]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "expected rows, got 0 lines"),
        (b"label,1x1\n", "expected rows, got 1 lines"),
        (b"label,1x1\n1,2\n3\n", "line 3: expected 2 values, got 1"),
        (b"1,2\n\n3,4\n", "line 2: expected 2 values, got 1"),
        (b"1,2,3\n4,5,6\n", "line 1: expected 2 values, got 3"),
        (b"1,2\n3,x\n", "line 2: expected a whole number from 0 to 255, got 'x'"),
        (b"1,256\n", "line 1: expected a whole number from 0 to 255, got '256'"),
        (b"1,-1\n", "line 1: expected a whole number from 0 to 255, got '-1'"),
        (b"1,2.5\n", "line 1: expected a whole number from 0 to 255, got '2.5'"),
        (b"1,nan\n", "line 1: expected a whole number from 0 to 255, got 'nan'"),
        (b"1,#\n", "line 1: expected a whole number from 0 to 255, got '#'"),
        (b"1,\xff\n", "line 1: expected a whole number from 0 to 255, got '\ufffd'"),
    ],
)
def test_bad_csv_of_bytes_is_named_with_its_line(content: bytes, sentence: str) -> None:
    with pytest.raises(InvalidData) as caught:
        parse_bytes_csv(content, 2, "toy")
    assert str(caught.value) == f"toy: {sentence}"


# Splitting


def numbered(count: int) -> Rows:
    """Rows whose input is their number, and whose label is 1 for every fourth."""
    numbers = torch.arange(count)
    return Rows(inputs=numbers.float()[:, None], targets=(numbers % 4 == 0).long())


def test_split_gives_every_row_to_one_part() -> None:
    train, held_out = split(numbered(100), 70, seed=0)
    assert (len(train.inputs), len(held_out.inputs)) == (70, 30)
    together = torch.cat([train.inputs, held_out.inputs])[:, 0]
    assert together.sort().values.tolist() == list(range(100))


def test_split_keeps_inputs_and_targets_together() -> None:
    for part in split(numbered(100), 70, seed=0):
        assert torch.equal(part.targets, (part.inputs[:, 0] % 4 == 0).long())


def test_split_depends_on_the_seed_alone() -> None:
    first, again, other = (split(numbered(100), 70, seed)[0].inputs for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_stratified_split_keeps_the_share_of_each_label() -> None:
    for seed in range(5):
        train, held_out = split(numbered(100), 60, seed, stratify=True)
        assert (train.targets.sum(), held_out.targets.sum()) == (15, 10)
