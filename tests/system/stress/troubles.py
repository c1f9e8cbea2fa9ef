"""What goes wrong beside a steady load, again and again: each function is one kind of trouble."""

import asyncio
import gzip
import os
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import cycle
from pathlib import Path

import numpy as np

from service.grpc.messages import ModelInferResponse
from service.grpc.status import Code
from tests.support import foreign_models
from tests.support.clients import predict_request
from tests.support.grpc_client import INFER, Client, infer_request, outputs_of
from tests.support.toys import WEIGHTS, body, save_toy, softmax
from tests.system.stress.load import LOST, Connection, Reply, get
from tests.system.stress.long_bodies import WIDE, instances, kinds, save_models, tensors

EXCUSED_S = 2.0  # after a worker was killed: so long may its connections take to end
CONNECTIONS = 256  # TORCHLIT_MAX_CONNECTIONS
SLOW_S = 5  # until a slow reader begins
ROW = np.array([[1.0, 2.0, 3.0, 4.0]])
DEADLINE_MS = 500
CALLS = 16  # of gRPC at the same time


class Scene:
    """The service under trouble, and what was seen of it."""

    def __init__(self, url: str, pid: int, survivor: int, models_dir: Path) -> None:
        """`survivor` is the process of the one worker that nobody kills."""
        self.url, self.pid, self.survivor, self.models_dir = url, pid, survivor, models_dir
        self.seen: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._kills: list[float] = []

    def workers(self) -> list[int]:
        """Return the processes of the workers that run now."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        return [int(pid) for pid in children.read_text().split()]

    def kill_a_worker(self) -> None:
        for pid in self.workers():
            if pid != self.survivor:
                self._kills.append(time.monotonic())
                os.kill(pid, signal.SIGKILL)
                self.seen["workers killed"] += 1

    async def ask(self, what: str, request: bytes, pause_s: float = 0) -> Reply | None:
        """Return the reply to a request on a connection of its own, read after a pause.

        None if it was sent away, as there are too many connections, or is lost: that is noted.
        """
        since = time.monotonic()
        try:
            connection = await Connection.open(self.url)
            connection.writer.write(request)
            try:
                await asyncio.sleep(pause_s)
                reply = await connection.reply()
            finally:
                connection.leave()
        except (*LOST, TimeoutError) as error:
            self.lose(f"{what}: {error!r}", since, time.monotonic())
            return None
        if reply.status == 503 and reply.closes:
            self.seen["sent away"] += 1
            return None
        return reply

    async def request(self, what: str, request: bytes, status: int, *, of: str = "") -> None:
        """Send a request; note whether it is answered with this status."""
        reply = await self.ask(what, request)
        if reply is not None:
            self.note(what, f"{of} {reply.status} {reply.body[:300]!r}", reply.status == status)

    def note(self, what: str, got: str, is_right: bool) -> None:
        """Count what was right, keep what was not."""
        if is_right:
            self.seen[what] += 1
        else:
            self.wrong.append(f"{what}: got {got}")

    def lose(self, what: str, since: float, until: float) -> None:
        """Note a request that was not answered: a fault, unless its worker was killed."""
        if any(since - EXCUSED_S <= kill <= until for kill in self._kills):
            self.seen["lost with a worker"] += 1
        else:
            self.wrong.append(f"not answered: {what}")


def post(path: str, content: bytes, *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: x", *headers, f"Content-Length: {len(content)}"]
    return "\r\n".join([*lines, "", ""]).encode() + content


class LongBodies:
    """Bodies of up to 16 MB, valid and wrong, one after the other."""

    def __init__(self) -> None:
        self._requests = cycle([long_request(*kind) for kind in kinds()])

    async def __call__(self, scene: Scene) -> None:
        name, request, status = next(self._requests)
        await scene.request("long bodies", request, status, of=name)


def long_request(
    name: str, path: str, content: bytes, status: int, media_type: str
) -> tuple[str, bytes, int]:
    """Return the name of a body, its request as it goes over the wire, and its status."""
    headers = "Content-Encoding: gzip", f"Content-Type: {media_type}"
    return name, post(path, gzip.compress(content, 1), *headers), status


class LongReplies:
    """Replies of 9 MB, which must be equal to what was sent, and one that would be too large."""

    def __init__(self) -> None:
        self._rows = np.random.default_rng(0).standard_normal((3000, 784)).astype(np.float32)
        self._too_large = gzip.compress(instances([[0] * 784] * 4096), 1)

    def request(self) -> bytes:
        data = self._rows.tobytes()
        head = (
            b'{"inputs":[{"name":"input","shape":[3000,784],"datatype":"FP32",'
            b'"parameters":{"binary_data_size":%d}}],"parameters":{"binary_data_output":true}}'
        ) % len(data)
        return post(WIDE, head + data, f"Inference-Header-Content-Length: {len(head)}")

    async def read(self, scene: Scene, pause_s: float = 0) -> None:
        what = "slow readers" if pause_s else "long replies"
        reply = await scene.ask(what, self.request(), pause_s)
        if reply is not None:
            is_right = reply.status == 200 and reply.body.endswith(self._rows.tobytes())
            scene.note(what, f"{reply.status} {reply.body[:300]!r}", is_right)

    async def __call__(self, scene: Scene) -> None:
        await self.read(scene)
        too_large = post("/predict/wide", self._too_large, "Content-Encoding: gzip")
        await scene.request("replies that would be too large", too_large, 413)
        await asyncio.sleep(1)

    async def slowly(self, scene: Scene) -> None:
        """Readers that begin late, while others ask for more and never read."""
        unread: list[Connection] = []
        try:
            for _ in range(2):
                unread.append(await Connection.open(scene.url))
                unread[-1].writer.write(self.request())
            await self.read(scene, SLOW_S)
        finally:
            for each in unread:
                each.leave(reset=True)


async def slow_senders(scene: Scene) -> None:
    """Clients that send a byte now and then, and leave."""
    beginnings = [get("/predict")[:20], predict_request(b"x" * 1000)[:-900]]
    slow: list[Connection] = []
    try:
        for beginning in beginnings * 8:
            slow.append(await Connection.open(scene.url))
            slow[-1].writer.write(beginning)
        for _ in range(5):
            await asyncio.sleep(1)
            for connection in slow:
                if not connection.writer.is_closing():  # it may have been sent away
                    connection.writer.write(b"x")
        scene.seen["slow senders"] += len(slow)
    finally:
        for connection in slow:
            connection.leave()


async def idle_connections(scene: Scene) -> None:
    """More connections than are kept, silent or after one request."""
    idle: list[Connection] = []
    try:
        for number in range(3 * CONNECTIONS):
            connection = await Connection.open(scene.url)
            idle.append(connection)
            if number % 2 and not connection.writer.is_closing():
                connection.writer.write(get("/health/live"))
        scene.seen["idle connections"] += len(idle)
        await asyncio.sleep(3)
    finally:
        for connection in idle:
            connection.leave()
    await asyncio.sleep(5)


async def killed_workers(scene: Scene) -> None:
    """A worker is killed and replaced; when it is, the models folder is away for a second.

    One after the other: a worker cannot start where there is no folder.
    """
    scene.kill_a_worker()
    await asyncio.sleep(8)
    away = scene.models_dir.with_name("away")
    scene.models_dir.rename(away)
    try:
        await asyncio.sleep(1)
    finally:
        away.rename(scene.models_dir)
    scene.seen["folder moved"] += 1
    await asyncio.sleep(6)


async def calls_over_grpc(scene: Scene) -> None:
    """Calls at the same time on one connection of HTTP/2, each with its own row; some leave."""
    what, since = "calls over gRPC", time.monotonic()
    rows = {number: ROW.astype(np.float32) * number / CALLS for number in range(1, CALLS + 1)}
    waiting: dict[int, int] = {}
    port = int(scene.url.rpartition(":")[2])
    try:
        async with Client(port) as client:
            for number, row in rows.items():
                message = infer_request("toy", row).SerializeToString()
                waiting[client.start(INFER, message)] = number
            for id in list(waiting)[::4]:
                client.cancel(id)
                del waiting[id]
                scene.seen["calls over gRPC that left"] += 1
            answers = {number: await client.answer(id) for id, number in waiting.items()}
    except (*LOST, TimeoutError) as error:
        scene.lose(f"{what}: {error!r}", since, time.monotonic())
        return
    for number, answer in answers.items():
        if not answer.is_ended:
            scene.lose(f"{what}: call {number}", since, time.monotonic())
        elif answer.code == Code.UNAVAILABLE:
            scene.seen["sent away"] += 1
        elif answer.code != Code.OK:
            scene.note(what, answer.sentence, False)
        else:
            (got,) = outputs_of(ModelInferResponse.FromString(answer.message))
            is_right = np.abs(got - softmax(rows[number] @ WEIGHTS)).max() < 1e-5
            scene.note(what, f"{got} for {rows[number]}", bool(is_right))
    await asyncio.sleep(0.2)


async def runs_without_end(scene: Scene) -> None:
    """Runs that go on until their deadline."""
    content = tensors([10**15], [1], "INT64", name="x")
    deadline = f"X-Request-Timeout-Ms: {DEADLINE_MS}"
    path = "/v2/models/counting/infer"
    await scene.request("runs without end", post(path, content, deadline), 504)
    await asyncio.sleep(2)


class Releases:
    """New versions come and old ones go, while callers use the newest: whose answer is it?"""

    def __init__(self) -> None:
        self._newest = 0

    def save(self, models_dir: Path) -> None:
        """Add a version, whose number is in its answers; take the oldest of three away."""
        self._newest += 1
        number = self._newest
        made = save_toy(models_dir.parent / "made", number, scale=scale_of(number))
        folder = models_dir / "changing"
        folder.mkdir(exist_ok=True)
        made.parent.rename(folder / str(number))
        old = folder / str(number - 2)
        if number > 2:
            (old / "model.onnx").unlink()
            old.rmdir()

    async def __call__(self, scene: Scene) -> None:
        """Release one; ask for it until it has come."""
        if scene.models_dir.exists():
            self.save(scene.models_dir)
            scene.seen["releases"] += 1
        if self._newest % 2:
            os.kill(scene.pid, signal.SIGHUP)
        for _ in range(30):
            await self._ask(scene)
            await asyncio.sleep(0.1)

    async def _ask(self, scene: Scene) -> None:
        what = "answers of the newest"
        reply = await scene.ask(what, predict_request(body("changing", ROW.tolist())))
        if reply is None:
            return
        if reply.status != 200:
            scene.note(what, repr(reply), False)
            return
        answered = reply.json()
        expected = softmax(ROW @ (WEIGHTS * scale_of(answered["version"])))[0]
        got = answered["predictions"][0]["probabilities"]
        is_right = np.abs(got - expected).max() < 1e-5
        scene.note(what, f"{answered} instead of {expected}", bool(is_right))


def scale_of(version: int) -> float:
    """Return what sets the answers of a version apart from those of the next ones."""
    return 0.1 * (version % 7)


def save_all(models_dir: Path) -> None:
    """Write the models that these troubles ask for, but for the releases."""
    save_models(models_dir)
    foreign_models.save(models_dir, "counting", foreign_models.counting())


class Troubles:
    """All of them, each again and again beside the others."""

    def __init__(self, models_dir: Path) -> None:
        """Write the models that they need, and prepare what is sent."""
        save_all(models_dir)
        releases, replies = Releases(), LongReplies()
        releases.save(models_dir)
        self._kinds: list[Callable[[Scene], Awaitable[None]]] = [
            *(LongBodies(), replies, replies.slowly, releases),
            *(slow_senders, idle_connections, killed_workers, calls_over_grpc, runs_without_end),
        ]

    async def run(self, scene: Scene) -> None:
        """Make trouble until cancelled."""

        async def again_and_again(kind: Callable[[Scene], Awaitable[None]]) -> None:
            while True:
                await kind(scene)

        async with asyncio.TaskGroup() as tasks:
            for kind in self._kinds:
                tasks.create_task(again_and_again(kind))
