"""Clients that send more than is read: they can read why, and do not go on for ever."""

import asyncio
import contextlib
import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.entrance.lingering import MOST_BYTES, linger
from tests.support.clients import address, reset
from tests.support.processes import Process, running
from tests.support.toys import body, save_toy, toy_card

POST = b"POST %b HTTP/1.1\r\nHost: x\r\n%b\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
LONG = b"1" * 20_000_000  # more than the kernel holds of a connection
CHUNK = b"100000\r\n%b\r\n" % (b"1" * 0x100000)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """The service with toy, that takes a megabyte, and finds no fault with itself."""
    folder = tmp_path_factory.mktemp("models")
    save_toy(folder, card=toy_card())
    with running(models_dir=folder, max_body_bytes=1_000_000) as service:
        yield service
        assert service.stop() == 0
    assert not any("Traceback" in line or "ERROR" in line for line in service.log)


# What is sent completely before anything is read, and the reply.
REFUSED = {
    "a long body": (
        POST % (b"/predict", b"Content-Length: %d\r\n" % len(LONG)) + LONG,
        b"413 Request Entity Too Large",
    ),
    "a long body in chunks": (
        POST % (b"/predict", CHUNKED) + CHUNK * 20,
        b"413 Request Entity Too Large",
    ),
    "a body for nobody": (
        POST % (b"/nowhere", b"Content-Length: %d\r\n" % len(LONG)) + LONG,
        b"404 Not Found",
    ),
    "a wrong chunk": (
        POST % (b"/predict", CHUNKED) + b"wrong" + LONG,
        b"400 Bad Request",
    ),
    "no HTTP": (b"\x16\x03\x01" + LONG, b"400 Bad Request"),
    "a long head": (b"GET / HTTP/1.1\r\nx: " + LONG, b"431 Request Header Fields Too Large"),
}


def test_who_is_refused_early_can_read_why(service: Process) -> None:
    replies = {}
    for name, (sent, _) in REFUSED.items():
        with socket.create_connection(address(service.url), timeout=20) as connection:
            connection.sendall(sent)
            with connection.makefile("rb") as reply:
                replies[name] = reply.read()
    lines = {name: reply.partition(b"\r\n")[0] for name, reply in replies.items()}
    assert lines == {name: b"HTTP/1.1 " + status for name, (_, status) in REFUSED.items()}
    assert all(b"connection: close\r\n" in reply for reply in replies.values())


def test_the_client_of_pythons_library_can_read_it(service: Process) -> None:
    asked = urllib.request.Request(service.url + "/predict", bytes(40_000_000))
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(asked, timeout=20)
    with caught.value as reply:
        assert reply.status == 413
        error = json.loads(reply.read())["error"]
    assert error == "body: expected at most 1000000 bytes, got 40000000"


@pytest.mark.parametrize("path", [b"/predict", b"/nowhere"])
def test_a_body_without_an_end_is_cut_off(service: Process, path: bytes) -> None:
    with socket.create_connection(address(service.url), timeout=20) as connection:
        connection.sendall(POST % (path, CHUNKED))
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 4 * MOST_BYTES:
                connection.sendall(CHUNK)
                sent += len(CHUNK)
        assert MOST_BYTES / 2 < sent < 2 * MOST_BYTES
        assert service.get("/health/live").status_code == 200


def dribble(connection: socket.socket, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        connection.sendall(b"1")


@pytest.mark.slow
def test_who_reads_why_and_does_not_close_is_cut_off(models_dir: Path) -> None:
    with (
        running(models_dir=models_dir, max_body_bytes=10, receive_timeout_s=1) as service,
        socket.create_connection(address(service.url), timeout=20) as connection,
    ):
        connection.sendall(POST % (b"/predict", b"Content-Length: 999999\r\n"))
        with connection.makefile("rb") as reply:
            assert reply.read().startswith(b"HTTP/1.1 413 ")
        with pytest.raises(ConnectionError):
            dribble(connection, 20)


def test_behind_a_reply_a_short_rest_is_read_and_the_connection_stays(service: Process) -> None:
    content = body("toy", [[1, 2, 3, 4]])
    length = b"Content-Length: %d\r\n"
    with (
        socket.create_connection(address(service.url), timeout=20) as connection,
        connection.makefile("rb") as replies,
    ):

        def answer() -> tuple[bytes, bytes]:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += replies.readline()
            size = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            return head, replies.read(size)

        connection.sendall(POST % (b"/nowhere", length % 1000))
        head, _ = answer()
        assert head.startswith(b"HTTP/1.1 404 ")
        assert b"connection: close" not in head
        connection.sendall(b"1" * 1000 + POST % (b"/predict", length % len(content)) + content)
        head, _ = answer()
        assert head.startswith(b"HTTP/1.1 200 ")
        # In pieces, a long request is kept as a short one is.
        long = content + b" " * 300_000
        connection.sendall(POST % (b"/predict", length % len(long)) + long)
        head, _ = answer()
        assert head.startswith(b"HTTP/1.1 200 ")
        assert b"connection: close" not in head
        # Who waits to be told to go on may send the next request instead.
        connection.sendall(POST % (b"/nowhere", b"Expect: 100-continue\r\n" + length % 10))
        head, _ = answer()
        assert head.startswith(b"HTTP/1.1 404 ")
        assert b"connection: close\r\n" in head
        assert replies.read() == b""


@pytest.mark.anyio
async def test_a_client_that_is_gone_already_is_no_error() -> None:
    """asyncio's own loop raises then, uvloop does not."""
    loop = asyncio.get_running_loop()
    lost = loop.create_future()

    class Connection(asyncio.Protocol):
        def connection_lost(self, exc: Exception | None) -> None:
            lost.set_result(exc)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    reset(client)
    transport, _ = await loop.connect_accepted_socket(Connection, ours)
    linger(transport)
    assert isinstance(await lost, ConnectionResetError)
