"""HTTP/1.1 as uvicorn speaks it, with one system call a reply instead of two.

uvicorn writes the head of a reply and its body one after the other, and uvloop hands each to
the kernel at once. For small replies that second call is a tenth of the whole request
(measured with strace and py-spy on the iris model). So writes are held and sent together, at
the end of the event loop's turn.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class JoinedWrites:
    """A transport that holds what is written until `flush`, at most for a turn of the loop."""

    __slots__ = ("_loop", "_pending", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._pending: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Send `data` with the next flush, after what was written before."""
        if not self._pending:
            self._loop.call_soon(self.flush)
        self._pending.append(data)

    def close(self) -> None:
        """Send what is held, then close."""
        self.flush()
        self._transport.close()

    def flush(self) -> None:
        """Send what is held."""
        if self._pending:
            self._transport.write(b"".join(self._pending))
            self._pending.clear()

    def __getattr__(self, name: str) -> Any:
        """All else is the transport's."""
        return getattr(self._transport, name)


class Protocol(HttpToolsProtocol):
    """uvicorn's protocol over JoinedWrites."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to speak on a new connection."""
        self._writes = JoinedWrites(transport, self.loop)  # type: ignore[arg-type]
        super().connection_made(self._writes)  # type: ignore[arg-type]

    def on_response_complete(self) -> None:
        """Go on to what the connection brings next; a reply that is the only one is sent at once.

        Others leave together at the end of the turn: their callers then ask again together, which
        makes full batches (sent one by one, MNIST lost a third of its requests per second).
        """
        if len(self.tasks) == 1:
            self._writes.flush()
        super().on_response_complete()
