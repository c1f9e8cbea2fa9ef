"""The app: dispatch, what every reply has, and what becomes of what goes wrong."""

import asyncio
import gzip
import json
import logging
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from service.entrance.services import Host, Services
from service.errors import UnsupportedEncoding
from service.http.app import App, create_app
from service.http.reply import WHOLE_REPLY, Reply, json_reply
from service.http.request import Request
from service.http.route import Handler, Route
from service.metrics.exposition import render
from service.settings import Settings
from tests.support.clients import counted
from tests.support.toys import Client, body, serving

pytestmark = pytest.mark.anyio


async def test_a_bug_in_the_framework_is_logged_and_tells_the_caller_nothing(
    models_dir: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LITESTAR_DEBUG", "1")  # with which Litestar shows its tracebacks
    async with serving(Settings(models_dir=models_dir)) as client:
        versions = client.services.catalog.versions
        versions["odd"] = None  # type: ignore[assignment]  # what no code does
        replies = [await client.get("/models"), await client.get("/health/ready")]
        del versions["odd"]
    assert [reply.status_code for reply in replies] == [500, 500]
    assert [reply.json() for reply in replies] == [{"error": "internal error"}] * 2
    assert "GET '/models': this is a bug" in caplog.text


# ------------------------------------------------------------ what infers


class Caller:
    """The server's side of one request to /somewhere: what it says, and what it gets."""

    def __init__(
        self, handler: Handler, *messages: dict[str, Any], has_model: bool = False, **more: Any
    ) -> None:
        """Let `handler` answer; if `has_model` it finds a model, whose counts are in `of_model`."""
        settings = Settings(**more)
        self.of_model: list[tuple[str, float]] = []
        metrics = SimpleNamespace(request=lambda *counted: self.of_model.append(counted))
        served: Any = SimpleNamespace(metrics=metrics, version=7)

        async def handle(services: Services, request: Request) -> Reply:
            request.call.served = served if has_model else None
            return await handler(services, request)

        route = Route("/somewhere", "POST", handle, "", is_inference=True)
        self.services = create_app(settings).services
        self._app = App(self.services, [route])
        self._messages = list(messages)
        self.sent: list[Any] = []

    async def call(self, method: str = "POST", send_whole: Any = None, **headers: str) -> None:
        scope: Any = {
            "type": "http",
            "path": "/somewhere",
            "method": method,
            "query_string": b"",
            "headers": [
                (name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()
            ],
            "extensions": None if send_whole is None else {WHOLE_REPLY: send_whole},
        }
        await self._app(scope, self._receive, self._send)

    async def _receive(self) -> Any:
        return self._messages.pop(0)

    async def _send(self, message: Any) -> None:
        self.sent.append(message)

    @property
    def reply(self) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        start, end = self.sent
        assert (start["type"], end["type"]) == ("http.response.start", "http.response.body")
        assert not end["more_body"]
        return start["status"], start["headers"], end["body"]

    def counted(self, outcome: str = "") -> float:
        """Return how many requests were counted that no model was found for."""
        text = render(self.services.metrics).decode()
        return counted(text, "torchlit_unmatched_requests_total", outcome)


def fragment(content: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.request", "body": content, "more_body": more}


LEFT = {"type": "http.disconnect"}


async def test_a_reply_has_the_headers_of_the_request_and_its_own() -> None:
    async def handler(services: Services, request: Request) -> Reply:
        assert request.id == b"7"
        return Reply([b"ab", memoryview(b"cde")], 200, b"text/plain", [(b"one", b"1")])

    caller = Caller(handler, has_model=True)
    await caller.call(x_request_id="7")
    assert caller.reply == (
        200,
        [
            (b"x-request-id", b"7"),
            (b"content-type", b"text/plain"),
            (b"content-length", b"5"),
            (b"one", b"1"),
        ],
        b"abcde",
    )
    ((outcome, seconds),) = caller.of_model
    assert outcome == "ok"
    assert 0 < seconds < 1
    assert caller.counted() == 0


async def test_a_server_that_can_gets_the_whole_reply_in_one_piece() -> None:
    async def handler(services: Services, request: Request) -> Reply:
        return json_reply({}, 200)

    complete: list[Any] = []

    async def send_whole(*reply: Any) -> None:
        complete.append(reply)

    for access_log in (False, True):
        caller = Caller(handler, has_model=True, access_log=access_log)
        await caller.call(send_whole=send_whole)
        assert len(caller.sent) == (2 if access_log else 0)  # the log has to see the end
    ((status, headers, body),) = complete
    assert (status, body) == (200, [b"{}"])
    assert (b"content-length", b"2") in headers


@pytest.mark.parametrize("has_model", [False, True])
async def test_a_refusal_is_json_and_counted(has_model: bool) -> None:
    async def refuse(services: Services, request: Request) -> Reply:
        raise UnsupportedEncoding("no")

    caller = Caller(refuse, has_model=has_model)
    await caller.call()
    status, headers, body = caller.reply
    assert (status, body) == (415, b'{"error":"no"}')
    assert (b"accept-encoding", b"gzip, deflate") in headers
    assert (b"content-type", b"application/json") in headers
    assert [outcome for outcome, _ in caller.of_model] == ["invalid"] * has_model
    assert caller.counted('outcome="invalid"') == caller.counted() == (not has_model)


async def test_another_method_is_refused_and_counted() -> None:
    async def handler(services: Services, request: Request) -> Reply:
        raise AssertionError("it was called")

    caller = Caller(handler)
    await caller.call("PUT")
    status, headers, body = caller.reply
    assert (status, body) == (405, b'{"error":"method: expected POST, got PUT"}')
    assert (b"allow", b"POST") in headers
    assert caller.counted('outcome="invalid"') == caller.counted() == 1


async def test_a_bug_is_logged_and_tells_the_caller_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def handler(services: Services, request: Request) -> Reply:
        raise ZeroDivisionError("secret")

    caller = Caller(handler)
    await caller.call()
    status, _, body = caller.reply
    assert (status, body) == (500, b'{"error":"internal error"}')
    (record,) = caplog.records
    first, *_, last = record.getMessage().splitlines()
    assert (record.levelno, first) == (logging.ERROR, "/somewhere: this is a bug")
    assert last == "ZeroDivisionError"
    assert 'raise ZeroDivisionError("secret")' in caplog.text  # a line of code, no value
    assert caller.counted('outcome="failed"') == caller.counted() == 1


async def test_a_caller_who_leaves_before_its_body_is_complete_is_told_nothing() -> None:
    """The connection counts it."""

    async def handler(services: Services, request: Request) -> Reply:
        return Reply([await request.body(6)])

    for messages in ([LEFT], [fragment(b"abc", more=True), LEFT]):
        caller = Caller(handler, *messages)
        await caller.call()
        assert caller.sent == []
        assert caller.counted() == 0


async def test_who_leaves_before_its_body_is_complete_is_no_bug_on_any_route(
    models_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Servers other than ours say that it left, instead of cancelling."""
    app = create_app(Settings(models_dir=models_dir))
    messages = [fragment(b"{", more=True), LEFT]

    async def receive() -> Any:
        return messages.pop(0) if messages else LEFT

    async def send(message: Any) -> None:
        pass

    scope: Any = {"type": "http", "method": "POST", "path": "/v2/repository/index"}
    scope |= {"raw_path": b"", "query_string": b"", "headers": [], "extensions": {}}
    async with app.lifespan():
        await app(scope, receive, send)
    assert not messages
    assert "bug" not in caplog.text


@pytest.mark.parametrize("has_body", [False, True])
async def test_who_leaves_while_it_is_answered_is_counted_and_sent_nothing(has_body: bool) -> None:
    began = asyncio.Event()

    async def handler(services: Services, request: Request) -> Reply:
        if has_body:
            await request.body(10)
        began.set()
        await asyncio.Event().wait()
        raise AssertionError("it waited for nothing")

    caller = Caller(handler, fragment(b"abc"))
    task = asyncio.create_task(caller.call())
    await began.wait()
    task.cancel()
    await task  # it ends, as there is nobody to tell
    assert caller.sent == []
    assert caller.counted('outcome="cancelled"') == caller.counted() == has_body


async def test_a_reply_that_may_be_compressed_is() -> None:
    async def handler(services: Services, request: Request) -> Reply:
        return Reply([b"a" * 5000], is_compressible=request.headers.get(b"x") != b"as it is")

    caller = Caller(handler, has_model=True)
    await caller.call(accept_encoding="gzip")
    _, headers, body = caller.reply
    assert (b"content-encoding", b"gzip") in headers
    assert (b"content-length", b"%d" % len(body)) in headers
    assert gzip.decompress(body) == b"a" * 5000
    caller = Caller(handler, has_model=True)
    await caller.call(accept_encoding="gzip", x="as it is")
    assert caller.reply[2] == b"a" * 5000


async def test_the_deadline_is_the_shorter_of_the_two() -> None:
    seconds: list[float] = []

    async def handler(services: Services, request: Request) -> Reply:
        seconds.append(request.call.deadline - request.call.start)
        return json_reply({})

    caller = Caller(handler, has_model=True, request_timeout_s=2)
    for wanted in ({}, {"x_request_timeout_ms": "500"}, {"x_request_timeout_ms": "9000"}):
        await caller.call(**wanted)
    assert seconds == pytest.approx([2, 0.5, 2])


# ------------------------------------------------------- what is read


async def test_a_route_that_is_read_may_be_compressed_too(client: Client) -> None:
    for encoding, read in (("gzip", gzip.decompress), ("deflate", zlib.decompress)):
        headers = {"accept-encoding": encoding}
        async with client.stream("GET", "/models", headers=headers) as reply:
            raw = b"".join([part async for part in reply.aiter_raw()])
        assert reply.headers["content-encoding"] == encoding
        assert reply.headers["vary"] == "accept-encoding"
        assert json.loads(read(raw))["models"][0]["model"] == "mean"


async def test_while_it_drains_every_reply_sends_its_caller_elsewhere(models_dir: Path) -> None:
    host = Host()
    async with serving(Settings(models_dir=models_dir), host) as client:
        for is_draining in (False, True):
            host.is_draining = is_draining
            content = body("toy", [[1, 2, 3, 4]])
            replies = [
                await client.post("/predict", content=content),
                await client.get("/models"),
                await client.get("/no/such/path"),
            ]
            assert [reply.status_code for reply in replies] == [200, 200, 404]
            for reply in replies:
                assert (reply.headers.get("connection") == "close") is is_draining


async def test_each_reply_has_the_id_of_its_request(client: Client) -> None:
    for path in ("/models", "/predict", "/no/such/path"):
        reply = await client.get(path, headers={"x-request-id": "mine"})
        assert reply.headers["x-request-id"] == "mine"
        others = [(await client.get(path)).headers["x-request-id"] for _ in range(2)]
        assert len({"mine", *others}) == 3
