"""A file of digests as `sha256sum` of GNU coreutils writes and checks it (its manual, "cksum").

A line is 64 hexadecimal digits, a blank, another one or `*`, and the name of a file. Where the name
has a backslash or an end of line, a backslash stands before the digits, and the name has `\\\\`,
`\\n` or `\\r` instead. Empty lines and those that begin with # say nothing.

Names are relative to the folder of models. Training writes the file too.
"""

import contextlib
import fcntl
import os
import posixpath
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from service.errors import InvalidPins

FILE_NAME = "SHA256SUMS"
_LINE = re.compile(rb"(\\?)([0-9A-Fa-f]+) [ *](.+)", re.DOTALL)
_ESCAPED = {b"\\": b"\\", b"n": b"\n", b"r": b"\r"}
_ESCAPES = {ord("\\"): "\\\\", ord("\n"): "\\n", ord("\r"): "\\r"}
_DIGITS = 64
_SHOWN = 60  # bytes of a line that is none


def parsed(content: bytes, where: str) -> dict[str, str]:
    """Return the digests, in lower case, by the names of the files.

    Raises InvalidPins that begins with `where` and says which line is none, or contradicts another.
    """
    digests: dict[str, str] = {}
    lines: dict[str, int] = {}
    for number, line in enumerate(content.split(b"\n"), 1):
        entry = _entry(line, f"{where}: line {number}")
        if entry is None:
            continue
        name, digest = entry
        if digests.setdefault(name, digest) != digest:
            raise InvalidPins(
                f"{where}: line {number}: {name}: expected the digest of line {lines[name]}, got "
                "another"
            )
        lines.setdefault(name, number)
    return digests


def line_of(name: str, digest: str) -> str:
    """Return the line of a file, as sha256sum writes it, without its end."""
    escaped = name.translate(_ESCAPES)
    return ("\\" if escaped != name else "") + f"{digest}  {escaped}"


def update(path: Path, digests: Mapping[str, str], gone: Collection[str] = ()) -> None:
    """Let the file at `path` have these digests, and no line of files that are `gone`.

    All other lines stay, and so does the file where nothing is new. It is written beside, checked
    and renamed, while no other process does the same. Raises InvalidPins for what is there
    already, OSError.
    """
    path = Path(os.path.realpath(path))  # a link stays one
    with alone_in(path.parent):
        before = path.read_bytes() if path.exists() else b""
        after = _updated(before, digests, gone, path.name)
        if after == before:
            return
        beside = path.with_name(f".{path.name}.new")
        try:
            with beside.open("wb") as file:
                file.write(after)
                file.flush()
                os.fsync(file.fileno())
            written = parsed(beside.read_bytes(), path.name)
            if not digests.items() <= written.items():
                raise AssertionError("the digests that were written are others. This is a bug.")
            if before:
                beside.chmod(path.stat().st_mode & 0o777)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)


def _updated(
    content: bytes, digests: Mapping[str, str], gone: Collection[str], where: str
) -> bytes:
    known = parsed(content, where)
    kept = []
    for line in content.removesuffix(b"\n").split(b"\n") if content else ():
        name, digest = _entry(line, where) or ("", "")
        if name not in gone and digests.get(name, digest) == digest:
            kept.append(line)
    new = sorted(name for name, digest in digests.items() if known.get(name) != digest)
    kept += [os.fsencode(line_of(name, digests[name])) for name in new]
    return b"".join(line + b"\n" for line in kept)


def _entry(line: bytes, where: str) -> tuple[str, str] | None:
    """Return the name and the digest of a line, None of one that says nothing."""
    line = line.removesuffix(b"\r")
    if not line or line.startswith(b"#"):
        return None
    found = _LINE.fullmatch(line)
    if found is None:
        shown = line[:_SHOWN].decode(errors="replace")
        raise InvalidPins(
            f"{where}: expected {_DIGITS} hexadecimal digits, two blanks (or a blank and *) and a "
            f"name, as sha256sum writes them, got {shown!r}"
        )
    escape, digits, name = found.groups()
    if len(digits) != _DIGITS:
        raise InvalidPins(
            f"{where}: expected the {_DIGITS} hexadecimal digits of SHA-256, got {len(digits)}"
        )
    return _place(_unescaped(name, where) if escape else name, where), digits.decode().lower()


def _unescaped(name: bytes, where: str) -> bytes:
    if re.fullmatch(rb"([^\\]|\\[\\nr])+", name, re.DOTALL) is None:
        raise InvalidPins(rf"{where}: expected a name with \\, \n or \r for what is escaped")
    return re.sub(rb"\\(.)", lambda found: _ESCAPED[found[1]], name)


def _place(name: bytes, where: str) -> str:
    """Return the path of a file from the folder of models."""
    place = posixpath.normpath(os.fsdecode(name))
    if place.startswith(("/", "../")) or place in (".", "..") or "\0" in place:
        shown = name[:_SHOWN].decode(errors="replace")
        raise InvalidPins(f"{where}: expected a file in the folder of models, got {shown!r}")
    return place


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Wait until no other process writes into `folder` so, and let none. Raises OSError."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
