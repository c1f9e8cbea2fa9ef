"""One worker: the app in uvicorn's server, from its start to its last answer."""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator
from functools import partial
from types import FrameType
from typing import Any

import uvicorn
import uvloop
from msgspec import Struct

from service.errors import StartupError
from service.http.app import create_app
from service.http.connection import Protocol
from service.http.direct import Direct
from service.http.limits import CHECK_EVERY_S, Limits
from service.http.services import Host
from service.metrics import Metrics
from service.process.signals import HANDLED, STOPPING, Terminal
from service.settings import Settings

logger = logging.getLogger("torchlit.worker")

BACKLOG = 2048  # connections the kernel holds until they are accepted
GRACE_S = 5  # beyond the request timeout, for requests that were accepted before the stop


class Parent(Struct, frozen=True):
    """The worker's ends of two pipes: `alive` is readable once the parent is gone, and a byte
    written to `serving` tells the parent that the worker serves."""

    alive: int
    serving: int


class Server(uvicorn.Server):
    """uvicorn's server, that goes on serving for `drain_s` after it was told to stop.

    In that time it is not ready, and its replies make clients connect anew: they find another
    process before this one closes their connections. A second Ctrl-C ends it immediately; with a
    parent that is the parent's to do, as the terminal sends SIGINT to all of a group.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        host: Host,
        metrics: Metrics,
        limits: Limits,
        drain_s: float,
        announce: Callable[[], None],
        *,
        has_parent: bool,
    ) -> None:
        """`announce` is called once it serves, and says so in /metrics."""
        super().__init__(config)
        self._announce = announce
        self._limits = limits
        self._host = host
        self._metrics = metrics
        self._drain_s = drain_s
        self._has_parent = has_parent
        self._loop = asyncio.get_running_loop()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept connections, and to check them."""
        await super().startup(sockets)
        self._check()
        self._announce()

    def _check(self) -> None:
        connections = self.server_state.connections
        self._limits.check(connections, self._loop.time())  # type: ignore[arg-type]
        self._metrics.sample(len(connections), self._limits.max_connections)
        self._loop.call_later(CHECK_EVERY_S, self._check)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain, or stop; called for each signal."""
        if sig == signal.SIGINT and self._has_parent:
            return
        if self._host.is_draining:  # told again
            if sig == signal.SIGINT:
                self.should_exit = self.force_exit = True
                self._loop.call_soon_threadsafe(self._cancel_all)
            return
        self._host.is_draining = True
        if not self.started or not self._drain_s:
            self.should_exit = True
        else:
            self._loop.call_soon_threadsafe(self._loop.call_later, self._drain_s, self._stop)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop as uvicorn does, after taking the connections that the kernel has accepted.

        They would be reset when the listener closes, with the requests that are on the wire.
        """
        (listener,) = sockets or []
        accepted = list(_accept_all(listener))
        for server in self.servers:
            server.close()
        listener.close()
        for connection in accepted:
            await self._loop.connect_accepted_socket(self._make_protocol, connection)
        await super().shutdown(sockets)

    def _make_protocol(self) -> asyncio.Protocol:
        make: Any = self.config.http_protocol_class
        protocol: asyncio.Protocol = make(
            config=self.config, server_state=self.server_state, app_state={}
        )
        return protocol

    def _stop(self) -> None:
        self.should_exit = True

    def _cancel_all(self) -> None:
        """Answer nobody any more: a model that is in use would not be closed."""
        for task in self.server_state.tasks:
            task.cancel()


def _accept_all(listener: socket.socket) -> Iterator[socket.socket]:
    """Yield the connections that wait to be accepted."""
    with contextlib.suppress(OSError):  # no more do, or no more files may be opened
        while True:
            connection, _ = listener.accept()
            connection.setblocking(False)
            yield connection


def run(
    settings: Settings, listener: socket.socket, where: str, number: int, parent: Parent | None
) -> None:
    """Run worker `number` in this process until it is told to stop, or its parent is gone.

    Raises StartupError when it cannot start. HANDLED may be blocked when this is called.
    """
    try:
        uvloop.run(_run(settings, listener, where, number, parent))
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # else Python's end restores that it kills


async def _run(
    settings: Settings, listener: socket.socket, where: str, number: int, parent: Parent | None
) -> None:
    host = Host()
    app = create_app(settings, worker=number, host=host)
    loop = asyncio.get_running_loop()
    services = app.services
    unmatched = services.metrics.unmatched
    limits = Limits(settings, services.memory, app.answer_when_full, unmatched, loop.time())
    config = uvicorn.Config(
        app,
        http=partial(Protocol, limits, Direct(app)),  # type: ignore[arg-type]
        ws="none",
        lifespan="off",  # entered below, so that a failure to start is an exception
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=GRACE_S
        + int(max(settings.request_timeout_s, settings.receive_timeout_s)),
    )

    def announce() -> None:
        logger.info("worker %d (process %d) serves %s", number, os.getpid(), where)
        if parent is not None:
            os.write(parent.serving, b".")
            loop.add_reader(parent.alive, _follow, server, parent)

    server = Server(
        config,
        host,
        app.services.metrics,
        limits,
        settings.drain_s,
        announce,
        has_parent=parent is not None,
    )
    host.is_alone = lambda: len(server.server_state.tasks) == 1
    terminal = Terminal()

    def hang_up(_: int, frame: FrameType | None) -> None:
        if terminal.is_gone():
            server.handle_exit(signal.SIGTERM, frame)
        else:
            app.services.reloader.request_reload()

    for each in STOPPING:  # uvicorn's own begin only when all is loaded
        signal.signal(each, server.handle_exit)
    signal.signal(signal.SIGHUP, hang_up)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
    try:
        async with app.lifespan():
            gc.collect()
            gc.freeze()  # what is loaded stays; collecting it again took p99 from 4 ms to 15
            gc.set_threshold(50_000, 20, 100)
            listener.listen(BACKLOG)
            await server.serve(sockets=[listener])
    except BaseExceptionGroup as group:  # litestar opens its lifespan in a task group
        if isinstance(group.exceptions[0], StartupError):
            raise group.exceptions[0] from None
        raise
    logger.info("worker %d (process %d) has answered all and stops", number, os.getpid())


def _follow(server: Server, parent: Parent) -> None:
    """Stop as the parent has, however it ended."""
    asyncio.get_running_loop().remove_reader(parent.alive)
    server.handle_exit(signal.SIGTERM, None)
