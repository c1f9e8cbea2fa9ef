"""Clients that leave: the others get their answers, and no work is done for those who left."""

import asyncio
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import uvloop

from tests.support.clients import counted
from tests.support.processes import running
from tests.support.toys import save_dear
from tests.system.stress.load import (
    Connection,
    Rows,
    assert_log_is_clean,
    descriptors_of,
    get,
    metrics_of,
    wait_until_closed,
    wait_until_queue_is_empty,
)

REQUESTS, CLIENTS = 10_000, 200
LEAVING = 1 / 3  # of the requests
DEAR, DEAR_SIDE = 0.2, 1000  # how many of the requests are for the dear model
WAYS = ("sent", "due", "in the body", "in the head", "another route")
DUE_S = 0.03  # how long at most a client waits for its reply before it leaves

pytestmark = pytest.mark.stress


async def leave_somewhere(connection: Connection, rows: Rows, random: np.random.Generator) -> str:
    """Leave with a request of which a part is sent, all, or all and some time has passed."""
    request, way = rows.request, str(random.choice(WAYS))
    if way == "another route":
        request = get(str(random.choice(["/metrics", "/models", "/schema/openapi.json"])))
    if way == "in the head":
        request = request[: random.integers(1, request.index(b"\r\n\r\n"))]
    if way == "in the body":
        request = request[: random.integers(request.index(b"\r\n\r\n") + 4, len(request))]
    connection.writer.write(request)
    if way == "due":
        try:
            async with asyncio.timeout(random.uniform(0, DUE_S)):
                await connection.reader.read(1)
        except TimeoutError:
            pass
    connection.leave(reset=random.random() < 0.5)
    return way


async def some_leave(url: str, seed: int, requests: int, seen: Counter[str]) -> None:
    """Send requests one after the other; check each answer, or leave and connect anew."""
    random = np.random.default_rng(seed)
    connection = await Connection.open(url)
    for _ in range(requests):
        is_dear = random.random() < DEAR
        rows = Rows(random, dear_side=DEAR_SIDE if is_dear else None)
        if random.random() < LEAVING:
            seen[await leave_somewhere(connection, rows, random)] += 1
            connection = await Connection.open(url)
        else:
            reply = await connection.ask(rows.request)
            assert rows.are_answered_by(reply), reply
            seen["dear" if is_dear else "toy"] += 1
    connection.leave()


def test_those_who_stay_get_their_answers_and_the_rows_of_those_who_left_are_dropped(
    models_dir: Path,
) -> None:
    save_dear(models_dir, DEAR_SIDE)
    seen: Counter[str] = Counter()

    async def flood(url: str, pid: int) -> tuple[str, float]:
        await metrics_of(url)
        at_rest = descriptors_of(pid)
        clock = asyncio.get_running_loop().time
        start = clock()
        async with asyncio.timeout(120):
            await asyncio.gather(
                *(some_leave(url, seed, REQUESTS // CLIENTS, seen) for seed in range(CLIENTS))
            )
        seconds = clock() - start
        await wait_until_queue_is_empty(url)
        await wait_until_closed(pid, at_rest)
        return await metrics_of(url), seconds

    with running(models_dir=models_dir, request_timeout_s=60) as service:
        metrics, seconds = uvloop.run(flood(service.url, service.process.pid))
        assert service.stop() == 0
    assert_log_is_clean(service.log)
    requests, dropped = "torchlit_requests_total", "torchlit_rejected_rows_total"
    ok = {
        model: counted(metrics, requests + f'{{model="{model}",outcome="ok"')
        for model in ("toy", "dear")
    }
    cancelled = counted(metrics, requests, 'outcome="cancelled"')
    unmatched = counted(metrics, "torchlit_unmatched_requests_total", 'outcome="cancelled"')
    rows = {
        model: counted(metrics, dropped + f'{{model="{model}",reason="cancelled"')
        for model in ("toy", "dear")
    }
    left = sum(seen[way] for way in WAYS)
    print(
        f"{seen.total()} requests from {CLIENTS} clients in {seconds:.1f} s: {dict(seen)}\n"
        f"answered right {seen['toy'] + seen['dear']}, hung 0; counted: ok {ok}, "
        f"cancelled {cancelled:.0f} and before a model was known {unmatched:.0f}, "
        f"rows dropped as cancelled {rows}"
    )
    assert seen.total() == REQUESTS
    assert abs(left / REQUESTS - LEAVING) < 0.03
    # A client that sent all and left may have been answered, or cancelled before it was counted.
    unsure = seen["sent"] + seen["due"]
    for model, count in ok.items():
        assert seen[model] <= count <= seen[model] + unsure
    assert sum(ok.values()) + cancelled <= seen["toy"] + seen["dear"] + unsure
    assert unmatched <= unsure + seen["in the body"] + seen["in the head"]
    assert cancelled > 0
    assert rows["dear"] > 0
    assert counted(metrics, requests) == sum(ok.values()) + cancelled  # and no other outcome
    assert counted(metrics, "torchlit_unmatched_requests_total") == unmatched
