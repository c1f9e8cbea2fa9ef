"""What a route is, and which one a path is of."""

import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Literal, TypeAlias

from msgspec import Struct

from service.entrance.services import Services
from service.http.procedure import Procedure
from service.http.reply import Reply
from service.http.request import Request

# Who may call where there are API keys: those who have one; also probes, and Prometheus, unless
# the settings say otherwise; everybody.
Who: TypeAlias = Literal["key", "probe", "metrics", "everybody"]

Handler: TypeAlias = Callable[[Services, Request], Awaitable[Reply]]


class Route(Struct, frozen=True):
    """One row of the table of routes."""

    path: str  # a place in it is one segment: /models/{model}
    method: Literal["GET", "POST"]  # GET is HEAD too
    handler: Handler
    summary: str
    # Returns what the OpenAPI document says of it, by path; what it takes is in openapi/.
    document: Callable[..., dict[str, Any]] | None = None
    who: Who = "key"  # of what is read; POST always needs a key
    is_inference: bool = False  # it holds rows or tensors: answered without the framework, counted
    procedure: Procedure | None = None  # the steps of the handler, if it can go without a coroutine
    values: dict[str, str] = {}  # of places that the path of a setting has filled


_SLASHES = re.compile("//+")
_MOST_KNOWN = 1024  # paths: callers may make them up
_LONGEST_KNOWN = 256  # characters of one


class Router:
    """Finds the route of a path."""

    def __init__(self, routes: Iterable[Route]) -> None:
        """Take routes with different paths; of two with the same path, the last counts."""
        self._exact: dict[str, tuple[Route, dict[str, str]]] = {}
        self._patterns: list[tuple[str, re.Pattern[str], Route]] = []
        for route in routes:
            begin, place, _ = route.path.partition("{")
            if place:  # all else in our own paths stands for itself
                pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", route.path) + "/?"
                self._patterns.append((begin, re.compile(pattern), route))
            else:
                found = route, route.values
                bare = route.path.rstrip("/")
                self._exact[bare or "/"] = self._exact[f"{bare}/"] = found
        self._known = self._exact.copy()  # and paths that were found by a pattern

    def find(self, path: str) -> tuple[Route, dict[str, str]] | None:
        """Return the route of a path, and what stands in the places; only to be read.

        Several slashes are one: clients join "http://host:8000/" and "/predict".
        """
        known = self._known.get(path)
        if known is not None:
            return known
        for begin, pattern, route in self._patterns:
            if path.startswith(begin) and (found := pattern.fullmatch(path)):
                known = route, found.groupdict()
                if len(path) <= _LONGEST_KNOWN:
                    if len(self._known) >= _MOST_KNOWN:
                        self._known = self._exact.copy()
                    self._known[path] = known
                return known
        return self.find(_SLASHES.sub("/", path)) if "//" in path else None


def plain_path(path: str | None) -> str | None:
    """Return a path of a setting as the table writes them: no slash behind, or behind another."""
    return path and (_SLASHES.sub("/", path).rstrip("/") or "/")
