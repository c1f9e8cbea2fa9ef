"""One request: its body, its deadline, its reply. What POST /predict and /v2 have in common."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any, TypeAlias

import msgspec
from litestar.types import HTTPScope, Receive, Send
from msgspec import Struct

from service.batching import Timing
from service.catalog.served import ServedModel
from service.errors import InferenceFailed, InvalidInput, MethodNotAllowed, RequestError, TooLarge
from service.http import compression
from service.http.access import Headers
from service.metrics import Metrics

logger = logging.getLogger("torchlit.incoming")

encode = msgspec.json.Encoder().encode
TIMEOUT = "X-Request-Timeout-Ms"
TIMEOUT_HEADER = TIMEOUT.lower().encode()
TIMING_HEADER = b"x-request-timing"
JSON = (b"content-type", b"application/json")

# An extension of ASGI that our server offers (asgi.readthedocs.io, "Extensions"): a function that
# sends status, headers and body at once. It takes them as they are: no line break may be in them.
WHOLE_REPLY = "torchlit.whole_reply"

Parts: TypeAlias = list[bytes | memoryview]  # of a body
SendWhole: TypeAlias = Callable[[int, Headers, Parts], Awaitable[None]]


class ClientLeft(Exception):
    """The caller closed the connection before its body was complete. `answer` catches it."""


class Incoming(Struct):
    """A request, and what its reply will have whatever it says."""

    scope: HTTPScope
    headers: dict[bytes, bytes]  # names in lower case; of those that came twice, the last
    receive: Receive
    send: Send
    send_whole: SendWhole | None  # where the server can, and nothing has to see the parts
    is_alone: Callable[[], bool]  # whether no other request is being answered now
    reply_headers: Headers
    content_type: tuple[bytes, bytes] = JSON  # of the reply
    has_body: bool = False  # whether it came whole
    served: ServedModel | None = None  # the model that it is for, once that is known

    def check_is_post(self) -> None:
        """Raise MethodNotAllowed for another method."""
        if self.scope["method"] != "POST":
            raise MethodNotAllowed(f"method: expected POST, got {self.scope['method']}")

    async def body(self, limit: int) -> bytes:
        """Return the whole body, unpacked. Raises TooLarge as soon as it is known, InvalidInput."""
        length = self.headers.get(b"content-length")
        if length is not None and int(length) > limit:
            raise TooLarge(f"body: expected at most {limit} bytes, got {int(length)}")
        message: Any = await self.receive()
        if message["type"] == "http.request" and not message["more_body"]:
            body: bytes = message["body"]
        else:
            body = await _join_parts(message, self.receive, limit)
        if len(body) > limit:
            raise TooLarge(f"body: expected at most {limit} bytes, got {len(body)} or more")
        self.has_body = True
        encoding = self.headers.get(b"content-encoding")
        return body if encoding is None else await compression.unpacked(body, encoding, limit)

    def timeout_s(self, longest: float) -> float:
        """Return how long the answer may take: what the caller says, `longest` at most."""
        text = self.headers.get(TIMEOUT_HEADER)
        if text is None:
            return longest
        if not text.isdigit() or not 1 <= len(text) <= 9 or int(text) == 0:
            got = encode(text[:40].decode("latin-1")).decode()
            raise InvalidInput(f"{TIMEOUT}: expected whole milliseconds from 1, got {got}")
        return min(longest, int(text) / 1000)

    def timing(self) -> Timing | None:
        """Return what notes where the time goes, if the caller asks for that."""
        return Timing() if self.headers.get(TIMING_HEADER) == b"true" else None

    def tell(self, timing: Timing) -> None:
        """Tell the caller where the time went (W3C, "Server Timing": durations in ms)."""
        durations = (timing.queue_s * 1e3, timing.compute_s * 1e3)
        self.reply_headers.append(
            (b"server-timing", b"queue;dur=%.3f, compute;dur=%.3f" % durations)
        )

    async def reply(self, status: int, parts: Parts) -> None:
        """Send a reply whose body is `parts`, with the headers that were gathered."""
        length = len(parts[0]) if len(parts) == 1 else sum(map(len, parts))
        headers = [*self.reply_headers, self.content_type, (b"content-length", b"%d" % length)]
        if self.send_whole is not None:
            await self.send_whole(status, headers, parts)
            return
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        body = b"".join(parts)
        await self.send({"type": "http.response.body", "body": body, "more_body": False})


async def answer(
    request: Incoming, respond: Callable[[Incoming, float], Awaitable[Parts]], metrics: Metrics
) -> None:
    """Answer a request with what `respond` returns or raises, and count it.

    `respond` gets the request, and when it began by `perf_counter`. Cancelled when the caller
    leaves.
    """
    start = perf_counter()
    status, outcome = 200, "ok"
    try:
        parts = await respond(request, start)
    except ClientLeft:
        return
    except asyncio.CancelledError:
        if request.has_body:  # one that never came whole is counted by the connection
            _count(request, "cancelled", start, metrics)
        raise
    except RequestError as error:
        status, outcome, reply = error_reply(error)
        request.reply_headers += error.headers
        request.content_type, parts = JSON, [reply]
    except Exception:
        logger.exception("%s: this is a bug", request.scope["path"])
        status, outcome, reply = error_reply(InferenceFailed("internal error"))
        request.content_type, parts = JSON, [reply]
    _count(request, outcome, start, metrics)
    await request.reply(status, parts)


def _count(request: Incoming, outcome: str, start: float, metrics: Metrics) -> None:
    if request.served is None:
        metrics.unmatched(outcome)
    else:
        request.served.metrics.request(outcome, perf_counter() - start)


def error_reply(error: RequestError) -> tuple[int, str, bytes]:
    """Return status, outcome and body of the reply to a request that failed."""
    if error.__cause__ is not None and isinstance(error, InferenceFailed):
        logger.error("inference failed: %s", error.__cause__)
    # A lone surrogate, which JSON may hold as an escape, has no UTF-8.
    sentence = str(error).encode("utf-8", "backslashreplace").decode()
    return error.status, error.outcome, encode({"error": sentence})


async def _join_parts(message: Any, receive: Receive, limit: int) -> bytes:
    """Return what this message and those after it hold; no more than it takes to exceed `limit`."""
    body = bytearray()  # grows in place: bytes would be copied whole with each part
    while message["type"] == "http.request":
        body += message["body"]
        if not message["more_body"] or len(body) > limit:
            return bytes(body)
        message = await receive()
    raise ClientLeft
