"""OUTPUT.part/: a folder that is written file by file, goes on after a crash, and appears complete.

Its manifest says which files are complete, of what they were made, and their digests. What else
lies there when it goes on is removed.
"""

import contextlib
import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

import msgspec
from msgspec import Struct

from service.commands.score.conversion import Conversion, Convert
from service.commands.score.output import (
    PART,
    Mark,
    begun,
    beside,
    check_kind,
    check_name,
    held,
    write_anew,
    writing,
)
from service.commands.terminal import write_all
from service.errors import NotWritten

MANIFEST = "manifest.json"
SUCCESS = "_SUCCESS"  # as Hadoop and Spark mark a folder that is complete


class Entry(Struct, frozen=True):
    """A file that is complete: of what it was made, and what it is."""

    input: str
    input_bytes: int  # that were read
    input_sha256: str
    rows: int
    bad: int
    output: str
    output_bytes: int
    output_sha256: str


class Manifest(Struct, frozen=True):
    """What a folder holds."""

    job: dict[str, str | int | bool]
    files: list[Entry]


class Folder:
    """The folder in the making. `with` holds it against other processes; `finish` names it."""

    def __init__(self, output: Path, *, force: bool) -> None:
        """Say which folder is to be made, and whether it may replace one that is there."""
        self.output = Path(os.path.realpath(output))
        self._force = force
        self.path = beside(self.output, PART)
        self._lock = self._file = -1
        self._name = ""  # of the file that is being written
        self._convert: Convert | None = None
        self._conversion: Conversion | None = None
        self.is_converted_beside = False  # while a part grows: there is a core for that
        self._done: list[Entry] = []
        self._job: dict[str, str | int | bool] = {}

    def check(self) -> None:
        """Raise NotWritten if there is something that may not be replaced."""
        check_name(self.output, PART)
        if not os.path.lexists(self.output):
            return
        if not self.output.is_dir():
            raise NotWritten(f"{self.output}: expected a folder, as INPUT is several files")
        if not any(self.output.iterdir()):
            return
        if _read(self.output) is None:
            raise NotWritten(f"{self.output}: expected a folder of answers, or none, got another")
        if not self._force:
            raise NotWritten(f"{self.output}: is there already; --force replaces it")

    def __enter__(self) -> Self:
        """Open the folder, as far as it is. Raises NotWritten."""
        with writing(self.path):
            check_kind(self.path, stat.S_IFDIR)
            self.path.mkdir(exist_ok=True)
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
            self._lock = held(os.open(self.path, flags), self.path)
            if any(self.path.iterdir()) and _read(self.path) is None:
                os.close(self._lock)
                raise NotWritten(
                    f"{self.path}: expected one of a job that was stopped, got another"
                )
        return self

    def __exit__(self, *error: object) -> None:
        self._close()
        os.close(self._lock)

    def manifest(self) -> Manifest | None:
        """Return what is complete, if that can be said."""
        return _read(self.path)

    def is_whole(self, entry: Entry) -> bool:
        """Whether a file is what its entry says."""
        try:
            return _digest(self.path / entry.output) == entry.output_sha256
        except OSError:
            return False

    def go_on(self, job: dict[str, str | int | bool], done: list[Entry]) -> None:
        """Keep these files and no others. Raises NotWritten."""
        self._job, self._done = job, done
        kept = {self.path / each.output for each in done}
        with writing(self.path):
            self._write_manifest()  # before files that it speaks of go
            for each in sorted(self.path.rglob("*"), reverse=True):  # what is in a folder first
                if each.is_dir() and not each.is_symlink():
                    with contextlib.suppress(OSError):  # it is not empty
                        each.rmdir()
                elif each not in kept and each != self.path / MANIFEST:
                    each.unlink()

    def begin_file(self, name: str, convert: Convert | None) -> None:
        """Begin a file, which is made of its part if `convert` is given. Raises NotWritten."""
        self._name, self._convert = name, convert
        with writing(self.path):
            path = self._part
            path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
            self._file = os.open(path, flags, 0o666)
            if self.is_converted_beside and convert is not None:
                self._conversion = begun(path, convert)

    @property
    def _part(self) -> Path:
        return self.path / (self._name + PART)

    def write(self, data: bytes) -> None:
        """Write all of `data` to the file that was begun. Raises NotWritten."""
        with writing(self.path):
            write_all(self._file, data)
            if self._conversion is not None:
                self._conversion.grew(len(data))

    def end_file(self, input: tuple[str, int, str], rows: int, bad: int) -> None:
        """Give the file its name.

        input: the name, bytes and digest of what it was made of. Raises NotWritten.
        """
        result = self.path / self._name
        with writing(self.path):
            os.fsync(self._file)
            if self._convert is None:
                self._part.replace(result)
            else:
                conversion = self._conversion or begun(self._part, self._convert)
                self._conversion = None
                conversion.finish(lambda new: new.replace(result))
                self._part.unlink()
            self._close()
            size, sha256 = result.stat().st_size, _digest(result)
        self._done.append(Entry(*input, rows, bad, self._name, size, sha256))

    def _close(self) -> None:
        if self._conversion is not None:
            self._conversion.drop()
            self._conversion = None
        file, self._file = self._file, -1  # before: Ctrl-C may come behind it
        if file >= 0:
            os.close(file)

    def save(self, mark: Mark) -> None:
        """Keep which files are complete. Raises NotWritten."""
        with writing(self.path):
            self._write_manifest()

    def _write_manifest(self) -> None:
        manifest = Manifest(self._job, sorted(self._done, key=lambda each: each.input))
        text = msgspec.json.format(msgspec.json.encode(manifest))
        write_anew(self.path / MANIFEST, text)

    def finish(self, mark: Mark | None = None) -> None:
        """Give the folder its name. Raises NotWritten."""
        self.check()
        with writing(self.path):
            self._write_manifest()
            (self.path / SUCCESS).touch()
            with _moved_away(self.output):
                self.path.rename(self.output)

    def drop(self) -> None:
        """Remove the folder, of which nothing is worth keeping."""
        shutil.rmtree(self.path, ignore_errors=True)


def _read(folder: Path) -> Manifest | None:
    """Return the manifest of a folder, None if it has none."""
    try:
        return msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
    except (OSError, msgspec.DecodeError):
        return None


@contextlib.contextmanager
def _moved_away(folder: Path) -> Iterator[None]:
    """Let a folder give its place to another, and remove it then. Raises OSError."""
    if not folder.exists():
        yield
        return
    with TemporaryDirectory(prefix=f"{folder.name}.old-", dir=folder.parent) as name:
        old = Path(name) / folder.name
        folder.rename(old)
        try:
            yield
        except OSError:
            old.rename(folder)
            raise


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
