"""Servers as processes: started on chosen cores, asked, looked at, and always ended."""

import contextlib
import http.client
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from msgspec import Struct

ROOT = Path(__file__).parent.parent
ALL_CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE, LOAD_CORE, TWO_CORES = ALL_CORES[:1], ALL_CORES[1:2], ALL_CORES[:2]
JSON: Mapping[str, str] = MappingProxyType({"content-type": "application/json"})
START_TIMEOUT_S, STOP_TIMEOUT_S, REPLY_TIMEOUT_S = 60, 20, 20


class BenchmarkError(Exception):
    """What was measured is not what should have been; the message is a sentence."""


class Server(Struct, frozen=True):
    """A server that answers, and the seconds from its exec to its first answer of 200."""

    port: int
    pid: int
    start_s: float = 0.0

    def connect(self) -> http.client.HTTPConnection:
        """Return a connection that is opened with its first request."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=REPLY_TIMEOUT_S)

    def ask(self, path: str, body: bytes | None = None, headers: Mapping[str, str] = JSON) -> bytes:
        """Return the reply, asked for on a connection of its own."""
        with contextlib.closing(self.connect()) as connection:
            return ask(connection, path, body, headers)

    def counted(self, metric: str, label: str = "") -> float:
        """Return the sum of a metric's samples, of those that have `label`, as `name="value"`."""
        samples = re.findall(rf"^{metric}(\{{.*\}})? (\S+)$", self.ask("/metrics").decode(), re.M)
        return sum(float(value) for labels, value in samples if label in labels)

    def resident_mb(self) -> list[float]:
        """Return the resident memory of the process and of all below it, in 10^6 bytes."""
        found = [re.search(r"^VmRSS:\s+(\d+) kB$", text, re.M) for text in self._proc("status")]
        return [int(each[1]) * 1024 / 1e6 for each in found if each]

    def wait_until_idle(self) -> None:
        """Return when it uses no CPU time: what a client that left had sent is answered."""
        deadline = time.monotonic() + REPLY_TIMEOUT_S
        before, now = -1, self._cpu_ticks()
        while now != before:
            if time.monotonic() > deadline:
                raise BenchmarkError(f"expected it idle in {REPLY_TIMEOUT_S} s, it still works")
            time.sleep(0.1)
            before, now = now, self._cpu_ticks()

    def cpu_s(self) -> float:
        """Return the CPU time it has used so far, in seconds."""
        return self._cpu_ticks() / os.sysconf("SC_CLK_TCK")

    def _cpu_ticks(self) -> int:
        stats = [text.rpartition(")")[2].split() for text in self._proc("stat")]  # from field 3 on
        return sum(int(ticks) for fields in stats for ticks in fields[11:13])  # user and system

    def _proc(self, file: str) -> list[str]:
        """Read a file of /proc, of the process and of all that it started, and they."""
        found, texts = [str(self.pid)], []
        for pid in found:  # which grows: threads start processes too, as PyTriton's do
            with contextlib.suppress(OSError):  # it has ended
                texts.append(Path(f"/proc/{pid}/{file}").read_text())
                for children in Path(f"/proc/{pid}/task").glob("*/children"):
                    found += children.read_text().split()
        return texts


def ask(
    connection: http.client.HTTPConnection,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] = JSON,
) -> bytes:
    """GET `path`, or POST `body` to it. Raises BenchmarkError unless the reply is a 200."""
    method = "GET" if body is None else "POST"
    connection.request(method, path, body, headers)
    reply = connection.getresponse()
    content = reply.read()
    if reply.status != 200:
        raise BenchmarkError(f"{path}: expected 200, got {reply.status}: {content[:200]!r}")
    return content


@contextlib.contextmanager
def pinned(cores: Sequence[int]) -> Iterator[None]:
    """Let this thread, and the processes it starts meanwhile, run on `cores` only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def serving(
    arguments: str,
    *,
    cores: Sequence[int],
    ready: str,
    environment: dict[str, str],
    python: str = sys.executable,
    folder: Path = ROOT,
) -> Iterator[Server]:
    """Run Python in `folder`, from when GET `ready` answers 200 until the block ends.

    Raises BenchmarkError, with the end of what the server logged, when it does not come to that.
    """
    port = _free_port()
    inherited = {name: text for name, text in os.environ.items() if name[:9] != "TORCHLIT_"}
    ports = {"TORCHLIT_PORT": str(port), "UVICORN_PORT": str(port)}
    with tempfile.TemporaryFile() as log:
        start = time.perf_counter()
        with pinned(cores):
            process = subprocess.Popen(
                [python, *arguments.split()],
                cwd=folder,
                env=inherited | ports | environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a Ctrl-C is ours to pass on
            )
        try:
            if not _answers(Server(port, process.pid), ready, process):
                log.seek(0)
                said = log.read()[-1000:].decode(errors="replace")
                raise BenchmarkError(f"{arguments}: expected it to serve, it said: {said}")
            yield Server(port, process.pid, time.perf_counter() - start)
        finally:
            _stop(process)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _answers(server: Server, ready: str, process: subprocess.Popen[bytes]) -> bool:
    """Wait until GET `ready` is answered with 200; False if the process ends, or time is up."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            server.ask(ready)
            return True
        except (OSError, BenchmarkError):
            time.sleep(0.002)
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=STOP_TIMEOUT_S)
    finally:  # it hangs, or a second Ctrl-C came
        process.kill()
        process.wait()
