"""One HTTP request: its head, its body, how long its answer may take."""

from typing import Any

from litestar.types import HTTPScope, Receive
from msgspec import Struct

from service.batching import Inputs, Timing
from service.entrance import compression
from service.entrance.memory import Memory, bytes_of
from service.errors import InvalidInput, TooLarge
from service.inference import Call
from service.words import shown

TIMEOUT = "X-Request-Timeout-Ms"
_TIMEOUT = TIMEOUT.lower().encode()
# An extension of ASGI: what decided the version of the request on the direct way, which gave up.
TICKET = "torchlit.ticket"
_TIMING = b"x-request-timing"


class ClientLeft(Exception):
    """The caller closed the connection before its body was complete."""


class Request(Struct):
    """A request, and the values that its path has for the places of its route."""

    scope: HTTPScope
    headers: dict[bytes, bytes]  # names in lower case; of those that came twice, the last
    receive: Receive
    id: bytes
    values: dict[str, str]
    call: Call  # of one that infers
    memory: Memory
    held: int = 0  # bytes in it, beside those of the body as it came
    has_body: bool = False  # whether it came completely
    _sent: int = 0  # bytes of the body as it came, which the connection holds
    _read: int = 0  # and as it was read

    async def body(self, limit: int) -> bytes:
        """Return the complete body, decompressed.

        Raises TooLarge as soon as it is known, InvalidInput, UnsupportedEncoding, MemoryFull,
        ClientLeft.
        """
        length = self.headers.get(b"content-length")
        if length is not None and int(length) > limit:
            raise TooLarge(f"body: expected at most {limit} bytes, got {int(length)}")
        message: Any = await self.receive()
        if message["type"] == "http.request" and not message["more_body"]:
            body: bytes = message["body"]
        else:
            body = await _join_fragments(message, self.receive, limit)
        if len(body) > limit:
            raise TooLarge(f"body: expected at most {limit} bytes, got {len(body)} or more")
        self.has_body = True
        if b"content-encoding" not in self.headers:
            self.memory.take(0, len(body))
            self._sent = self._read = len(body)
            return body
        self._sent = len(body)
        decompressed = await compression.decompressed(body, self._encoding(), limit)
        self._hold(0 if decompressed is body else len(decompressed))
        self._read = len(decompressed)
        return decompressed

    def _encoding(self) -> bytes:
        """Return what Content-Encoding says, in one line or several (RFC 9110, section 5.3)."""
        lines = [each for name, each in self.scope["headers"] if name == b"content-encoding"]
        return b",".join(lines)

    def hold(self, inputs: Inputs) -> None:
        """Hold what was read of the body, in place of it. Raises MemoryFull.

        Either lies in the other, or the body is gone: the larger one counts.
        """
        self._hold(max(0, bytes_of(inputs) - self._read))

    def _hold(self, size: int) -> None:
        self.memory.take(size, self._sent + self.held)
        self.held += size

    def release(self) -> None:
        """Hold nothing any longer."""
        self.memory.give(self.held)
        self.held = 0


def note_wishes(call: Call, headers: dict[bytes, bytes], longest_s: float) -> None:
    """Note what the caller wants: a deadline, `longest_s` at most, and where the time goes.

    Raises InvalidInput.
    """
    if headers.get(_TIMING) == b"true":
        call.is_timed = True
        call.timing = call.timing or Timing()
    text = headers.get(_TIMEOUT)
    if text is None:
        call.deadline = call.start + longest_s
        return
    if not text.isdigit() or not 1 <= len(text) <= 9 or int(text) == 0:
        got = shown(text.decode("latin-1"))
        raise InvalidInput(f"{TIMEOUT}: expected whole milliseconds from 1, got {got}")
    call.deadline = call.start + min(longest_s, int(text) / 1000)


async def _join_fragments(message: Any, receive: Receive, limit: int) -> bytes:
    """Return what this message and those after it hold; no more than it takes to exceed `limit`."""
    body = bytearray()  # grows in place: bytes would be copied completely with each fragment
    while message["type"] == "http.request":
        body += message["body"]
        if not message["more_body"] or len(body) > limit:
            return bytes(body)
        message = await receive()
    raise ClientLeft
