"""OUTPUT.part: a file that is written bit by bit, goes on after a crash, and appears when complete.

Beside it OUTPUT.part.json says how far it is. What was written after that is cut off when it goes
on, so the result is the same bytes as if it had never stopped. What it says last is which file is
to have the name: where the end was stopped behind that, the rest of it is tidied.
"""

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from service.commands.score.conversion import Conversion, Convert
from service.commands.terminal import write_all
from service.errors import NotWritten

PART = ".part"
_NOTE = b'{"job":'  # what a Mark begins with
_EXPECTED = "expected one of a job that was stopped"
_IS_THERE = "is there already; --force replaces it"
ALSO_STDOUT = {"/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"}


class Mark(Struct, frozen=True):
    """How far a file is: what was read and what was written of it, and of which job.

    `input_sha256` is that of the first `input_bytes` of the input, which are `lines` lines.
    `result` says which file is the complete one.
    """

    job: dict[str, str | int | bool]
    input_sha256: str = ""
    input_bytes: int = 0
    lines: int = 0
    output_bytes: int = 0
    rows: int = 0
    bad: int = 0
    result: str = ""


class Part:
    """The file in the making. `with` holds it against other processes; `finish` names it."""

    def __init__(self, output: Path, *, force: bool) -> None:
        """Say which file is to be made, and whether it may replace one that is there."""
        self._given = str(output)
        self.output = Path(os.path.realpath(output))  # a link stays one
        self._force = force
        self.path = beside(self.output, PART)
        self._sidecar = beside(self.output, f"{PART}.json")
        self._file = -1
        self._result = ""  # which file has the name, or is to have it
        self._conversion: Conversion | None = None
        self.convert: Convert | None = None  # if the part is not the result
        self.is_converted_beside = False  # while it grows: there is a core for that

    def check(self) -> None:
        """Raise NotWritten if there is a file that may not be replaced."""
        if self._given in ALSO_STDOUT:
            raise NotWritten(f"{self._given}: expected a file; stdout is -")
        check_name(self.output, f"{PART}.json.new")
        if not os.path.lexists(self.output):
            return
        if not self.output.is_file():
            got = "a folder" if self.output.is_dir() else "a pipe or a device"
            raise NotWritten(f"{self.output}: expected a file, or - for stdout, got {got}")
        if not self._force and not self._named():
            raise NotWritten(f"{self.output}: {_IS_THERE}")

    def _named(self) -> str:
        """Return which file it is that has the name already, "" if none."""
        mark = self._noted()
        with contextlib.suppress(OSError):
            if mark is not None and mark.result == _which(self.output):
                return mark.result
        return ""

    def __enter__(self) -> Self:
        """Open the file, as far as it is: the result, if it was stopped behind its naming.

        Raises NotWritten.
        """
        check_kind(self.path, stat.S_IFREG)
        self._result = "" if self._force else self._named()
        path, flags = self.path, os.O_RDWR | os.O_CREAT
        if self._result:
            path, flags = self.output, os.O_RDONLY
        is_new = not os.path.lexists(path)
        with writing(path):
            opened = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
            self._file = held(opened, path)
        try:
            self._check_ours()
        except BaseException:
            if is_new:
                path.unlink()
            os.close(self._file)
            raise
        return self

    def _check_ours(self) -> None:
        """Raise NotWritten for a file beside it that is of no job that was stopped."""
        note = beside(self._sidecar, ".new")
        is_noted = _is_note(self._sidecar)
        is_ours = {self._sidecar: is_noted, note: _is_note(note)}
        if not self._result:
            is_ours[self.path] = is_noted or not os.fstat(self._file).st_size
        if self.convert is not None:
            is_ours[beside(self.path, ".new")] = is_noted
        for path, ours in is_ours.items():
            check_kind(path, stat.S_IFREG, may_be_link=self._force)
            if os.path.lexists(path) and not (ours or self._force):
                raise NotWritten(
                    f"{path}: {_EXPECTED}, got another file: move it away, or replace it with "
                    "--force"
                )

    def __exit__(self, *error: object) -> None:
        if self._conversion is not None:
            self._conversion.drop()
        os.close(self._file)

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that are written."""
        return self.output, self.path, self._sidecar

    def mark(self) -> Mark | None:
        """Return how far it is, if that can be said; with a `result` if it has its name."""
        mark = self._noted()
        if mark is None or self._result:
            return mark
        is_there = mark.output_bytes <= os.fstat(self._file).st_size
        return replace(mark, result="") if is_there else None

    def _noted(self) -> Mark | None:
        try:
            if _is_note(self._sidecar):
                return msgspec.json.decode(self._sidecar.read_bytes(), type=Mark)
        except (OSError, msgspec.DecodeError):
            pass
        return None

    def begin(self, mark: Mark) -> None:
        """Begin anew, and say so beside it: what is there without that is of somebody else.

        Raises NotWritten.
        """
        self._note(mark)  # before the bytes that the last one speaks of are others
        self.go_on(0)

    def go_on(self, output_bytes: int) -> None:
        """Cut off what is beyond, and write on from there. Raises NotWritten."""
        if self._result:
            return
        with writing(self.path):
            os.ftruncate(self._file, output_bytes)
            os.lseek(self._file, output_bytes, os.SEEK_SET)
            if self.is_converted_beside and self.convert is not None:
                self._conversion = begun(self.path, self.convert, output_bytes)

    def write(self, data: bytes) -> None:
        """Write all of `data`. Raises NotWritten, also where it has its name."""
        if self._result:
            raise NotWritten(f"{self.output}: {_IS_THERE}")
        with writing(self.path):
            write_all(self._file, data)
            if self._conversion is not None:
                self._conversion.grew(len(data))

    def save(self, mark: Mark) -> None:
        """Keep how far it is; what is said to be written is on the disk. Raises NotWritten."""
        self._note(mark)

    def _note(self, mark: Mark) -> None:
        with writing(self.path):
            os.fsync(self._file)
            write_anew(self._sidecar, msgspec.json.encode(replace(mark, result=self._result)))

    def finish(self, mark: Mark | None = None) -> None:
        """Give the file its name. Raises NotWritten.

        mark: by which it is known, should this be stopped behind that.
        """
        self.check()
        if not self._result:
            self._finish(mark)
        with writing(self.path):
            if self.convert is not None:
                self.path.unlink(missing_ok=True)
            self._sidecar.unlink(missing_ok=True)

    def _finish(self, mark: Mark | None) -> None:
        def give_name(result: Path) -> None:
            if mark is not None:
                self._result = _which(result)
                self._note(mark)
            result.replace(self.output)

        with writing(self.path):
            os.fsync(self._file)
            if self.convert is None:
                give_name(self.path)
            else:
                conversion = self._conversion or begun(self.path, self.convert)
                self._conversion = None
                conversion.finish(give_name)

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
    """Raise NotWritten where a name is too long to have others beside it, or is in no folder."""
    if not path.parent.is_dir():
        got = "a file" if path.parent.exists() else "none"
        raise NotWritten(f"{path}: expected a folder {path.parent} to write it in, got {got}")
    try:
        os.lstat(beside(path, suffix))
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise NotWritten(
                f"{path}: expected a name that is {len(suffix)} bytes below the longest, got "
                f"{len(os.fsencode(path.name))} bytes"
            ) from error


def check_kind(path: Path, kind: int, *, may_be_link: bool = False) -> None:
    """Raise NotWritten for what is there, but not a file or a folder, as `stat.S_IFMT` has it."""
    try:
        got = stat.S_IFMT(path.lstat().st_mode)
    except OSError:
        return
    if got != kind and not (got == stat.S_IFLNK and may_be_link):
        what = {stat.S_IFLNK: "a link", stat.S_IFDIR: "a folder", stat.S_IFREG: "a file"}
        raise NotWritten(f"{path}: {_EXPECTED}, got {what.get(got, 'no file')}: move it away")


def write_anew(path: Path, data: bytes) -> None:
    """Write a file beside its name, and give it that. No link is followed. Raises OSError."""
    new = beside(path, ".new")
    try:
        new.unlink(missing_ok=True)
        with new.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)
        raise


def _is_note(path: Path) -> bool:
    """Whether a file is a Mark, or the beginning of one that was not written to its end."""
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return _NOTE.startswith(file.read(len(_NOTE)))


def _which(path: Path) -> str:
    """Return what is the same of a file under each name, and of no other. Raises OSError."""
    status = path.stat()
    return f"{status.st_ino} {status.st_size} {status.st_mtime_ns}"


def begun(part: Path, convert: Convert, size: int = 0) -> Conversion:
    """Begin to make a file, beside it, of a part of so many bytes. Raises OSError."""
    new = beside(part, ".new")
    new.unlink(missing_ok=True)  # it may be a link
    return Conversion(part, new, convert, size)
