"""`python -m service health`: ask the service of this machine whether it is ready.

For the health check of a container, whose image has no curl. It imports little, as it is run
every few seconds.
"""

import http.client
import io
import ipaddress
import json
import socket
from collections.abc import Sequence
from time import monotonic
from typing import Any, cast

from service.errors import ServiceError
from service.http.access import keys
from service.settings import Settings

TIMEOUT_S = 5.0
MOST_BYTES = 1 << 20  # of a body: a list of many models
MOST_SHOWN = 2_000  # characters of it
READY = "/health/ready"
STATES = ("ready", "not ready", "draining")


class NotReady(ServiceError):
    """The service does not answer, or says that it is not ready."""


def check(settings: Settings) -> None:
    """Ask the service that has these settings. Raises NotReady, and InvalidSetting for bad keys."""
    where = f"{asked_host(settings.host)}:{settings.port}"
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

    The first of `keys` is sent only to who asks for one as torchlit does. Raises OSError where
    there is no answer in TIMEOUT_S, HTTPException for one that is not HTTP.
    """
    status, body = _get(settings, path, "")
    if keys and status == 401 and is_ours(status, body):
        status, body = _get(settings, path, f"Authorization: Bearer {keys[0]}\r\n")
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


def _get(settings: Settings, path: str, header: str) -> tuple[int, str]:
    host = asked_host(settings.host)
    until = monotonic() + TIMEOUT_S
    try:
        peer = socket.create_connection((host, settings.port), TIMEOUT_S)
    except UnicodeError as error:  # "a..b" cannot be asked for
        raise socket.gaierror(socket.EAI_NONAME, f"{host!r} is no name of a machine") from error
    with peer:
        named = f"[{host}]" if ":" in host else host
        request = f"GET {path} HTTP/1.1\r\nHost: {named}:{settings.port}\r\n{header}"
        peer.sendall(f"{request}Connection: close\r\n\r\n".encode("ascii", "replace"))
        with http.client.HTTPResponse(cast(socket.socket, _Peer(peer, until))) as reply:
            reply.begin()
            return reply.status, reply.read(MOST_BYTES).decode(errors="replace")


class _Peer(io.RawIOBase):
    """Reads what a socket gets until a moment by `monotonic`, however slowly that comes."""

    def __init__(self, peer: socket.socket, until: float) -> None:
        self._peer = peer
        self._until = until

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._until - monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._peer.settimeout(left)
        return self._peer.recv_into(buffer)


def asked_host(host: str) -> str:
    """Return the address to ask a service by that listens on `host`."""
    if not _is_any(host):
        return host
    return "::1" if ":" in host else "127.0.0.1"


def _is_any(host: str) -> bool:
    """Whether a service that listens there listens on all addresses."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False
