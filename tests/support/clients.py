"""Clients over raw sockets, and what the service counted of them."""

import asyncio
import json
import re
import socket
import struct
import time

import numpy as np

from tests.support.toys import body, toy_answer

RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close without a goodbye


def address(url: str) -> tuple[str, int]:
    """Return host and port of http://host:port."""
    return "127.0.0.1", int(url.rsplit(":", 1)[1])


async def ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, content: bytes
) -> tuple[bytes, bytes]:
    """Send one request to /predict on an open connection; return head and body of the reply."""
    writer.write(predict_request(content))
    return await read_reply(reader)


def predict_request(content: bytes, headers: bytes = b"") -> bytes:
    """Return a request to /predict as it goes over the wire; each header ends with CR LF."""
    length = b"Content-Length: %d\r\n" % len(content)
    return b"POST /predict HTTP/1.1\r\nHost: x\r\n" + headers + length + b"\r\n" + content


async def read_reply(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Return head and body of a reply that says how long it is."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head)
    assert length is not None, head
    return head, await reader.readexactly(int(length[1]))


def reset(connection: socket.socket | asyncio.StreamWriter) -> None:
    """Close a connection at once, as one that breaks: the other side is told so."""
    if isinstance(connection, socket.socket):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        connection.close()
        return
    own: socket.socket = connection.get_extra_info("socket")
    own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    connection.transport.abort()


async def ask_until_sent_away(url: str) -> tuple[int, bool]:
    """Send requests on one connection until the reply says that it closes.

    Returns how many were answered, and whether the last was sent and never answered.
    """
    reader, writer = await asyncio.open_connection(*address(url))
    answered = 0
    while True:
        try:
            head, _ = await ask(reader, writer, body("toy", [[1, 2, 3, 4]]))
        except (asyncio.IncompleteReadError, ConnectionError):
            return answered, True
        answered += 1
        if b"connection: close" in head:
            writer.close()
            return answered, False


async def distinct_rows_from(url: str, clients: int, seconds: float) -> int:
    """Let clients send rows of their own and check every answer; return how many there were."""
    until = time.monotonic() + seconds

    async def one(seed: int) -> int:
        random = np.random.default_rng(seed)
        reader, writer = await asyncio.open_connection(*address(url))
        answered = 0
        while time.monotonic() < until:
            rows = random.uniform(0, 10, (1 + answered % 3, 4)).round(3)
            head, reply = await ask(reader, writer, body("toy", rows.tolist()))
            assert head.startswith(b"HTTP/1.1 200 ")
            predictions = json.loads(reply)["predictions"]
            got = np.array([list(each["probabilities"].values()) for each in predictions])
            assert np.abs(got - toy_answer(rows)).max() < 1e-6
            answered += 1
        writer.close()
        return answered

    return sum(await asyncio.gather(*(one(seed) for seed in range(clients))))


def counted(text: str, series: str, labels: str = "") -> float:
    """Add up the samples whose line begins with `series` and holds `labels`."""
    return sum(
        float(line.rsplit(" ", 1)[1])
        for line in text.splitlines()
        if line.startswith(series) and labels in line
    )
