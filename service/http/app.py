"""create_app: the one place where the parts of the service meet."""

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from hashlib import sha256
from time import perf_counter
from typing import Any

from litestar import Litestar, Request, Response, get
from litestar.enums import MediaType, ScopeType
from litestar.exceptions import HTTPException
from litestar.params import FromPath
from litestar.types import HTTPScope, Message, Receive, Scope, Send

from service.catalog.catalog import ModelRepository
from service.catalog.served import Version
from service.errors import NotFound, RequestError, TooManyConnections, Unauthorized
from service.http.access import PING, PROBES, READING, Access, Headers
from service.http.openapi import document as openapi
from service.http.pages import pages as page
from service.http.pictures import Pictures
from service.http.platforms.invocations import INVOCATIONS, Platforms, execution_parameters
from service.http.replies import Asked, Reply, packed_if_long
from service.http.request import WHOLE_REPLY, Incoming, answer, encode, error_reply
from service.http.rest.predict import Predict, is_predict
from service.http.rest.prepare import Prepare, is_prepare
from service.http.v2 import metadata as oip
from service.http.v2.infer import Infer, is_infer
from service.logs import lines as logs
from service.logs.request_id import begin, id_maker
from service.metrics import Blocks, Metrics
from service.metrics.exposition import CONTENT_TYPE, render
from service.settings import Settings

logger = logging.getLogger("torchlit.app")


class Service:
    """The ASGI application: it answers what infers itself, and Litestar everything else."""

    def __init__(
        self,
        settings: Settings,
        others: Litestar,
        models: ModelRepository,
        metrics: Metrics,
        pictures: Pictures,
    ) -> None:
        self._predict = Predict(models, pictures, settings).respond
        self._prepare = Prepare(models, pictures, settings).respond
        self._infer = Infer(models, settings).respond
        platforms = Platforms(models, pictures, settings)
        self._exact = {INVOCATIONS: platforms.invocations}  # by path
        if settings.predict_route is not None and not is_infer(settings.predict_route):
            self._exact[settings.predict_route] = platforms.vertex
        self._health_route = settings.health_route
        if self._health_route is not None and self._health_route.startswith(PROBES):
            self._health_route = None  # it answers already
        self._others = others
        # Whether the request that asks is the only one that is being answered; the server knows.
        self.is_alone: Callable[[], bool] = lambda: False
        self.models = models
        self.metrics = metrics
        self._access = Access(settings)
        self._make_id = id_maker()
        self._is_logged = settings.access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or the server's lifespan messages."""
        if scope["type"] != ScopeType.HTTP:
            await self._others(scope, receive, send)
            return
        request = self._incoming(scope, receive, send)
        try:
            if not self._access.is_everybody and not await self._may_pass(request):
                return
            path = scope["path"]
            if path == self._health_route and scope["method"] in READING:
                scope = {**scope, "path": PING}
            elif path in self._exact:
                await answer(request, self._exact[path], self.metrics)
                return
            elif is_predict(path):
                await answer(request, self._predict, self.metrics)
                return
            elif is_infer(path):
                await answer(request, self._infer, self.metrics)
                return
            elif is_prepare(path):
                await answer(request, self._prepare, self.metrics)
                return
            elif path == self._health_route:
                scope = {**scope, "path": PING}  # which says what method it takes
            if scope["method"] == "HEAD":  # as GET; the server leaves the body out
                scope = {**scope, "method": "GET"}
            await self._others(scope, receive, _adding(request.reply_headers, request.send))
        except asyncio.CancelledError:
            return  # the caller left: there is nobody to tell

    async def answer_when_full(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer on a connection beyond the limit: only probes and Prometheus get through."""
        if scope["type"] != ScopeType.HTTP or self._access.is_essential(
            scope["method"], scope["path"]
        ):
            await self(scope, receive, send)
            return
        error = TooManyConnections("too many connections are open; try again later")
        with contextlib.suppress(asyncio.CancelledError):
            while (await receive()).get("more_body"):
                pass  # a client that still sends would not see the reply
            await self._refuse(self._incoming(scope, receive, send), error)

    def _incoming(self, scope: HTTPScope, receive: Receive, send: Send) -> Incoming:
        headers = dict(scope["headers"])
        reply_headers = [(b"x-request-id", begin(headers, self._make_id))]
        if self.models.draining:
            reply_headers.append((b"connection", b"close"))  # the next one finds another process
        extensions: Any = scope.get("extensions") or {}
        send_whole = extensions.get(WHOLE_REPLY)
        if self._is_logged:
            send, send_whole = _logging(scope, send), None
        return Incoming(scope, headers, receive, send, send_whole, self.is_alone, reply_headers)

    async def _may_pass(self, request: Incoming) -> bool:
        """Whether the request may go on; if not it is answered."""
        method, path = request.scope["method"], request.scope["path"]
        request.reply_headers += self._access.cors_headers(method, request.headers)
        if self._access.is_preflight(method, request.headers):
            await request.reply(200, [b"{}"])
            return False
        try:
            self._access.check(method, path, request.headers)
        except Unauthorized as error:
            await self._refuse(request, error)
            return False
        return True

    async def _refuse(self, request: Incoming, error: RequestError) -> None:
        status, outcome, reply = error_reply(error)
        request.reply_headers += error.headers
        self.metrics.unmatched(outcome)
        await request.reply(status, [reply])

    def lifespan(self) -> AbstractAsyncContextManager[None]:
        """Open the models on entry, close them on exit; for servers that do not send messages."""
        return self._others.lifespan()


def create_app(settings: Settings | None = None, *, worker: int = 0) -> Service:
    """Return the service, with the settings of the environment if none are given.

    Its lifespan opens and closes the models. `worker` numbers the process among those that
    share `settings.metrics_dir`.
    """
    settings = settings or Settings.from_env(os.environ)
    metrics = Metrics(Blocks(settings.metrics_dir, worker))
    models = ModelRepository(settings, metrics)
    pictures = Pictures(settings)

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        with contextlib.closing(pictures):
            async with models:
                yield

    @get("/models")
    async def list_models(request: Asked) -> Reply:
        listed = {"models": [describe_model(models, name) for name in models.names]}
        return await packed_if_long(encode(listed), MediaType.JSON, request)

    @get("/models/{model:str}", sync_to_thread=False)
    def show_model(model: FromPath[str]) -> dict[str, Any]:
        if model not in models.names:
            known = ", ".join(models.names) or "none"
            raise NotFound(f"model: expected one of {known}; got {model[:40]!r}")
        return describe_model(models, model)

    @get("/models/{model:str}/{version:str}/{picture:str}", sync_to_thread=True)
    def show_picture(
        request: Request[Any, Any, Any],
        model: FromPath[str],
        version: FromPath[str],
        picture: FromPath[str],
    ) -> Response[bytes]:
        png = models.picture(model, version, picture)
        return png_unless_known(png, request.headers.get("if-none-match", ""))

    @get("/health/live", sync_to_thread=False)
    def live() -> dict[str, str]:
        return {"status": "live"}

    @get(["/health/ready", PING], sync_to_thread=False)
    def ready() -> Response[dict[str, Any]]:
        return readiness(models)

    @get("/execution-parameters", sync_to_thread=False)
    def show_execution_parameters() -> dict[str, Any]:
        return execution_parameters(settings)

    @get("/metrics")
    async def show_metrics(request: Asked) -> Reply:
        return await packed_if_long(render(metrics), CONTENT_TYPE, request)

    @get("/schema/openapi.json")
    async def show_openapi(request: Asked) -> Reply:
        document = encode(openapi.document(models, settings))
        return await packed_if_long(document, MediaType.JSON, request)

    others = Litestar(
        route_handlers=[
            list_models,
            show_model,
            show_picture,
            live,
            ready,
            show_execution_parameters,
            show_metrics,
            show_openapi,
            *oip.route_handlers(models, settings),
            *page.route_handlers(),
        ],
        lifespan=[lifespan],
        exception_handlers={
            RequestError: on_request_error,
            HTTPException: on_http_exception,
            500: on_bug,
        },
        request_max_body_size=settings.max_body_bytes,
        openapi_config=None,  # written from the cards, in openapi.py
        logging_config=None,  # the process decides, in server.py
    )
    return Service(settings, others, models, metrics, pictures)


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


def describe_model(models: ModelRepository, name: str) -> dict[str, Any]:
    """Return what /models says of one model."""
    default = models.default(name)
    return {
        "model": name,
        "default_version": default.version if default else None,
        "versions": [_describe_version(version) for version in models.versions[name]],
    }


def _describe_version(version: Version) -> dict[str, Any]:
    described: dict[str, Any] = {"version": version.version, "state": version.state}
    if version.reason:
        described["reason"] = version.reason
    if version.served is None:
        return described
    model = version.served.model
    if model.why_no_rows:
        described["why_no_rows"] = model.why_no_rows
    pictures = model.card.pictures if model.card else []
    folder = f"/models/{version.served.name}/{version.served.version}"
    return described | {
        "provider": model.provider,
        "device": model.device,
        "batching": {
            "of": "rows" if model.is_batched else "requests",
            "largest_batch": model.largest_batch,
            "reason": model.why_batching,
        },
        "card": model.card,
        "pictures": [
            {"title": picture.title, "url": f"{folder}/{picture.file}"} for picture in pictures
        ],
    }


def png_unless_known(png: bytes, if_none_match: str) -> Response[bytes]:
    """Return a picture, or 304 if the caller has it (RFC 9110, section 13.1.2).

    Callers are to ask each time: a model that is trained again has others at the same URL.
    """
    etag = f'"{sha256(png).hexdigest()}"'
    headers = {"etag": etag, "cache-control": "no-cache"}
    if if_none_match == "*" or etag in if_none_match:  # a list of them; W/ may stand before each
        return Response(b"", status_code=304, headers=headers)
    return Response(png, media_type="image/png", headers=headers)


def readiness(models: ModelRepository) -> Response[dict[str, Any]]:
    """Return 200 if every model that must answer does (ModelRepository.is_ready), else 503."""
    not_ready = models.not_ready()
    states: dict[str, Any] = {}
    for name in models.names:
        default = models.default(name)
        if default is None:
            states[name] = {"ready": False, "reason": not_ready[name]}
        else:
            failed = [each.reason for each in models.versions[name] if each.reason]
            states[name] = {
                "ready": True,
                "version": default.version,
                "device": default.model.device,
            } | ({"failed": failed} if failed else {})
    status = "draining" if models.draining else "ready" if models.is_ready else "not ready"
    content = {"status": status, "models": states}
    return Response(content, status_code=200 if status == "ready" else 503)


def on_request_error(_: Request[Any, Any, Any], error: RequestError) -> Response[dict[str, str]]:
    """Answer one of our own errors."""
    headers = {name.decode(): value.decode() for name, value in error.headers}
    return Response({"error": str(error)}, status_code=error.status, headers=headers)


def on_http_exception(
    request: Request[Any, Any, Any], error: HTTPException
) -> Response[dict[str, str]]:
    """Answer an error of the framework in our form."""
    path, method = request.scope["path"][:80], request.method
    headers = dict(error.headers or {})
    sentence = f"{method} {path}: {error.detail}"
    if error.status_code == 404:
        sentence = f"{method} {path}: no such path; /schema/openapi.json lists all"
    if error.status_code == 413:
        sentence = f"{method} {path}: the body is over the limit"
    if error.status_code == 405:
        headers["allow"] = headers.get("allow", "").replace("GET", "GET, HEAD")
        sentence = f"method: expected {headers['allow']}, got {method} {path}"
    return Response({"error": sentence}, status_code=error.status_code, headers=headers)


def on_bug(request: Request[Any, Any, Any], error: Exception) -> Response[dict[str, str]]:
    """Log what was never meant to be raised, and tell the caller nothing of it."""
    logger.error("%s %r: this is a bug", request.method, request.scope["path"], exc_info=error)
    return Response({"error": "internal error"}, status_code=500)
