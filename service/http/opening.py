"""The first bytes of a connection, which say what its client speaks (RFC 9113, section 3.4)."""

import asyncio
from collections.abc import Callable

from service.http.connection import Protocol

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

# Takes a connection over that speaks HTTP/2: it gets the transport.
Taker = Callable[[asyncio.Transport], asyncio.Protocol]


class HandedOver(Exception):
    """Another protocol speaks on the connection from now on."""


class Opening(asyncio.Protocol):
    """Hands the connection over to who speaks what its first bytes say.

    Until then it is one of HTTP/1.1, which has a place among the others, and must say something.
    """

    def __init__(self, http1: Protocol, taker: Callable[[], "asyncio.Future[Taker]"]) -> None:
        """taker: loads what speaks HTTP/2."""
        self._http1 = http1
        self._taker = taker
        self._first = b""
        self._is_waiting = False  # for what speaks HTTP/2

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for the first bytes."""
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._http1.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Take the first bytes, which may come in pieces."""
        self._first += data
        if self._first.startswith(PREFACE):
            if not self._is_waiting:
                self._is_waiting = True
                self._transport.pause_reading()
                self._taker().add_done_callback(self._hand_over)
        elif not PREFACE.startswith(self._first):
            self._transport.set_protocol(self._http1)
            self._http1.data_received(self._first)

    def _hand_over(self, loaded: "asyncio.Future[Taker]") -> None:
        take = loaded.result()
        if self._transport.is_closing():
            return
        self._http1.connection_lost(HandedOver())
        protocol = take(self._transport)
        self._transport.set_protocol(protocol)
        self._transport.resume_reading()  # before the protocol says when it reads
        protocol.data_received(self._first)

    def eof_received(self) -> bool | None:
        """As HTTP/1.1 has it."""
        self._transport.set_protocol(self._http1)
        if self._first:
            self._http1.data_received(self._first)
        return self._http1.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """As HTTP/1.1 has it."""
        self._http1.connection_lost(exc)

    def pause_writing(self) -> None:
        """As HTTP/1.1 has it."""
        self._http1.pause_writing()

    def resume_writing(self) -> None:
        """As HTTP/1.1 has it."""
        self._http1.resume_writing()
