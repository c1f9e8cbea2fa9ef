"""What the connections of a worker speak: HTTP/1.1, and gRPC where it is wanted and installed."""

import asyncio
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

from uvicorn.server import ServerState

from service.entrance.keys import Keys
from service.entrance.limits import Limits
from service.errors import InvalidSetting
from service.http.app import App
from service.http.connection import Protocol
from service.http.direct import Direct
from service.http.opening import Opening, Taker
from service.process.traced import MaybeTracing, calls_of
from service.settings import Settings


def speaks_grpc(settings: Settings) -> bool:
    """Whether the port speaks gRPC too. Raises InvalidSetting if it is to and cannot."""
    if settings.grpc is False:
        return False
    is_installed = all(find_spec(name) for name in ("h2", "google.protobuf"))
    if settings.grpc and not is_installed:
        raise InvalidSetting(
            "TORCHLIT_GRPC: expected the extra grpc to be installed (h2 and protobuf), got none",
            "TORCHLIT_GRPC",
        )
    return is_installed


class Grpc:
    """Loads what speaks gRPC at the first connection that wants it."""

    def __init__(self, app: App, limits: Limits, state: ServerState, tracing: MaybeTracing) -> None:
        self._app = app
        self._tracing = tracing
        self._limits = limits
        self._state = state
        self._keys = Keys(app.services.settings)
        self._taker: asyncio.Future[Taker] | None = None

    def taker(self) -> "asyncio.Future[Taker]":
        """Return what takes a connection over; other requests are answered while it is loaded."""
        if self._taker is None:
            loop = asyncio.get_running_loop()
            self._taker = loop.run_in_executor(None, self._load)
        return self._taker

    def _load(self) -> Taker:
        from service.grpc.connection import Connection
        from service.grpc.worker import Worker

        worker = Worker(
            self._app.services,
            self._limits,
            self._keys,
            self._app.failing,
            self._app.make_id,
            self._state.connections,
            self._state.tasks,
            calls_of(self._tracing),
        )
        return partial(Connection, worker)


def protocols(
    app: App, limits: Limits, direct: Direct, tracing: MaybeTracing = None
) -> Callable[..., asyncio.Protocol]:
    """Return what makes the protocol of a new connection, as uvicorn wants it."""
    if not speaks_grpc(app.services.settings):
        return partial(Protocol, limits, direct)
    grpc: Grpc | None = None

    def opening(**given: Any) -> asyncio.Protocol:
        nonlocal grpc
        if grpc is None:
            grpc = Grpc(app, limits, given["server_state"], tracing)
        return Opening(Protocol(limits, direct, **given), grpc.taker)

    return opening
