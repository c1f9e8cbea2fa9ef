"""The query of a request: what bodies that hold nothing but images cannot say."""

from typing import Any
from urllib.parse import parse_qsl

from msgspec import Struct

from service.card import expected_version
from service.errors import InvalidInput
from service.http.request import Request
from service.words import misspelt, shown


class Query(Struct, frozen=True):
    """What a query says."""

    version: int | None = None
    prepare: bool = True

    def version_beside(self, in_body: Any) -> Any:
        """Return the version. Raises InvalidInput when body and query say two."""
        if self.version is None:
            return in_body
        if in_body is not None and in_body != self.version:
            expected = f"{self.version} as in the query"
            raise InvalidInput(f"version: expected {expected}, got {shown(in_body)}")
        return self.version


NO_QUERY = Query()
PARAMETERS = frozenset({"version", "prepare"})
_MOST_COMPARED = 64  # parameters with ours: each takes 50 us


def query_of(request: Request) -> Query:
    """Return what the query says. Raises InvalidInput with what does not fit.

    Names that are not misspelt ones of ours are somebody else's: gateways add `api-version`,
    `session`, `region` and the like.
    """
    query = request.scope["query_string"]
    if not query:
        return NO_QUERY
    said: dict[str, str] = {}
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    for place, (name, value) in enumerate(pairs):
        if name not in PARAMETERS:
            if place < _MOST_COMPARED and (meant := misspelt(name, PARAMETERS)):
                hint = f"unknown parameter; did you mean {meant}?"
                raise InvalidInput(f"query: {shown(name)}: {hint}")
            continue
        if name in said:
            raise InvalidInput(f"query: {name}: expected it once, got it again")
        said[name] = value
    version, prepare = said.get("version"), said.get("prepare", "auto")
    if version is not None and not (version.isascii() and version.isdigit() and len(version) < 20):
        raise InvalidInput(f"version: expected {expected_version(version)}, got {shown(version)}")
    if prepare not in ("auto", "false"):
        raise InvalidInput(f"prepare: expected auto or false, got {shown(prepare)}")
    return Query(None if version is None else int(version), prepare == "auto")
