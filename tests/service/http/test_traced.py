"""Spans of requests over HTTP, by both ways."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from service.logs.request_id import logged_fields
from service.settings import Settings
from service.settings.split import Split
from tests.support.clients import read_reply, reset
from tests.support.sockets import Listening, listening
from tests.support.spans import NOT_SAMPLED, SAMPLED, SPAN, TRACE, Kept, queued_rows, until
from tests.support.toys import body, save_fussy, save_toy, toy_card

pytestmark = pytest.mark.anyio

ROW = [1.0, 2.0, 3.0, 4.0]
TOY = body("toy", [ROW])
HOURS = 60_000.0  # of a queue delay: a batch is run when it is full


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models")
    save_toy(path, card=toy_card())
    save_fussy(path)
    return path


@asynccontextmanager
async def traced(
    folder: Path, kept: Kept | None = None, **settings: Any
) -> AsyncIterator[tuple[Listening, Kept]]:
    kept = kept or Kept()
    known = {"models_dir": folder, "watch": False} | settings
    async with listening(Settings(**known), kept.tracing) as service:
        yield service, kept


def request(path: str, content: bytes, *headers: str, method: str = "POST") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: x", *headers, f"Content-Length: {len(content)}"]
    return "\r\n".join([*lines, "", ""]).encode() + content


async def asked(service: Listening, *sent: bytes) -> list[int]:
    """Send requests on one connection, each when the one before is answered; return statuses."""
    reader, writer = await service.connect()
    statuses = []
    for each in sent:
        writer.write(each)
        head, _ = await read_reply(reader)
        statuses.append(int(head.split(b" ", 2)[1]))
    writer.close()
    return statuses


async def all_asked(service: Listening, *sent: bytes) -> list[int]:
    """Send requests together, each on a connection of its own."""
    together = await asyncio.gather(*(asked(service, each) for each in sent))
    return [status for statuses in together for status in statuses]


async def test_who_is_alone_waits_in_no_queue_whichever_way_it_goes(folder: Path) -> None:
    sent = request("/predict/toy?version=1", TOY, "X-Request-Id: mine", "User-Agent: me")
    async with traced(folder) as (service, kept):
        assert await asked(service, sent, sent) == [200, 200]
        assert service.by_asgi == ["/predict/toy"]
        for server in kept.servers():
            assert server.name == "POST /predict/{model}"
            assert server.parent is None
            assert dict(server.attributes or {}) == {
                "http.request.method": "POST",
                "url.path": "/predict/toy",
                "url.scheme": "http",
                "http.route": "/predict/{model}",
                "http.response.status_code": 200,
                "network.protocol.version": "1.1",
                "user_agent.original": "me",
                "torchlit.model.name": "toy",
                "torchlit.model.version": "1",
                "torchlit.rows": 1,
                "torchlit.outcome": "ok",
                "torchlit.request.id": "mine",
            }
            assert server.status.status_code.name == "UNSET"
            children = kept.below(server)
            assert [*children] == ["receive", "compute", "encode"]
            times = [(each.start_time, each.end_time) for each in children.values()]
            assert [*sum(times, ())] == sorted(sum(times, ()))
            assert server.start_time <= times[0][0]  # type: ignore[operator]
            assert times[-1][1] <= server.end_time  # type: ignore[operator]
        assert len({each.context.trace_id for each in kept.servers()}) == 2


@pytest.mark.parametrize("is_direct", [True, False])
async def test_a_batch_is_linked_to_all_that_are_in_it(folder: Path, is_direct: bool) -> None:
    settings = {"max_batch_size": 3, "max_queue_delay_ms": HOURS}
    async with traced(folder, **settings) as (service, kept):
        if is_direct:  # its head is known then
            assert await all_asked(service, *[request("/predict", TOY)] * 3) == [200] * 3
            kept.clear()
            service.by_asgi.clear()
            sent = [request("/predict", TOY)] * 3
        else:
            others = [f"traceparent: 00-{TRACE}-{n:016x}-01" for n in (1, 2, 3)]
            sent = [request("/predict", TOY, each) for each in others]
        assert await all_asked(service, *sent) == [200] * 3
        assert len(service.by_asgi) == (0 if is_direct else 3)
        servers = kept.servers()
        (batch,) = [each for each in kept.all() if each.name == "batch"]
        assert {each.context.span_id for each in batch.links} == {
            each.context.span_id for each in servers
        }
        numbers = {"torchlit.batch.rows": 3, "torchlit.batch.requests": 3}
        assert batch.attributes == numbers
        assert batch.parent in [each.context for each in servers]
        for server in servers:
            children = kept.below(server)
            compute = children["compute"]
            assert [*children] in (
                ["receive", "queue", "compute", "encode"],
                ["receive", "queue", "batch", "compute", "encode"],
            )
            assert compute.attributes == numbers
            assert [each.context for each in compute.links] == [batch.context]
            assert abs(compute.start_time - batch.start_time) < 1e6  # type: ignore[operator]
            assert abs(compute.end_time - batch.end_time) < 1e6  # type: ignore[operator]
            assert children["queue"].end_time == compute.start_time


@contextmanager
def access_logged() -> Iterator[list[dict[str, str]]]:
    """What the lines of the access log say of their request."""
    seen: list[dict[str, str]] = []

    class Seen(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(logged_fields())

    logger = logging.getLogger("torchlit.access")
    level = logger.level
    logger.addHandler(handler := Seen())
    logger.setLevel("INFO")
    try:
        yield seen
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


async def test_the_caller_s_trace_goes_on_and_the_log_shows_our_span(folder: Path) -> None:
    headers = f"traceparent: {SAMPLED}", "tracestate: a=1,b=2", "baggage: a=1;;;,=,"
    async with traced(folder, access_log=True) as (service, kept):
        sent = request("/predict", TOY, *headers)
        with access_logged() as seen:
            assert await asked(service, sent, sent) == [200, 200]
        servers = kept.servers()
        assert len(servers) == 2
        for server, fields in zip(servers, seen, strict=True):
            assert server.parent is not None
            assert f"{server.parent.trace_id:032x}" == f"{server.context.trace_id:032x}" == TRACE
            assert f"{server.parent.span_id:016x}" == SPAN
            assert server.context.trace_state.to_header() == "a=1,b=2"
            assert fields["trace_id"] == TRACE
            assert fields["span_id"] == f"{server.context.span_id:016x}"
            assert fields["request_id"] == (server.attributes or {})["torchlit.request.id"]


async def test_what_a_caller_s_state_says_in_several_headers_is_kept(folder: Path) -> None:
    async with traced(folder) as (service, kept):
        headers = f"traceparent: {SAMPLED}", "tracestate: a=1", "X: x", "Tracestate: b=2,c=3"
        assert await asked(service, request("/predict", TOY, *headers)) == [200]
        (server,) = kept.servers()
        assert server.context.trace_state.to_header() == "a=1,b=2,c=3"


async def test_what_is_not_sampled_leaves_nothing(folder: Path) -> None:
    async with traced(folder) as (service, kept):
        sent = request("/predict", TOY, f"traceparent: {NOT_SAMPLED}")
        assert await asked(service, sent, sent) == [200, 200]
        assert not kept.all()
    async with traced(folder, Kept(is_sampling=False)) as (service, kept):
        sent = request("/predict", TOY, "X-Request-Timing: true")
        assert await asked(service, sent, sent) == [200, 200]
        assert not kept.all()


async def test_the_log_shows_the_caller_s_span_of_what_is_not_sampled(folder: Path) -> None:
    async with traced(folder, access_log=True) as (service, _):
        sent = request("/predict", TOY, f"traceparent: {NOT_SAMPLED}", "X-Request-Id: mine")
        with access_logged() as seen:
            assert await asked(service, sent, sent) == [200, 200]
    assert seen == [{"request_id": "mine", "trace_id": TRACE, "span_id": SPAN}] * 2


async def test_a_reply_says_where_time_went_only_to_who_asks(folder: Path) -> None:
    async with traced(folder) as (service, _):
        reader, writer = await service.connect()
        for headers in ([], ["X-Request-Timing: true"]):
            for _ in range(2):
                writer.write(request("/predict", TOY, *headers))
                head, _ = await read_reply(reader)
                assert (b"server-timing" in head) == bool(headers)
        writer.close()


@pytest.mark.parametrize(
    ("path", "content", "status", "outcome", "model"),
    [
        ("/predict", b"{", 400, "invalid", None),
        ("/predict", body("toy", [[1]]), 400, "invalid", "toy"),
        ("/predict/tyo", b"{}", 404, "not_found", None),
        ("/predict", body("fussy", [[7.0]]), 500, "failed", "fussy"),
    ],
)
async def test_what_went_wrong_is_said(
    folder: Path, path: str, content: bytes, status: int, outcome: str, model: str | None
) -> None:
    async with traced(folder) as (service, kept):
        assert await asked(service, request(path, content)) == [status]
        (server,) = kept.servers()
        said = server.attributes or {}
        assert said["http.response.status_code"] == status
        assert said.get("torchlit.model.name") == model
        is_ours = status >= 500
        assert server.status.status_code.name == ("ERROR" if is_ours else "UNSET")
        assert said.get("error.type") == (str(status) if is_ours else None)
        assert "encode" not in kept.below(server)
        assert said["torchlit.outcome"] == outcome


@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_who_has_no_key_has_the_outcome_that_is_counted(folder: Path, method: str) -> None:
    async with traced(folder, api_keys="k" * 16) as (service, kept):
        path = "/predict" if method == "POST" else "/models"
        assert await asked(service, request(path, b"", method=method)) == [401]
        (server,) = kept.servers()
        assert (server.attributes or {})["torchlit.outcome"] == "unauthorized"


async def test_who_is_refused_or_waits_too_long(folder: Path) -> None:
    settings = {"max_batch_size": 2, "max_queue_rows": 1, "max_queue_delay_ms": HOURS}
    async with traced(folder, **settings) as (service, kept):
        late = request("/predict", TOY, "X-Request-Timeout-Ms: 300")
        waiting = asyncio.create_task(asked(service, late))
        await until(lambda: queued_rows(service) > 0)
        assert await asked(service, request("/predict", TOY)) == [503]
        assert await waiting == [504]
        refused, expired = kept.servers()
        for server, status, outcome in ((refused, 503, "queue_full"), (expired, 504, "deadline")):
            said = server.attributes or {}
            assert said["torchlit.outcome"] == outcome
            assert said["error.type"] == str(status)
            assert server.status.status_code.name == "ERROR"
            assert [*kept.below(server)] == ["receive"]
    children = kept.below(expired)  # the queue is run when the model closes
    assert [*children] == ["receive", "queue"]
    assert children["queue"].end_time == expired.end_time


@pytest.mark.parametrize("is_direct", [True, False])
async def test_who_leaves_is_shown_as_that(folder: Path, is_direct: bool) -> None:
    settings = {"max_batch_size": 2, "max_queue_delay_ms": HOURS}
    async with traced(folder, **settings) as (service, kept):
        if is_direct:
            await all_asked(service, *[request("/predict", TOY)] * 2)
            kept.clear()
        _, writer = await service.connect()
        other = [] if is_direct else [f"traceparent: {SAMPLED}"]
        writer.write(request("/predict", TOY, *other))
        await until(lambda: queued_rows(service) > 0)
        reset(writer)
        await until(kept.servers)
        (server,) = kept.servers()
        said = server.attributes or {}
        assert (said["torchlit.outcome"], said["error.type"]) == ("cancelled", "cancelled")
        assert "http.response.status_code" not in said
    assert [*kept.below(server)] == ["receive", "queue"]


async def test_a_body_that_never_comes_completely(folder: Path) -> None:
    async with traced(folder) as (service, kept):
        _, writer = await service.connect()
        writer.write(request("/predict", TOY)[:-1])
        await until(lambda: service.by_asgi)
        writer.transport.abort()
        await until(kept.servers)
        (server,) = kept.servers()
        assert (server.attributes or {})["error.type"] == "incomplete"
        assert [*kept.below(server)] == ["receive"]


async def test_more_rows_than_a_batch_run_in_several(folder: Path) -> None:
    async with traced(folder, max_batch_size=2) as (service, kept):
        assert await asked(service, request("/predict", body("toy", [ROW] * 5))) == [200]
        (server,) = kept.servers()
        said = server.attributes or {}
        assert (said["torchlit.rows"], said["torchlit.batches"]) == (5, 3)
        names = [each.name for each in kept.all() if each.parent == server.context]
        assert sorted(names) == ["batch"] * 3 + ["compute"] * 3 + ["encode", "queue", "receive"]


async def test_probes_and_pages_are_not_traced(folder: Path) -> None:
    async with traced(folder) as (service, kept):
        paths = ["/health/live", "/health/ready", "/metrics", "/ping", "/v2/health/live", "/docs"]
        assert await asked(service, *(request(each, b"", method="GET") for each in paths)) == [
            200
        ] * len(paths)
        assert not kept.all()
        read = [
            request("/models/toy", b"", method="HEAD"),
            request("/nowhere", b"", method="DELETE"),
        ]
        for each in read:
            reader, writer = await service.connect()
            writer.write(each)
            await reader.readuntil(b"\r\n\r\n")
            writer.close()
        shown = [(each.name, (each.attributes or {}).get("http.route")) for each in kept.servers()]
        assert shown == [("HEAD /models/{model}", "/models/{model}"), ("DELETE", None)]


async def test_a_request_that_goes_the_other_way_keeps_its_version(tmp_path: Path) -> None:
    """See test_split.py: half of them are refused by version 2, and not half of that half."""
    save_toy(tmp_path, card=toy_card())
    save_fussy(tmp_path)
    (tmp_path / "fussy/1").rename(tmp_path / "toy/2")  # of one number
    async with traced(tmp_path, split=Split("toy=1:1,2:1")) as (service, kept):
        statuses = await asked(service, *[request("/predict/toy", TOY)] * 300)
        assert len(service.by_asgi) < 300
        versions = [(each.attributes or {})["torchlit.model.version"] for each in kept.servers()]
    assert abs(statuses.count(400) - 150) <= 54  # 6.2 standard deviations
    assert versions.count("2") == statuses.count(400)
