"""Connections that can be counted, timed and broken, and the service's process from outside."""

import asyncio
import json
import os
import re
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from tests.support import clients
from tests.support.clients import address, counted, predict_request, read_reply
from tests.support.toys import body, toy_answer

COMMITTED_MODELS = Path(__file__).parents[3] / "models"
LOST = (ConnectionError, asyncio.IncompleteReadError)  # what a broken connection raises
PATIENCE_S = 30.0  # beyond it a reply counts as one that never comes


class Reply(Struct, frozen=True):
    """A reply: its status, its head as it came, its body."""

    status: int
    head: bytes
    body: bytes

    @property
    def closes(self) -> bool:
        """Whether it says that the connection ends with it."""
        return b"\r\nconnection: close" in self.head.lower()

    def json(self) -> Any:
        return json.loads(self.body)


class Connection:
    """A connection of one client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, url: str) -> Self:
        return cls(*await asyncio.open_connection(*address(url)))

    @property
    def local_port(self) -> int:
        """The number that tells it apart from the other connections to the service."""
        port: int = self.writer.get_extra_info("sockname")[1]
        return port

    async def ask(self, request: bytes) -> Reply:
        """Send a request and return its reply. Raises one of LOST when the connection ends."""
        self.writer.write(request)
        return await self.reply()

    async def reply(self) -> Reply:
        """Return the next reply. Raises one of LOST, or TimeoutError when none comes."""
        async with asyncio.timeout(PATIENCE_S):
            head, content = await read_reply(self.reader)
        return Reply(int(head[9:12]), head, content)

    async def at_its_end(self) -> bytes:
        """Return all that comes until the service closes the connection."""
        try:
            return await self.reader.read()
        except ConnectionError:
            return b""

    def leave(self, *, reset: bool = False) -> None:
        """Close it now, whatever is under way; with a reset instead of a goodbye if asked."""
        if reset and self.writer.get_extra_info("socket") is not None:  # else it is closed
            clients.reset(self.writer)
        self.writer.transport.abort()


def get(path: str) -> bytes:
    """Return a GET request as it goes over the wire."""
    return f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


class Rows:
    """Random rows, the request that asks for them, and whether a reply is right for them."""

    def __init__(self, random: np.random.Generator, *, dear_side: int | None = None) -> None:
        """Make 1 to 3 rows for toy, or for dear with this side."""
        self._rows = random.uniform(0, 10, (random.integers(1, 4), 4)).round(3)
        self._dear_side = dear_side
        self.count = len(self._rows)
        model = "toy" if dear_side is None else "dear"
        self.request = predict_request(body(model, self._rows.tolist()))

    def are_answered_by(self, reply: Reply) -> bool:
        """Compare with NumPy."""
        if reply.status != 200:
            return False
        predictions = reply.json()["predictions"]
        if self._dear_side is not None:
            got = np.array([each["output"] for each in predictions])
            return got.shape == self._rows.shape and bool(
                np.abs(got - self._dear_side - self._rows).max() < 1e-3
            )
        got = np.array([list(each["probabilities"].values()) for each in predictions])
        expected = toy_answer(self._rows)
        return got.shape == expected.shape and bool(np.abs(got - expected).max() < 1e-6)


async def ask_alone(url: str, request: bytes) -> Reply:
    """Return the reply to a request, on a connection of its own that the service closes."""
    connection = await Connection.open(url)
    try:
        reply = await connection.ask(request.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
        await connection.at_its_end()
        return reply
    finally:
        connection.leave()


async def metrics_of(url: str) -> str:
    """Return the text of /metrics."""
    return (await ask_alone(url, get("/metrics"))).body.decode()


async def wait_until(what: str, holds: Callable[[], Awaitable[bool]], seconds: float = 10) -> None:
    """Ask again and again until it holds; fail when it does not within `seconds`."""
    until = time.monotonic() + seconds
    while not await holds():
        assert time.monotonic() < until, f"{what}: not so within {seconds} s"
        await asyncio.sleep(0.02)


async def wait_until_queue_is_empty(url: str) -> None:
    """Return when no row waits in any model."""

    async def is_empty() -> bool:
        return counted(await metrics_of(url), "torchlit_queue_rows") == 0

    await wait_until("torchlit_queue_rows is 0", is_empty)


def percentile_ms(seconds: Sequence[float] | NDArray[Any], percent: float) -> float:
    """Return a percentile of times in seconds, in milliseconds."""
    return 1000 * float(np.percentile(seconds, percent))


def descriptors_of(pid: int) -> int:
    """Return how many files and sockets a process holds open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


async def wait_until_closed(pid: int, at_rest: int) -> None:
    """Return when a process has no more open than at rest: its connections are gone."""

    async def is_at_rest() -> bool:
        return descriptors_of(pid) <= at_rest

    await wait_until("the connections are closed", is_at_rest)


def client_ports_of(pid: int, service_port: int) -> set[int]:
    """Return the clients' ports of the connections that a process holds to its port."""
    links = []
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            links.append(str(descriptor.readlink()))
        except FileNotFoundError:  # closed since
            continue
    inodes = {link[len("socket:[") : -1] for link in links if link.startswith("socket:[")}
    ports = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, _, _, _, _, _, _, inode, *_ = line.split()
        if inode in inodes and int(local.rpartition(":")[2], 16) == service_port:
            ports.add(int(remote.rpartition(":")[2], 16))
    return ports - {0}  # that of the listening socket


def assert_log_is_clean(log: Sequence[str]) -> None:
    """Fail if the service logged an exception or an error.

    That a worker was killed is none, nor that a model has no finite answer to what nobody sends.
    """
    text = "".join(log)
    known = r"torchlit\.server|torchlit\.failures: model .*: the model answered NaN or infinity"
    wrong = re.search(rf"Traceback|[Tt]his is a bug|ERROR (?!{known})", text)
    assert wrong is None, text[max(0, wrong.start() - 500) : wrong.start() + 5000]


@contextmanager
def small_disk(folder: Path) -> Iterator[Path | None]:
    """Mount a file system of 64 KiB at a new folder; yield None if that is not allowed."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)]
    if os.getuid() or subprocess.run(mount, check=False).returncode:
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
