"""OUTPUT.part: a file that is written bit by bit, goes on after a crash, and appears when complete.

Beside it OUTPUT.part.json says how far it is. What was written after that is cut off when it goes
on, so the result is the same bytes as if it had never stopped.
"""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import msgspec
from msgspec import Struct

from service.commands.score.conversion import Conversion, Convert
from service.commands.terminal import write_all
from service.errors import NotWritten

PART = ".part"
ALSO_STDOUT = {"/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"}


class Mark(Struct, frozen=True):
    """How far a file is: what was read and what was written of it, and of which job.

    `input_sha256` is that of the first `input_bytes` of the input, which are `lines` lines.
    """

    job: dict[str, str | int | bool]
    input_sha256: str = ""
    input_bytes: int = 0
    lines: int = 0
    output_bytes: int = 0
    rows: int = 0
    bad: int = 0


class Part:
    """The file in the making. `with` holds it against other processes; `finish` names it."""

    def __init__(self, output: Path, *, force: bool) -> None:
        """Say which file is to be made, and whether it may replace one that is there."""
        self._given = str(output)
        self._output = Path(os.path.realpath(output))  # a link stays one
        self._force = force
        self.path = beside(self._output, PART)
        self._sidecar = beside(self._output, f"{PART}.json")
        self._file = -1
        self._conversion: Conversion | None = None
        self.convert: Convert | None = None  # if the part is not the result
        self.is_converted_beside = False  # while it grows: there is a core for that

    def check(self) -> None:
        """Raise NotWritten if there is a file that may not be replaced."""
        if self._given in ALSO_STDOUT:
            raise NotWritten(f"{self._given}: expected a file; stdout is -")
        check_name(self._output, f"{PART}.json.new")
        if not os.path.lexists(self._output):
            return
        if not self._output.is_file():
            raise NotWritten(f"{self._output}: expected a file, or - for stdout")
        if not self._force:
            raise NotWritten(f"{self._output}: is there already; --force replaces it")

    def __enter__(self) -> Self:
        """Open the file, as far as it is. Raises NotWritten."""
        with writing(self.path):
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._file = held(os.open(self.path, flags, 0o666), self.path)
            is_ours = self._sidecar.exists() or not os.fstat(self._file).st_size
            if not (is_ours or self._force):
                os.close(self._file)
                raise NotWritten(
                    f"{self.path}: expected one of a job that was stopped, got another file: "
                    "move it away, or replace it with --force"
                )
        return self

    def __exit__(self, *error: object) -> None:
        if self._conversion is not None:
            self._conversion.drop()
        os.close(self._file)

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that are written."""
        return self._output, self.path, self._sidecar

    def mark(self) -> Mark | None:
        """Return how far it is, if that can be said."""
        try:
            mark = msgspec.json.decode(self._sidecar.read_bytes(), type=Mark)
        except (OSError, msgspec.DecodeError):
            return None
        return mark if mark.output_bytes <= os.fstat(self._file).st_size else None

    def begin(self, mark: Mark) -> None:
        """Begin anew, and say so beside it: what is there without that is of somebody else.

        Raises NotWritten.
        """
        with writing(self.path):
            self._sidecar.unlink(missing_ok=True)  # before the bytes that it speaks of are others
        self.go_on(0)
        self._note(mark)

    def go_on(self, output_bytes: int) -> None:
        """Cut off what is beyond, and write on from there. Raises NotWritten."""
        with writing(self.path):
            os.ftruncate(self._file, output_bytes)
            os.lseek(self._file, output_bytes, os.SEEK_SET)
            if self.is_converted_beside and self.convert is not None:
                self._conversion = begun(self.path, self.convert, output_bytes)

    def write(self, data: bytes) -> None:
        """Write all of `data`. Raises NotWritten."""
        with writing(self.path):
            write_all(self._file, data)
            if self._conversion is not None:
                self._conversion.grew(len(data))

    def save(self, mark: Mark) -> None:
        """Keep how far it is; what is said to be written is on the disk. Raises NotWritten."""
        self._note(mark)

    def _note(self, mark: Mark) -> None:
        new = beside(self._sidecar, ".new")
        with writing(self.path):
            try:
                os.fsync(self._file)
                new.write_bytes(msgspec.json.encode(mark))
                new.replace(self._sidecar)
            except OSError:
                with contextlib.suppress(OSError):
                    new.unlink(missing_ok=True)
                raise

    def finish(self) -> None:
        """Give the file its name. Raises NotWritten."""
        self.check()
        with writing(self.path):
            os.fsync(self._file)
            if self.convert is None:
                self.path.replace(self._output)
            else:
                conversion = self._conversion or begun(self.path, self.convert)
                self._conversion = None
                conversion.finish(self._output)
                self.path.unlink()
            self._sidecar.unlink(missing_ok=True)

    def drop(self) -> None:
        """Remove the file, of which nothing is worth keeping."""
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)
            self._sidecar.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise NotWritten for an OSError."""
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error)
        raise NotWritten(f"{path}: cannot be written: {why}") from error


def beside(path: Path, suffix: str) -> Path:
    """Return the path of a file or folder beside another. Raises NotWritten for one of no name."""
    if not path.name:
        raise NotWritten(f"{path}: expected a file or folder that has a name")
    return path.with_name(path.name + suffix)


def held(opened: int, path: Path) -> int:
    """Hold what was opened at a path against other processes, and return it.

    Closes it and raises NotWritten where another process holds it.
    """
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(opened), path.stat()):
            raise BlockingIOError  # it was finished before it was held
    except (BlockingIOError, FileNotFoundError):
        os.close(opened)
        raise NotWritten(f"{path}: another process is writing it") from None
    return opened


def check_name(path: Path, suffix: str) -> None:
    """Raise NotWritten where a name is too long to have others beside it."""
    try:
        os.lstat(beside(path, suffix))
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise NotWritten(
                f"{path}: expected a name that is {len(suffix)} bytes below the longest, got "
                f"{len(os.fsencode(path.name))} bytes"
            ) from error


def begun(part: Path, convert: Convert, size: int = 0) -> Conversion:
    """Begin to make a file, beside it, of a part of so many bytes. Raises OSError."""
    return Conversion(part, beside(part, ".new"), convert, size)
