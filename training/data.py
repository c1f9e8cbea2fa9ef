"""Data files: where they are, whether they are the right ones, and their content."""

import gzip
import hashlib
import os
import zlib
from pathlib import Path

from msgspec import Struct

from training.errors import DataUnavailable, InvalidData


class File(Struct, frozen=True, kw_only=True):
    """A data file: its place in the data folder, its digest, and its mirrors.

    `sha256` is that of the content, in hex: of the decompressed bytes when `path` ends in `.gz`,
    because the compressed bytes differ from mirror to mirror.
    """

    path: str
    sha256: str
    urls: tuple[str, ...]

    def content(self, stored: bytes, where: str) -> bytes:
        """Return the content of the stored bytes, once it is verified.

        Raises InvalidData naming `where`.
        """
        content = stored
        if self.path.endswith(".gz"):
            try:
                content = gzip.decompress(stored)
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                raise InvalidData(f"{where}: expected a complete gzip file: {error}") from error
        verify(content, self.sha256, where)
        return content


def verify(content: bytes, sha256: str, where: str) -> None:
    """Raise InvalidData naming `where` unless the content has this digest, in hex."""
    digest = hashlib.sha256(content).hexdigest()
    if digest != sha256:
        raise InvalidData(f"{where}: expected content with SHA-256 {sha256}, got {digest}")


def data_dir() -> Path:
    """Return the data folder: `TORCHLIT_DATA_DIR`, or `data` where that is not set."""
    return Path(os.environ.get("TORCHLIT_DATA_DIR") or "data")


def read(file: File) -> bytes:
    """Read the verified content of a data file; download it first where it is missing.

    Raises DataUnavailable, or InvalidData when the file is not the one expected.
    """
    path = data_dir() / file.path
    if not path.exists():
        from training.download import download  # only now: it imports httpx

        download(file, path)
    return file.content(read_unverified(file.path), str(path))


def read_unverified(name: str) -> bytes:
    """Read a file of the data folder whose digest nobody knows. Raises DataUnavailable."""
    path = data_dir() / name
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise DataUnavailable(f"{path} is missing: put the file there") from error
    except OSError as error:
        raise DataUnavailable(f"{path}: cannot be read: {error.strerror}") from error
