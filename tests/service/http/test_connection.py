"""What a connection may do, over real sockets: limits, slow clients, clients that leave."""

import asyncio
import contextlib
import json
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.entrance.limits import FOR_PROBES
from service.entrance.lingering import MOST_BYTES
from tests.support.clients import address, ask, counted, predict_request, read_reply, reset
from tests.support.processes import Process, resident_mb, running
from tests.support.toys import body, save_dear, save_toy, toy_card

CONTENT = body("toy", [[1, 2, 3, 4]])
WHOLE = predict_request(CONTENT)
MODELS = ["dear", "toy"]
TOO_LATE = b"HTTP/1.1 408 Request Timeout"

# What is sent, and what is read until the connection ends: the first line of a reply, or nothing.
# Those that get no other reply than 408: tests/contract/http.toml.
SLOW = {
    "says nothing": (b"", b""),
    "sends empty lines": (b"\r\n\r\n", b""),
    "stops in a body that is refused already": (
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n{",
        b"HTTP/1.1 413 Request Entity Too Large",
    ),
    "stops in a body that nobody reads": (
        b"GET /health/live HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{",
        b"HTTP/1.1 200 OK",
    ),
    "stops in the second request": (WHOLE + WHOLE[:50], b"HTTP/1.1 200 OK"),
}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """The service with toy, with the settings by default; it has nothing to warn of."""
    folder = tmp_path_factory.mktemp("models")
    save_toy(folder, card=toy_card())
    with running(models_dir=folder) as service:
        yield service
        assert service.stop() == 0
    assert "WARNING" not in "".join(service.log)


async def all_until_closed(url: str, sent: bytes) -> bytes:
    """Send, and return everything that comes until the connection ends."""
    reader, writer = await asyncio.open_connection(*address(url))
    writer.write(sent)
    try:
        async with asyncio.timeout(20):
            return await reader.read()
    finally:
        writer.close()


@pytest.mark.slow
def test_clients_that_do_not_go_on_are_cut_off(models_dir: Path) -> None:
    async def all_of_them(url: str) -> list[bytes]:
        return await asyncio.gather(*(all_until_closed(url, sent) for sent, _ in SLOW.values()))

    with running(models_dir=models_dir, receive_timeout_s=0.3) as service:
        got = dict(zip(SLOW, asyncio.run(all_of_them(service.url)), strict=True))
        metrics = service.get("/metrics").text
    assert {name: reply.partition(b"\r\n")[0] for name, reply in got.items()} == {
        name: line for name, (_, line) in SLOW.items()
    }
    error = b'{"error":"expected the complete request within 0.3 s"}'
    assert got["stops in the second request"].endswith(error)  # after the answer to the first
    assert counted(metrics, 'torchlit_unmatched_requests_total{outcome="timeout"') == 1
    assert counted(metrics, 'torchlit_unmatched_requests_total{outcome="cancelled"') == 0


@pytest.mark.slow
def test_a_client_that_sends_without_a_pause_for_its_time_is_cut_off_too(models_dir: Path) -> None:
    async def dribble(url: str) -> bytes:
        reader, writer = await asyncio.open_connection(*address(url))
        writer.write(b"GET /models HTTP/1.1\r\n")
        reply = asyncio.create_task(reader.read())
        while not reply.done():
            writer.write(b"x: y\r\n")
            await asyncio.sleep(0.02)
        writer.close()
        return reply.result()

    with running(models_dir=models_dir, receive_timeout_s=0.3) as service:
        assert asyncio.run(dribble(service.url)).startswith(TOO_LATE)


@pytest.mark.slow
def test_a_client_that_does_not_take_its_reply_is_cut_off(models_dir: Path) -> None:
    rows = predict_request(body("toy", [[1, 2, 3, 4]] * 4096))
    with (
        running(models_dir=models_dir, receive_timeout_s=0.3) as service,
        httpx.Client(base_url=service.url) as client,
        socket.socket() as connection,
    ):

        def open_files() -> float:
            return counted(client.get("/metrics").text, "process_open_fds")

        before = open_files()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(address(service.url))
        connection.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            for _ in range(200):  # until neither side takes more
                connection.sendall(rows)
        assert open_files() == before + 1
        while open_files() > before:
            pass


@pytest.mark.slow
def test_a_process_that_was_stopped_reads_what_came_meanwhile(models_dir: Path) -> None:
    """A stop as of a virtual machine that is frozen, for longer than any client may take."""

    async def stop_and_go_on(service: Process) -> list[bytes]:
        begun = await asyncio.open_connection(*address(service.url))
        begun[1].write(WHOLE[:-3])
        new = await asyncio.open_connection(*address(service.url))
        idle = await connect(service.url)  # by now the service has read the first
        service.process.send_signal(signal.SIGSTOP)
        begun[1].write(WHOLE[-3:])
        new[1].write(WHOLE)
        idle[1].write(WHOLE)
        await asyncio.sleep(3)
        service.process.send_signal(signal.SIGCONT)
        replies = []
        for reader, writer in (begun, new, idle):
            replies.append((await read_reply(reader))[0])
            writer.close()
        return replies

    with running(models_dir=models_dir, receive_timeout_s=1, keep_alive_s=1) as service:
        replies = asyncio.run(stop_and_go_on(service))
        assert service.stop() == 0
    assert [reply.partition(b"\r\n")[0] for reply in replies] == [b"HTTP/1.1 200 OK"] * 3


@pytest.mark.slow
def test_an_idle_connection_is_kept_for_its_time(models_dir: Path) -> None:
    async def ask_and_wait(url: str) -> bytes:
        reader, writer = await asyncio.open_connection(*address(url))
        for _ in range(2):
            head, _ = await ask(reader, writer, CONTENT)
            assert b"connection: close" not in head
        rest = await asyncio.wait_for(reader.read(), 20)
        writer.close()
        return rest

    with running(models_dir=models_dir, keep_alive_s=1) as service:
        assert asyncio.run(ask_and_wait(service.url)) == b""


@pytest.mark.slow
def test_a_head_without_an_end_is_refused(models_dir: Path) -> None:
    with running(models_dir=models_dir) as service:
        for endless in (b"GET /" + b"a" * 300_000, b"GET / HTTP/1.1\r\nx: " + b"a" * 300_000):
            with socket.create_connection(address(service.url), timeout=20) as connection:
                connection.sendall(endless)
                reply = connection.recv(1000)
            assert reply.startswith(b"HTTP/1.1 431 Request Header Fields Too Large")
            assert reply.endswith(b'{"error":"headers: expected at most 65536 bytes"}')


@pytest.mark.slow
def test_what_is_not_http_does_not_overtake_the_answer_before_it(models_dir: Path) -> None:
    save_dear(models_dir)
    asked = predict_request(body("dear", [[1, 0, 0, 0]]))
    with running(models_dir=models_dir) as service:
        reply = asyncio.run(all_until_closed(service.url, asked + b"GARBAGE\r\n\r\n"))
    assert reply.startswith(b"HTTP/1.1 200 OK")
    assert reply.count(b"HTTP/1.1") == 1


@pytest.mark.slow
def test_requests_behind_each_other_are_answered_in_their_order(models_dir: Path) -> None:
    save_dear(models_dir)
    asked = [predict_request(body(model, [[n, 0, 0, 0]])) for n in range(8) for model in MODELS]

    async def ask_all(url: str) -> list[dict[str, Any]]:
        reader, writer = await asyncio.open_connection(*address(url))
        whole = b"".join(asked)
        writer.write(whole[:-3])
        await asyncio.sleep(0.05)  # the last one is not whole while the first is answered
        writer.write(whole[-3:])
        replies = [json.loads((await read_reply(reader))[1]) for _ in asked]
        writer.close()
        return replies

    with running(models_dir=models_dir, receive_timeout_s=0.3) as service:
        replies = asyncio.run(ask_all(service.url))
    assert [reply["model"] for reply in replies] == MODELS * 8
    outputs = [reply["predictions"][0]["output"][0] for reply in replies[::2]]
    assert outputs == [1500.0 + n for n in range(8)]


@pytest.mark.slow
def test_many_small_requests_in_one_piece_are_no_long_head(service: Process) -> None:
    async def ask_many(url: str) -> None:
        reader, writer = await asyncio.open_connection(*address(url))
        writer.write(WHOLE * 700 + WHOLE[:40])
        for _ in range(700):
            head, _ = await read_reply(reader)
            assert head.startswith(b"HTTP/1.1 200 ")
        writer.write(WHOLE[40:])
        assert (await read_reply(reader))[0].startswith(b"HTTP/1.1 200 ")
        writer.close()

    assert len(WHOLE) * 700 > 65_536
    asyncio.run(ask_many(service.url))


@pytest.mark.slow
def test_trailers_without_an_end_are_cut_off(models_dir: Path) -> None:
    chunked = b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    with (
        running(models_dir=models_dir) as service,
        socket.create_connection(address(service.url)) as connection,
    ):
        connection.sendall(chunked + b"2\r\n{}\r\n0\r\n")
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 2 * MOST_BYTES:
                connection.sendall(b"a: b\r\n" * 1000)
                sent += 6000
        assert sent < 2 * MOST_BYTES


@pytest.mark.slow
def test_rows_of_a_client_that_left_after_a_large_body_are_dropped(models_dir: Path) -> None:
    """uvicorn stops reading at 64 kB, and a connection that is not read does not end."""
    save_dear(models_dir)
    asked = predict_request(body("dear", [[1 / 3, 1 / 7, 1 / 9, 1 / 11]] * 4000))
    half = len(asked) // 2
    assert half > 65_536
    dropped = 'torchlit_rejected_rows_total{model="dear",reason="cancelled"'
    with (
        running(models_dir=models_dir, max_batch_size=16) as service,
        httpx.Client(base_url=service.url) as client,
    ):
        with socket.create_connection(address(service.url)) as connection:
            connection.sendall(asked[:half])
            for _ in range(3):  # turns of the loop, in which it is read
                client.get("/health/live")
            connection.sendall(asked[half:])
            while counted(client.get("/metrics").text, "torchlit_queue_rows") == 0:
                pass
            reset(connection)
        while counted(client.get("/metrics").text, dropped) == 0:
            assert counted(client.get("/metrics").text, 'torchlit_rows_total{model="dear"') < 2000


@pytest.mark.slow
def test_a_body_that_does_not_come_does_not_hold_up_a_stop(models_dir: Path) -> None:
    async def stop_meanwhile(service: Process) -> bytes:
        reader, writer = await asyncio.open_connection(*address(service.url))
        writer.write(WHOLE[:-3])
        _, other = await connect(service.url)  # by now the service has read the first
        other.close()
        service.process.send_signal(signal.SIGTERM)
        reply = await reader.read()
        writer.close()
        return reply

    with running(models_dir=models_dir, receive_timeout_s=1, drain_s=0) as service:
        assert asyncio.run(stop_meanwhile(service)).startswith(TOO_LATE)
        assert service.stop() == 0
    assert "ERROR" not in "".join(service.log)


async def connect(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Return a connection that the service has accepted."""
    reader, writer = await asyncio.open_connection(*address(url))
    writer.write(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
    head, _ = await read_reply(reader)
    assert head.startswith(b"HTTP/1.1 200 ")
    return reader, writer


async def is_served(url: str) -> bool:
    """Whether a request on a connection of its own is answered with 200."""
    reader, writer = await asyncio.open_connection(*address(url))
    with contextlib.closing(writer), contextlib.suppress(OSError, asyncio.IncompleteReadError):
        head, _ = await ask(reader, writer, CONTENT)
        return head.startswith(b"HTTP/1.1 200 ")
    return False


@pytest.mark.slow
def test_beyond_the_limit_of_connections_only_probes_get_through(models_dir: Path) -> None:
    async def fill(url: str) -> None:
        held = [await asyncio.open_connection(*address(url)) for _ in range(4)]
        for _, each in held:
            each.write(WHOLE[:-3])
        over = await asyncio.open_connection(*address(url))
        head, error = await ask(*over, CONTENT * 5000)
        assert head.startswith(b"HTTP/1.1 503 Service Unavailable")
        assert b"retry-after: 1\r\n" in head
        assert b"connection: close\r\n" in head
        assert json.loads(error) == {"error": "too many connections are open; try again later"}
        assert await over[0].read() == b""
        over[1].close()
        silent = [await asyncio.open_connection(*address(url)) for _ in range(FOR_PROBES)]
        probes = [await connect(url) for _ in range(FOR_PROBES + 1)]
        for reader, _ in [silent[0], *probes]:  # the oldest gave way; who is answered is closed
            assert await reader.read() == b""
        for reader, each in held:
            each.write(WHOLE[-3:])
            head, _ = await read_reply(reader)
            assert head.startswith(b"HTTP/1.1 200 ")
            assert b"connection: close" not in head
        for _, each in [*held, *silent, *probes]:
            each.close()
        while not await is_served(url):  # until the service has seen that they left
            pass

    with running(
        models_dir=models_dir, max_connections=4, access_log="true", receive_timeout_s=60
    ) as service:
        asyncio.run(fill(service.url))
        metrics = httpx.get(f"{service.url}/metrics").text
        assert service.stop() == 0
    assert any("POST /predict 503" in line for line in service.log)
    refused = 'torchlit_unmatched_requests_total{outcome="too_many_connections"'
    assert counted(metrics, refused) >= 2


@pytest.mark.slow
def test_clients_that_asked_once_and_stay_silent_lock_nobody_out(models_dir: Path) -> None:
    async def fill(url: str) -> None:
        silent = [await connect(url) for _ in range(4 + FOR_PROBES)]
        probe = await connect(url)
        async with asyncio.timeout(20):
            while not await is_served(url):  # until they count as idle
                pass
        for _, each in [*silent, probe]:
            each.close()

    with running(models_dir=models_dir, max_connections=4) as service:
        asyncio.run(fill(service.url))
        assert service.stop() == 0


@pytest.mark.slow
def test_rows_of_a_client_that_left_are_dropped_and_counted(models_dir: Path) -> None:
    save_dear(models_dir, 2000)

    async def leave(service: Process) -> None:
        async with httpx.AsyncClient(base_url=service.url, timeout=30) as client:
            running_now = asyncio.create_task(client.post("/predict", content=dear(0)))
            mate = asyncio.create_task(client.post("/predict", content=dear(4)))
            while (
                'torchlit_queue_rows{model="dear",version="1"} 1.0'
                not in (await client.get("/metrics")).text
            ):
                assert not mate.done()
            left = []
            for number in range(1, 4):
                _, writer = await asyncio.open_connection(*address(service.url))
                writer.write(predict_request(dear(number)))
                left.append(writer)
            waiting = 'torchlit_queue_rows{model="dear",version="1"} 4.0'
            while waiting not in (await client.get("/metrics")).text:
                assert not running_now.done()
            for writer in left:
                reset(writer)
            replies = [(await each).json()["predictions"] for each in (running_now, mate)]
            assert [row["output"][0] for (row,) in replies] == [2000.0, 2004.0]
            metrics = (await client.get("/metrics")).text
        rejected = 'torchlit_rejected_rows_total{model="dear",reason="cancelled"'
        assert counted(metrics, rejected) == 3
        assert counted(metrics, 'torchlit_requests_total{model="dear",outcome="cancelled"') == 3
        assert counted(metrics, 'torchlit_rows_total{model="dear"') == 2
        assert counted(metrics, 'torchlit_queue_rows{model="dear"') == 0

    def dear(number: int) -> bytes:
        return body("dear", [[number, 0, 0, 0]])

    with running(models_dir=models_dir, max_batch_size=1) as service:
        asyncio.run(leave(service))
        assert service.stop() == 0
    assert not re.search("Traceback|ERROR", "".join(service.log))


@pytest.mark.slow
def test_a_client_that_leaves_with_requests_behind_each_other_is_no_event(
    models_dir: Path,
) -> None:
    save_dear(models_dir)
    asked = predict_request(body("dear", [[1, 0, 0, 0]]))
    with running(models_dir=models_dir) as service, httpx.Client(base_url=service.url) as client:
        with socket.create_connection(address(service.url)) as connection:
            connection.sendall(asked * 3)
            reset(connection)
        cancelled = 'torchlit_requests_total{model="dear",outcome="cancelled"'
        while counted(client.get("/metrics").text, cancelled) != 1:
            pass
        for _ in range(200):  # replies to clients that do not wait for them
            with socket.create_connection(address(service.url)) as connection:
                connection.sendall(WHOLE)
        assert service.stop() == 0
    assert not re.search("Traceback|ERROR", "".join(service.log))


@pytest.mark.slow
def test_a_client_that_leaves_in_its_request_is_counted(models_dir: Path) -> None:
    with running(models_dir=models_dir) as service, httpx.Client(base_url=service.url) as client:
        with socket.create_connection(address(service.url)) as connection:
            connection.sendall(WHOLE[:-3])
        cancelled = 'torchlit_unmatched_requests_total{outcome="cancelled"'
        while counted(client.get("/metrics").text, cancelled) != 1:
            pass
        assert service.stop() == 0
    assert not re.search("Traceback|ERROR", "".join(service.log))


# Each is the last of its connection, or asks to be.
LAST = {
    "asks to be the last": predict_request(CONTENT, b"Connection: close\r\n"),
    "HTTP/1.0": WHOLE.replace(b"HTTP/1.1", b"HTTP/1.0"),
    "refused": predict_request(b"{}", b"Connection: close\r\n"),
    "HEAD": b"HEAD /predict HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "waits to be told to go on": predict_request(
        CONTENT, b"Expect: 100-continue\r\nConnection: close\r\n"
    ),
    "in chunks": b"POST /predict HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(CONTENT), CONTENT),
    "two": WHOLE + predict_request(CONTENT, b"Connection: close\r\n"),
}


@pytest.mark.slow
def test_replies_are_those_of_uvicorn(models_dir: Path) -> None:
    """With the access log on, replies go through uvicorn's own code."""

    async def all_of_them(url: str) -> list[bytes]:
        return await asyncio.gather(*(all_until_closed(url, sent) for sent in LAST.values()))

    def without_what_differs(reply: bytes) -> bytes:
        return re.sub(rb"(date|x-request-id): [^\r]+", rb"\1", reply)

    replies = []
    for access_log in (False, True):
        with running(models_dir=models_dir, access_log=access_log) as service:
            replies.append(map(without_what_differs, asyncio.run(all_of_them(service.url))))
    ours, uvicorns = (dict(zip(LAST, each, strict=True)) for each in replies)
    assert ours == uvicorns
    assert ours["HEAD"].endswith(b"\r\n\r\n")
    assert ours["two"].count(b"HTTP/1.1 200 OK\r\n") == 2
    assert all(reply.count(b"connection: close\r\n") == 1 for reply in ours.values())


def test_an_offer_of_http_2_that_is_cut_changes_no_length(service: Process) -> None:
    content = CONTENT + b" " * (10 - len(CONTENT) % 10) if len(CONTENT) % 10 else CONTENT
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nupgrade: h2c" % len(content)

    async def ask_in_pieces(url: str) -> bytes:
        reader, writer = await asyncio.open_connection(*address(url))
        writer.write(head)
        await asyncio.sleep(0.05)  # they come one by one
        writer.write(b"0\r\n\r\n" + content)
        reply, _ = await read_reply(reader)
        writer.close()
        return reply

    assert asyncio.run(ask_in_pieces(service.url)).startswith(b"HTTP/1.1 200 OK")


@pytest.mark.slow
def test_a_body_of_many_small_chunks_takes_no_more_memory_than_its_bytes(models_dir: Path) -> None:
    chunks = b"2\r\n  \r\n" * 100_000
    with (
        running(models_dir=models_dir) as service,
        socket.create_connection(address(service.url)) as connection,
    ):
        before = resident_mb(service.process.pid)
        connection.sendall(
            b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        for _ in range(20):
            connection.sendall(chunks)
        assert resident_mb(service.process.pid) - before < 40
        connection.sendall(b"0\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 400 ")
