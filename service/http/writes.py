"""Writes of a connection, held and sent together.

uvicorn writes the head of a reply and its body one after the other, and uvloop hands each to
the kernel immediately. For small replies that second call is a tenth of the whole request
(measured with strace and py-spy on the iris model). So writes are held and sent together, at
the end of the event loop's turn.
"""

import asyncio
from typing import Any

from service.http.lingering import linger


class JoinedWrites:
    """A transport that holds what is written until `flush`, at most for a turn of the loop."""

    __slots__ = ("_loop", "_pending", "_transport", "is_lingering", "is_receiving")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._pending: list[bytes] = []
        self.is_receiving = False  # whether the client is about to send more
        self.is_lingering = False  # closed, but for what the client still sends

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

    def __getattr__(self, name: str) -> Any:
        """All else is the transport's."""
        return getattr(self._transport, name)
