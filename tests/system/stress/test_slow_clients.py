"""Clients that are slow or silent: they hurt nobody, and are cut off."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvloop

from tests.support.clients import predict_request
from tests.support.processes import Process, running
from tests.system.stress.load import (
    COMMITTED_MODELS,
    Connection,
    assert_log_is_clean,
    descriptors_of,
    get,
    percentile_ms,
    wait_until,
    wait_until_closed,
)

IDLE, IN_THE_HEAD, IN_THE_BODY = 1000, 50, 50
QUICK = 16  # clients that are measured
REST = 100  # descriptors; a service without slow clients has fewer
ROUNDS, ROUND_S = 3, 2.0
LIMIT_S = 2
SLACK_S = 8.0  # how much later than the limit a connection may be closed
HEAD = b"POST /predict HTTP/1.1\r\nHost: x\r\nX-Long: "
BODY = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"

pytestmark = pytest.mark.stress


@pytest.fixture
def iris_dir(tmp_path: Path) -> Path:
    """A models folder with the committed iris model."""
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "iris").symlink_to(COMMITTED_MODELS / "iris")
    return folder


def iris_request() -> bytes:
    return predict_request((COMMITTED_MODELS / "iris/1/request.json").read_bytes())


async def quick_clients(url: str, seconds: float) -> list[float]:
    """Let clients ask for `seconds`; return how long each answer took, in seconds."""
    request = iris_request()
    until = time.monotonic() + seconds

    async def one() -> list[float]:
        connection = await Connection.open(url)
        took = []
        while time.monotonic() < until:
            start = time.perf_counter()
            reply = await connection.ask(request)
            took.append(time.perf_counter() - start)
            assert reply.status == 200
            assert b'"label":"setosa"' in reply.body
        connection.leave()
        return took

    return [each for took in await asyncio.gather(*(one() for _ in range(QUICK))) for each in took]


async def dribble(url: str, beginning: bytes) -> tuple[bytes, float]:
    """Send a beginning, then a byte a second; return what came back, and when it was closed."""
    connection = await Connection.open(url)
    start = time.monotonic()
    connection.writer.write(beginning)
    end = asyncio.ensure_future(connection.at_its_end())
    try:
        while not (await asyncio.wait([end], timeout=1))[0]:
            connection.writer.write(b"x")
        return await end, time.monotonic() - start
    finally:
        end.cancel()
        connection.leave()


async def idle(url: str, *, silent: bool) -> tuple[bytes, float]:
    """Connect, ask once unless silent, then nothing; return as `dribble`."""
    connection = await Connection.open(url)
    try:
        if not silent:
            assert (await connection.ask(get("/health/live"))).status == 200
        start = time.monotonic()
        return await connection.at_its_end(), time.monotonic() - start
    finally:
        connection.leave()


class Slow:
    """The tasks of all slow clients."""

    def __init__(self, url: str) -> None:
        self.silent = [asyncio.create_task(idle(url, silent=True)) for _ in range(IDLE // 2)]
        self.idle = [asyncio.create_task(idle(url, silent=False)) for _ in range(IDLE // 2)]
        self.in_the_head = [asyncio.create_task(dribble(url, HEAD)) for _ in range(IN_THE_HEAD)]
        self.in_the_body = [asyncio.create_task(dribble(url, BODY)) for _ in range(IN_THE_BODY)]
        self.all = [*self.silent, *self.idle, *self.in_the_head, *self.in_the_body]


@asynccontextmanager
async def slow_clients(url: str) -> AsyncIterator[Slow]:
    """Have slow clients come; send those away that are left at the end."""
    slow = Slow(url)
    try:
        yield slow
    finally:
        for task in slow.all:
            task.cancel()
        await asyncio.gather(*slow.all, return_exceptions=True)


async def wait_until_connected(pid: int, count: int) -> None:
    """Return when a process holds this many connections."""

    async def are_there() -> bool:
        return descriptors_of(pid) > count

    await wait_until("the slow clients are connected", are_there)


def test_slow_clients_do_not_delay_the_others(iris_dir: Path) -> None:
    async def measure(service: Process) -> tuple[list[float], list[float]]:
        without, beside, url, pid = [], [], service.url, service.process.pid
        await quick_clients(url, 0.5)  # so that all is warm
        for _ in range(ROUNDS):
            without.append(percentile_ms(await quick_clients(url, ROUND_S), 99))
            async with slow_clients(url) as slow:
                await wait_until_connected(pid, len(slow.all))
                beside.append(percentile_ms(await quick_clients(url, ROUND_S), 99))
                assert not any(task.done() for task in slow.all)
            await wait_until_closed(pid, REST)
        return without, beside

    with running(
        models_dir=iris_dir, receive_timeout_s=600, keep_alive_s=600, max_connections=4096
    ) as service:
        without, beside = uvloop.run(measure(service))
        assert service.stop() == 0
    assert_log_is_clean(service.log)
    print(
        f"p99 of {QUICK} clients in ms, {ROUNDS} rounds of {ROUND_S} s: without slow ones "
        f"{[round(each, 2) for each in without]}, beside {IDLE} idle and "
        f"{IN_THE_HEAD + IN_THE_BODY} dribbling {[round(each, 2) for each in beside]}"
    )
    assert min(beside) <= 2 * min(
        without
    )  # of the quietest rounds: the machine has others to serve


def test_slow_clients_are_cut_off_and_the_others_are_not(iris_dir: Path) -> None:
    async def serve_until_all_are_cut_off(
        service: Process,
    ) -> tuple[list[float], dict[str, list[tuple[bytes, float]]]]:
        async with slow_clients(service.url) as slow:
            quick = asyncio.create_task(quick_clients(service.url, LIMIT_S + 2))
            async with asyncio.timeout(60):
                outcomes = {
                    "silent": await asyncio.gather(*slow.silent),
                    "idle": await asyncio.gather(*slow.idle),
                    "in the head": await asyncio.gather(*slow.in_the_head),
                    "in the body": await asyncio.gather(*slow.in_the_body),
                }
            return await quick, outcomes

    with running(
        models_dir=iris_dir, receive_timeout_s=LIMIT_S, keep_alive_s=LIMIT_S, max_connections=4096
    ) as service:
        quick, outcomes = uvloop.run(serve_until_all_are_cut_off(service))
        assert service.stop() == 0
    assert_log_is_clean(service.log)
    for kind, ends in outcomes.items():
        seconds = [each for _, each in ends]
        told = Counter(reply[:12].decode() or "closed" for reply, _ in ends)
        print(f"{kind}: {dict(told)} after {min(seconds):.2f} to {max(seconds):.2f} s")
        assert max(seconds) <= LIMIT_S + SLACK_S
        assert min(seconds) > LIMIT_S - 0.1  # the limit is for the slow
    print(f"{len(quick)} answers beside them, p99 {percentile_ms(quick, 99):.2f} ms")
    for reply, _ in outcomes["silent"] + outcomes["idle"]:
        assert reply == b""
    for reply, _ in outcomes["in the head"] + outcomes["in the body"]:
        assert reply == b"" or is_408(reply)


def is_408(reply: bytes) -> bool:
    """Whether these bytes are one whole reply that says what went wrong, and that it closes."""
    head, _, content = reply.partition(b"\r\n\r\n")
    return (
        head.startswith(b"HTTP/1.1 408 ")
        and b"connection: close" in head.lower()
        and list(json.loads(content)) == ["error"]
    )
