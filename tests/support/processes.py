"""The service as a process of its own."""

import os
import queue
import re
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from service.settings import OF_PLATFORMS, PREFIX

# To read those that httpx trusts takes 20 ms for each connection, and there is no TLS here.
NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def environment(**settings: object) -> dict[str, str]:
    """The environment of this process, with these TORCHLIT_ settings and no others."""
    others = {name for names in OF_PLATFORMS.values() for name in names}
    clean = {
        name: text
        for name, text in os.environ.items()
        if not name.startswith(PREFIX) and name not in others
    }
    return clean | {PREFIX + name.upper(): str(value) for name, value in settings.items()}


def resident_mb(pid: int) -> float:
    """Return the resident memory of a process, in 10^6 bytes."""
    found = re.search(r"^VmRSS:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.M)
    assert found is not None
    return int(found[1]) * 1024 / 1e6


class Process:
    """A running service: its address, its log so far, its process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.log: list[str] = []
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        self.url = self.wait_for(r'serves (http://[^\s"]+)')

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._lines.put(line)

    def wait_for(self, pattern: str) -> str:
        """Read the log up to the line that matches; return its first group."""
        while True:
            try:
                line = self._lines.get(timeout=20)
            except queue.Empty:
                raise AssertionError(f"{pattern} is not in {''.join(self.log)}") from None
            self.log.append(line)
            if found := re.search(pattern, line):
                return found[1]

    def get(self, path: str) -> httpx.Response:
        """Ask on a connection of its own."""
        return httpx.get(self.url + path, verify=NO_CERTIFICATES)

    def post(self, path: str, **body: Any) -> httpx.Response:
        """Send `content` or `json` on a connection of its own."""
        return httpx.post(self.url + path, verify=NO_CERTIFICATES, **body)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, read the log to its end, return the exit status."""
        self.process.send_signal(number)
        status = self.process.wait(timeout=20)
        self._reader.join(timeout=20)
        while not self._lines.empty():
            self.log.append(self._lines.get())
        return status

    def kill(self) -> None:
        """End it whatever it does; its workers notice and follow."""
        self.process.kill()
        self.process.wait()
        self._reader.join(timeout=20)
        assert self.process.stderr is not None
        self.process.stderr.close()


@contextmanager
def running(
    *, stdin: int | None = None, preexec_fn: Callable[[], object] | None = None, **settings: object
) -> Iterator[Process]:
    process = Process(
        subprocess.Popen(
            [sys.executable, "-m", "service"],
            env=environment(**({"port": 0, "drain_s": 0} | settings)),
            stdin=stdin,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=preexec_fn,
        )
    )
    try:
        yield process
    finally:
        process.kill()


def schemathesis(cwd: Path, *arguments: str) -> str:
    """Let Schemathesis ask a service; return what it printed. Fail on findings."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name("schemathesis")), "--no-color", *arguments],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
