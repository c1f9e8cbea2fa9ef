"""Requests of HTTP that are traced, by ASGI and directly; in place of what does not trace.

Names and attributes: https://opentelemetry.io/docs/specs/semconv/http/http-spans/ (stable). Probes,
/metrics and the pages are not traced. No address, key or query of a caller is in a span.
"""

from collections.abc import Callable
from time import perf_counter
from typing import Any

from litestar.enums import ScopeType
from litestar.types import HTTPScope, Message, Receive, Scope, Send
from msgspec import structs

from service.batching import Timing
from service.errors import Unauthorized
from service.http.app import TIMING, App, SendWhole
from service.http.direct import Answer, Connection, Direct, Head
from service.http.reply import WHOLE_REPLY, Fragments, Reply
from service.http.route import Route, Router
from service.http.routes import routes_for
from service.http.status import Headers
from service.logs.request_id import request_id
from service.tracing.spans import ID, OUTCOME, Attributes, Trace, Tracing, with_all_state

# RFC 9110, section 9, and RFC 5789; those of others are _OTHER.
_METHODS = frozenset(
    {"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"}
)
_TRACEPARENT, _ID = b"traceparent", b"x-request-id"
_STATUS = "http.response.status_code"
# The caller left, or it was refused, before its body was complete.
_INCOMPLETE = "incomplete"


class TracedApp:
    """The app, of whose requests each is traced that the sampler wants."""

    def __init__(self, app: App, tracing: Tracing) -> None:
        self._app = app
        self._tracing = tracing
        routes = routes_for(app.services.settings)
        self._routes = {
            method: Router(each for each in routes if each.method == method)
            for method in ("GET", "POST")
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or the server's lifespan messages."""
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        route = self._route(scope["method"], scope["path"])
        headers = with_all_state(dict(scope["headers"]), scope["headers"])
        trace = None
        if scope["method"] != "OPTIONS" and (route is None or route.who == "key"):
            trace = self._tracing.begin(*_begun(scope, route, headers), headers)
        if trace is None:
            await self._app(scope, receive, send)
            return
        id = request_id(headers) or self._app.make_id()
        await _Sent(trace).answered(self._app, _scope(scope, trace, id), receive, send)

    def _route(self, method: str, path: str) -> Route | None:
        router = self._routes.get("GET" if method == "HEAD" else method)
        found = None if router is None else router.find(path)
        return found and found[0]


class _Sent:
    """What is sent of the reply to a request that is traced."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._status = 0
        self._at = 0.0

    async def answered(self, app: App, scope: HTTPScope, receive: Receive, send: Send) -> None:
        """Let the app answer; end the trace."""
        extensions: Any = scope.get("extensions") or {}
        send_whole: SendWhole | None = extensions.get(WHOLE_REPLY)
        if send_whole is not None:
            scope["extensions"] = extensions | {WHOLE_REPLY: self._noting_whole(send_whole)}
        try:
            await app(scope, receive, self._noting(send))
        finally:
            if self._status == 401:  # it is counted before anybody looks at the trace
                self._trace.add({OUTCOME: Unauthorized.outcome})
            if self._status:
                end(self._trace, self._status, self._at)
            else:
                cancelled = self._trace.outcome == "cancelled"
                error = "cancelled" if cancelled else _INCOMPLETE
                self._trace.end({}, error, perf_counter())

    def _noting(self, send: Send) -> Send:
        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._note(message["status"])
            await send(message)

        return noted

    def _noting_whole(self, send_whole: SendWhole) -> SendWhole:
        async def noted(status: int, headers: Headers, body: Fragments) -> None:
            self._note(status)
            await send_whole(status, headers, body)

        return noted

    def _note(self, status: int) -> None:
        self._status, self._at = status, perf_counter()


class TracedDirect(Direct):
    """Answers requests whose head it knows, and traces them."""

    def __init__(self, app: App, tracing: Tracing) -> None:
        super().__init__(app)
        self._tracing = tracing

    def answer(
        self, connection: Connection, head: Head, body: bytes, timing: Timing | None = None
    ) -> Answer | None:
        """As Direct has it; what goes the ordinary way is traced there."""
        attributes = _attributes("POST", head.path, head.headers)
        attributes["http.route"] = head.route
        trace = self._tracing.begin(f"POST {head.route}", attributes, head.headers)
        if trace is None:
            return super().answer(connection, head, body, timing)
        trace.ends_when_cancelled = True
        id = head.id or self._app.make_id()
        trace.add({ID: id.decode()})
        headers = head.headers | {_TRACEPARENT: trace.traceparent}
        head = structs.replace(head, id=id, headers=headers)
        return super().answer(_Traced(connection, trace), head, body, trace)


class _Traced:
    """The connection that a request came from which is traced."""

    __slots__ = ("_connection", "_trace", "extensions", "is_alone")

    def __init__(self, connection: Connection, trace: Trace) -> None:
        self._connection = connection
        self._trace = trace
        self.is_alone: Callable[[], bool] = connection.is_alone
        self.extensions = connection.extensions

    def write(self, reply: Reply, id: bytes, others: bytes, *, is_last: bool) -> None:
        """Send a reply, and end the trace."""
        at = perf_counter()
        self._connection.write(reply, id, others, is_last=is_last)
        end(self._trace, reply.status, at)


def end(trace: Trace, status: int, at: float) -> None:
    """End the trace of a request that got a reply; that of a wrong one is no error of ours."""
    trace.end({_STATUS: status}, str(status) if status >= 500 else "", at)


def _begun(
    scope: HTTPScope, route: Route | None, headers: dict[bytes, bytes]
) -> tuple[str, Attributes]:
    """Return the name of a request's span, and what is known of it before it is answered."""
    name = method = str(scope["method"])
    if method not in _METHODS:
        name, method = "HTTP", "_OTHER"
    attributes = _attributes(method, scope["path"], headers)
    if method not in _METHODS:
        attributes["http.request.method_original"] = scope["method"]
    if route is not None:
        name = f"{name} {route.path}"
        attributes["http.route"] = route.path
    attributes["network.protocol.version"] = scope["http_version"]
    return name, attributes


def _attributes(method: str, path: str, headers: dict[bytes, bytes]) -> dict[str, str | int]:
    attributes: dict[str, str | int] = {
        "http.request.method": method,
        "url.path": path,
        "url.scheme": "http",
        "network.protocol.version": "1.1",
    }
    if (agent := headers.get(b"user-agent")) is not None:
        attributes["user_agent.original"] = agent.decode("latin-1")
    return attributes


def _scope(scope: HTTPScope, trace: Trace, id: bytes) -> HTTPScope:
    """Return the scope of a request, with its trace and id; the log shows our span."""
    trace.add({ID: id.decode()})
    ours = {_TRACEPARENT: trace.traceparent, _ID: id}
    headers = [each for each in scope["headers"] if each[0] not in ours]
    traced: Any = {**scope, "headers": [*headers, *ours.items()], TIMING: trace}
    result: HTTPScope = traced
    return result
