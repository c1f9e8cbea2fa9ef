"""One HTTP reply: a value, until the app sends it."""

from collections.abc import Iterable
from typing import Any, TypeAlias

from msgspec import Struct, field
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from service.batching import Timing
from service.entrance import compression
from service.errors import RequestError
from service.formats.predictions import encode
from service.http.preferences import wanted_encoding
from service.http.status import STATUS, Headers, headers_of

JSON = b"application/json"

# An extension of ASGI that our server offers (asgi.readthedocs.io, "Extensions"): a function that
# sends status, headers and body together. It takes them as they are: no line break may be in them.
WHOLE_REPLY = "torchlit.whole_reply"

Fragments: TypeAlias = list[bytes | memoryview]  # of a body


class Reply(Struct):
    """Status, headers and body."""

    body: Fragments
    status: int = 200
    content_type: bytes = JSON
    headers: Headers = field(default_factory=list)
    is_compressible: bool = False  # where the caller accepts that


def json_reply(value: Any, status: int = 200) -> Reply:
    """Return a reply of JSON."""
    return Reply([encode(value)], status)


def error_reply(error: RequestError) -> Reply:
    """Return the reply to a request that failed."""
    # A lone surrogate, which JSON may hold as an escape, has no UTF-8.
    sentence = str(error).encode("utf-8", "backslashreplace").decode()
    body: Fragments = [encode({"error": sentence})]
    return Reply(body, STATUS[type(error)], headers=[*headers_of(error)])


def all_headers(reply: Reply, others: Headers) -> Headers:
    """Return the headers of a reply: others first, then those of its body, then its own."""
    body = reply.body
    length = len(body[0]) if len(body) == 1 else sum(map(len, body))
    return [
        *others,
        (b"content-type", reply.content_type),
        (b"content-length", b"%d" % length),
        *reply.headers,
    ]


def lines_of(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the lines of headers."""
    return b"".join([b"%b: %b\r\n" % header for header in headers])


def sent(status: int, headers: Iterable[tuple[bytes, bytes]], body: Fragments) -> bytes:
    """Return a reply as it is sent."""
    return b"".join((STATUS_LINE[status], lines_of(headers), b"\r\n", *body))


def written(reply: Reply, id: bytes, others: bytes) -> bytes:
    """Return a reply to the request of an id as it is sent, with the lines of other headers."""
    body = reply.body
    length = len(body[0]) if len(body) == 1 else sum(map(len, body))
    own = lines_of(reply.headers) if reply.headers else b""
    head = b"%b%bx-request-id: %b\r\ncontent-type: %b\r\ncontent-length: %d\r\n%b\r\n" % (
        STATUS_LINE[reply.status],
        others,
        id,
        reply.content_type,
        length,
        own,
    )
    return b"".join((head, *body))


def note_timing(reply: Reply, timing: Timing) -> None:
    """Say to the caller where the time went (W3C, "Server Timing": durations in ms)."""
    durations = (timing.queue_s * 1e3, timing.compute_s * 1e3)
    reply.headers.append((b"server-timing", b"queue;dur=%.3f, compute;dur=%.3f" % durations))


def encoding_for(reply: Reply, accept_encoding: bytes | None) -> str | None:
    """Return how a reply that may be compressed is to be; None if it stays as it is."""
    if sum(map(len, reply.body)) < compression.SHORTEST:
        return None
    reply.headers.append((b"vary", b"accept-encoding"))
    return None if accept_encoding is None else wanted_encoding(accept_encoding)


async def compress(reply: Reply, encoding: str) -> None:
    """Compress the body of a reply."""
    reply.body = [await compression.compressed(b"".join(reply.body), encoding)]
    reply.headers.append((b"content-encoding", encoding.encode()))
