"""nginx and HAProxy as processes before a service."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.clients import address
from tests.system.programs.programs import run

HERE = Path(__file__).parent


@contextmanager
def running(name: str, service: str, folder: Path) -> Iterator[str]:
    """Run nginx or haproxy before the service of a URL, with its files in a folder; yield its own.

    Both go to the background once they listen.
    """
    port = free_port()
    config = HERE / {"nginx": "nginx.conf", "haproxy": "haproxy.cfg"}[name]
    text = config.read_text().replace("PROXY_PORT", str(port))
    filled = folder / config.name
    filled.write_text(text.replace("SERVICE_PORT", str(address(service)[1])))
    pid = folder / f"{name}.pid"
    if name == "nginx":
        run("nginx", "-p", folder, "-e", "error.log", "-c", filled)
    else:
        run("haproxy", "-D", "-p", pid, "-f", filled)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        os.kill(int(pid.read_text()), signal.SIGTERM)


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port
