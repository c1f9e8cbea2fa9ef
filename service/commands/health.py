"""`python -m service health`: ask the service of this machine whether it is ready.

For the health check of a container, whose image has no curl. It imports little, as it is run
every few seconds.
"""

import contextlib
import http.client
import ipaddress
import json
import socket
import threading
from collections.abc import Sequence
from time import monotonic
from typing import Any

from service.errors import NotReady
from service.settings import Settings
from service.settings.keys import keys

TIMEOUT_S = 5.0
MOST_BYTES = 1 << 20  # of a body: a list of many models
MOST_SHOWN = 2_000  # characters of it
READY = "/health/ready"
STATES = ("ready", "not ready", "draining")


def check(settings: Settings) -> None:
    """Ask the service that has these settings. Raises NotReady, and InvalidSetting for bad keys."""
    where = f"{reachable_host(settings.host)}:{settings.port}"
    try:
        status, body = ask(settings, READY, keys(settings))
    except OSError as error:
        raise NotReady(f"{where}: no answer: {str(error).strip()}") from error
    except http.client.HTTPException as error:
        raise NotReady(f"{where}: answers, but not as HTTP: {str(error).strip()}") from error
    if status != 200:
        raise NotReady(f"{where}: {READY} says {status}: {body[:MOST_SHOWN]}")


def ask(settings: Settings, path: str, keys: Sequence[str]) -> tuple[int, str]:
    """Ask whoever listens there for `path`; return the status and the body, up to MOST_BYTES.

    The first of `keys` is sent only to who wants one as torchlit does. Raises OSError where
    there is no answer in TIMEOUT_S, HTTPException for one that is not HTTP.
    """
    status, body = _get(settings, path, {})
    if keys and status == 401 and is_ours(status, body):
        status, body = _get(settings, path, {"Authorization": f"Bearer {keys[0]}"})
    return status, body


def is_ours(status: int, body: str) -> bool:
    """Whether that is what torchlit says to READY, or to who has no key."""
    try:
        said: Any = json.loads(body)
    except (ValueError, RecursionError):
        return False
    if not isinstance(said, dict):
        return False
    if status == 401:
        return str(said.get("error", "")).startswith("expected ")
    return status in (200, 503) and said.get("status") in STATES and "models" in said


def _get(settings: Settings, path: str, headers: dict[str, str]) -> tuple[int, str]:
    until = monotonic() + TIMEOUT_S
    host = reachable_host(settings.host)
    try:
        connection = http.client.HTTPConnection(host, settings.port, timeout=TIMEOUT_S)
        connection.connect()
    except (UnicodeError, http.client.InvalidURL) as error:  # "a..b", "a b": none can be found
        raise socket.gaierror(socket.EAI_NONAME, f"{host!r} is no name of a machine") from error
    # The timeout is that of each read: who sends a byte now and then would never be done.
    is_late = threading.Event()
    end = threading.Timer(until - monotonic(), _end, [connection.sock, is_late])
    end.daemon = True
    end.start()
    try:
        connection.request("GET", path, headers=headers | {"Connection": "close"})
        reply = connection.getresponse()
        body = reply.read(MOST_BYTES).decode(errors="replace")
    except (OSError, http.client.HTTPException):
        if not is_late.is_set():
            raise
    finally:
        end.cancel()
        connection.close()
    if is_late.is_set():
        raise TimeoutError("timed out")
    return reply.status, body


def _end(peer: socket.socket, is_late: threading.Event) -> None:
    is_late.set()
    with contextlib.suppress(OSError):  # it is over already
        peer.shutdown(socket.SHUT_RDWR)


def reachable_host(host: str) -> str:
    """Return the address at which a service answers that listens on `host`."""
    with contextlib.suppress(ValueError):  # a name is no address
        if ipaddress.ip_address(host).is_unspecified:
            return "::1" if ":" in host else "127.0.0.1"
    return host
