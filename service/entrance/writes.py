"""Writes of a connection, held and sent together.

uvicorn writes the head of a reply and its body one after the other, and uvloop hands each to
the kernel immediately. For small replies that second call is a tenth of the whole request
(measured with strace and py-spy on the iris model). So writes are held and sent together, at
the end of the event loop's turn.
"""

import asyncio
import sys
from fcntl import ioctl
from math import inf
from socket import IPPROTO_TCP, TCP_INFO
from termios import TIOCOUTQ  # of a socket it is what Linux calls SIOCOUTQ, tcp(7)
from typing import Any

from service.entrance.lingering import linger

_CLOSED = b"\x07"  # TCP_CLOSE, the first byte of what Linux says with TCP_INFO, tcp(7)


class JoinedWrites:
    """A transport that holds what is written until `flush`, at most for a turn of the loop."""

    __slots__ = (
        *("_loop", "_pending", "_transport", "_untaken"),
        *("is_lingering", "is_receiving", "unsent", "untaken_since"),
    )

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._pending: list[bytes] = []
        self.is_receiving = False  # whether the client is about to send more
        self.is_lingering = False  # closed, but for what the client still sends
        self.unsent = 0  # bytes that the kernel had not taken at the last look
        self._untaken = 0  # if there are any: bytes that the client had not taken then
        self.untaken_since = inf  # since when they did not become fewer

    def write(self, data: bytes) -> None:
        """Send `data` with the next flush, after what was written before."""
        if not self._pending:
            self._loop.call_soon(self.flush)
        self._pending.append(data)

    def write_now(self, data: bytes) -> None:
        """Send `data` after what is held."""
        if self._pending:
            self.flush()
        self._transport.write(data)

    def close(self) -> None:
        """Send what is held, then close; a client that still sends can read it."""
        self.flush()
        if not self.is_receiving:
            self._transport.close()
        elif not self.is_closing():
            self.is_lingering = True
            linger(self._transport)

    def is_closing(self) -> bool:
        """Whether the connection is gone, or about to be."""
        return self.is_lingering or self._transport.is_closing()

    def flush(self) -> None:
        """Send what is held, unless the connection is gone."""
        if self._pending and not self.is_closing():
            self._transport.write(b"".join(self._pending))
        self._pending.clear()

    def look(self, now: float) -> int:
        """Note what the client has not taken; return how much more waits here than before."""
        unsent, before = self._transport.get_write_buffer_size(), self.unsent
        untaken = unsent and unsent + self._kernel_bytes()
        if self._untaken == 0 or untaken < self._untaken:
            self.untaken_since = now
        self.unsent, self._untaken = unsent, untaken
        return unsent - before

    def _kernel_bytes(self) -> int:
        """Return how many bytes the kernel has that the client did not take; 0 if it is not known.

        It takes more from here only when a third of its room is free, which may be a megabyte.
        """
        try:
            descriptor = self._transport.get_extra_info("socket").fileno()
            return int.from_bytes(ioctl(descriptor, TIOCOUTQ, bytes(4)), sys.byteorder)
        except OSError:
            return 0

    def is_reset(self) -> bool:
        """Whether the client ended the connection, which is seen by reading else; Linux says it."""
        try:
            state = self._transport.get_extra_info("socket").getsockopt(IPPROTO_TCP, TCP_INFO, 1)
        except OSError:
            return True
        return bool(state == _CLOSED)

    def __getattr__(self, name: str) -> Any:
        """All else is the transport's."""
        return getattr(self._transport, name)
