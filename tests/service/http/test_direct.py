"""The direct way means what the ordinary way means: each request is sent both ways."""

import asyncio
import contextlib
import gc
import gzip
import json
import re
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from service.http.direct import LONGEST_HEAD, MOST_HEADS
from service.metrics.exposition import render
from service.settings import Settings
from tests.support import drawings
from tests.support.clients import counted, read_reply, reset
from tests.support.sockets import Listening, listening
from tests.support.toys import body, save_fussy, save_mean, save_same, save_sum, save_toy, toy_card

pytestmark = pytest.mark.anyio

FOUR = [1.0, 2.0, 3.0, 4.0]
NAMED = {"a": 1, "b": 2, "c": 3, "d": 4}
KEY = "a-key-that-is-long-enough"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models")
    save_toy(path, card=toy_card())
    save_toy(path, 2, card=toy_card())
    save_mean(path)
    save_sum(path)
    save_fussy(path)
    save_same(path, ["batch", 500])
    return path


def request(path: str, content: bytes, *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: x", *headers, f"Content-Length: {len(content)}"]
    return "\r\n".join([*lines, "", ""]).encode() + content


def tensors(**more: Any) -> bytes:
    tensor = {"name": "input", "shape": [1, 4], "datatype": "FP32", "data": FOUR}
    return json.dumps({"inputs": [tensor], **more}).encode()


def binary(rows: int = 1, **more: Any) -> tuple[bytes, str]:
    data = np.arange(rows * 4, dtype="<f4").tobytes()
    sent = {"name": "input", "shape": [rows, 4], "datatype": "FP32"}
    head = json.dumps(
        {"inputs": [sent | {"parameters": {"binary_data_size": len(data)}}], **more}
    ).encode()
    return head + data, f"Inference-Header-Content-Length: {len(head)}"


BINARY, LENGTH = binary(parameters={"binary_data_output": True})
PNG = drawings.png(np.arange(6).reshape(2, 3))
TWO = json.dumps([FOUR, FOUR]).encode()

DIRECT = {
    "a row": request("/predict", body("toy", [FOUR])),
    "the default model": request("/predict", body("toy", [FOUR]), "Content-Type: application/json"),
    "named features": request("/predict", body("toy", [NAMED, FOUR])),
    "a model in the path": request("/predict/toy", b'{"instances": %b}' % TWO),
    "a version in the body": request("/predict/toy", body("toy", [FOUR], version=1)),
    "a version in the query": request("/predict/toy?version=1", b'{"instances": %b}' % TWO),
    "other slashes": request("//predict//toy/", b'{"instances": %b}' % TWO),
    "an image of numbers": request("/predict/mean", b'{"instances": [[[0,1,2],[3,4,5]]]}'),
    "a small image": request("/predict/mean", PNG, "Content-Type: image/png"),
    "CSV": request("/predict/toy", b"1,2,3,4\n5,6,7,8\n", "Content-Type: text/csv"),
    "JSON Lines": request("/predict/toy", b"[1,2,3,4]\n", "Content-Type: application/jsonlines"),
    "MessagePack": request(
        "/predict",
        msgspec.msgpack.encode({"model": "toy", "instances": [FOUR]}),
        "Content-Type: application/msgpack",
    ),
    "SageMaker": request("/invocations", body("toy", [FOUR]), "Content-Type: application/json"),
    "SageMaker, as CSV": request(
        "/invocations", body("toy", [FOUR]), "Content-Type: application/json", "Accept: text/csv"
    ),
    "Vertex AI": request(
        "/vertex", b'{"instances": %b, "parameters": {"model": "toy", "version": 1.0}}' % TWO
    ),
    "tensors": request("/v2/models/toy/infer", tensors()),
    "tensors with an id": request("/v2/models/toy/versions/1/infer", tensors(id="mine")),
    "binary tensors": request("/v2/models/toy/infer", BINARY, LENGTH),
    "binary tensors from JSON": request(
        "/v2/models/toy/infer", tensors(parameters={"binary_data_output": True})
    ),
    "classification": request(
        "/v2/models/toy/infer",
        tensors(outputs=[{"name": "probabilities", "parameters": {"classification": 2}}]),
    ),
    "an id": request("/predict", body("toy", [FOUR]), "X-Request-Id: mine"),
    "an id that is none": request("/predict", body("toy", [FOUR]), "X-Request-Id: not mine"),
    "a trace": request("/predict", body("toy", [FOUR]), "traceparent: 00-" + "a" * 32),
    "a deadline": request("/predict", body("toy", [FOUR]), "X-Request-Timeout-Ms: 10000"),
    "compressed replies": request("/predict", body("toy", [FOUR] * 9), "Accept-Encoding: gzip"),
    "a small reply of tensors": request(
        "/v2/models/toy/infer", tensors(), "Accept-Encoding: gzip, deflate"
    ),
    "keep-alive": request("/predict", body("toy", [FOUR]), "Connection: Keep-Alive"),
    "a full batch": request("/predict", body("toy", [FOUR] * 64)),
}
ORDINARY = {
    "more than a batch": request("/predict", body("toy", [FOUR] * 65)),
    "no such model": request("/predict", body("tyo", [FOUR])),
    "no JSON": request("/predict", b"{"),
    "a row that is too short": request("/predict", body("toy", [[1, 2]])),
    "too many rows": request("/predict", body("toy", [FOUR] * 101)),
    "no images": request("/predict/toy", PNG, "Content-Type: image/png"),
    "another media type": request("/invocations", b"x", "Content-Type: text/html"),
    "wrong deadline": request("/predict", body("toy", [FOUR]), "X-Request-Timeout-Ms: soon"),
    "wrong query": request("/predict?version=one", body("toy", [FOUR])),
    "no tensor": request("/v2/models/toy/infer", b"{}"),
    "compressed": request("/predict", gzip.compress(body("toy", [FOUR])), "Content-Encoding: gzip"),
    "what has to wait": request("/predict/toy", b'{"instances": [%b[1,"2",3,4]]}' % (b" " * 9000)),
    "pixels": request("/prepare/mean", PNG, "Content-Type: image/png"),
    "another method": request("/predict", b"{}").replace(b"POST", b"PUT"),
    "twice the same header": request("/predict", body("toy", [FOUR]), "Via: a", "Via: b"),
    "the last of a connection": request("/predict", body("toy", [FOUR]), "Connection: close"),
    "an old version": request("/predict", body("toy", [FOUR])).replace(b"1.1", b"1.0", 1),
}


@asynccontextmanager
async def toy(folder: Path, **settings: Any) -> AsyncIterator[Listening]:
    known = {"max_request_rows": 100, "predict_route": "/vertex", "watch": False}
    async with listening(Settings(models_dir=folder, **known | settings)) as service:
        yield service


def plain(head: bytes) -> bytes:
    """Return the head of a reply without what differs from one reply to the next."""
    head = re.sub(rb"x-request-id: [0-9a-f]{12}-[0-9a-f]+", b"x-request-id: made", head)
    return re.sub(rb"dur=[0-9.]+", b"dur=", b"\r\n".join(sorted(head.split(b"\r\n"))))


def same(reply: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
    head, content = reply
    made = re.sub(rb'"id":"[0-9a-f]{12}-[0-9a-f]+"', b'"id":"made"', content)
    return plain(head), made


async def both_ways(service: Listening, sent: bytes) -> tuple[list[tuple[bytes, bytes]], list[int]]:
    """Send a request thrice on a connection; return the replies, and how many went by ASGI."""
    reader, writer = await service.connect()
    replies, ordinary = [], []
    for _ in range(3):
        before = len(service.by_asgi)
        writer.write(sent)
        replies.append(await read_reply(reader))
        ordinary.append(len(service.by_asgi) - before)
        if b"connection: close" in replies[-1][0]:
            writer.close()
            reader, writer = await service.connect()
    writer.close()
    return replies, ordinary


def shown(service: Listening) -> str:
    return render(service.app.services.metrics).decode()


def outcomes(service: Listening) -> dict[str, float]:
    text = shown(service)
    found = re.findall(r"^(torchlit_(?:unmatched_)?requests_total\{.*\}) (\S+)$", text, re.M)
    return {series: float(value) for series, value in found if float(value)}


async def compare(service: Listening, name: str, sent: bytes, *, is_direct: bool) -> bytes:
    """Check that both ways say and count the same; return the head of the reply."""
    before = outcomes(service)
    replies, ordinary = await both_ways(service, sent)
    assert (name, ordinary) == (name, [1, 0, 0] if is_direct else [1, 1, 1])
    first, *others = map(same, replies)
    assert (name, others) == (name, [first, first])
    after = outcomes(service)
    grown = {series: after[series] - before.get(series, 0) for series in after}
    assert [each for each in grown.values() if each] == [3]
    return first[0]


@pytest.mark.parametrize("is_alone", [True, False])
async def test_what_fits_is_answered_directly_and_no_different(
    folder: Path, is_alone: bool
) -> None:
    async with toy(folder) as service, contextlib.AsyncExitStack() as others:
        if not is_alone:
            _, writer = await service.connect()
            others.callback(writer.close)
        for name, sent in DIRECT.items():
            head = await compare(service, name, sent, is_direct=True)
            assert b"HTTP/1.1 200" in head, name


async def test_what_does_not_fit_goes_the_ordinary_way(folder: Path) -> None:
    async with toy(folder) as service:
        for name, sent in ORDINARY.items():
            await compare(service, name, sent, is_direct=False)


ROW = request("/predict", body("toy", [FOUR]))
MANY, MANY_LENGTH = binary(64, parameters={"binary_data_output": True})
MINUTE = {"max_queue_delay_ms": 60_000, "max_batch_size": 2}


async def learned(service: Listening, sent: bytes) -> tuple[Any, Any]:
    """Return a connection to a service that knows the head of what is sent."""
    reader, writer = await service.connect()
    writer.write(sent.replace(b'"instances"', b'"instance":'))  # of the same length, and refused
    head, _ = await read_reply(reader)
    assert head.startswith(b"HTTP/1.1 400 ")
    service.by_asgi.clear()
    return reader, writer


async def until_queued(service: Listening, rows: int) -> None:
    while counted(shown(service), "torchlit_queue_rows") != rows:
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("settings", "headers"),
    [
        ({"api_keys": KEY}, [f"X-API-Key: {KEY}"]),
        ({"cors_origins": "https://here.example"}, ["Origin: https://here.example"]),
        ({"cors_origins": "https://here.example"}, ["Origin: https://there.example"]),
        ({"cors_origins": "*", "api_keys": KEY}, ["Origin: null", f"Authorization: Bearer {KEY}"]),
        ({}, ["X-Request-Timing: true"]),
        ({"access_log": True}, []),
    ],
)
async def test_headers_and_settings_mean_the_same(
    folder: Path, settings: dict[str, Any], headers: list[str]
) -> None:
    async with toy(folder, **settings) as service:
        sent = request("/predict", body("toy", [FOUR]), *headers)
        assert b"HTTP/1.1 200" in await compare(service, "", sent, is_direct=True)


async def test_without_a_key_nothing_is_answered(folder: Path) -> None:
    async with toy(folder, api_keys=KEY) as service:
        assert b"HTTP/1.1 401" in await compare(service, "", ROW, is_direct=False)


async def test_the_access_log_has_each_request_once_with_its_id(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "torchlit.access")
    async with toy(folder, access_log=True) as service:
        await both_ways(service, request("/predict", body("toy", [FOUR]), "X-Request-Id: mine"))
    assert [each.getMessage()[:17] for each in caplog.records] == ["POST /predict 200"] * 3


@pytest.mark.parametrize("accept", ["gzip", "deflate", "br"])
async def test_a_large_reply_is_compressed_and_comes_in_its_turn(folder: Path, accept: str) -> None:
    headers = ["X-Request-Id: mine", f"Accept-Encoding: {accept}"]
    sent = request("/v2/models/mean/infer", *images(3000), *headers)
    async with toy(folder, max_request_rows=3000, max_batch_size=3000) as service:
        head = await compare(service, accept, sent, is_direct=True)
        assert (b"content-encoding: " + accept.encode() in head) is (accept != "br")
        assert b"vary: accept-encoding" in head
        reader, writer = await learned(service, ROW)
        writer.write(sent)
        await writer.drain()
        writer.write(ROW)
        first, _ = await read_reply(reader)
        second, content = await read_reply(reader)
        assert b"vary" in first
        assert json.loads(content)["predictions"]
        assert b"vary" not in second
        writer.close()


def images(rows: int) -> tuple[bytes, str]:
    data = np.arange(rows * 6, dtype="<f4").tobytes()
    tensor = {"name": "input", "shape": [rows, 6], "datatype": "FP32"}
    tensor["parameters"] = {"binary_data_size": len(data)}
    head = json.dumps({"inputs": [tensor]}).encode()
    return head + data, f"Inference-Header-Content-Length: {len(head)}"


async def test_requests_that_come_at_once_are_answered_in_their_order(folder: Path) -> None:
    numbers = range(20)
    bodies = [body("toy", [[n + 0.25, 2, 3, 4]], version=1 + n % 2) for n in range(10, 30)]
    sent = [request("/predict", each) for each in bodies]
    assert len({len(each) for each in sent}) == 1
    async with toy(folder) as service:
        reader, writer = await learned(service, sent[0])
        for together in (b"".join(sent), None):
            for each in [together] if together else sent:
                writer.write(each)
            replies = [await read_reply(reader) for _ in numbers]
            versions = [json.loads(content)["version"] for _, content in replies]
            assert versions == [1 + n % 2 for n in numbers]
        writer.close()


@pytest.mark.parametrize("cut", [1, 40, 100, -20, -1])
async def test_a_request_in_two_pieces_is_answered(folder: Path, cut: int) -> None:
    async with toy(folder) as service:
        reader, writer = await learned(service, ROW)
        for _ in range(2):
            writer.write(ROW[:cut])
            await writer.drain()
            for _ in range(5):
                await asyncio.sleep(0)
            writer.write(ROW[cut:])
            head, _ = await read_reply(reader)
            assert head.startswith(b"HTTP/1.1 200 ")
        writer.close()


async def test_a_caller_who_leaves_takes_its_row_with_it(folder: Path) -> None:
    async with toy(folder, **MINUTE) as service:
        left = await learned(service, ROW)
        mate = await learned(service, ROW)
        left[1].write(ROW)
        await until_queued(service, 1)
        reset(left[1])
        cancelled = 'torchlit_requests_total{model="toy",outcome="cancelled",version="2"} 1'
        while cancelled not in shown(service):
            await asyncio.sleep(0)
        await until_queued(service, 1)  # it stays until there is a batch
        mate[1].write(ROW)
        assert (await read_reply(mate[0]))[0].startswith(b"HTTP/1.1 200 ")
        assert service.by_asgi == []
        assert not service.state.tasks
        mate[1].close()


async def test_a_deadline_passes_in_the_queue(folder: Path) -> None:
    sent = request("/predict", body("toy", [FOUR]), "X-Request-Timeout-Ms: 30")
    async with toy(folder, **MINUTE) as service:
        reader, writer = await learned(service, sent)
        writer.write(sent)
        head, content = await read_reply(reader)
        assert head.startswith(b"HTTP/1.1 504 ")
        assert b"the deadline passed after " in content
        assert service.by_asgi == []
        writer.close()
        assert (
            outcomes(service)['torchlit_requests_total{model="toy",outcome="deadline",version="2"}']
            == 1
        )


async def test_a_full_queue_refuses(folder: Path) -> None:
    async with toy(folder, max_queue_rows=1, **MINUTE) as service:
        (_, first), (reader, second) = await learned(service, ROW), await learned(service, ROW)
        first.write(ROW)
        await until_queued(service, 1)
        second.write(ROW)
        head, _ = await read_reply(reader)
        assert head.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 1" in head
        assert service.by_asgi == []
        first.close()
        second.close()


async def test_who_left_leaves_room_in_the_queue(folder: Path) -> None:
    async with toy(folder, max_queue_rows=1, **MINUTE) as service:
        (_, first), (_, second) = await learned(service, ROW), await learned(service, ROW)
        first.write(ROW)
        await until_queued(service, 1)
        reset(first)
        cancelled = '{model="toy",outcome="cancelled",version="2"} 1'
        while cancelled not in shown(service):
            await asyncio.sleep(0)
        second.write(ROW)
        while len(service.state.tasks) != 1:
            await asyncio.sleep(0)
        await until_queued(service, 1)
        assert service.by_asgi == []
        second.close()


async def test_what_comes_while_a_request_waits_is_answered_behind_it(folder: Path) -> None:
    async with toy(folder, **MINUTE) as service:
        reader, writer = await learned(service, ROW)
        other_reader, other = await learned(service, ROW)
        writer.write(ROW)
        await until_queued(service, 1)
        writer.write(ROW)
        other.write(ROW)
        for each in (reader, other_reader):
            assert (await read_reply(each))[0].startswith(b"HTTP/1.1 200 ")
        await until_queued(service, 1)  # the one behind
        other.write(ROW)
        for each in (reader, other_reader):
            assert (await read_reply(each))[0].startswith(b"HTTP/1.1 200 ")
        assert service.by_asgi == []
        writer.close()
        other.close()


async def test_beyond_the_limit_of_connections_nothing_is_direct(folder: Path) -> None:
    async with toy(folder, max_connections=1) as service:
        _, first = await learned(service, ROW)
        reader, second = await service.connect()
        second.write(ROW)
        head, _ = await read_reply(reader)
        assert head.startswith(b"HTTP/1.1 503 ")
        first.close()
        second.close()


async def test_a_body_above_the_limit_is_never_read(folder: Path) -> None:
    sent = request("/predict", body("toy", [FOUR]) + b" " * 100)
    async with toy(folder, max_body_bytes=len(sent) - 150) as service:
        assert b"HTTP/1.1 413" in await compare(service, "", sent, is_direct=False)


async def test_an_answer_that_is_none_is_an_error_and_is_logged(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sent = request("/predict", body("fussy", [[7.0]]))
    async with toy(folder) as service:
        assert b"HTTP/1.1 500" in await compare(service, "", sent, is_direct=True)


async def test_while_it_drains_a_reply_is_the_last(folder: Path) -> None:
    async with toy(folder) as service:
        reader, writer = await learned(service, ROW)
        service.host.is_draining = True
        writer.write(ROW)
        head, _ = await read_reply(reader)
        assert b"connection: close" in head
        assert await asyncio.wait_for(reader.read(), 5) == b""
        assert service.by_asgi == []
        writer.close()


async def test_a_connection_that_is_told_to_stop_answers_first(folder: Path) -> None:
    async with toy(folder, **MINUTE) as service:
        reader, writer = await learned(service, ROW)
        writer.write(ROW)
        await until_queued(service, 1)
        for each in list(service.state.connections):
            each.shutdown()
        writer.write(ROW)  # it comes too late
        mate_reader, mate = await service.connect()
        mate.write(ROW)
        assert (await read_reply(reader))[0].startswith(b"HTTP/1.1 200 ")
        assert await asyncio.wait_for(reader.read(), 5) == b""
        assert (await read_reply(mate_reader))[0].startswith(b"HTTP/1.1 200 ")
        writer.close()
        mate.close()


async def test_a_second_interrupt_cancels_what_is_answered_directly(folder: Path) -> None:
    async with toy(folder, **MINUTE) as service:
        _, writer = await learned(service, ROW)
        writer.write(ROW)
        await until_queued(service, 1)
        (task,) = service.state.tasks
        task.cancel()
        await service.app.services.catalog.get("toy").close()  # nobody holds it
        writer.close()


async def test_heads_are_kept_up_to_a_number_and_a_length(folder: Path) -> None:
    async with toy(folder) as service:
        reader, writer = await service.connect()
        for number in range(MOST_HEADS + 10):
            writer.write(request("/predict", b"{}", f"X-Number: {number}"))
            await read_reply(reader)
        assert 0 < len(service.direct.heads) <= MOST_HEADS
        service.direct.heads.clear()
        writer.write(request("/predict", b"{}", "X-Long: " + "x" * LONGEST_HEAD))
        await read_reply(reader)
        assert not service.direct.heads
        writer.close()


async def test_nothing_is_left_of_a_caller_who_left_while_its_row_waited(folder: Path) -> None:
    """The garbage collector comes rarely, and the rows may be many."""
    async with toy(folder, **MINUTE) as service:
        _, writer = await learned(service, ROW)
        writer.write(ROW)
        await until_queued(service, 1)
        (answer,) = service.state.tasks
        (connection,) = service.state.connections
        gone = [weakref.ref(answer), weakref.ref(connection)]
        del answer, connection
        gc.disable()
        try:
            reset(writer)
            while service.state.connections:
                await asyncio.sleep(0)
            await service.app.services.catalog.get("toy").batcher.close()  # it drops the row
            for _ in range(5):
                await asyncio.sleep(0)
            assert [each() for each in gone] == [None, None]
        finally:
            gc.enable()


@pytest.mark.parametrize("before", [b"\r\n", b"\r\n\r\n", b"\r\n\r\n\r\n"])
async def test_empty_lines_before_a_request_are_no_head(folder: Path, before: bytes) -> None:
    sent = request("/predict", body("toy", [FOUR]), f"X-API-Key: {KEY}")
    async with toy(folder, api_keys=KEY) as service:
        reader, writer = await service.connect()
        writer.write(before + sent)
        assert (await read_reply(reader))[0].startswith(b"HTTP/1.1 200 ")
        assert service.direct.heads == {}
        writer.close()
        reader, writer = await service.connect()
        writer.write(before + sent.partition(b"\r\n\r\n")[2])
        assert (await read_reply(reader))[0].startswith(b"HTTP/1.1 400 ")
        writer.close()
