import asyncio
import gzip
import json
import math
import re
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from service.entrance.memory import Memory
from service.errors import InvalidInput, TooLarge
from service.http.request import ClientLeft, Request, note_wishes
from service.inference import Call
from tests.support.clients import address, counted, read_reply
from tests.support.clients import ask as ask_predict
from tests.support.processes import Process, running
from tests.support.toys import body as predict_body
from tests.support.toys import save_fussy, save_toy, toy_answer, toy_card

TOY = "/v2/models/toy/infer"
ROW = np.array([1, 2, 3, 4], "<f4").tobytes()
EXPECTED = toy_answer(np.array([[1, 2, 3, 4]]))[0]
INPUT = {"name": "input", "datatype": "FP32", "shape": [1, 4]}
JSON_BODY = json.dumps({"inputs": [{**INPUT, "data": [1, 2, 3, 4]}]}).encode()
HEAD = json.dumps({"inputs": [{**INPUT, "parameters": {"binary_data_size": 16}}]}).encode()
BINARY_BODY = HEAD + ROW


class Caller:
    """The server's side of one request: what it says."""

    def __init__(self, *messages: dict[str, Any], **headers: str) -> None:
        self.waiting = list(messages)
        lines = [
            (name.replace("_", "-").encode(), line.encode("latin-1"))
            for name, value in headers.items()
            for line in value.split("\n")
        ]
        scope: Any = {"type": "http", "path": "/somewhere", "method": "POST", "headers": lines}
        self.request = Request(
            scope=scope,
            headers=dict(lines),
            receive=self._receive,
            id=b"7",
            values={},
            call=Call(100.0, math.inf, lambda: False),
            memory=Memory(10**9),
        )

    def noted(self) -> Call:
        """Return the call, with what the caller wants."""
        call = self.request.call
        note_wishes(call, self.request.headers, 10)
        return call

    async def _receive(self) -> Any:
        return self.waiting.pop(0)


def fragment(content: bytes, *, more: bool) -> dict[str, Any]:
    return {"type": "http.request", "body": content, "more_body": more}


LEFT = {"type": "http.disconnect"}


@pytest.mark.anyio
async def test_a_body_in_fragments_is_put_together() -> None:
    for fragments in ([b"abcdef"], [b"abc", b"def"], [b"", b"abc", b"", b"def", b""]):
        messages = [fragment(each, more=True) for each in fragments]
        messages[-1]["more_body"] = False
        caller = Caller(*messages)
        assert await caller.request.body(6) == b"abcdef"
        assert caller.request.has_body


@pytest.mark.anyio
async def test_a_body_over_the_limit_is_refused_as_soon_as_it_is_known() -> None:
    announced = Caller(fragment(b"abcdefg", more=False), content_length="7")
    with pytest.raises(TooLarge, match=r"^body: expected at most 6 bytes, got 7$"):
        await announced.request.body(6)
    assert len(announced.waiting) == 1  # not even read
    complete = Caller(fragment(b"abcdefg", more=False))
    with pytest.raises(TooLarge, match=r"^body: expected at most 6 bytes, got 7 or more$"):
        await complete.request.body(6)
    in_fragments = Caller(*[fragment(b"abc", more=True)] * 10)
    with pytest.raises(TooLarge, match=r"^body: expected at most 6 bytes, got 9 or more$"):
        await in_fragments.request.body(6)
    assert len(in_fragments.waiting) == 7
    assert not in_fragments.request.has_body


@pytest.mark.anyio
async def test_a_caller_who_leaves_before_its_body_is_complete_has_left() -> None:
    for messages in ([LEFT], [fragment(b"abc", more=True), LEFT]):
        caller = Caller(*messages)
        with pytest.raises(ClientLeft):
            await caller.request.body(6)
        assert not caller.request.has_body


@pytest.mark.anyio
async def test_a_compressed_body_comes_decompressed_within_the_limit() -> None:
    compressed = gzip.compress(b"a" * 100)
    caller = Caller(fragment(compressed, more=False), content_encoding="gzip")
    assert await caller.request.body(100) == b"a" * 100
    caller = Caller(fragment(compressed, more=False), content_encoding="gzip")
    with pytest.raises(TooLarge, match=r"^body: expected at most 99 bytes decompressed, got more$"):
        await caller.request.body(99)


@pytest.mark.anyio
async def test_encodings_may_stand_in_several_lines() -> None:
    body = gzip.compress(gzip.compress(b"a"))
    caller = Caller(fragment(body, more=False), content_encoding="gzip\n\ngzip")
    assert await caller.request.body(100) == b"a"


@pytest.mark.anyio
@pytest.mark.parametrize("encoding", ["", "identity"])
async def test_a_body_that_is_not_compressed_is_held_once(encoding: str) -> None:
    caller = Caller(fragment(b"a" * 100, more=False), content_encoding=encoding)
    assert await caller.request.body(100) == b"a" * 100
    assert caller.request.memory.held == 0  # beside what the connection holds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [(None, 10), ("1", 0.001), ("2500", 2.5), ("10000", 10), ("10001", 10), ("999999999", 10)],
)
def test_a_caller_may_shorten_its_time(text: str | None, seconds: float) -> None:
    caller = Caller(**({} if text is None else {"x_request_timeout_ms": text}))
    assert caller.noted().deadline == 100 + seconds


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "1.5", "soon", "1e3", "9999999999", "\u00b2", " 1"]
)
def test_a_time_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        Caller(x_request_timeout_ms=text).noted()
    assert str(raised.value) == (
        f'X-Request-Timeout-Ms: expected whole milliseconds from 1, got "{text}"'
    )


@pytest.mark.parametrize(("text", "is_noted"), [("true", True), ("false", False), ("", False)])
def test_where_the_time_goes_is_noted_for_those_who_want_it(text: str, is_noted: bool) -> None:
    assert (Caller(x_request_timing=text).noted().timing is not None) is is_noted
    assert Caller().noted().timing is None


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    folder = tmp_path_factory.mktemp("models")
    save_toy(folder, card=toy_card())
    save_fussy(folder)
    with running(models_dir=folder, max_body_bytes=100_000) as process:
        yield process


def on_wire(headers: bytes, content: bytes, path: bytes = TOY.encode()) -> bytes:
    """Return a POST as it goes over the wire; each header ends with CR LF."""
    return b"POST " + path + b" HTTP/1.1\r\nHost: x\r\n" + headers + b"\r\n" + content


def chunked(content: bytes, size: int) -> bytes:
    cuts = range(0, len(content), size)
    parts = [content[place : place + size] for place in cuts]
    return b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in parts) + b"0\r\n\r\n"


def check(head: bytes, reply: bytes) -> None:
    """Check that a reply is the toy's to ROW."""
    assert head.startswith(b"HTTP/1.1 200 "), head + reply
    (output,) = json.loads(reply)["outputs"]
    assert output["data"] == pytest.approx(EXPECTED, abs=1e-6)


async def talk(service: Process, *writes: bytes, replies: int = 1) -> list[tuple[bytes, bytes]]:
    """Write on one connection, each by itself, and read this many replies."""
    reader, writer = await asyncio.open_connection(*address(service.url))
    for each in writes:
        writer.write(each)
        await writer.drain()
        await asyncio.sleep(0)
    answers = [await read_reply(reader) for _ in range(replies)]
    writer.close()
    return answers


LENGTHS = b"Inference-Header-Content-Length: %d\r\n" % len(HEAD)


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize(
    ("headers", "content"), [(b"", JSON_BODY), (LENGTHS, BINARY_BODY)], ids=["json", "binary"]
)
def test_a_body_may_come_in_chunks(
    service: Process, headers: bytes, content: bytes, size: int
) -> None:
    wire = on_wire(headers + b"Transfer-Encoding: chunked\r\n", chunked(content, size))
    for writes in ([wire], [wire[:200], wire[200:]]):
        (answered,) = asyncio.run(talk(service, *writes))
        check(*answered)


@pytest.mark.parametrize("path", [TOY.encode(), b"/predict"])
def test_who_waits_for_a_sign_gets_it(service: Process, path: bytes) -> None:
    content = JSON_BODY if path != b"/predict" else predict_body("toy", [[1, 2, 3, 4]])

    async def wait_and_send() -> tuple[bytes, bytes]:
        reader, writer = await asyncio.open_connection(*address(service.url))
        headers = b"Expect: 100-continue\r\nContent-Length: %d\r\n" % len(content)
        writer.write(on_wire(headers, b"", path))
        sign = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        assert sign.startswith(b"HTTP/1.1 100 Continue\r\n")
        writer.write(content)
        answered = await read_reply(reader)
        writer.close()
        return answered

    head, reply = asyncio.run(wait_and_send())
    assert head.startswith(b"HTTP/1.1 200 ")
    if path != b"/predict":
        check(head, reply)


@pytest.mark.parametrize("change", [bytes.lower, bytes.upper, bytes.title, bytes.swapcase])
def test_headers_have_no_case(service: Process, change: Any) -> None:
    packed = gzip.compress(BINARY_BODY)
    names = (b"Inference-Header-Content-Length", b"Content-Encoding", b"Content-Length")
    values = (b"%d" % len(HEAD), b"gzip", b"%d" % len(packed))
    headers = b"".join(
        b"%b: %b\r\n" % (change(name), value) for name, value in zip(names, values, strict=True)
    )
    (answered,) = asyncio.run(talk(service, on_wire(headers, packed)))
    check(*answered)


def test_a_connection_goes_on_after_what_was_refused(service: Process) -> None:
    length = b"Content-Length: %d\r\n"
    good = on_wire(length % len(JSON_BODY), JSON_BODY)
    broken = on_wire(length % len(JSON_BODY), JSON_BODY.replace(b"FP32", b"FP33"))
    cut = on_wire(length % 3, JSON_BODY[:3])
    unknown = on_wire(length % 2, b"{}", b"/v2/models/tyo/infer")
    packed = on_wire(b"Content-Encoding: gzip\r\n" + length % 4, b"nope")
    writes = [good, broken, good, cut, good, unknown, good, packed, good]
    answers = asyncio.run(talk(service, *writes, replies=len(writes)))
    assert [int(head[9:12]) for head, _ in answers] == [200, 400, 200, 400, 200, 404, 200, 400, 200]
    for answered in answers[::2]:
        check(*answered)
    together = asyncio.run(talk(service, b"".join(writes), replies=len(writes)))
    assert [int(head[9:12]) for head, _ in together] == [int(head[9:12]) for head, _ in answers]


@pytest.mark.parametrize("path", ["/", "/health/ready", "/models"])
def test_head_is_get_without_a_body(service: Process, path: str) -> None:
    asked = {"accept-encoding": "identity"}
    get, head = (
        httpx.request(method, service.url + path, headers=asked) for method in ("GET", "HEAD")
    )
    assert (head.status_code, head.content) == (200, b"")
    assert int(head.headers["content-length"]) == len(get.content) > 0
    assert head.headers["content-type"] == get.headers["content-type"]


def test_who_leaves_in_the_middle_of_a_body_harms_nobody(service: Process) -> None:
    name, outcome = "torchlit_unmatched_requests_total", 'outcome="cancelled"'
    with httpx.Client(base_url=service.url) as client:
        before = counted(client.get("/metrics").text, name, outcome)
        with socket.create_connection(address(service.url)) as connection:
            connection.sendall(on_wire(b"Content-Length: 1000\r\n", JSON_BODY[:30]))
        while counted(client.get("/metrics").text, name, outcome) == before:
            pass
        check(b"HTTP/1.1 200 ", client.post(TOY, content=JSON_BODY).content)


def test_a_caller_who_is_alone_is_told_of_infinity_too(service: Process) -> None:
    with httpx.Client(base_url=service.url) as client:
        for number, status in ((7, 500), (8, 200), (7, 500), (9, 200)):
            content = {
                "inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 1], "data": [number]}]
            }
            reply = client.post("/v2/models/fussy/infer", json=content)
            assert reply.status_code == status
            content["parameters"] = {"binary_data_output": True}  # type: ignore[assignment]
            reply = client.post("/v2/models/fussy/infer", json=content)
            place = int(reply.headers["inference-header-content-length"])
            with np.errstate(divide="ignore"):
                expected = np.float32(1) / np.float32(number - 7)
            assert np.frombuffer(reply.content[place:], "<f4") == [expected]


def test_predict_and_infer_share_a_connection(service: Process) -> None:
    async def both() -> None:
        reader, writer = await asyncio.open_connection(*address(service.url))
        for _ in range(3):
            head, _ = await ask_predict(reader, writer, predict_body("toy", [[1, 2, 3, 4]]))
            assert head.startswith(b"HTTP/1.1 200 ")
            writer.write(on_wire(b"Content-Length: %d\r\n" % len(JSON_BODY), JSON_BODY))
            check(*await read_reply(reader))
        writer.close()

    asyncio.run(both())


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["/predict/toy", "/v2/models/toy/infer"])
async def test_who_asks_is_told_where_the_time_went(client: httpx.AsyncClient, path: str) -> None:
    sent = {"name": "input", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}
    body = {"instances": [[1, 2, 3, 4]]} if "predict" in path else {"inputs": [sent]}
    asked = await client.post(path, json=body, headers={"X-Request-Timing": "true"})
    told = re.fullmatch(
        r"queue;dur=(\d+\.\d{3}), compute;dur=(\d+\.\d{3})", asked.headers["server-timing"]
    )
    assert told is not None
    metrics = (await client.get("/metrics")).text
    counted = re.search(r'torchlit_compute_seconds_sum\{model="toy",version="1"\} (\S+)', metrics)
    assert counted is not None
    assert float(told[2]) == pytest.approx(float(counted[1]) * 1000, abs=0.001)
    for headers in ({}, {"X-Request-Timing": "false"}):
        assert "server-timing" not in (await client.post(path, json=body, headers=headers)).headers
