"""A reply as a value."""

import gzip
import json
import zlib

import msgspec
import pytest

from service.batching import Timing
from service.errors import InvalidInput, QueueFull, UnsupportedEncoding
from service.http.reply import Reply, compress, encoding_for, error_reply, json_reply, note_timing

pytestmark = pytest.mark.anyio

LONG = b"abcdefgh" * 200


def body_of(reply: Reply) -> bytes:
    return b"".join(reply.body)


def test_a_reply_of_json_is_compact_and_says_so() -> None:
    reply = json_reply({"a": [1, 2.5], "b": None}, 503)
    assert body_of(reply) == b'{"a":[1,2.5],"b":null}'
    assert (reply.status, reply.content_type, reply.headers) == (503, b"application/json", [])


def test_fields_that_are_not_set_are_left_out() -> None:
    class Answer(msgspec.Struct):
        a: int
        b: int | msgspec.UnsetType = msgspec.UNSET

    assert body_of(json_reply(Answer(1))) == b'{"a":1}'


def test_a_refusal_is_one_sentence_of_json_with_status_and_headers() -> None:
    reply = error_reply(UnsupportedEncoding("no"))
    assert (reply.status, body_of(reply)) == (415, b'{"error":"no"}')
    assert reply.content_type == b"application/json"
    assert (b"accept-encoding", b"gzip, deflate") in reply.headers


def test_headers_of_one_refusal_are_not_those_of_the_next() -> None:
    error_reply(QueueFull("full")).headers.append((b"connection", b"close"))
    assert error_reply(QueueFull("full")).headers == [(b"retry-after", b"1")]


def test_a_sentence_that_has_no_utf8_is_sent_all_the_same() -> None:
    reply = error_reply(InvalidInput("got \ud800"))
    assert (reply.status, json.loads(body_of(reply))) == (400, {"error": "got \\ud800"})


def test_server_timing_is_in_milliseconds() -> None:
    reply = json_reply({})
    timing = Timing()
    timing.queue_s, timing.compute_s = 0.0015, 0.25
    note_timing(reply, timing)
    assert reply.headers == [(b"server-timing", b"queue;dur=1.500, compute;dur=250.000")]


@pytest.mark.parametrize(
    ("accept", "encoding", "read"),
    [(b"gzip", b"gzip", gzip.decompress), (b"deflate, br", b"deflate", zlib.decompress)],
)
async def test_a_long_reply_is_compressed_as_the_caller_wants(
    accept: bytes, encoding: bytes, read: object
) -> None:
    reply = Reply([LONG[:100], memoryview(LONG)[100:]])
    chosen = encoding_for(reply, accept)
    assert chosen is not None
    await compress(reply, chosen)
    assert dict(reply.headers) == {b"vary": b"accept-encoding", b"content-encoding": encoding}
    assert len(body_of(reply)) < 200
    assert read(body_of(reply)) == LONG  # type: ignore[operator]


@pytest.mark.parametrize("accept", [None, b"", b"br", b"gzip;q=0", b"identity"])
def test_a_long_reply_says_that_it_could_be_compressed(accept: bytes | None) -> None:
    reply = Reply([LONG])
    assert encoding_for(reply, accept) is None
    assert (body_of(reply), reply.headers) == (LONG, [(b"vary", b"accept-encoding")])


def test_a_short_reply_is_the_same_for_everybody() -> None:
    reply = Reply([b"a" * 1000, b"b" * 23])
    assert encoding_for(reply, b"gzip") is None
    assert (len(body_of(reply)), reply.headers) == (1023, [])
