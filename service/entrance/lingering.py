"""The end of a connection whose client still sends (RFC 9112, section 9.6).

What comes to a socket that is closed makes the kernel reset the connection, and the client loses
the reply that it did not read yet. So our side says that it sends no more, and what still comes
is dropped until the client closes too.
"""

import asyncio
from contextlib import suppress

MOST_BYTES = 64 * 2**20  # that are dropped; the time is limited as that of a request is


class Lingering(asyncio.Protocol):
    """Drops what comes, and tells the connection when it has ended."""

    def __init__(self, transport: asyncio.Transport, connection: asyncio.BaseProtocol) -> None:
        self._transport = transport
        self._connection = connection
        self._bytes = 0

    def data_received(self, data: bytes) -> None:
        """Drop it; end immediately if it is too much."""
        self._bytes += len(data)
        if self._bytes > MOST_BYTES:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the connection."""
        self._connection.connection_lost(exc)


def linger(transport: asyncio.Transport) -> None:
    """Send what is written and no more, drop what comes, and close when the client does."""
    transport.set_protocol(Lingering(transport, transport.get_protocol()))
    transport.resume_reading()
    with suppress(OSError):  # the client reset it: reading tells
        transport.write_eof()
