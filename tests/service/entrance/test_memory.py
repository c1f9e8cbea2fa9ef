"""The bytes that a worker holds: bounded, whoever sends them, and given back."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from onnx import TensorProto

from service.entrance.memory import Memory
from service.errors import MemoryFull
from service.metrics.exposition import Page
from service.settings import Settings
from tests.support.clients import counted, read_reply
from tests.support.sockets import Listening, listening
from tests.support.toys import save_same, save_toy, toy_card

pytestmark = pytest.mark.anyio

MOST = 100_000
SMALL = json.dumps({"instances": [[1, 2, 3, 4]]}).encode()


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Listening]:
    save_toy(tmp_path, card=toy_card())
    save_same(tmp_path, ["batch", 400_000], name="wide")
    settings = Settings(models_dir=tmp_path, max_held_bytes=MOST, watch=False)
    async with listening(settings) as service:
        yield service


def request(
    body: bytes, *headers: str, length: int | None = None, path: str = "/predict/toy"
) -> bytes:
    length = len(body) if length is None else length
    lines = [f"POST {path} HTTP/1.1", "Host: a", f"Content-Length: {length}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def until(service: Listening, held: int) -> None:
    async with asyncio.timeout(10):
        while service.app.services.memory.held != held:
            await asyncio.sleep(0.01)


async def answered(service: Listening, sent: bytes) -> tuple[bytes, bytes]:
    reader, writer = await service.connect()
    writer.write(sent)
    reply = await read_reply(reader)
    writer.close()
    return reply


def test_what_is_alone_is_taken_whatever_its_size() -> None:
    memory = Memory(10)
    memory.take(20)
    assert not memory.takes(1)
    for size in (0, 1):
        with pytest.raises(MemoryFull, match=r"^the worker holds 20 bytes .* and at most 10 "):
            memory.take(size)
    memory.take(5, own=20)
    memory.give(25)
    memory.take(10)
    assert memory.held == 10
    assert memory.takes(0)
    assert not memory.takes(1)
    memory.give(10)
    assert memory.takes(20)


async def test_bodies_that_arrive_are_counted_until_they_are_answered(service: Listening) -> None:
    reader, writer = await service.connect()
    writer.write(request(b" " * 60_000, length=60_000 + len(SMALL)))
    await until(service, 60_000)
    head, body = await answered(service, request(b" " * 60_000 + SMALL))
    assert head.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nretry-after: 1" in head
    assert b"(TORCHLIT_MAX_HELD_BYTES); try again later" in body
    assert (await answered(service, request(SMALL)))[0].startswith(b"HTTP/1.1 200 ")
    await until(service, 60_000)  # what was refused is held no longer
    writer.write(SMALL)
    assert (await read_reply(reader))[0].startswith(b"HTTP/1.1 200 ")
    await until(service, 0)
    writer.close()


async def test_what_is_refused_in_many_chunks_counts_once(service: Listening) -> None:
    _, writer = await service.connect()
    writer.write(request(b" " * MOST, length=MOST + 1))
    await until(service, MOST)
    chunked = b"POST /predict/toy HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunks = [b"1\r\n \r\n" * 300, b"0\r\n\r\n"]
    head, _ = await answered(service, chunked + b"".join(chunks))
    assert head.startswith(b"HTTP/1.1 503 ")
    text = Page(service.app.services.metrics).text().decode()
    assert counted(text, "torchlit_unmatched_requests_total", 'outcome="memory_full"') == 1
    writer.close()


async def test_the_bodies_of_clients_that_leave_are_given_back(service: Listening) -> None:
    _, writer = await service.connect()
    writer.write(request(b" " * 60_000, length=90_000))
    await until(service, 60_000)
    writer.close()
    await until(service, 0)


async def test_what_is_decompressed_counts_as_well(service: Listening) -> None:
    _, writer = await service.connect()
    writer.write(request(b" " * 60_000, length=90_000))
    await until(service, 60_000)
    packed = gzip.compress(b" " * 60_000 + SMALL)
    head, _ = await answered(service, request(packed, "Content-Encoding: gzip"))
    assert head.startswith(b"HTTP/1.1 503 ")
    writer.close()
    await until(service, 0)
    head, _ = await answered(service, request(packed, "Content-Encoding: gzip"))
    assert head.startswith(b"HTTP/1.1 200 ")
    await until(service, 0)


@pytest.mark.slow
async def test_replies_that_nobody_reads_count_and_others_are_refused(service: Listening) -> None:
    reader, writer = await service.connect()
    rows = [[0.123456789] * 400_000] * 3  # more than the kernel takes for a client
    body = json.dumps({"instances": rows}, separators=(",", ":")).encode()
    writer.write(request(body, path="/predict/wide"))
    async with asyncio.timeout(20):
        while service.app.services.memory.held < 1_000_000:
            await asyncio.sleep(0.05)
    for _ in range(2):  # with a head that is known, too
        head, _ = await answered(service, request(SMALL))
        assert head.startswith(b"HTTP/1.1 503 ")
    assert (await read_reply(reader))[0].startswith(b"HTTP/1.1 200 ")
    await until(service, 0)
    assert (await answered(service, request(SMALL)))[0].startswith(b"HTTP/1.1 200 ")
    writer.close()


WIDE = 1000  # numbers of a row


@pytest.fixture
async def delaying(tmp_path: Path) -> AsyncIterator[Listening]:
    """A service in which rows wait for others for a while."""
    save_same(tmp_path, ["batch", WIDE], TensorProto.INT64)
    settings = Settings(
        models_dir=tmp_path, max_held_bytes=MOST, watch=False, max_queue_delay_ms=300
    )
    async with listening(settings) as service:
        yield service


def ones(rows: int) -> bytes:
    return json.dumps({"instances": [[1] * WIDE] * rows}, separators=(",", ":")).encode()


@pytest.mark.slow
@pytest.mark.parametrize("is_packed", [False, True])
async def test_rows_that_wait_count_where_they_are_larger_than_their_body(
    delaying: Listening, is_packed: bool
) -> None:
    body, packed = ones(20), ["Content-Encoding: gzip"] * is_packed
    sent = gzip.compress(body) if is_packed else body
    held = 20 * WIDE * 8 + len(sent) * is_packed
    reader, writer = await delaying.connect()
    for _ in range(2):  # the second time with a head that is known
        writer.write(request(sent, *packed, path="/predict/same"))
        await until(delaying, held)
        head, _ = await answered(delaying, request(ones(1), path="/predict/same"))
        assert head.startswith(b"HTTP/1.1 503 ")
        assert (await read_reply(reader))[0].startswith(b"HTTP/1.1 200 ")
        await until(delaying, 0)
    writer.write(request(sent, *packed, path="/predict/same"))
    await until(delaying, held)
    writer.close()  # who leaves gives them back
    await until(delaying, 0)


async def test_rows_that_would_be_too_much_beside_others_are_refused(delaying: Listening) -> None:
    """Though their bodies would not."""
    first = asyncio.create_task(answered(delaying, request(ones(5), path="/predict/same")))
    await until(delaying, 5 * WIDE * 8)
    for _ in range(2):
        head, body = await answered(delaying, request(ones(10), path="/predict/same"))
        assert head.startswith(b"HTTP/1.1 503 ")
        assert b"(TORCHLIT_MAX_HELD_BYTES); try again later" in body
    assert delaying.app.services.memory.held == 5 * WIDE * 8
    assert (await first)[0].startswith(b"HTTP/1.1 200 ")
    await until(delaying, 0)


async def test_tensors_that_lie_in_their_body_do_not_count_twice(delaying: Listening) -> None:
    data = bytes(5 * WIDE * 8)
    sent = request(data, "Inference-Header-Content-Length: 0", path="/v2/models/same/infer")
    asking = asyncio.create_task(answered(delaying, sent))
    await until(delaying, len(data))
    assert (await asking)[0].startswith(b"HTTP/1.1 200 ")
    await until(delaying, 0)
