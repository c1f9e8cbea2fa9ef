"""What a client sent, taken in turns: what takes long to understand holds nobody else up.

A read of uvloop brings 256 KiB, and 31 more may follow in the same turn of its loop. 2 MB of header
fields of a byte took 4 s, in which no other caller was answered.
"""

import asyncio
from collections.abc import Callable
from time import perf_counter

PIECE = 4096  # bytes that are taken together: 100 small calls
TURN_S = 0.004  # from there on others have their turn
READ_S = 0.0005  # from there on nothing more is read in the same turn: 31 reads may follow


class Reading:
    """Keeps what came until it is its turn. Nothing more is read meanwhile."""

    def __init__(
        self,
        transport: asyncio.Transport,
        take: Callable[[bytes], int],
        end: Callable[[], None],
    ) -> None:
        """Begin with nothing.

        take: takes a piece; returns how many bytes more it can take as well as none, as a frame of
            which the beginning is here means nothing yet.
        end: called at the end of a turn.
        """
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._take = take
        self._end = end
        self._unread = b""
        self._place = 0  # in it: what stands before was taken
        self._next: asyncio.Handle | None = None  # turn
        self._is_paused = False

    def add(self, data: bytes) -> None:
        """Take what came, as much as there is time for."""
        self._unread = self._unread[self._place :] + data
        self._place = 0
        if not self._is_paused and self._next is None:
            self._turn()

    def _turn(self) -> None:
        size, begin = PIECE, perf_counter()
        try:
            while not self._is_paused and self._place < len(self._unread):
                piece = self._unread[self._place : self._place + size]
                self._place += len(piece)
                size = max(PIECE, self._take(piece))
                if perf_counter() - begin > TURN_S:
                    break
        finally:
            if self._place >= len(self._unread):
                self._unread, self._place = b"", 0
            self._end()
        if not self._is_paused and (self._unread or perf_counter() - begin > READ_S):
            self._transport.pause_reading()
            self._next = self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._next = None
        if self._is_paused:
            return
        if self._unread:
            try:
                self._turn()
            except BaseException:  # a bug; from data_received it ends the connection as well
                self._transport.abort()
                raise
        if self._next is None and not self._is_paused:
            self._transport.resume_reading()

    def pause(self) -> None:
        """Take and read nothing more."""
        self._is_paused = True
        self._transport.pause_reading()

    def resume(self) -> None:
        """Take what waits, and read again."""
        self._is_paused = False
        if self._next is None:
            self._next = self._loop.call_soon(self._go_on)

    def drop(self) -> None:
        """Forget what waits, and take nothing more: the connection is over."""
        self._is_paused = True
        self._unread, self._place = b"", 0
        if self._next is not None:
            self._next.cancel()
            self._next = None
