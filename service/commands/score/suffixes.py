"""Which file is of which kind, by its suffix, and the files of a folder or a pattern."""

import glob
import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path, PurePath

from msgspec import Struct

from service.errors import CannotScore


class Kind(Struct, frozen=True):
    """A kind of file: what is read, or written, in columns."""

    name: str  # as --format has it
    suffixes: tuple[str, ...]
    unit: str = "row"  # what its rows are numbered by
    is_output: bool = True


CSV = Kind("csv", (".csv", ".csv.gz", ".csv.zst"), "line")
PARQUET = Kind("parquet", (".parquet", ".pq"))
ARROW = Kind("arrow", (".arrow", ".feather", ".ipc"))
ARROW_STREAM = Kind("arrows", (".arrows",))
IMAGES = Kind("images", (".png", ".jpg", ".jpeg"), "file", is_output=False)

KINDS = (CSV, PARQUET, ARROW, ARROW_STREAM, IMAGES)
BY_NAME = {each.name: each for each in KINDS if each.is_output}
_BY_SUFFIX = {suffix: each for each in KINDS for suffix in each.suffixes}


def suffix_of(path: str) -> str:
    """Return the suffix of a path in lower case, with that of what is compressed."""
    suffixes = [each.lower() for each in PurePath(path).suffixes]
    both = "".join(suffixes[-2:])
    return both if both in _BY_SUFFIX else "".join(suffixes[-1:])


def kind_of(path: str) -> Kind | None:
    """Return the kind of a file, None where its suffix says none."""
    return _BY_SUFFIX.get(suffix_of(path))


def without(path: str, suffixes: Iterable[str]) -> str:
    """Return a path without its suffix, if it is one of these."""
    suffix = suffix_of(path)
    return path[: -len(suffix)] if suffix in suffixes else path


class Found(Struct, frozen=True):
    """A file of a folder or a pattern: its name in it, its path and its kind."""

    name: str
    path: Path
    kind: Kind


def is_several(input: str) -> bool:
    """Whether INPUT is a folder or a pattern."""
    return input != "-" and (Path(input).is_dir() or _is_pattern(input))


def _is_pattern(input: str) -> bool:
    return glob.has_magic(input) and not os.path.lexists(input)


def files_in(input: str, left_out: Iterable[Path] = ()) -> Iterator[Found]:
    """Yield each file of a kind in a folder or of a pattern, in order of the names.

    Raises CannotScore for a folder that cannot be read.
    """
    if _is_pattern(input):
        found = map(Path, set(glob.glob(input, recursive=True)))
        named = _named(input)
        paths = [each for each in found if each.is_file() and not _is_hidden(each, named)]
        parents = [each.parent for each in paths]
        base = Path(os.path.commonpath(parents)) if parents else Path()
    else:
        base = Path(input)
        paths = [
            Path(folder, name)
            for folder, _, names in os.walk(base, onerror=_raise, followlinks=False)
            for name in names
            if not _is_hidden(Path(folder, name).relative_to(base))
        ]
    for path in sorted(paths):
        kind = kind_of(path.name)
        real = path.absolute()
        if kind is None or not path.is_file() or any(real.is_relative_to(one) for one in left_out):
            continue
        yield Found(printable(path.relative_to(base).as_posix()), path, kind)


def _named(pattern: str) -> frozenset[str]:
    """Return the parts of a pattern that name a folder or file as it is."""
    return frozenset(each for each in Path(pattern).parts if not glob.has_magic(each))


def _is_hidden(path: Path, named: Collection[str] = ()) -> bool:
    """Whether a file is none of the data, as Hadoop and Spark have it, and nobody named it."""
    return any(each.startswith((".", "_")) and each not in named for each in path.parts)


def _raise(error: OSError) -> None:
    raise CannotScore(f"{error.filename}: cannot be read: {error.strerror}") from error


def printable(name: str) -> str:
    """Return the name of a file, which may be no text, as text."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
