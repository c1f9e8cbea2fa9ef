"""What a connection sends, and whether its client takes it."""

import asyncio
import contextlib
import socket
from typing import Any

from service.entrance.writes import JoinedWrites


class Transport:
    """One whose kernel takes nothing more, as it does until a third of its room is free."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def get_write_buffer_size(self) -> int:
        return 100_000

    def get_extra_info(self, name: str) -> socket.socket:
        assert name == "socket"
        return self._connection


def test_what_a_client_takes_of_the_kernel_counts_as_taken() -> None:
    """One that read 50 kB a second was cut off after 12 s, with all of its replies unfinished."""
    loop = asyncio.new_event_loop()
    loop.close()  # nothing is written here
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        connection, _ = listener.accept()
    with client, connection:
        connection.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                connection.send(b"a" * 65_536)
        transport: Any = Transport(connection)
        writes = JoinedWrites(transport, loop)
        assert writes.look(1.0) == writes.unsent == 100_000
        assert writes.look(2.0) == 0
        assert writes.untaken_since == 1.0

        taken = 0
        while taken < 1_000_000:
            taken += len(client.recv(65_536))
        assert writes.look(3.0) == 0
        assert writes.untaken_since == 3.0
