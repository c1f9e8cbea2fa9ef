"""More than the service takes: it says so at once, and goes on as before."""

import asyncio
import time
from collections import deque
from pathlib import Path

import numpy as np
import pytest
import uvloop

from tests.support.clients import counted
from tests.support.processes import Process, running
from tests.support.toys import save_dear
from tests.system.stress.load import (
    Connection,
    Reply,
    Rows,
    assert_log_is_clean,
    descriptors_of,
    get,
    metrics_of,
    percentile_ms,
    wait_until_closed,
    wait_until_queue_is_empty,
)

CLIENTS, WAVES = 200, 3
MAX_QUEUE_ROWS, MAX_BATCH_SIZE = 16, 4
DEAR_SIDE = 1000
MAX_CONNECTIONS, BEYOND = 32, 50
PROBES, PROBE_ROUNDS = ["/health/live", "/health/ready", "/metrics"], 600

pytestmark = pytest.mark.stress


def is_refusal(reply: Reply) -> bool:
    """Whether it is a 503 as it should be."""
    return (
        reply.status == 503
        and b"\r\nretry-after: " in reply.head.lower()
        and list(reply.json()) == ["error"]
    )


def test_what_the_queue_does_not_take_is_refused_at_once(models_dir: Path) -> None:
    save_dear(models_dir, DEAR_SIDE)
    accepted_s: list[float] = []
    refused_s: list[float] = []
    refused_rows = 0

    async def one(connection: Connection, rows: Rows) -> None:
        nonlocal refused_rows
        start = time.perf_counter()
        reply = await connection.ask(rows.request)
        took = time.perf_counter() - start
        if is_refusal(reply):
            refused_s.append(took)
            refused_rows += rows.count
        else:
            assert rows.are_answered_by(reply), reply
            accepted_s.append(took)

    async def waves(url: str) -> str:
        random = np.random.default_rng(0)
        connections = [await Connection.open(url) for _ in range(CLIENTS)]
        for _ in range(WAVES):
            asked = [Rows(random, dear_side=DEAR_SIDE) for _ in range(CLIENTS)]
            await asyncio.gather(*map(one, connections, asked))
            await wait_until_queue_is_empty(url)
        for connection in connections:
            connection.leave()
        return await metrics_of(url)

    with running(
        models_dir=models_dir, max_queue_rows=MAX_QUEUE_ROWS, max_batch_size=MAX_BATCH_SIZE
    ) as service:
        metrics = uvloop.run(waves(service.url))
        assert service.stop() == 0
    assert_log_is_clean(service.log)
    print(
        f"{WAVES} waves of {CLIENTS} requests: {len(accepted_s)} answered in "
        f"{percentile_ms(accepted_s, 50):.0f} ms (p50), {len(refused_s)} refused in "
        f"{percentile_ms(refused_s, 50):.1f} ms (p50), {1000 * max(refused_s):.0f} ms (slowest)"
    )
    assert len(accepted_s) + len(refused_s) == WAVES * CLIENTS
    # The queue's rows, and those of the batch that runs; a few are done before the last have come.
    assert WAVES <= len(accepted_s) < WAVES * CLIENTS / 2
    assert counted(metrics, "torchlit_rejected_rows_total", 'reason="queue_full"') == refused_rows
    assert counted(metrics, "torchlit_requests_total", 'outcome="queue_full"') == len(refused_s)
    assert counted(metrics, "torchlit_requests_total", 'outcome="ok"') == len(accepted_s)
    assert percentile_ms(refused_s, 50) < percentile_ms(accepted_s, 50) / 2


def test_connections_beyond_the_limit_are_refused_and_the_probes_are_not(models_dir: Path) -> None:
    async def ask_all(url: str, connections: list[Connection]) -> list[Reply]:
        rows = [Rows(np.random.default_rng(seed)) for seed, _ in enumerate(connections)]
        replies = [
            await connection.ask(each.request)
            for connection, each in zip(connections, rows, strict=True)
        ]
        for each, reply in zip(rows, replies, strict=True):
            assert reply.status != 200 or each.are_answered_by(reply)
        return replies

    async def fill_and_leave(url: str) -> None:
        within = [await Connection.open(url) for _ in range(MAX_CONNECTIONS)]
        assert [reply.status for reply in await ask_all(url, within)] == [200] * MAX_CONNECTIONS
        beyond = [await Connection.open(url) for _ in range(BEYOND)]
        refusals = await ask_all(url, beyond)
        assert all(is_refusal(reply) and reply.closes for reply in refusals), refusals
        probe = await Connection.open(url)
        assert (await probe.ask(get("/health/live"))).status == 200
        assert [reply.status for reply in await ask_all(url, within)] == [200] * MAX_CONNECTIONS
        for connection in (*within, *beyond, probe):
            connection.leave()

    async def three_times(service: Process) -> str:
        pid, url = service.process.pid, service.url
        await metrics_of(url)
        at_rest = descriptors_of(pid)
        for _ in range(3):
            await fill_and_leave(url)
            await wait_until_closed(pid, at_rest)
        return await metrics_of(url)

    with running(models_dir=models_dir, max_connections=MAX_CONNECTIONS) as service:
        metrics = uvloop.run(three_times(service))
        assert service.stop() == 0
    assert_log_is_clean(service.log)
    refused = counted(metrics, "torchlit_unmatched_requests", 'outcome="too_many_connections"')
    print(f"{BEYOND} connections beyond {MAX_CONNECTIONS}, 3 times: {refused:.0f} refused")
    assert refused == 3 * BEYOND


def test_a_flood_of_silent_connections_keeps_no_probe_out(models_dir: Path) -> None:
    probe_s: list[float] = []

    async def probe(url: str) -> None:
        for path in PROBES * (PROBE_ROUNDS // len(PROBES)):
            start = time.perf_counter()
            connection = await Connection.open(url)
            assert (await connection.ask(get(path))).status == 200
            connection.leave()
            probe_s.append(time.perf_counter() - start)

    async def flood(url: str, probes: asyncio.Task[None]) -> int:
        silent: deque[Connection] = deque()
        count = 0
        while not probes.done():
            silent.append(await Connection.open(url))
            count += 1
            if len(silent) > 10 * MAX_CONNECTIONS:
                silent.popleft().leave()
        for connection in silent:
            connection.leave()
        return count

    async def both(url: str) -> int:
        probes = asyncio.create_task(probe(url))
        count = await flood(url, probes)
        await probes
        return count

    with running(models_dir=models_dir, max_connections=MAX_CONNECTIONS) as service:
        count = uvloop.run(both(service.url))
        assert service.stop() == 0
    assert_log_is_clean(service.log)
    print(
        f"{count} silent connections, {len(probe_s)} probes answered in "
        f"{percentile_ms(probe_s, 50):.1f} ms (p50), {1000 * max(probe_s):.0f} ms (slowest)"
    )
    assert count > 10 * MAX_CONNECTIONS
    assert max(probe_s) < 1
