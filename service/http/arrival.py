"""What comes in on a connection: how long a head may be, and how many requests may wait.

A client may send requests behind each other and read no reply. uvicorn parses all that comes, a
further read of the socket with each reply: 56 MB of small requests on one connection became 1.1 GB.
So a piece is parsed at a time, and no more while requests of it wait.
"""

from collections.abc import Callable, Iterable
from math import inf
from typing import Any

from uvicorn.protocols.http.flow_control import FlowControl

from service.errors import HeadTooLarge
from service.http.status import Headers

MAX_HEAD_BYTES = 65_536  # of request line and headers
MOST_BEHIND = 65_536  # bytes that wait to be parsed, before reading stops; a read may be more
PIECE = 4096  # bytes that are parsed together: 200 requests at most
SURELY_SHORT = MAX_HEAD_BYTES - PIECE  # a head of which no more came before its last piece


class Flow(FlowControl):
    """uvicorn's, that does not go on reading while too much waits, whoever wants it to.

    Up to that it does, to see whether the client leaves.
    """

    def __init__(self, transport: Any) -> None:
        super().__init__(transport)
        self.behind = bytearray()  # what waits to be parsed

    def put_behind(self, data: bytes) -> None:
        """Keep what came until what is answered now is."""
        self.behind += data
        if len(self.behind) > MOST_BEHIND:
            self.pause_reading()

    def take_behind(self) -> bytes:
        """Return what waits, and read again."""
        behind = bytes(self.behind)
        self.behind.clear()
        self.resume_reading()
        return behind

    def resume_reading(self) -> None:
        """Read again, unless too much waits."""
        if len(self.behind) <= MOST_BEHIND:
            super().resume_reading()


def pieces(data: bytes, rest: Callable[[], float]) -> Iterable[tuple[int, bytes]]:
    """Cut what came into pieces that are parsed together; each with its place.

    rest: returns how many bytes the request that has begun still needs, infinity if that is not
    known; called when the pieces before are parsed.
    """
    place = 0
    while place < len(data):
        left = len(data) - place
        size = left if left <= PIECE or left <= rest() < inf else PIECE
        yield place, data[place : place + size] if size < len(data) else data
        place += size


def is_too_long(target: bytes, headers: Headers) -> bool:
    """Whether a head has more than MAX_HEAD_BYTES."""
    size = len(target) + len("GET  HTTP/1.1\r\n\r\n")
    return size + sum(len(name) + len(value) + 4 for name, value in headers) > MAX_HEAD_BYTES


def head_too_large() -> HeadTooLarge:
    """Return the error that says how long a head may be."""
    return HeadTooLarge(f"headers: expected at most {MAX_HEAD_BYTES} bytes")
