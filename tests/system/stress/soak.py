"""A mixed load for minutes: what grows, and what gets slower.

    .venv/bin/python -m tests.system.stress.soak --minutes 10

measures how much the service can do, then sends half of that at an even pace: four models, a
tenth of the requests wrong in one of several ways, and now and then a client that leaves.
"""

import argparse
import asyncio
import sys
import time
from collections import Counter
from typing import Any

import numpy as np
import uvloop
from msgspec import Struct
from numpy.typing import NDArray

from tests.support.clients import predict_request
from tests.support.processes import resident_mb, running
from tests.system.stress.load import (
    COMMITTED_MODELS,
    LOST,
    Connection,
    ask_alone,
    assert_log_is_clean,
    descriptors_of,
    get,
    percentile_ms,
    wait_until_closed,
)

CLIENTS = 64
FULL_S = 2.0  # how long the full rate is measured
PACE = 0.5  # of the full rate
WRONG, LEAVING = 0.1, 0.01  # of the requests
LOOK_EVERY_S = 1.0
SETTLED = 1 / 3  # of the time; the growth after it counts
SLOWER = 1.2  # p99 at the end to p99 at the beginning, at most


class Kind(Struct, frozen=True):
    """A request, and what is to be in its reply."""

    request: bytes
    status: int
    holds: bytes


class Soaked(Struct, frozen=True):
    """What was measured."""

    full_rate: float  # requests/s
    rate: float  # requests/s that were sent
    outcomes: dict[str, int]
    wrong: list[str]
    resident: NDArray[Any]  # float64 (n, 2): seconds, MB
    descriptors: tuple[int, int]  # before and after
    first_p99_ms: float  # of the first minute, or fifth if that is shorter
    last_p99_ms: float

    @property
    def growth_mb_per_hour(self) -> float:
        """The slope of a line through the resident memory, once it has settled."""
        seconds, resident = self.resident.T
        late = seconds >= seconds[-1] * SETTLED
        return float(np.polyfit(seconds[late], resident[late], 1)[0] * 3600)

    @property
    def growth_mb(self) -> float:
        """How far that line rises in the time that it is fitted to."""
        seconds = self.resident[-1, 0] * (1 - SETTLED)
        return self.growth_mb_per_hour * float(seconds) / 3600

    def __str__(self) -> str:
        resident = self.resident[:, 1]
        return (
            f"full rate {self.full_rate:.0f}/s, sent {self.rate:.0f}/s: {self.outcomes}; "
            f"wrong {len(self.wrong)}\n"
            f"resident {resident[0]:.1f} MB at first, {resident.max():.1f} at most, "
            f"{resident[-1]:.1f} at last, slope {self.growth_mb_per_hour:+.1f} MB an hour "
            f"({self.growth_mb:+.2f} MB); descriptors {self.descriptors[0]} before, "
            f"{self.descriptors[1]} after\n"
            f"p99 {self.first_p99_ms:.2f} ms at first, {self.last_p99_ms:.2f} ms at last"
        )


def right_kinds() -> list[Kind]:
    """One request for each model; housing's features by name."""

    def kind(example: str, holds: bytes, version: bytes = b"") -> Kind:
        content = (COMMITTED_MODELS / example).read_bytes()
        return Kind(predict_request(content.replace(b"{", b"{" + version, 1)), 200, holds)

    return [
        kind("iris/1/request.json", b'"label":"setosa"'),
        kind("housing/1/request.json", b'"predictions":[{"value":20.'),
        kind("mnist/1/request.json", b'"label":"7"', b'"version": 1, '),
        kind("mnist/2/request.json", b'"label":"7"', b'"version": 2, '),
    ]


def wrong_kinds() -> list[Kind]:
    """Requests that are refused, each for a reason of its own."""

    def iris(instances: bytes) -> bytes:
        return predict_request(b'{"model": "iris", "instances": ' + instances + b"}")

    return [
        Kind(predict_request(b'{"model": "iris", "inst'), 400, b"expected JSON"),
        Kind(predict_request(b""), 400, b"got nothing"),
        Kind(predict_request(b'{"model": "rose", "instances": [[1]]}'), 404, b"rose"),
        Kind(predict_request(b'{"inputs": [[1, 2, 3, 4]]}'), 400, b"unknown field"),
        Kind(iris(b"[[1, 2, 3]]"), 400, b"a list of 3"),
        Kind(iris(b'[{"sepal_lenght": 1}]'), 400, b"did you mean sepal_length"),
        Kind(iris(b"[[1, 2, 3, 1e39]]"), 400, b"finite"),
        Kind(iris(b"[" + b"[1,2,3,4]," * 4096 + b"[1,2,3,4]]"), 413, b"at most 4096"),
        Kind(get("/predict"), 405, b"expected POST"),
        Kind(get("/nothing"), 404, b"no such path"),
    ]


class Client:
    """One connection, a share of the load."""

    def __init__(self, url: str, seed: int) -> None:
        self._url = url
        self._random = np.random.default_rng(seed)
        self._right, self._wrong = right_kinds(), wrong_kinds()
        self.times: list[tuple[float, float]] = []  # when it was due, how long it took: seconds
        self.outcomes: Counter[str] = Counter()
        self.wrong: list[str] = []

    async def run(self, due: float, every_s: float, until: float) -> None:
        """Ask every `every_s` from `due` on, by the loop's clock; 0 asks as fast as it can.

        A time is from when the request was due, so that a delay counts for all that it delays.
        """
        clock = asyncio.get_running_loop().time
        start = due
        self._connection = await Connection.open(self._url)
        while (due if every_s else clock()) < until:
            if due > (now := clock()):
                await asyncio.sleep(due - now)
            if not every_s:
                due = clock()
            if await self._ask():
                self.times.append((due - start, clock() - due))
            due += every_s
        self._connection.leave()

    async def _ask(self) -> bool:
        """Send one request; return whether it was answered as it should be."""
        chance = self._random.random()
        kinds = self._wrong if chance < WRONG else self._right
        kind = kinds[self._random.integers(len(kinds))]
        if chance > 1 - LEAVING:
            self._connection.writer.write(kind.request[: self._random.integers(len(kind.request))])
            await self._connect_anew("left")
            return False
        try:
            reply = await self._connection.ask(kind.request)
        except (*LOST, TimeoutError) as error:
            self.wrong.append(repr(error))
            await self._connect_anew("lost")
            return False
        self.outcomes[str(reply.status)] += 1
        if reply.status != kind.status or kind.holds not in reply.body:
            self.wrong.append(f"{kind.request[:200]!r}: {reply}")
        if reply.closes:
            await self._connect_anew("sent away")
        return True

    async def _connect_anew(self, why: str) -> None:
        self.outcomes[why] += 1
        self._connection.leave()
        self._connection = await Connection.open(self._url)


async def full_rate(url: str) -> float:
    """Return how many requests the service answers in a second."""
    clients = [Client(url, seed) for seed in range(CLIENTS)]
    start = asyncio.get_running_loop().time()
    await asyncio.gather(*(client.run(start, 0, start + FULL_S) for client in clients))
    return sum(len(client.times) for client in clients) / FULL_S


async def watch(pid: int, resident: list[tuple[float, float]]) -> None:
    """Look at the memory every second, until cancelled."""
    start = time.monotonic()
    while True:
        resident.append((time.monotonic() - start, resident_mb(pid)))
        await asyncio.sleep(LOOK_EVERY_S)


async def soak_process(url: str, pid: int, seconds: float) -> Soaked:
    """Load a running service."""
    for kind in right_kinds() + wrong_kinds():
        await ask_alone(url, kind.request)
    before = descriptors_of(pid)
    full = await full_rate(url)
    await wait_until_closed(pid, before)
    every_s = CLIENTS / (full * PACE)
    clients = [Client(url, CLIENTS + seed) for seed in range(CLIENTS)]
    resident: list[tuple[float, float]] = []
    watching = asyncio.create_task(watch(pid, resident))
    start = asyncio.get_running_loop().time() + 0.1
    await asyncio.gather(
        *(
            client.run(start + number * every_s / CLIENTS, every_s, start + seconds)
            for number, client in enumerate(clients)
        )
    )
    watching.cancel()
    await wait_until_closed(pid, before)
    outcomes = sum((client.outcomes for client in clients), Counter())
    times = np.array([each for client in clients for each in client.times])
    span = min(60, seconds / 5)
    return Soaked(
        full_rate=full,
        rate=outcomes.total() / seconds,
        outcomes=dict(sorted(outcomes.items())),
        wrong=[each for client in clients for each in client.wrong],
        resident=np.array(resident),
        descriptors=(before, descriptors_of(pid)),
        first_p99_ms=percentile_ms(times[times[:, 0] < span, 1], 99),
        last_p99_ms=percentile_ms(times[times[:, 0] >= seconds - span, 1], 99),
    )


def soak(seconds: float) -> Soaked:
    """Start the service with the committed models, and load it."""
    with running(models_dir=COMMITTED_MODELS) as service:
        soaked = uvloop.run(soak_process(service.url, service.process.pid, seconds))
        assert service.stop() == 0
    assert_log_is_clean(service.log)
    return soaked


def main() -> int:
    parser = argparse.ArgumentParser(description="Load the service for minutes.")
    parser.add_argument("--minutes", type=float, default=10)
    soaked = soak(60 * parser.parse_args().minutes)
    print(soaked)
    print(*soaked.wrong[:10], sep="\n")
    is_slower = soaked.last_p99_ms > SLOWER * soaked.first_p99_ms
    return int(bool(soaked.wrong) or is_slower or soaked.descriptors[1] > soaked.descriptors[0])


if __name__ == "__main__":
    sys.exit(main())
