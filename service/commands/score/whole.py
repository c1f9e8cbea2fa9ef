"""A file that is read to the end that it had: one that is cut meanwhile has a part of its rows."""

import errno
import io
import os
import stat
from pathlib import Path
from typing import Any


def open_whole(file: str | Path | int) -> io.BufferedReader:
    """Open a file, or what has a number, which stays open. Raises OSError, then and later."""
    return io.BufferedReader(_Whole(file, "rb", closefd=not isinstance(file, int)))


class _Whole(io.FileIO):
    """Knows how long the file is at first; one that is no file has no length."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        status = os.fstat(self.fileno())
        self._size = status.st_size if stat.S_ISREG(status.st_mode) else 0

    def readinto(self, buffer: Any) -> int | None:
        count = super().readinto(buffer)
        if count == 0 and self._size and (at := self.tell()) < self._size:
            raise OSError(
                errno.EIO, f"expected {self._size} bytes, got {at}: it was cut while it was read"
            )
        return count
