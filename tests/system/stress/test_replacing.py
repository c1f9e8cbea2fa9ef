"""Processes that go and come under load: nothing that was accepted is lost."""

import asyncio
import os
import re
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest
import uvloop

from tests.support.clients import address
from tests.support.processes import Process, running
from tests.system.stress.load import (
    LOST,
    Connection,
    Rows,
    assert_log_is_clean,
    client_ports_of,
    wait_until,
)

CLIENTS = 64
REPLACEMENTS = 5
HELD_BY_EACH = 8  # connections at least, before one of two workers is killed

pytestmark = pytest.mark.stress


class Client:
    """Asks again and again, with rows of its own; connects anew when sent away or broken off."""

    def __init__(self, url: str, seed: int, *, always_anew: bool = False) -> None:
        """`always_anew`: for each request."""
        self._url = url
        self._always_anew = always_anew
        self._random = np.random.default_rng(seed)
        self.connection: Connection | None = None
        self.seen: Counter[str] = Counter()
        self.failures: list[str] = []

    async def run(self, stop: asyncio.Event) -> None:
        """Ask until told to stop."""
        while not stop.is_set():
            await self._connect()
            await self._ask()
        if self.connection is not None:
            self.connection.leave()

    async def _connect(self) -> None:
        if self.connection is not None:
            return
        try:
            self.connection = await Connection.open(self._url)
        except ConnectionError:
            self.seen["connects refused"] += 1
        else:
            self.seen["connections"] += 1
            self._is_fresh = True

    async def _ask(self) -> None:
        connection = self.connection
        if connection is None:
            return
        rows = Rows(self._random)
        try:
            reply = await connection.ask(rows.request)
        except (*LOST, TimeoutError) as error:
            where = "first" if self._is_fresh else "later"
            self.failures.append(f"{where} request of a connection: {error!r}")
            connection.leave()
            self.connection = None
            return
        self._is_fresh = False
        if rows.are_answered_by(reply):
            self.seen["answered"] += 1
        else:
            self.failures.append(f"{reply}")
        if reply.closes:
            self.seen["sent away"] += 1
        if reply.closes or self._always_anew:
            connection.leave()
            self.connection = None


def total(clients: list[Client]) -> Counter[str]:
    """Add up what the clients saw."""
    return sum((client.seen for client in clients), Counter())


@contextmanager
def started(workers: int, **settings: object) -> Iterator[Process]:
    """Run a service; wait until each worker serves."""
    with running(workers=workers, **settings) as service:
        for _ in range(workers - 1):
            service.wait_for(r"(worker \d) .* serves")
        yield service


def failures_of(clients: list[Client]) -> list[str]:
    return [failure for client in clients for failure in client.failures]


async def each_is_answered(clients: list[Client], times: int) -> None:
    """Return when each client has had so many more answers."""
    before = [client.seen["answered"] for client in clients]

    async def all_were() -> bool:
        return all(
            client.seen["answered"] >= count + times
            for client, count in zip(clients, before, strict=True)
        )

    await wait_until(f"each client is answered {times} times more", all_were)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_process_is_replaced_by_another_on_its_port_without_a_request_lost(
    models_dir: Path, workers: int
) -> None:
    async def replace_again_and_again(stack: ExitStack) -> list[Client]:
        settings = {"models_dir": models_dir, "workers": workers, "reuse_port": "true"}
        old = stack.enter_context(started(**settings, drain_s=0.5))
        port = address(old.url)[1]
        clients = [Client(old.url, seed, always_anew=seed % 4 == 0) for seed in range(CLIENTS)]
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            for client in clients:
                tasks.create_task(client.run(stop))
            try:
                for _ in range(REPLACEMENTS):
                    new = await asyncio.to_thread(
                        stack.enter_context, started(**settings, port=port, drain_s=0.5)
                    )
                    assert await asyncio.to_thread(old.stop) == 0
                    assert_log_is_clean(old.log)
                    await each_is_answered(clients, 5)
                    old = new
            finally:
                stop.set()
        return clients

    with ExitStack() as stack:
        clients = uvloop.run(replace_again_and_again(stack))
    seen, failures = total(clients), failures_of(clients)
    print(f"{REPLACEMENTS} replacements, {workers} workers: {dict(seen)}, failed {len(failures)}")
    print(*Counter(failures).items(), sep="\n")
    assert seen["sent away"] >= CLIENTS  # so the clients did meet the replacements
    assert failures == []


def test_a_worker_that_is_killed_loses_one_request_of_each_connection_that_it_held(
    models_dir: Path,
) -> None:
    async def kill_under_load(service: Process) -> tuple[list[Client], dict[int, list[Client]]]:
        port = address(service.url)[1]
        pids = [int(pid) for pid in re.findall(r"process (\d+)\) serves", "".join(service.log))]
        clients = [Client(service.url, seed) for seed in range(CLIENTS)]
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            try:
                for client in clients:
                    tasks.create_task(client.run(stop))
                    await each_is_answered([client], 1)
                await each_is_answered(clients, 20)
                # Nothing else of this loop runs between the look and the kill.
                ports = {pid: client_ports_of(pid, port) for pid in pids}
                held = {
                    pid: [client for client in clients if port_of(client) in ports[pid]]
                    for pid in pids
                }
                killed = max(pids, key=lambda pid: len(held[pid]))
                os.kill(killed, signal.SIGKILL)
                await asyncio.to_thread(service.wait_for, r"(ended with -9)")
                await asyncio.to_thread(service.wait_for, r"(worker \d) .* serves")
                await each_is_answered(clients, 20)
            finally:
                stop.set()
        return clients, {killed: held.pop(killed)} | held

    with started(2, models_dir=models_dir) as service:
        clients, held = uvloop.run(kill_under_load(service))
        assert service.stop() == 0
    assert_log_is_clean(service.log)
    of_killed, of_other = held.values()
    print(
        f"the killed worker held {len(of_killed)} connections, the other {len(of_other)}; "
        f"failed: {[len(client.failures) for client in of_killed]} and "
        f"{[len(client.failures) for client in of_other]}; {dict(total(clients))}"
    )
    print(*Counter(failures_of(clients)).items(), sep="\n")
    assert len(of_killed) + len(of_other) == CLIENTS
    assert len(of_other) >= HELD_BY_EACH
    assert [len(client.failures) for client in of_other] == [0] * len(of_other)
    assert [len(client.failures) for client in of_killed] == [1] * len(of_killed)
    assert [client.seen["connections"] for client in of_killed] == [2] * len(of_killed)
    assert [client.seen["connections"] for client in of_other] == [1] * len(of_other)
    assert total(clients)["connects refused"] == 0


def port_of(client: Client) -> int | None:
    return client.connection.local_port if client.connection else None
