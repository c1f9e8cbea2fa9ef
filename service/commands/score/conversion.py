"""What a part becomes: made of it beside it, when it is complete or while it still grows."""

import contextlib
import errno
import io
import os
from collections.abc import Callable
from math import inf
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import TypeAlias

# Makes of the bytes of a complete part the result, at a path. Raises OSError.
Convert: TypeAlias = Callable[["Growing", Path], None]


class Conversion:
    """Makes the result in a thread, as far as the part is there. `finish` or `drop` ends it."""

    def __init__(self, part: Path, new: Path, convert: Convert, size: int = 0) -> None:
        """Begin with a part of so many bytes. Raises OSError."""
        self._new = new
        self._error: BaseException | None = None
        self._part = Growing(part, size)
        self._thread = Thread(target=self._run, args=(convert,), daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            self._part.close()
            raise OSError(errno.EAGAIN, "no thread can be started") from error

    def _run(self, convert: Convert) -> None:
        try:
            convert(self._part, self._new)
        except BaseException as error:
            self._error = error

    def grew(self, by: int) -> None:
        """Go on with so many bytes more. Raises what the conversion raised."""
        if self._error is not None:
            raise self._error
        self._part.grew(by)

    def finish(self, give_name: Callable[[Path], object]) -> None:
        """Let the result be given its name, as the part is complete.

        Raises what the conversion raised, and `give_name`.
        """
        try:
            self._part.complete()
            self._thread.join()
            if self._error is not None:
                raise self._error
            with self._new.open("rb") as file:
                os.fsync(file.fileno())
            give_name(self._new)
        finally:
            self.drop()

    def drop(self) -> None:
        """End it, and remove what it has made, unless that has its name."""
        self._part.drop()
        self._thread.join()
        self._part.close()
        with contextlib.suppress(OSError):
            self._new.unlink(missing_ok=True)


class Growing(io.RawIOBase):
    """The bytes of a file to which others are added: who reads waits for those still missing.

    News come by a queue, whose `put` is one step to Ctrl-C. Of a Condition, Ctrl-C between two
    steps leaves the lock taken, or the next notification to one who waits no more: who reads would
    never end.
    """

    def __init__(self, path: Path, size: int) -> None:
        """Open the file, of which so many bytes can be read. Raises OSError."""
        self._file = path.open("rb")
        self._news = SimpleQueue[float]()  # bytes more
        self._size: float = size  # that may be read; infinity: all there are
        self._is_dropped = False

    def grew(self, by: int) -> None:
        """Let so many bytes more be read."""
        self._news.put(by)

    def complete(self) -> None:
        """Let all be read, and the end."""
        self._news.put(inf)

    def drop(self) -> None:
        """Let nothing more be read."""
        self._is_dropped = True
        self._news.put(0)

    def readable(self) -> bool:
        """Return True."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Return so many bytes, or all, when they are there; fewer at the end of the file.

        Raises InterruptedError when it is dropped.
        """
        while not (self._is_dropped or self._can_read(size)):
            self._size += self._news.get()
        if self._is_dropped:
            raise InterruptedError("the file is not gone on with")
        return self._file.read(size)

    def _can_read(self, size: int) -> bool:
        return self._size == inf or 0 <= size <= self._size - self._file.tell()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()
