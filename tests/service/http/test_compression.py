import asyncio
import gzip
import json
import re
import time
import tracemalloc
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.entrance import compression
from service.errors import InvalidInput, RequestError, TooLarge, UnsupportedEncoding
from service.http.preferences import wanted_encoding
from service.http.status import headers_of
from service.settings import Settings
from tests.support.toys import body as predict_body
from tests.support.toys import save_same, save_toy, serving, toy_answer

pytestmark = pytest.mark.anyio

LIMIT = 100_000
TOY = "/v2/models/toy/infer"
LENGTH = "Inference-Header-Content-Length"
REQUEST = json.dumps(
    {"inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}
).encode()
EXPECTED = toy_answer(np.array([[1, 2, 3, 4]]))[0]


def raw_deflate(content: bytes) -> bytes:
    """Compress without zlib's head and check sum, as some do for `deflate`."""
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(content) + compressor.flush()


COMPRESS = {"gzip": partial(gzip.compress, mtime=0), "deflate": zlib.compress}


async def refusal(body: bytes, encoding: bytes, limit: int = LIMIT) -> RequestError:
    """Return what `decompressed` raises."""
    with pytest.raises(RequestError) as raised:
        await compression.decompressed(body, encoding, limit)
    return raised.value


@pytest.mark.parametrize("size", [0, 1, 100, 5000, LIMIT])
@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_body_is_decompressed(encoding: str, size: int) -> None:
    content = np.random.default_rng(1).bytes(size)
    compressed = COMPRESS[encoding](content)
    assert await compression.decompressed(compressed, encoding.encode(), LIMIT) == content


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize("size", [0, 1, 3000, 200_000])
async def test_what_was_compressed_is_decompressed_by_others(encoding: str, size: int) -> None:
    content = np.random.default_rng(2).bytes(size)
    decompress = gzip.decompress if encoding == "gzip" else zlib.decompress
    assert decompress(await compression.compressed(content, encoding)) == content


@pytest.mark.parametrize(
    "encoding", [b"identity", b" Identity ", b"", b" , ", b"identity,identity"]
)
async def test_identity_or_nothing_is_the_body_as_it_is(encoding: bytes) -> None:
    assert await compression.decompressed(b"as it is", encoding, LIMIT) == b"as it is"


@pytest.mark.parametrize("encoding", [b"GZIP", b" gzip ", b"x-gzip", b"X-GZip"])
async def test_names_of_encodings_have_no_case(encoding: bytes) -> None:
    assert await compression.decompressed(gzip.compress(b"a"), encoding, LIMIT) == b"a"


async def test_encodings_are_undone_from_the_last() -> None:
    content = np.random.default_rng(3).bytes(10_000)
    compressed = gzip.compress(zlib.compress(content))
    for encoding in (b"deflate, gzip", b"deflate,,identity , X-GZIP"):
        assert await compression.decompressed(compressed, encoding, LIMIT) == content
    for _ in range(2):
        compressed = gzip.compress(compressed)
    encoding = b"deflate" + b", gzip" * (compression.MOST_ENCODINGS - 1)
    assert await compression.decompressed(compressed, encoding, LIMIT) == content
    error = await refusal(compressed, encoding + b", gzip")
    assert type(error) is UnsupportedEncoding


@pytest.mark.parametrize("sizes", [(1, 0, 2), (65_518, 20, 0), (30_000, 60_000, 10_000)])
async def test_members_of_gzip_are_read_one_after_the_other(sizes: tuple[int, ...]) -> None:
    """Wherever one ends in what zlib is given at a time."""
    members = [np.random.default_rng(size).bytes(size) for size in sizes]
    compressed = b"".join(map(gzip.compress, members))
    assert await compression.decompressed(compressed, b"gzip", LIMIT) == b"".join(members)


async def test_members_of_gzip_have_limits_together() -> None:
    empty, most = gzip.compress(b""), compression.MOST_MEMBERS
    assert await compression.decompressed(empty * most, b"gzip", LIMIT) == b""
    for members, sentence in (
        (empty * 800_000, f"body: expected at most {most} members of gzip, got more"),  # 16 MB
        (gzip.compress(bytes(LIMIT)) + empty * 9 + gzip.compress(b"x"), "decompressed, got more"),
    ):
        error = await refusal(members, b"gzip")
        assert type(error) is TooLarge
        assert str(error).endswith(sentence)


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        (b"br", "'br'"),
        (b"zstd", "'zstd'"),
        (b"UTF-8", "'UTF-8'"),
        (b"gzip, br", "'gzip, br'"),
        (b"gzip;q=1", "'gzip;q=1'"),
        (b"\xff", r"'\xff'"),
        (b"x" * 500, repr("x" * 40)),
    ],
)
async def test_an_unknown_encoding_is_told_those_there_are(encoding: bytes, shown: str) -> None:
    error = await refusal(b"whatever", encoding)
    assert type(error) is UnsupportedEncoding
    assert str(error) == f"Content-Encoding: expected gzip or deflate, got {shown}"
    assert headers_of(error) == [(b"accept-encoding", b"gzip, deflate")]


CUT = gzip.compress(b"hello, hello, hello", mtime=0)
BROKEN: list[tuple[str, bytes, str, str]] = [
    # (what, body, encoding, what the sentence ends with)
    ("nothing", b"", "gzip", ", got only a part of that"),
    ("cut in its head", CUT[:5], "gzip", ", got only a part of that"),
    ("cut in its data", CUT[:-12], "gzip", ", got only a part of that"),
    ("cut in its check sum", CUT[:-1], "gzip", ", got only a part of that"),
    ("deflate cut", zlib.compress(b"hello")[:-1], "deflate", ", got only a part of that"),
    (
        "not compressed",
        REQUEST,
        "gzip",
        ", got: Error -3 while decompressing data: incorrect header check",
    ),
    (
        "not compressed",
        REQUEST,
        "deflate",
        ", got: Error -3 while decompressing data: incorrect header check",
    ),
    (
        "deflate for gzip",
        zlib.compress(b"hello"),
        "gzip",
        ", got: Error -3 while decompressing data: incorrect header check",
    ),
    (
        "gzip for deflate",
        CUT,
        "deflate",
        ", got: Error -3 while decompressing data: incorrect header check",
    ),
    (
        "garbage in its data",
        CUT[:10] + b"\xff" * 20,
        "gzip",
        ", got: Error -3 while decompressing data: invalid block type",
    ),
    (
        "another check sum",
        CUT[:-8] + bytes([CUT[-8] ^ 1]) + CUT[-7:],
        "gzip",
        ", got: Error -3 while decompressing data: incorrect data check",
    ),
    (
        "another length",
        CUT[:-4] + bytes([CUT[-4] ^ 1]) + CUT[-3:],
        "gzip",
        ", got: Error -3 while decompressing data: incorrect length check",
    ),
    ("a second member cut", CUT + CUT[:-1], "gzip", ", got only a part of that"),
    ("half a second head", CUT + CUT[:1], "gzip", " in one piece, got more behind its end"),
    ("zeros behind it", CUT + b"\0" * 8, "gzip", " in one piece, got more behind its end"),
    (
        "JSON behind it",
        zlib.compress(b"{}") + b"{}",
        "deflate",
        " in one piece, got more behind its end",
    ),
]


@pytest.mark.parametrize(
    ("what", "body", "encoding", "ending"), BROKEN, ids=[f"{each[0]}, {each[2]}" for each in BROKEN]
)
async def test_a_body_that_is_not_what_it_says_is_refused(
    what: str, body: bytes, encoding: str, ending: str
) -> None:
    error = await refusal(body, encoding.encode())
    assert (type(error), str(error)) == (
        InvalidInput,
        f"body: expected it compressed with {encoding}{ending}",
    )


async def test_deflate_without_its_head_is_refused() -> None:
    error = await refusal(raw_deflate(REQUEST), b"deflate")
    assert type(error) is InvalidInput
    assert str(error).startswith("body: expected it compressed with deflate, got: Error -3")


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize("over", [0, 1, 2, 1000])
async def test_no_more_than_the_limit_is_decompressed(encoding: str, over: int) -> None:
    content = b"a" * (LIMIT + over)
    compressed = COMPRESS[encoding](content)
    if over == 0:
        assert await compression.decompressed(compressed, encoding.encode(), LIMIT) == content
    else:
        error = await refusal(compressed, encoding.encode())
        assert (type(error), str(error)) == (
            TooLarge,
            f"body: expected at most {LIMIT} bytes decompressed, got more",
        )


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_bomb_takes_neither_memory_nor_time(encoding: str) -> None:
    bomb = COMPRESS[encoding](bytes(30_000_000))  # 1,000 : 1
    assert len(bomb) < 33_000
    tracemalloc.start()
    start = time.perf_counter()
    error = await refusal(bomb, encoding.encode(), limit=300_000)
    seconds = time.perf_counter() - start
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert type(error) is TooLarge
    assert most < 1_500_000
    assert seconds < 0.5  # it takes 2 ms


@settings(max_examples=100, deadline=None)
@given(
    garbage=st.binary(max_size=60),
    cut=st.integers(0, 60),
    name=st.sampled_from(["gzip", "deflate"]),
)
def test_any_bytes_are_decompressed_or_refused(garbage: bytes, cut: int, name: str) -> None:
    compressed = COMPRESS[name](b"some bytes that are compressed")
    for content in (garbage, compressed[:cut] + garbage):
        try:
            asyncio.run(compression.decompressed(content, name.encode(), LIMIT))
        except RequestError as error:
            assert str(error).startswith(f"body: expected it compressed with {name}")  # noqa: PT017 (either may be)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("gzip, deflate", "gzip"),
        ("deflate, gzip", "gzip"),
        ("gzip, deflate, br, zstd", "gzip"),
        ("GZip", "gzip"),
        ("br, zstd", None),
        ("", None),
        (" ", None),
        ("*", "gzip"),
        ("br, *", "gzip"),
        ("*;q=0", None),
        ("*;q=0.5, identity", None),
        ("gzip;q=0", None),
        ("gzip;q=0, *", "deflate"),
        ("gzip;q=0.0, deflate;q=0.000", None),
        ("gzip;q=0, deflate;q=0, *;q=1", None),
        ("gzip;q=0.5, deflate;q=0.8", "deflate"),
        ("gzip;q=0.8, deflate;q=0.5", "gzip"),
        ("gzip;q=0.001", "gzip"),
        ("gzip; q=0.5 , deflate ; q = 0.6", "deflate"),
        ("gzip;Q=0", None),
        ("identity", None),
        ("identity, gzip;q=0.5", None),
        ("identity;q=0.5, gzip;q=1.0", "gzip"),
        ("identity;q=1, gzip;q=1", "gzip"),
        ("identity;q=0", None),
        ("identity;q=0, gzip;q=0.1", "gzip"),
        ("gzip;q=no", "gzip"),
        (",,gzip,,", "gzip"),
        ("gzip" * 1000, None),
    ],
)
def test_the_encoding_is_the_one_that_is_wanted_most(accept: str, expected: str | None) -> None:
    assert wanted_encoding(accept.encode()) == expected


@settings(max_examples=100)
@given(accept=st.binary(max_size=60))
def test_any_accept_encoding_is_read(accept: bytes) -> None:
    assert wanted_encoding(accept) in (None, "gzip", "deflate")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_toy(tmp_path)
    save_same(tmp_path, ["batch", 500])
    return tmp_path


def as_numbers(reply: httpx.Response) -> Any:
    assert reply.status_code == 200, reply.text
    (output,) = reply.json()["outputs"]
    return output["data"]


async def test_requests_may_come_compressed(folder: Path) -> None:
    async with serving(Settings(models_dir=folder)) as client:
        for encoding, compress in (*COMPRESS.items(), ("identity", bytes), ("GZIP", gzip.compress)):
            headers = {"Content-Encoding": encoding}
            reply = await client.post(TOY, content=compress(REQUEST), headers=headers)
            assert as_numbers(reply) == pytest.approx(EXPECTED, abs=1e-6)
            reply = await client.post(
                "/predict", content=compress(predict_body("toy", [[1, 2, 3, 4]])), headers=headers
            )
            (prediction,) = reply.json()["predictions"]
            assert prediction["probabilities"] == pytest.approx(EXPECTED, abs=1e-6)


async def test_the_header_length_is_that_of_the_decompressed_json(folder: Path) -> None:
    row = np.array([1, 2, 3, 4], "<f4").tobytes()
    size = {"binary_data_size": 16}
    described = {"name": "input", "datatype": "FP32", "shape": [1, 4], "parameters": size}
    head = json.dumps({"inputs": [described], "note": "a" * 1000}).encode()
    compressed = gzip.compress(head + row)
    assert len(compressed) < len(head)
    async with serving(Settings(models_dir=folder)) as client:
        headers = {"Content-Encoding": "gzip", LENGTH: str(len(head))}
        reply = await client.post(TOY, content=compressed, headers=headers)
        raw = await client.post(
            TOY, content=gzip.compress(row * 3), headers={"Content-Encoding": "gzip", LENGTH: "0"}
        )
    assert as_numbers(reply) == pytest.approx(EXPECTED, abs=1e-6)
    numbers = np.frombuffer(raw.content[int(raw.headers[LENGTH]) :], "<f4").reshape(3, 3)
    np.testing.assert_allclose(numbers, [EXPECTED] * 3, atol=1e-6)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("*", "gzip"),
        ("gzip;q=0, deflate;q=0.1", "deflate"),
        ("gzip;q=0", None),
        ("identity, gzip;q=0.5", None),
        ("br", None),
    ],
)
@pytest.mark.parametrize("is_binary", [False, True])
async def test_a_large_reply_is_compressed_for_who_takes_it(
    folder: Path, accept: str, expected: str | None, is_binary: bool
) -> None:
    numbers = np.arange(2000, dtype="<f4").reshape(4, 500)
    request = {
        "inputs": [
            {
                "name": "input",
                "datatype": "FP32",
                "shape": [4, 500],
                "data": numbers.ravel().tolist(),
            }
        ],
        "parameters": {"binary_data_output": is_binary},
    }
    async with serving(Settings(models_dir=folder)) as client:
        url = "/v2/models/same/infer"
        async with client.stream(
            "POST", url, json=request, headers={"Accept-Encoding": accept}
        ) as reply:
            raw = b"".join([part async for part in reply.aiter_raw()])
    assert reply.status_code == 200
    assert reply.headers.get("content-encoding") == expected
    assert reply.headers["vary"] == "accept-encoding"  # whatever this caller takes
    assert int(reply.headers["content-length"]) == len(raw)
    content = raw
    if expected is not None:
        content = (gzip.decompress if expected == "gzip" else zlib.decompress)(raw)
        assert len(raw) < len(content)
    if is_binary:
        place = int(reply.headers[LENGTH])  # of the decompressed JSON
        assert json.loads(content[:place])["outputs"][0]["parameters"] == {
            "binary_data_size": numbers.nbytes
        }
        assert content[place:] == numbers.tobytes()
    else:
        assert json.loads(content)["outputs"][0]["data"] == numbers.ravel().tolist()


async def test_small_replies_and_errors_are_not_compressed(folder: Path) -> None:
    async with serving(Settings(models_dir=folder)) as client:
        for content, status in ((REQUEST, 200), (b"{", 400)):
            reply = await client.post(TOY, content=content, headers={"Accept-Encoding": "gzip"})
            assert (reply.status_code, "content-encoding" in reply.headers) == (status, False)


async def test_a_reply_is_compressed_from_the_size_that_is_worth_it(folder: Path) -> None:
    async with serving(Settings(models_dir=folder)) as client:
        seen = {}
        for count in range(600, 900):
            content = re.sub(rb"}$", b', "id": "%b"}' % (b"x" * count), REQUEST)
            reply = await client.post(TOY, content=content, headers={"Accept-Encoding": "gzip"})
            seen[len(reply.content)] = "content-encoding" in reply.headers
    assert seen == {size: size >= 1024 for size in seen}
    assert {True, False} == set(seen.values())
