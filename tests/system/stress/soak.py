"""A mixed load for minutes: what is lost, what grows, and what gets slower.

    .venv/bin/python -m tests.system.stress.soak --minutes 10

measures how much the service can do, then sends a part of that at an even pace: five models, a
tenth of the requests wrong in one of several ways, and now and then a client that leaves. Beside
it all the troubles of troubles.py happen, again and again, to two workers whose metrics folder is
full, and a process of its own probes. With --steady none of this: one worker, and the load alone.
"""

import argparse
import asyncio
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import uvloop
from msgspec import Struct
from numpy.typing import NDArray

from tests.support.clients import predict_request
from tests.support.processes import Process, resident_mb, running
from tests.support.toys import save_toy, toy_card
from tests.system.stress.load import (
    COMMITTED_MODELS,
    LOST,
    Connection,
    Rows,
    ask_alone,
    assert_log_is_clean,
    descriptors_of,
    get,
    percentile_ms,
    small_disk,
    wait_until_closed,
)
from tests.system.stress.probes import probing
from tests.system.stress.troubles import CONNECTIONS, Scene, Troubles

CLIENTS = 64
FULL_S = 2.0  # how long the full rate is measured
PACE, TROUBLED_PACE = 0.5, 0.1  # of the full rate
WRONG, LEAVING, TOY = 0.1, 0.01, 0.3  # of the requests
LOOK_EVERY_S = 1.0
SETTLED = 1 / 3  # of the time; the growth after it counts
WINDOWS = 30  # of the lowest memory in each
SLOWER = 1.2  # p99 at the end to p99 at the beginning, at most
PROBE_S = 1.0  # that a probe may take
GONE = re.compile(r"model changing/\d+: no such folder")
IDLE_S = 0.9  # of a connection, after which it may be closed


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
    troubles: dict[str, int]
    wrong: list[str]
    probes: dict[str, Any]  # as probes.py prints them; empty without troubles
    resident: NDArray[Any]  # float64 (n, 2): seconds, MB, of a worker that was not killed
    descriptors: tuple[int, int]  # before and after
    first_p99_ms: float  # of the first minute, or fifth if that is shorter
    last_p99_ms: float
    stop_s: float  # from SIGTERM to the end

    @property
    def growth_mb_per_hour(self) -> float:
        """The slope of a line through the lows of the resident memory, once it has settled."""
        seconds, resident = self.resident.T
        late = np.flatnonzero(seconds >= seconds[-1] * SETTLED)
        windows = np.array_split(late, min(WINDOWS, len(late)))
        lows = [window[resident[window].argmin()] for window in windows]
        return float(np.polyfit(seconds[lows], resident[lows], 1)[0] * 3600)

    @property
    def growth_mb(self) -> float:
        """How far that line rises in the time that it is fitted to."""
        seconds = self.resident[-1, 0] * (1 - SETTLED)
        return self.growth_mb_per_hour * float(seconds) / 3600

    def __str__(self) -> str:
        resident = self.resident[:, 1]
        probes = {path: round(1000 * s) for path, s in self.probes.get("longest_s", {}).items()}
        return (
            f"full rate {self.full_rate:.0f}/s, sent {self.rate:.0f}/s: {self.outcomes}; "
            f"wrong {len(self.wrong)}\n"
            f"troubles: {self.troubles}\n"
            f"{self.probes.get('count', 0)} probes, the longest took {probes} ms\n"
            f"resident {resident[0]:.1f} MB at first, {resident.max():.1f} at most, "
            f"{resident[-1]:.1f} at last, slope {self.growth_mb_per_hour:+.1f} MB an hour "
            f"({self.growth_mb:+.2f} MB); descriptors {self.descriptors[0]} before, "
            f"{self.descriptors[1]} after\n"
            f"p99 {self.first_p99_ms:.2f} ms at first, {self.last_p99_ms:.2f} ms at last; "
            f"stopped within {self.stop_s:.2f} s"
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

    def __init__(self, scene: Scene, seed: int) -> None:
        self._scene = scene
        self._random = np.random.default_rng(seed)
        self._right, self._wrong = right_kinds(), wrong_kinds()
        self._connection: Connection | None = None
        self.times: list[tuple[float, float]] = []  # when it was due, how long it took: seconds
        self.outcomes: Counter[str] = Counter()

    async def run(self, due: float, every_s: float, until: float) -> None:
        """Ask every `every_s` from `due` on, by the loop's clock; 0 asks as fast as it can.

        A time is from when the request was due, so that a delay counts for all that it delays.
        """
        clock = asyncio.get_running_loop().time
        start = due
        while (due if every_s else clock()) < until:
            if due > (now := clock()):
                await asyncio.sleep(due - now)
            if not every_s:
                due = clock()
            if await self._ask():
                self.times.append((due - start, clock() - due))
            due += every_s
        self._leave("done")

    async def _ask(self) -> bool:
        """Send one request; return whether it was answered as it should be."""
        chance = self._random.random()
        rows = Rows(self._random)
        kinds = self._wrong if chance < WRONG else self._right
        kind = kinds[self._random.integers(len(kinds))]
        is_toy = WRONG <= chance < WRONG + TOY
        request = rows.request if is_toy else kind.request
        if self._connection is None:  # not before: who asks nothing may be sent away
            self._connection = await Connection.open(self._scene.url)
            self._answered = time.monotonic()
        if chance > 1 - LEAVING:
            self._connection.writer.write(request[: self._random.integers(len(request))])
            self._leave("left")
            return False
        since = time.monotonic()
        try:
            reply = await self._connection.ask(request)
        except (*LOST, TimeoutError) as error:
            if since - self._answered > IDLE_S:  # as every client has to expect
                self._leave("closed while idle")
                return False
            self._scene.lose(f"the load: {error!r}", since, time.monotonic())
            self._leave("lost")
            return False
        self._answered = time.monotonic()
        if reply.status == 503 and reply.closes:
            self._leave("sent away")
            return False
        self.outcomes[str(reply.status)] += 1
        if is_toy:
            is_right = rows.are_answered_by(reply)
        else:
            is_right = reply.status == kind.status and kind.holds in reply.body
        if not is_right:
            self._scene.wrong.append(f"{request[:200]!r}: {reply}")
        if reply.closes:
            self._leave("sent away")
        return True

    def _leave(self, why: str) -> None:
        self.outcomes[why] += 1
        if self._connection is not None:
            self._connection.leave()
            self._connection = None


async def full_rate(scene: Scene) -> float:
    """Return how many requests the service answers in a second."""
    clients = [Client(scene, seed) for seed in range(CLIENTS)]
    start = asyncio.get_running_loop().time()
    await asyncio.gather(*(client.run(start, 0, start + FULL_S) for client in clients))
    return sum(len(client.times) for client in clients) / FULL_S


async def watch(pid: int, resident: list[tuple[float, float]]) -> None:
    """Look at the memory every second, until cancelled."""
    start = time.monotonic()
    while True:
        resident.append((time.monotonic() - start, resident_mb(pid)))
        await asyncio.sleep(LOOK_EVERY_S)


async def soak_process(scene: Scene, seconds: float, troubles: Troubles | None) -> Soaked:
    """Load a running service, with troubles or without."""
    for kind in right_kinds() + wrong_kinds():
        await ask_alone(scene.url, kind.request)
    pid = scene.survivor
    before = descriptors_of(pid)
    full = await full_rate(scene)
    await wait_until_closed(pid, before)
    every_s = CLIENTS / (full * (TROUBLED_PACE if troubles else PACE))
    clients = [Client(scene, CLIENTS + seed) for seed in range(CLIENTS)]
    resident: list[tuple[float, float]] = []
    probes: dict[str, Any] = {}
    start = asyncio.get_running_loop().time() + 0.1
    async with asyncio.TaskGroup() as tasks:  # a fault of this file ends all
        beside = [tasks.create_task(watch(pid, resident))]
        if troubles:
            beside.append(tasks.create_task(troubles.run(scene)))
        with probing(scene.url, probes) if troubles else nullcontext():
            await asyncio.gather(
                *(
                    client.run(start + number * every_s / CLIENTS, every_s, start + seconds)
                    for number, client in enumerate(clients)
                )
            )
        for task in beside:
            task.cancel()
    await wait_until_closed(pid, before)
    for since, until, problem in probes.get("failed", []):
        scene.lose(f"probe of {problem}", since, until)
    outcomes = sum((client.outcomes for client in clients), Counter())
    times = np.array([each for client in clients for each in client.times])
    span = min(60, seconds / 5)
    return Soaked(
        full_rate=full,
        rate=outcomes.total() / seconds,
        outcomes=dict(sorted(outcomes.items())),
        troubles=dict(sorted(scene.seen.items())),
        wrong=scene.wrong,
        probes=probes,
        resident=np.array(resident),
        descriptors=(before, descriptors_of(pid)),
        first_p99_ms=percentile_ms(times[times[:, 0] < span, 1], 99),
        last_p99_ms=percentile_ms(times[times[:, 0] >= seconds - span, 1], 99),
        stop_s=0,
    )


@contextmanager
def troubled_service(folder: Path) -> Iterator[tuple[Process, Scene, Troubles]]:
    """Run two workers whose metrics folder is full, if a small disk can be mounted, else not."""
    models_dir = folder / "models"
    troubles = Troubles(models_dir)
    for name in ("iris", "housing"):
        (models_dir / name).symlink_to(COMMITTED_MODELS / name)
    save_toy(models_dir, card=toy_card())
    with small_disk(folder / "small") as disk:
        if disk is None:
            print("without a full metrics folder: to mount a file system needs root")
        settings: dict[str, Any] = {} if disk is None else {"metrics_dir": disk}
        with running(
            models_dir=models_dir,
            workers=2,
            max_connections=CONNECTIONS,
            max_queue_rows=32_768,
            **settings,
        ) as service:
            service.wait_for(r"(worker \d) .* serves")  # the other one
            pids = re.findall(r"process (\d+)\) serves", "".join(service.log))
            yield (
                service,
                Scene(service.url, service.process.pid, int(pids[0]), models_dir),
                troubles,
            )


@contextmanager
def steady_service(folder: Path) -> Iterator[tuple[Process, Scene, None]]:
    """Run one worker."""
    models_dir = folder / "models"
    save_toy(models_dir, card=toy_card())
    for name in ("iris", "housing", "mnist"):
        (models_dir / name).symlink_to(COMMITTED_MODELS / name)
    with running(models_dir=models_dir) as service:
        pid = service.process.pid
        yield service, Scene(service.url, pid, pid, models_dir), None


def soak(seconds: float, *, is_troubled: bool) -> Soaked:
    """Start the service, load it, stop it."""
    start = troubled_service if is_troubled else steady_service
    with tempfile.TemporaryDirectory() as folder, start(Path(folder)) as (service, scene, troubles):
        soaked = uvloop.run(soak_process(scene, seconds, troubles))
        began = time.monotonic()
        assert service.stop() == 0
        stop_s = time.monotonic() - began
    soaked = msgspec.structs.replace(soaked, stop_s=stop_s)
    print(soaked)
    print(*soaked.wrong[:10], sep="\n")
    # A worker may start just when an old version goes.
    assert_log_is_clean([line for line in service.log if not GONE.search(line)])
    return soaked


def main() -> int:
    parser = argparse.ArgumentParser(description="Load the service for minutes.")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--steady", action="store_true", help="the load alone, without troubles")
    options = parser.parse_args()
    soaked = soak(60 * options.minutes, is_troubled=not options.steady)
    is_slower = options.steady and soaked.last_p99_ms > SLOWER * soaked.first_p99_ms
    is_late = any(s > PROBE_S for s in soaked.probes.get("longest_s", {}).values())
    is_leaking = soaked.descriptors[1] > soaked.descriptors[0]
    return int(bool(soaked.wrong) or is_slower or is_late or is_leaking)


if __name__ == "__main__":
    sys.exit(main())
