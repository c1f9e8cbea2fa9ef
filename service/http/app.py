"""The ASGI application: create_app is the one place where the parts of the service meet."""

import asyncio
import contextlib
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from math import inf
from time import perf_counter
from typing import Any, TypeAlias

import litestar
from litestar import HttpMethod, Litestar, Response, route
from litestar.enums import ScopeType
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler
from litestar.types import HTTPScope, Message, Receive, Scope, Send

from service import logs
from service.catalog.catalog import Catalog
from service.catalog.reload import Reloader
from service.catalog.split import Splits, Ticket
from service.catalog.splitting import Splitting, split_at_start
from service.entrance.failing import Failing
from service.entrance.memory import Memory
from service.entrance.row_bodies import RowBodies
from service.entrance.services import Host, Services
from service.entrance.version import version_headers
from service.errors import (
    MethodNotAllowed,
    RequestError,
    TooManyConnections,
    Unauthorized,
)
from service.http.access import READING, Access, is_of_server
from service.http.reply import (
    WHOLE_REPLY,
    Fragments,
    Reply,
    all_headers,
    compress,
    encoding_for,
    error_reply,
    json_reply,
    note_timing,
)
from service.http.request import TICKET, ClientLeft, Request, note_wishes
from service.http.route import Route, Router
from service.http.routes import routes_for
from service.http.status import Headers
from service.inference import Call, Inference
from service.logs.failures import Failures
from service.logs.request_id import begin, id_maker, request_id
from service.metrics import Blocks, Metrics
from service.settings import Settings

# Of a scope: what gets where the time of the request goes, if somebody wants to know.
TIMING = "torchlit.timing"

_NONE: Headers = []
_CLOSE: Headers = [(b"connection", b"close")]
_ALLOW = (b"allow", b"GET, HEAD, OPTIONS, POST")

SendWhole: TypeAlias = Callable[[int, Headers, Fragments], Awaitable[None]]


class App:
    """It answers what infers itself, and lets Litestar find the routes of everything else."""

    def __init__(self, services: Services, routes: list[Route]) -> None:
        self.services = services
        self.access = Access(services.settings, routes)
        self.routes_that_infer = Router(each for each in routes if each.is_inference)
        self._read = Router(each for each in routes if each.method == "GET")
        self.failing = Failing(services.host)
        self._framework = _framework(services, routes, self.failing.failures)
        self.make_id = id_maker()
        self.is_logged = services.settings.access_log
        self._timeout_s = services.settings.request_timeout_s
        self._splits = services.catalog.splits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or the server's lifespan messages."""
        if scope["type"] != ScopeType.HTTP:
            await self._framework(scope, receive, send)
            return
        if self.is_logged:
            send = _logging(scope, send)
        headers = dict(scope["headers"])
        id, reply_headers = self.begin(headers)
        try:
            reply = self.refusal(scope, headers, reply_headers)
            if reply is None:
                # A setting may let inference answer on a path that is also read.
                found = self.routes_that_infer.find(scope["path"])
                if found is None or (
                    scope["method"] in READING and self._read.find(scope["path"]) is not None
                ):
                    if is_of_server(scope["method"], scope["path"]):
                        reply = Reply([b"{}"], headers=[_ALLOW])
                        await self._send(reply, reply_headers, scope, send)
                        return
                    if scope["method"] == "HEAD":  # as GET; the server leaves the body out
                        scope = {**scope, "method": "GET"}
                    await self._framework(scope, receive, _adding(reply_headers, send))
                    return
                timing: Any = scope.get(TIMING)
                call = Call(perf_counter(), inf, self.services.host.is_alone, timing)
                memory = self.services.memory
                request = Request(scope, headers, receive, id, found[1], call, memory)
                reply = await self.infer(found[0], request)
            if reply is not None:
                await self._send(reply, reply_headers, scope, send)
        except asyncio.CancelledError:
            return  # the caller left: nobody waits for a reply

    async def answer_when_full(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer on a connection beyond the limit: only probes and Prometheus get through."""
        if scope["type"] != ScopeType.HTTP or self.access.is_essential(
            scope["method"], scope["path"]
        ):
            await self(scope, receive, send)
            return
        if self.is_logged:
            send = _logging(scope, send)
        error = TooManyConnections("too many connections are open; try again later")
        with contextlib.suppress(asyncio.CancelledError):
            _, headers = self.begin(dict(scope["headers"]))
            self.services.metrics.unmatched(error.outcome)
            await self._send(error_reply(error), headers, scope, send)

    def begin(self, headers: dict[bytes, bytes]) -> tuple[bytes, Headers]:
        """Return the id of a request, and the headers that its reply has whatever it says."""
        id = request_id(headers) or self.make_id()
        begin(id, headers)
        return id, [(b"x-request-id", id), *self.headers_now()]

    def headers_now(self) -> Headers:
        """Return the headers that every reply has now."""
        # The next request finds another process.
        return _CLOSE if self.services.host.is_draining else _NONE

    def refusal(
        self, scope: HTTPScope, headers: dict[bytes, bytes], reply_headers: Headers
    ) -> Reply | None:
        """Return the reply to a request that may not go on, or needs no more; None else."""
        if self.access.is_everybody:
            return None
        method, path = scope["method"], scope["path"]
        reply_headers += self.access.cors_headers(method, headers)
        if self.access.is_preflight(method, headers):
            return json_reply({})
        try:
            self.access.check(method, path, scope["headers"])
        except Unauthorized as error:
            self.services.metrics.unmatched(error.outcome)
            return error_reply(error)
        return None

    async def infer(self, route: Route, request: Request) -> Reply | None:
        """Return what a route of inference answers, and count it; None if the caller left."""
        inference, call, outcome = self.services.inference, request.call, "ok"
        try:
            if request.scope["method"] != route.method:
                method = request.scope["method"]
                raise MethodNotAllowed(f"method: expected {route.method}, got {method}")
            note_wishes(call, request.headers, self._timeout_s)
            if self._splits is not None:
                call.ticket = _ticket(self._splits, request)
            reply = await route.handler(self.services, request)
            if call.is_timed and call.timing is not None:
                note_timing(reply, call.timing)
        except ClientLeft:
            return None
        except asyncio.CancelledError:
            if request.has_body:  # one that never came completely is counted by the connection
                inference.count(call, "cancelled")
            raise
        except Exception as error:
            outcome, reply = self.failure(error, call, request.scope["path"])
        finally:
            request.release()
        inference.count(call, outcome)
        await _compress(reply, request.headers)
        return reply

    def failure(self, error: Exception, call: Call, path: str) -> tuple[str, Reply]:
        """Return how an inference that failed is counted, and the reply; log what is ours."""
        told = self.failing.told(error, call, path)
        reply = error_reply(told)
        reply.headers += version_headers(call.served)
        return told.outcome, reply

    async def _send(self, reply: Reply, headers: Headers, scope: HTTPScope, send: Send) -> None:
        """Send a reply, with headers beside its own."""
        headers, body = all_headers(reply, headers), reply.body
        extensions: Any = scope.get("extensions") or {}
        send_whole: SendWhole | None = extensions.get(WHOLE_REPLY)
        if send_whole is not None and not self.is_logged:
            await send_whole(reply.status, headers, body)
            return
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"".join(body), "more_body": False})

    def lifespan(self) -> AbstractAsyncContextManager[None]:
        """Open the models on entry, close them on exit; for servers that do not send messages."""
        return self._framework.lifespan()


def create_app(
    settings: Settings | None = None,
    *,
    worker: int = 0,
    host: Host | None = None,
    inference: type[Inference] = Inference,
) -> App:
    """Return the service, with the settings of the environment if none are given.

    Its lifespan opens and closes the models. `worker` numbers the process among those that
    share `settings.metrics_dir`. `inference` is the door to the models. Raises InvalidSetting.
    """
    settings = settings or Settings.from_env(os.environ)
    metrics = Metrics(Blocks(settings.metrics_dir, worker))
    host = host or Host()
    split = split_at_start(settings, is_replacing=host.is_replacing)
    splits = None
    if split.names or settings.split_file is not None:
        splits = Splits(metrics, settings.split_header)
    only_shadows = settings.shadow.only_shadows
    catalog = Catalog(settings.models_dir, settings.default_model, only_shadows, splits)
    services = Services(
        settings=settings,
        host=host,
        catalog=catalog,
        splitting=Splitting(settings, catalog, split, is_replacing=host.is_replacing),
        reloader=Reloader(settings, catalog, metrics, is_replacing=host.is_replacing),
        metrics=metrics,
        inference=inference(catalog, metrics),
        bodies=RowBodies(settings),
        memory=Memory(settings.most_held_bytes),
    )
    return App(services, routes_for(settings))


def _framework(services: Services, routes: list[Route], failures: Failures) -> Litestar:
    """Return what answers every route but those of inference, and says what is no route."""

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        with contextlib.closing(services.bodies):
            async with services.reloader, services.splitting:
                yield

    def on_bug(
        request: litestar.Request[Any, Any, Any], error: Exception
    ) -> Response[dict[str, str]]:
        """Log what was never meant to be raised, and say nothing of it to the caller."""
        failures.log_bug(f"{request.method} {request.scope['path']!r}", error)
        return Response({"error": "internal error"}, status_code=500)

    return Litestar(
        route_handlers=[
            _handler(method, services, routes) for method in (HttpMethod.GET, HttpMethod.POST)
        ],
        lifespan=[lifespan],
        exception_handlers={HTTPException: on_http_exception, 500: on_bug},
        openapi_config=None,  # written from the table of routes, in openapi/
        logging_config=None,  # the process decides
    )


def _handler(method: HttpMethod, services: Services, routes: list[Route]) -> HTTPRouteHandler:
    """Return the framework's handler of all routes of a method, but those of inference.

    One for each route costs the start half a millisecond each: the framework reads its signature.
    """
    rows = [each for each in routes if each.method == method and not each.is_inference]
    router = Router(rows)
    paths = [re.sub(r"\{(\w+)\}", r"{\1:str}", each.path) for each in rows]

    @route(paths, http_method=[method], status_code=200)
    async def handle(request: litestar.Request[Any, Any, Any]) -> Response[bytes]:
        headers = dict(request.scope["headers"])
        found = router.find(request.scope["path"])
        if found is None:
            raise RuntimeError("a path that only the framework knows. This is a bug.")
        row, values = found
        call = Call(perf_counter(), inf, services.host.is_alone)
        memory = services.memory
        ours = Request(request.scope, headers, request.receive, b"", values, call, memory)
        try:
            reply = await row.handler(services, ours)
        except RequestError as error:
            reply = error_reply(error)
        except ClientLeft:  # our own connection cancels instead
            reply = Reply([])
        finally:
            ours.release()
        await _compress(reply, headers)
        return Response(
            b"".join(reply.body),
            status_code=reply.status,
            media_type=reply.content_type.decode(),
            headers={name.decode(): value.decode() for name, value in reply.headers},
        )

    return handle


async def _compress(reply: Reply, headers: dict[bytes, bytes]) -> None:
    if reply.is_compressible:
        encoding = encoding_for(reply, headers.get(b"accept-encoding"))
        if encoding is not None:
            await compress(reply, encoding)


def _ticket(splits: Splits, request: Request) -> Ticket:
    """Return what decides the version: as on the direct way, if this request came by that."""
    ticket = splits.ticket(request.headers)
    extensions: Any = request.scope.get("extensions") or {}
    before: Ticket | None = extensions.get(TICKET)
    if before is None or before.is_taken or before.value != ticket.value:
        return ticket
    before.is_taken = True
    return before


def _adding(headers: Headers, send: Send) -> Send:
    """Return a `send` that adds headers to the reply."""

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *headers]
        await send(message)

    return send_with_headers


def _logging(scope: HTTPScope, send: Send) -> Send:
    """Return a `send` that logs the reply when it is complete."""
    start, status = perf_counter(), 0

    async def send_and_log(message: Message) -> None:
        nonlocal status
        await send(message)
        if message["type"] == "http.response.start":
            status = message["status"]
        elif not message.get("more_body"):
            logs.access(scope["method"], scope["path"], status, perf_counter() - start)

    return send_and_log


def on_http_exception(
    request: litestar.Request[Any, Any, Any], error: HTTPException
) -> Response[dict[str, str]]:
    """Answer an error of the framework in our form."""
    path, method = request.scope["path"][:80], request.method
    headers = dict(error.headers or {})
    sentence = f"{method} {path}: {error.detail}"
    if error.status_code == 404:
        sentence = f"{method} {path}: no such path; /schema/openapi.json lists all"
    if error.status_code == 405:
        headers["allow"] = headers.get("allow", "").replace("GET", "GET, HEAD")
        sentence = f"method: expected {headers['allow']}, got {method} {path}"
    return Response({"error": sentence}, status_code=error.status_code, headers=headers)
