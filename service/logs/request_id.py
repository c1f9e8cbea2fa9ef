"""The id of a request, and the trace that it belongs to.

The id is the caller's `X-Request-Id` if that is sane, else one made here; it stands in the reply
and in every line that is logged while the request is answered. Of a W3C `traceparent` the log
shows the trace and the span (https://www.w3.org/TR/trace-context/, section 3.2).
"""

import re
import secrets
from collections.abc import Callable
from contextvars import ContextVar
from itertools import count

_SANE_ID = re.compile(rb"[A-Za-z0-9._:+/=-]{1,128}")
_TRACEPARENT = re.compile(
    r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}(-.*)?"
)

# Id and traceparent of the request that this task answers.
_CURRENT: ContextVar[tuple[bytes, bytes] | None] = ContextVar("request", default=None)


def id_maker() -> Callable[[], bytes]:
    """Return what makes ids: a prefix that is this worker's own, and a number."""
    prefix = secrets.token_hex(6).encode()
    numbers = count(1)
    return lambda: b"%b-%x" % (prefix, next(numbers))


def request_id(headers: dict[bytes, bytes]) -> bytes | None:
    """Return the id that a caller gave, if that is sane."""
    given = headers.get(b"x-request-id")
    return given if given is not None and _SANE_ID.fullmatch(given) else None


def begin(id: bytes, headers: dict[bytes, bytes]) -> None:
    """Let what is logged here from now on have the id of a request, and its trace."""
    _CURRENT.set((id, headers.get(b"traceparent", b"")))


def logged_fields() -> dict[str, str]:
    """Return request_id, trace_id and span_id of the request that this task answers, if any."""
    current = _CURRENT.get()
    if current is None:
        return {}
    request_id, traceparent = (each.decode("latin-1") for each in current)
    fields = {"request_id": request_id}
    found = _TRACEPARENT.fullmatch(traceparent)
    if found and (found[1] != "00" or found[4] is None):  # only later versions may go on
        fields |= {"trace_id": found[2], "span_id": found[3]}
    return fields
