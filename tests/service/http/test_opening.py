"""The first bytes of a connection decide what is spoken, however they come."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service.http.opening import PREFACE
from service.settings import Settings
from tests.support.sockets import Listening, listening
from tests.support.toys import save_toy

pytestmark = pytest.mark.anyio

SETTINGS = bytes(3) + b"\4" + bytes(5)
GET = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Listening]:
    save_toy(tmp_path)
    async with listening(Settings(models_dir=tmp_path)) as service:
        yield service


async def sent(service: Listening, *pieces: bytes) -> bytes:
    """Send pieces, each read by itself; return the first bytes that come back."""
    reader, writer = await service.connect()
    writer.get_extra_info("socket").setsockopt(6, 1, 1)  # TCP_NODELAY
    for piece in pieces:
        writer.write(piece)
        for _ in range(20):
            await asyncio.sleep(0)
    answer = await asyncio.wait_for(reader.read(12), 20)
    writer.close()
    return answer


@pytest.mark.parametrize("cut", [1, 3, 14, 18, 23])
async def test_a_preface_may_come_in_pieces(service: Listening, cut: int) -> None:
    whole = PREFACE + SETTINGS
    assert (await sent(service, whole[:cut], whole[cut:]))[3:5] == b"\4\0"  # SETTINGS


async def test_a_preface_may_come_byte_by_byte(service: Listening) -> None:
    pieces = [bytes([byte]) for byte in PREFACE + SETTINGS]
    assert (await sent(service, *pieces))[3:5] == b"\4\0"


@pytest.mark.parametrize("begin", [b"", b"P", b"PR", PREFACE[:16], PREFACE[:-1]])
async def test_what_only_begins_like_one_is_http1(service: Listening, begin: bytes) -> None:
    if not begin:
        assert await sent(service, GET) == b"HTTP/1.1 200"
    else:
        assert await sent(service, begin, b"OST / HTTP/1.1\r\n\r\n") == b"HTTP/1.1 400"


async def test_who_stops_within_a_preface_is_cut_off(service: Listening) -> None:
    reader, writer = await service.connect()
    writer.write(PREFACE[:10])
    await asyncio.sleep(0.01)
    service.later(9)
    assert service.state.connections
    service.later(2)
    assert await asyncio.wait_for(reader.read(), 20) == b""
    writer.close()


async def test_a_connection_has_one_place_whoever_speaks_on_it(service: Listening) -> None:
    reader, writer = await service.connect()
    writer.write(PREFACE + SETTINGS)
    await reader.read(12)
    assert len(service.state.connections) == 1
    assert len(service.limits._placed) == 1
    writer.close()
    async with asyncio.timeout(20):
        while service.state.connections:
            await asyncio.sleep(0)
    assert not service.limits._placed
