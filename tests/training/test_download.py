import gzip
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from training import download
from training.data import File, read
from training.download import ROUNDS, from_mirrors
from training.errors import DataUnavailable

CONTENT = b"thirty-two grey values or so"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
PLAIN = File(path="toy/values.bin", sha256=SHA256, urls=("https://one/v", "https://two/v"))
COMPRESSED = File(path="toy/values.gz", sha256=SHA256, urls=("https://one/v.gz",))

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
        from_mirrors(file, folder / file.path, mirror, backoff_s=0)


def left_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_download_puts_the_mirrors_bytes_in_place(folder: Path) -> None:
    compressed = gzip.compress(CONTENT)
    # A mirror that marks the file as encoded: it must arrive as it is all the same.
    fetch(COMPRESSED, folder, lambda request: served(compressed, **{"Content-Encoding": "gzip"}))
    assert (folder / COMPRESSED.path).read_bytes() == compressed
    assert left_in(folder) == [COMPRESSED.path]
    assert read(COMPRESSED) == CONTENT


def test_download_makes_the_folder(folder: Path) -> None:
    fetch(PLAIN, folder / "new", lambda request: served(CONTENT))
    assert left_in(folder / "new") == [PLAIN.path]


@pytest.mark.parametrize(
    "bad",
    [httpx.Response(404), httpx.Response(503), served(CONTENT[:-1])],
    ids=["missing", "unavailable", "other bytes"],
)
def test_second_mirror_is_tried_when_the_first_fails(folder: Path, bad: httpx.Response) -> None:
    fetch(
        PLAIN,
        folder,
        lambda request: bad if request.url.host == "one" else served(CONTENT),
    )
    assert (folder / PLAIN.path).read_bytes() == CONTENT


def test_mirror_is_tried_again_after_a_failure(folder: Path) -> None:
    tried: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        tried.append(request.url.host)
        if len(tried) < 2 * ROUNDS:
            raise httpx.ConnectError("refused")
        return served(CONTENT)

    fetch(PLAIN, folder, answer)
    assert tried == ["one", "two"] * ROUNDS
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
        fetch(COMPRESSED, folder, refuse)
    assert str(caught.value) == (
        f"{folder / COMPRESSED.path} is missing and could not be downloaded "
        "(Name or service not known): put the file there, from https://one/v.gz; "
        f"the SHA-256 of its decompressed content is {SHA256}"
    )


def test_error_page_is_reported_in_one_line(folder: Path) -> None:
    with pytest.raises(DataUnavailable, match="404 Not Found") as caught:
        fetch(PLAIN, folder, lambda request: httpx.Response(404))
    assert "\n" not in str(caught.value)


def test_folder_that_cannot_be_written_is_named(folder: Path) -> None:
    (folder / "file").write_text("")
    with pytest.raises(DataUnavailable, match=r"values\.bin: cannot be written: Not a directory"):
        fetch(PLAIN, folder / "file", lambda request: served(CONTENT))


def test_client_follows_redirects_as_mirrors_send_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host != "elsewhere":
            return httpx.Response(302, headers={"Location": "https://elsewhere/v"})
        return served(CONTENT)

    def opened(follow_redirects: bool, timeout: float) -> httpx.Client:
        mirror = httpx.MockTransport(answer)
        return own(transport=mirror, follow_redirects=follow_redirects, timeout=timeout)

    own = httpx.Client
    monkeypatch.setattr(httpx, "Client", opened)
    download.download(PLAIN, folder / PLAIN.path)
    assert (folder / PLAIN.path).read_bytes() == CONTENT
