"""Heads of requests: offers to leave HTTP are passed over, hosts are checked, on every way in."""

import asyncio
from collections.abc import Iterator

import pytest

from service.errors import InvalidInput, NotSupported
from service.http.heads import _check, _path_and_query
from tests.support.clients import address, predict_request, read_reply
from tests.support.processes import Process, running
from tests.support.toys import body, save_toy, toy_card

CONTENT = body("toy", [[1, 2, 3, 4]])
PLAIN = predict_request(CONTENT)
OFFERS = {
    "h2c": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
    "h2c in a list": b"Connection: Upgrade\r\nUpgrade: h2c, websocket\r\n",
    "TLS": b"Upgrade: TLS/1.2, TLS/1.0\r\nConnection: upgrade\r\n",
    "websocket": b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n",
    "nginx's lines": b"Upgrade: \r\nConnection: upgrade\r\n",
    "twice": b"upgrade: foo/1\r\nUPGRADE: bar\r\nconnection: keep-alive, upgrade\r\n",
    "without Connection": b"Upgrade: websocket\r\n",
    "the last of its connection": b"Upgrade: h2c\r\nConnection: upgrade\r\nX: 1\r\n",
}
CHUNKED = (
    b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n%b"
    b"\r\n%x\r\n%b\r\n0\r\n\r\n"
)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    folder = tmp_path_factory.mktemp("models")
    save_toy(folder, card=toy_card())
    with running(models_dir=folder) as process:
        yield process
        assert process.stop() == 0
    assert "WARNING" not in "".join(process.log)


async def replies(url: str, pieces: list[bytes], count: int) -> list[tuple[bytes, bytes]]:
    """Send pieces, each in a packet of its own; return head and body of so many replies."""
    reader, writer = await asyncio.open_connection(*address(url))
    for piece in pieces:
        writer.write(piece)
        if len(pieces) > 1:
            await asyncio.sleep(0.002)
    found = [await asyncio.wait_for(read_reply(reader), 20) for _ in range(count)]
    writer.close()
    return found


@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
def test_an_offer_to_leave_http_changes_no_answer(service: Process, offer: bytes) -> None:
    """RFC 9110, section 7.8: a server may ignore it. With it or not, in a packet or in many."""
    asked = predict_request(CONTENT, offer)
    in_chunks = CHUNKED % (offer, len(CONTENT), CONTENT)
    get = b"GET /health/live HTTP/1.1\r\nHost: x\r\n%b\r\n" % offer
    ((_, expected),) = asyncio.run(replies(service.url, [PLAIN], 1))
    for sent in (asked, in_chunks):
        end = sent.index(b"\r\n\r\n") + 4
        for pieces in (
            [sent],
            [sent[:end], sent[end:]],
            [sent[: end - 3], sent[end - 3 : end], sent[end:]],
            [sent[n : n + 40] for n in range(0, len(sent), 40)],
            [PLAIN + sent, PLAIN],
            [sent + PLAIN + get + sent],
        ):
            requests = b"".join(pieces).count(b" HTTP/1.1\r\n")
            got = asyncio.run(replies(service.url, pieces, requests))
            assert all(head.startswith(b"HTTP/1.1 200 OK\r\n") for head, _ in got)
            assert {answer for _, answer in got} <= {expected, b'{"status":"live"}'}


def test_an_offer_does_not_lengthen_a_body(service: Process) -> None:
    """What looks like a request in it stays a part of it."""
    inner = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
    asked = predict_request(inner, OFFERS["websocket"])
    (head, _), (second, answer) = asyncio.run(replies(service.url, [asked + PLAIN], 2))
    assert head.startswith(b"HTTP/1.1 400 ")
    assert second.startswith(b"HTTP/1.1 200 ")
    assert b"predictions" in answer


def test_a_head_of_http_1_0_with_an_offer_stays_one(service: Process) -> None:
    asked = predict_request(CONTENT, OFFERS["h2c"]).replace(b"HTTP/1.1", b"HTTP/1.0")
    ((head, _),) = asyncio.run(replies(service.url, [asked], 1))
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close\r\n" in head


def test_trailers_are_no_headers(service: Process) -> None:
    """RFC 9110, section 6.5.1: a proxy in front checks keys and encodings in the head alone."""
    trailers = (
        b"X-Request-Id: theirs\r\nContent-Type: text/csv\r\nContent-Encoding: gzip\r\n"
        b"X-Request-Timeout-Ms: no\r\nInference-Header-Content-Length: 1\r\n\r\n"
    )
    sent = (CHUNKED % (b"", len(CONTENT), CONTENT)).removesuffix(b"\r\n") + trailers
    for pieces in ([sent + PLAIN], [sent[: -len(trailers)], trailers, PLAIN]):
        got = asyncio.run(replies(service.url, pieces, 2))
        assert all(head.startswith(b"HTTP/1.1 200 OK\r\n") for head, _ in got)
        assert all(b"theirs" not in head for head, _ in got)
        assert got[0][1] == got[1][1]


def test_a_trailer_that_ends_the_parsing_ends_the_connection(service: Process) -> None:
    """What comes behind it got no answer until the client gave up."""

    async def ask(url: str) -> tuple[bytes, bytes]:
        reader, writer = await asyncio.open_connection(*address(url))
        sent = (CHUNKED % (b"", len(CONTENT), CONTENT)).removesuffix(b"\r\n")
        writer.write(sent + b"Connection: close\r\n\r\n" + PLAIN)
        head, _ = await read_reply(reader)
        rest = await asyncio.wait_for(reader.read(), 20)
        writer.close()
        return head, rest

    head, rest = asyncio.run(ask(service.url))
    assert b"connection: close\r\n" in head
    assert rest == b""


def test_http_1_0_is_not_told_to_go_on(service: Process) -> None:
    """RFC 9110, section 10.1.1."""
    asked = predict_request(CONTENT, b"Expect: 100-continue\r\n").replace(b"P/1.1", b"P/1.0")
    ((head, _),) = asyncio.run(replies(service.url, [asked], 1))
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize(
    "host",
    [b"x", b"", b"a.example:8000", b"[::1]:80", b"a_b", b"127.0.0.1", b"a%20b", b"a:"],
)
def test_a_host_is_a_name_or_an_address(host: bytes) -> None:
    _check([(b"host", host)], "1.1")


@pytest.mark.parametrize("host", [b"a b", b"a/b", b"a@b", b"a:b", b"[::1", b"\xe4", b"a\\b"])
def test_another_host_is_refused(host: bytes) -> None:
    with pytest.raises(InvalidInput, match="Host: expected a name or an address, and a port, got"):
        _check([(b"host", host)], "1.1")


def test_http_1_1_needs_one_host_and_1_0_has_one_at_most() -> None:
    _check([], "1.0")
    for headers, version in (([], "1.1"), ([(b"host", b"x")] * 2, "1.1")):
        with pytest.raises(InvalidInput, match="Host: expected one such header, got"):
            _check(headers, version)
    with pytest.raises(InvalidInput):
        _check([(b"host", b"x")] * 2, "1.0")


@pytest.mark.parametrize(
    "lines", [[b"gzip, chunked"], [b"gzip", b"chunked"], [b"deflate", b"gzip , Chunked"]]
)
def test_codings_beside_chunked_are_not_served(lines: list[bytes]) -> None:
    headers = [(b"host", b"x"), *((b"transfer-encoding", each) for each in lines)]
    with pytest.raises(NotSupported, match="Transfer-Encoding: expected chunked alone, got"):
        _check(headers, "1.1")


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (b"/predict?a=http://b", b"/predict?a=http://b"),
        (b"//predict", b"//predict"),
        (b"http://x", b"/"),
        (b"http://x:8000?version=1", b"/?version=1"),
        (b"http://x/predict?version=1", b"/predict?version=1"),
        (b"HTTP://x/", b"/"),
        (b"*", b"*"),
    ],
)
def test_a_target_may_name_the_host(target: bytes, expected: bytes) -> None:
    assert _path_and_query(target) == expected
