"""A compressed file as what it holds: gzip or zstd, of one member or of many."""

import io
from pathlib import Path
from typing import Any

import pyarrow as pa

from service.commands.score.whole import open_whole

_CODECS = {".gz": "gzip", ".zst": "zstd"}
_CHUNK_BYTES = 2**20


def is_compressed(path: str) -> bool:
    """Whether a file has a suffix of those that can be opened."""
    return Path(path).suffix.lower() in _CODECS


def open_unpacked(path: Path) -> io.BufferedReader:
    """Open a compressed file. Raises OSError, then and later."""
    return io.BufferedReader(_Unpacked(path), _CHUNK_BYTES)


class _Unpacked(io.RawIOBase):
    """Reads forward; to go back it begins again."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path = path
        self._begin()

    def _begin(self) -> None:
        self._file = open_whole(self._path)  # the one before was closed with its stream
        codec = _CODECS[self._path.suffix.lower()]
        self._stream = pa.CompressedInputStream(pa.PythonFile(self._file, "r"), codec)
        self._at = 0

    def fileno(self) -> int:
        return self._file.fileno()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        target = offset + (self._at if whence == io.SEEK_CUR else 0)
        if target < self._at:
            self._begin()
        while (left := target - self._at) > 0 and (
            data := self._stream.read(min(left, _CHUNK_BYTES))
        ):
            self._at += len(data)
        return self._at

    def close(self) -> None:
        self._file.close()
        super().close()
