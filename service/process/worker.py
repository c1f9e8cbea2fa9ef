"""One worker: the app in uvicorn's server, from its start to its last answer."""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from time import monotonic
from typing import Any, NoReturn

import uvicorn
import uvloop
from msgspec import Struct

from service.entrance.limits import CHECK_EVERY_S, Limits
from service.entrance.services import Host
from service.errors import StartupError
from service.http.app import create_app
from service.metrics import Metrics
from service.process.signals import GRACE_S, HANDLED, Terminal, longest_stop_s
from service.process.speaking import protocols
from service.process.traced import MaybeTracing, inference_of, ways_of
from service.settings import Settings
from service.tracing import opened

logger = logging.getLogger("torchlit.worker")

BACKLOG = 2048  # connections the kernel holds until they are accepted
CLOSING_S = 2  # of GRACE_S: for what is to be closed when the requests are answered
# uvloop takes Python's lock for each callback, several a request. With the 5 ms of Python a thread
# that reads a body in Python makes a probe wait for half a second.
SWITCH_S = 0.0005
MARGIN_S = 1  # by which clients are told to use no connection that may be closed on their way here
CUT_OFF = 70  # exit status of a worker that had to end while something still ran


class Parent(Struct, frozen=True):
    """The worker's ends of two pipes: `alive` is readable once the parent is gone, and a byte
    written to `serving` tells the parent that the worker serves. `beats` is memory shared with it:
    when the event loop of each worker had its last turn, by time.monotonic(). `is_replacing`:
    whether the worker takes the place of one that ended, after some have served."""

    alive: int
    serving: int
    beats: "memoryview[float]"
    is_replacing: bool


class Server(uvicorn.Server):
    """uvicorn's server, that goes on serving for `drain_s` after it was told to stop.

    In that time it is not ready, and its replies make clients connect anew: they find another
    process before this one closes their connections.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        host: Host,
        metrics: Metrics,
        limits: Limits,
        drain_s: float,
        announce: Callable[[], None],
        beat: Callable[[], None],
    ) -> None:
        """`announce` is called once it serves, and says so in /metrics; `beat` now and then."""
        super().__init__(config)
        self._announce = announce
        self._beat = beat
        self._limits = limits
        self._host = host
        self._metrics = metrics
        self._drain_s = drain_s
        self._loop = asyncio.get_running_loop()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept connections, and to check them."""
        await super().startup(sockets)
        self._check()
        self._announce()

    def _check(self) -> None:
        self._beat()
        connections = self.server_state.connections
        self._limits.check(connections, self._loop.time())  # type: ignore[arg-type]
        self._metrics.sample(len(connections), self._limits.max_connections)
        self._loop.call_later(CHECK_EVERY_S, self._check)

    def drain(self) -> None:
        """Begin to drain, or stop; any thread may call this."""
        self._host.is_draining = True
        if not self.started or not self._drain_s:
            self.should_exit = True
        else:
            with contextlib.suppress(RuntimeError):  # the loop is closed: it stopped by itself
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


def _accept_all(listener: socket.socket) -> Iterator[socket.socket]:
    """Yield the connections that wait to be accepted."""
    with contextlib.suppress(OSError):  # no more do, or no more files may be opened
        while True:
            connection, _ = listener.accept()
            connection.setblocking(False)
            yield connection


class Signals:
    """Heeds the signals of a worker, in a thread of its own: something may hold the event loop.

    The first to stop begins the drain, and the time in which the process ends whatever it does. A
    second Ctrl-C ends it immediately; with a parent that is the parent's to do, as the terminal
    sends SIGINT to all of a group. The end of the parent is as a signal to stop.
    """

    def __init__(
        self,
        drain: Callable[[], None],
        reload: Callable[[], None],
        longest_stop_s: float,
        parent: Parent | None,
    ) -> None:
        """HANDLED are blocked in all threads when `start` is called."""
        self._drain = drain
        self._reload = reload
        self._longest_stop_s = longest_stop_s
        self._parent = parent
        self._terminal = Terminal()

    def start(self) -> None:
        """Heed them from now on."""
        threading.Thread(target=self._heed, name="signals", daemon=True).start()
        if self._parent is not None:
            threading.Thread(target=self._follow, name="parent", daemon=True).start()

    def _heed(self) -> NoReturn:
        until = None
        while True:
            if until is None:
                received: int = signal.sigwait(HANDLED)
            else:
                info = signal.sigtimedwait(HANDLED, max(0.0, until - monotonic()))
                if info is None:
                    self._cut_off()
                received = info.si_signo
            if received == signal.SIGHUP and not self._terminal.is_gone():
                self._reload()
            elif received == signal.SIGCHLD or (
                received == signal.SIGINT and self._parent is not None
            ):
                continue
            elif until is None:
                until = monotonic() + self._longest_stop_s
                self._drain()
            elif received == signal.SIGINT:
                os._exit(0)

    def _cut_off(self) -> NoReturn:
        logger.error(
            "process %d was to end within %g s: what still runs is cut off",
            *(os.getpid(), self._longest_stop_s),
        )
        logging.shutdown()  # which waits a second at most
        os._exit(CUT_OFF)

    def _follow(self) -> None:
        """Stop as the parent has, however it ended."""
        assert self._parent is not None
        os.read(self._parent.alive, 1)  # returns when there is nobody any more who could write
        os.kill(os.getpid(), signal.SIGTERM)


def run(
    settings: Settings, listener: socket.socket, where: str, number: int, parent: Parent | None
) -> None:
    """Run worker `number` in this process until it is told to stop, or its parent is gone.

    Raises StartupError when it cannot start. HANDLED are blocked when this is called, and stay so.
    """
    sys.setswitchinterval(SWITCH_S)
    uvloop.run(_run(settings, listener, where, number, parent))


async def _run(
    settings: Settings, listener: socket.socket, where: str, number: int, parent: Parent | None
) -> None:
    tracing = opened(os.environ)
    with contextlib.nullcontext() if tracing is None else contextlib.closing(tracing):
        await _serve(settings, listener, where, number, parent, tracing)
    logger.info("worker %d (process %d) has answered all and stops", number, os.getpid())


async def _serve(
    settings: Settings,
    listener: socket.socket,
    where: str,
    number: int,
    parent: Parent | None,
    tracing: MaybeTracing,
) -> None:
    host = Host(is_replacing=parent is not None and parent.is_replacing)
    app = create_app(settings, worker=number, host=host, inference=inference_of(tracing))
    by_asgi, direct = ways_of(app, tracing)
    loop = asyncio.get_running_loop()
    services = app.services
    unmatched = services.metrics.unmatched
    limits = Limits(settings, services.memory, app.answer_when_full, unmatched, loop.time())
    config = uvicorn.Config(
        by_asgi,
        http=protocols(app, limits, direct, tracing),  # type: ignore[arg-type]
        ws="none",
        lifespan="off",  # entered below, so that a failure to start is an exception
        log_config=None,
        access_log=False,
        server_header=False,
        headers=[("keep-alive", f"timeout={max(1, settings.keep_alive_s - MARGIN_S)}")],
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=GRACE_S
        - CLOSING_S
        + int(max(settings.request_timeout_s, settings.receive_timeout_s)),
    )

    def announce() -> None:
        logger.info("worker %d (process %d) serves %s", number, os.getpid(), where)
        if parent is not None:
            os.write(parent.serving, b".")

    def beat() -> None:
        if parent is not None:
            parent.beats[number] = monotonic()

    server = Server(
        config,
        host,
        app.services.metrics,
        limits,
        settings.drain_s,
        announce,
        beat,
    )
    host.make_room = partial(loop.call_soon, limits.make_room)  # who is refused hears of it first
    host.is_alone = lambda: len(server.server_state.tasks) == 1

    def reload() -> None:
        services.reloader.request_reload()
        services.splitting.request_reload()

    Signals(server.drain, reload, longest_stop_s(settings), parent).start()
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
