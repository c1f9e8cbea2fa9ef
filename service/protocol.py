"""HTTP/1.1 as uvicorn speaks it, with one system call a reply instead of two.

uvicorn writes the head of a reply and its body one after the other, and uvloop hands each to
the kernel at once. For small replies that second call is a tenth of the whole request
(measured with strace and py-spy on the iris model). So writes are held until the end of the
event loop's turn and sent together, pipelined replies too.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class JoinedWrites:
    """A transport that sends what is written in one turn of the event loop at once."""

    __slots__ = ("_loop", "_pending", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._pending: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Send `data` at the end of this turn, after what was written before."""
        if not self._pending:
            self._loop.call_soon(self._flush)
        self._pending.append(data)

    def close(self) -> None:
        """Send what is held, then close."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
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
        super().connection_made(JoinedWrites(transport, self.loop))  # type: ignore[arg-type]
