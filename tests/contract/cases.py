"""The refusals of *.toml, as cases. README.md beside this says how the files are written."""

import base64
import gzip
import itertools
import json
import re
import tomllib
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from tests.contract.pictures import PICTURES
from tests.contract.servers import SERVERS, Counts

FOLDER = Path(__file__).parent
FILES = sorted(set(FOLDER.glob("*.toml")) - {FOLDER / "servers.toml"})
PLACEHOLDER = re.compile(rb"<([a-z_]+)(\.bytes)?>")
LONGEST = 350  # bytes of a reply: what is long is told in short
FIELDS = {
    *("server", "method", "path", "headers", "body", "chunk_bytes", "raw"),
    *("status", "error", "error_begins", "reply", "outcome", "of"),
}


class Case(NamedTuple):
    """A request that is refused, and what is right."""

    claim: str  # of its group
    name: str
    server: str
    method: str
    path: str
    headers: dict[str, bytes]
    body: bytes
    chunk_bytes: int  # the body goes in chunks of so many; 0 for a body in one piece
    raw: bytes  # what is written on a connection, in place of all that; it ends with the reply
    status: int
    error: str | None  # None for a reply to HEAD
    error_begins: bool
    reply: dict[str, str]  # headers that must be there
    outcome: str
    of: str  # "model/version" once that is known

    def right(self) -> dict[str, Any]:
        """Return what `seen` is to return."""
        return {
            "status": self.status,
            "body": None if self.error is None else {"error": self.error},
            "headers": {name: _tokens(value) for name, value in self.reply.items()},
            "is short": True,
        }

    def seen(self, status: int, headers: Mapping[str, str], content: bytes) -> dict[str, Any]:
        """Return of a reply what the case says of it."""
        reply: Any = json.loads(content) if content else None
        if self.error_begins and isinstance(reply, dict) and "error" in reply:
            assert self.error is not None
            reply["error"] = reply["error"][: len(self.error)]
        return {
            "status": status,
            "body": reply,
            "headers": {name: _tokens(headers.get(name, "")) for name in self.reply},
            "is short": len(content) < LONGEST,
        }

    def counts(self) -> Counts:
        """Return how it is counted: once, or not at all."""
        return Counter() if self.outcome == "uncounted" else Counter([(self.outcome, self.of)])

    def content(self) -> bytes | Iterator[bytes]:
        """Return the body as httpx takes it."""
        if not self.chunk_bytes:
            return self.body
        places = range(0, len(self.body), self.chunk_bytes)
        return (self.body[place : place + self.chunk_bytes] for place in places)


def _tokens(value: str) -> set[str]:
    return set(value.split(", "))


def of_server(server: str) -> list[Case]:
    return [case for case in CASES if case.server == server]


def claims() -> dict[tuple[str, str], list[Case]]:
    """Return the cases that need no socket, by server and claim."""
    found: dict[tuple[str, str], list[Case]] = {}
    for case in CASES:
        if not case.raw:
            found.setdefault((case.server, case.claim), []).append(case)
    return found


def _read(file: Path) -> Iterator[Case]:
    """Yield the cases of a file. Raises ValueError for a name that stands nowhere."""
    said = tomllib.loads(file.read_text())
    for name, group in said.pop("claim").items():
        claim = f"{file.stem}: {name}"
        each, cases = group.pop("each", {}), group.pop("cases", {"": {}})
        named, used = set(group), set()
        for name, case in cases.items():
            for values in itertools.product(*each.values()):
                parts = [claim, name, ", ".join(_short(value) for value in values)]
                nearest = {**case, **dict(zip(each, values, strict=True))}
                fields = _merged(said, group, nearest)
                named |= nearest.keys()
                yield _case(claim, ": ".join(filter(None, parts)), fields, used)
        if unused := named - FIELDS - used:
            raise ValueError(f"{claim}: {', '.join(unused)} stands nowhere")


def _merged(*levels: dict[str, Any]) -> dict[str, Any]:
    """Return what a case says, or else its group, or else the file; headers, one by one."""
    fields: dict[str, Any] = {"headers": {}, "reply": {}}
    for level in levels:
        if {"error", "error_begins"} & level.keys():
            fields.pop("error", None)
            fields.pop("error_begins", None)
        headers = {name: fields[name] | level.get(name, {}) for name in ("headers", "reply")}
        fields |= level | headers
    return fields


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else str(value)
    return text[:40].encode("unicode_escape").decode()


def _case(claim: str, name: str, fields: dict[str, Any], used: set[str]) -> Case:
    """Fill in the values; `used` gets the names of those that stand somewhere."""
    values = {"models": ", ".join(sorted(SERVERS[fields["server"]].models)), **fields}

    def filled(part: bytes) -> bytes:
        return PLACEHOLDER.sub(value, part)

    def value(found: re.Match[bytes]) -> bytes:
        if (key := found[1].decode()) not in values:
            return found[0]  # no placeholder
        used.add(key)
        content = written(values[key], filled)
        return b"%d" % len(content) if found[2] else content

    def content(key: str, default: Any = "") -> bytes:
        return written(fields.get(key, default), filled)

    error = "error_begins" if "error_begins" in fields else "error"
    method = content("method").decode()
    return Case(
        claim=claim,
        name=name,
        server=fields["server"],
        method=method,
        path=content("path").decode(),
        headers={key: written(each, filled) for key, each in fields["headers"].items()},
        body=content("body"),
        chunk_bytes=fields.get("chunk_bytes", 0),
        raw=content("raw"),
        status=fields["status"],
        error=None if method == "HEAD" else content(error).decode(),
        error_begins="error_begins" in fields,
        reply={key: written(each, filled).decode() for key, each in fields["reply"].items()},
        outcome=fields["outcome"],
        of=content("of").decode(),
    )


def written(content: Any, filled: Callable[[bytes], bytes]) -> bytes:
    """Return the bytes that a value stands for; `filled` puts values where placeholders are."""
    if isinstance(content, str | int):
        return filled(str(content).encode())
    if isinstance(content, list):
        return b"".join(written(part, filled) for part in content)
    ((kind, inner), *more) = content.items()
    return MADE[kind](written(inner, filled), *(value for _, value in more))


def _raw_deflate(content: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(content) + packer.flush()


# What a table of TOML makes of its first value, and of its second one.
MADE: dict[str, Callable[..., bytes]] = {
    "repeat": lambda content, times: content * times,
    "cut": lambda content, at: content[:at],
    "bytes": lambda text: text.decode("unicode_escape").encode("latin-1"),
    "in_base64": base64.b64encode,
    "utf16": lambda text: text.decode().encode("utf-16"),
    "gzip": partial(gzip.compress, mtime=0),
    "deflate": zlib.compress,
    "raw_deflate": _raw_deflate,
    "picture": lambda name: PICTURES[name.decode()],
}
CASES = [case for file in FILES for case in _read(file)]
