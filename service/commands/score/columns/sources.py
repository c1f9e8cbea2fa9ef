"""The files of INPUT, and their blocks."""

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

import pyarrow as pa
from msgspec import Struct

from service.batch.answered import Position
from service.batch.arrow_blocks import ArrowInput
from service.batch.csv_input import CsvInput
from service.batch.image_blocks import ImageInput
from service.batch.parquet_blocks import ParquetInput
from service.batch.scorer import Scorer
from service.commands.score.columns.unpacked import is_compressed, open_unpacked
from service.commands.score.columns.worker import Block
from service.commands.score.output import PART, beside
from service.commands.score.suffixes import (
    CSV,
    IMAGES,
    PARQUET,
    Kind,
    files_in,
    is_several,
    kind_of,
    printable,
)
from service.commands.score.whole import open_whole
from service.errors import CannotScore

STDIN = "-"


class Input(Protocol):
    """The blocks of a file, or of several files of images."""

    unit: str  # what its rows are numbered by

    @property
    def kept(self) -> pa.Schema:
        """The columns that are kept."""

    @property
    def position(self) -> Position:
        """What is passed when all blocks that were given out are."""

    def pass_to(self, position: Position) -> bool:
        """Pass what another run has passed; return whether it was the same as there."""

    def __iter__(self) -> Iterator[tuple[Block, Position]]:
        """Yield each block, and the position behind it. Raises ServiceError."""


class Source(Struct, frozen=True):
    """A file of INPUT, or all its files of images: what it is called, and what it is."""

    name: str
    kind: Kind
    path: Path | None  # None: stdin
    images: tuple[tuple[str, Path], ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """Those that are read."""
        if self.images:
            return tuple(path for _, path in self.images)
        return () if self.path is None else (self.path,)

    @property
    def size(self) -> int:
        """Bytes, as a position counts them; 0 where that is not known."""
        if self.path is not None and is_compressed(self.path.name):
            return 0
        with contextlib.suppress(OSError):
            if not self.files and self.is_file:
                return os.fstat(0).st_size - os.lseek(0, 0, os.SEEK_CUR)
            return sum(each.stat().st_size for each in self.files)
        return 0

    @property
    def is_file(self) -> bool:
        """Whether it can be read again. Raises OSError."""
        status = os.fstat(0) if not self.files else self.files[0].stat()
        return stat.S_ISREG(status.st_mode)

    def check(self) -> None:
        """Raise OSError if it cannot be read."""
        if self.path is not None:
            if self.is_file:  # who writes to a pipe would lose who reads it
                self.path.open("rb").close()
        elif not self.images:
            os.fstat(0)


class Reading(Struct, frozen=True):
    """What reads sources: the model, and what is kept of them."""

    scorer: Scorer
    keep: bool

    @contextlib.contextmanager
    def of(self, source: Source) -> Iterator[Input]:
        """Open a source. Raises CannotScore, InvalidInput, then and later."""
        scorer, keep = self.scorer, self.keep
        if source.images:
            yield ImageInput(source.images, scorer, scorer.settings.max_body_bytes)
            return
        with reading(source.name), _opened(source) as file:
            if source.kind == PARQUET:
                if source.path is None:
                    raise CannotScore("-: expected a file for Parquet, which is read from its end")
                yield ParquetInput(source.path, scorer, keep=keep)
            elif source.kind == CSV:
                yield CsvInput(file, scorer.model, scorer.settings, keep=keep)
            else:
                yield ArrowInput(file, source.name, scorer, keep=keep)


@contextlib.contextmanager
def reading(name: str) -> Iterator[None]:
    """Raise CannotScore where a file cannot be read."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise CannotScore(f"{name}: cannot be read: {error.strerror or error}") from error


def _opened(source: Source) -> BinaryIO:
    if source.path is None:
        return open_whole(0)
    if is_compressed(source.path.name):
        return open_unpacked(source.path)
    return open_whole(source.path)


def sources_of(input: str, given: Kind | None, written: Path | None) -> list[Source]:
    """Return the sources of INPUT, which is of a kind where its suffix says none.

    written: the output, whose files are no input. Raises CannotScore where there is none.
    """
    if not is_several(input):
        return [_source(input, given, written)]
    outputs = [] if written is None else [written, beside(written, PART)]
    found = list(files_in(input, outputs))
    if not found:
        raise CannotScore(f"{input}: expected files to score, got none of a suffix that is known")
    kinds = {each.kind.name for each in found}
    if len(kinds) > 1:
        names = " and ".join(sorted(kinds))
        raise CannotScore(f"{input}: expected files of one kind, got {names}: give a pattern")
    if found[0].kind == IMAGES:
        return [Source(input, IMAGES, None, tuple((each.name, each.path) for each in found))]
    return [Source(each.name, each.kind, each.path) for each in found]


def _source(input: str, given: Kind | None, written: Path | None) -> Source:
    if input == STDIN:
        return Source(input, given or CSV, None)
    path = Path(input)
    for each in (written, written and beside(written, PART)):
        if each is not None and path.exists() and each.exists() and path.samefile(each):
            raise CannotScore(f"{each}: expected another file than the one that is read")
    kind = kind_of(input) or given
    name = printable(input)
    if kind == IMAGES:
        return Source(name, IMAGES, None, ((name, path),))
    return Source(name, kind or CSV, path)
