"""The service behind a real socket, in the event loop of a test."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from service.entrance.limits import CHECK_EVERY_S, Limits
from service.entrance.services import Host
from service.http.app import App, create_app
from service.process.speaking import protocols
from service.process.traced import MaybeTracing, inference_of, ways_of
from service.settings import Settings


class Listening:
    """The app, its port, and what went the ordinary way: by ASGI."""

    def __init__(self, settings: Settings, tracing: MaybeTracing) -> None:
        self.host = Host()
        self.app: App = create_app(settings, host=self.host, inference=inference_of(tracing))
        self._tracing = tracing
        self._way, self.direct = ways_of(self.app, tracing)
        self.state = ServerState()
        self.port = 0
        self.by_asgi: list[str] = []  # paths

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    def later(self, seconds: float) -> None:
        """Check the connections as if so much time had passed."""
        self.limits.now += seconds
        for each in list(self.state.connections):
            each.cut_off_if_slow()  # type: ignore[union-attr]

    async def _ordinary(self, scope: Any, receive: Any, send: Any) -> None:
        self.by_asgi.append(scope["path"])
        await self._way(scope, receive, send)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        settings, metrics = self.app.services.settings, self.app.services.metrics
        memory = self.app.services.memory
        self.limits = limits = Limits(
            settings, memory, self.app.answer_when_full, metrics.unmatched, loop.time()
        )
        config = uvicorn.Config(
            self._ordinary, interface="asgi3", ws="none", lifespan="off", log_config=None
        )
        config.load()
        self.state.default_headers = [(b"date", b"today")]
        self.host.is_alone = lambda: len(self.state.tasks) == 1

        make = protocols(self.app, limits, self.direct, self._tracing)

        def connection() -> asyncio.Protocol:
            return make(config=config, server_state=self.state, app_state={})

        def check() -> None:
            nonlocal timer
            limits.check(self.state.connections, loop.time())  # type: ignore[arg-type]
            timer = loop.call_later(CHECK_EVERY_S, check)

        timer = loop.call_later(CHECK_EVERY_S, check)
        async with self.app.lifespan():
            server = await loop.create_server(connection, "127.0.0.1", 0)
            self.port = server.sockets[0].getsockname()[1]
            try:
                yield
            finally:
                timer.cancel()
                server.close()
                for each in list(self.state.connections):
                    each.transport.abort()
                await server.wait_closed()


@asynccontextmanager
async def listening(settings: Settings, tracing: MaybeTracing = None) -> AsyncIterator[Listening]:
    """Serve, with the connections and the direct way of a worker."""
    service = Listening(settings, tracing)
    async with service.serving():
        yield service
