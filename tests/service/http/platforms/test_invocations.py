"""What cloud platforms ask of a container, each demand named by the document that makes it.

SageMaker: "Use Your Own Inference Code with Hosting Services", "Use Your Own Inference Code with
Batch Transform", "Common data formats for inference", and of the API reference
"CreateTransformJob". Vertex AI: "Custom container requirements for prediction", and of the API
reference "ModelContainerSpec". Cloud Run: "Container runtime contract"; Knative: "Knative Runtime
Contract".
"""

import asyncio
import gzip
import json
import logging
import math
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from service.card import Example
from service.catalog.catalog import ModelRepository
from service.engine.model import Model
from service.errors import InvalidSetting, RequestError
from service.http.app import create_app
from service.http.pictures import Pictures
from service.http.platforms import invocations as platforms
from service.metrics import Blocks, Metrics
from service.settings import Settings
from tests.support.clients import counted
from tests.support.processes import Process, environment
from tests.support.toys import (
    body,
    save_bounded,
    save_dear,
    save_mean,
    save_same,
    save_sum,
    save_toy,
    serving,
    toy_answer,
    toy_card,
)

pytestmark = pytest.mark.anyio

KEY = "a-key-of-24-characters-01"
JSON, CSV, LINES = "application/json", "text/csv", "application/jsonlines"
# What Vertex AI chooses where nobody says another.
PREDICT = "/v1/endpoints/123/deployedModels/456:predict"
HEALTH = "/v1/endpoints/123/deployedModels/456"
MAX_ROWS, MAX_BYTES = 10, 3000


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models that answer what they are asked, so that replies tell what was read."""
    folder = tmp_path_factory.mktemp("models")
    save_same(folder, ["batch", 4])
    save_same(folder, ["batch", 2], TensorProto.INT64, name="whole")
    save_same(folder, ["batch", 1], name="single")
    save_toy(folder, card=toy_card())
    save_mean(folder)
    save_sum(folder)
    return folder


@asynccontextmanager
async def of(folder: Path, default: str, **more: Any) -> AsyncIterator[httpx.AsyncClient]:
    settings = Settings(
        models_dir=folder,
        default_model=default,
        max_request_rows=MAX_ROWS,
        max_body_bytes=MAX_BYTES,
        predict_route=PREDICT,
        **more,
    )
    async with serving(settings) as client:
        yield client


@pytest.fixture(scope="module")
async def same(folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with of(folder, "same") as client:
        yield client


@pytest.fixture(scope="module")
async def whole(folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with of(folder, "whole") as client:
        yield client


@pytest.fixture(scope="module")
async def single(folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with of(folder, "single") as client:
        yield client


@pytest.fixture(scope="module")
async def toy(folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with of(folder, "toy") as client:
        yield client


@pytest.fixture(scope="module")
async def mean(folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with of(folder, "mean") as client:
        yield client


async def invoke(
    client: httpx.AsyncClient, content: bytes, sent: str = CSV, **headers: str
) -> httpx.Response:
    return await client.post(
        "/invocations", content=content, headers={"content-type": sent} | headers
    )


def read(reply: httpx.Response) -> list[list[float]]:
    """Return the rows that a model which answers what it is asked was asked."""
    assert reply.status_code == 200, reply.text
    return [each["output"] for each in reply.json()["predictions"]]


# ---------------------------------------------------------------- GET /ping


async def test_ping_says_200_once_every_model_answers(toy: httpx.AsyncClient) -> None:
    """SageMaker, "... with Hosting Services": a 200 means ready; the body may be anything."""
    reply = await toy.get("/ping")
    assert reply.status_code == 200
    assert reply.json() == (await toy.get("/health/ready")).json()


async def test_ping_says_503_while_a_model_has_failed_or_it_drains(models_dir: Path) -> None:
    broken = models_dir / "broken/1/model.onnx"
    async with serving(Settings(models_dir=models_dir, health_route=HEALTH)) as client:
        models = client.app.models
        models.draining = True
        for path in ("/ping", HEALTH):
            reply = await client.get(path)
            assert (reply.status_code, reply.json()["status"]) == (503, "draining")
        models.draining = False
        assert (await client.get("/ping")).status_code == 200
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"")
    async with serving(Settings(models_dir=models_dir, health_route=HEALTH)) as client:
        for path in ("/ping", HEALTH):
            reply = await client.get(path)
            assert (reply.status_code, reply.json()["status"]) == (503, "not ready")
            assert reply.json()["models"]["toy"]["ready"] is True


# ------------------------------------------------- POST /invocations: JSON


@pytest.mark.parametrize(
    "sent",
    [
        JSON,
        "Application/JSON; charset=utf-8",
        "application/octet-stream",
        "application/x-www-form-urlencoded",  # curl's, unless told otherwise
        "",
    ],
)
async def test_json_is_the_body_of_predict_with_or_without_a_model(
    toy: httpx.AsyncClient, sent: str
) -> None:
    rows: list[Any] = [[1, 2, 3, 4], {"d": 0, "c": 0, "b": 9, "a": 0}]
    named = await invoke(toy, body("toy", rows, version=1), sent)
    expected = await toy.post("/predict", content=body("toy", rows))
    unnamed = await invoke(toy, json.dumps({"instances": rows}).encode(), sent)
    assert named.status_code == 200
    assert named.content == unnamed.content == expected.content
    assert named.headers["content-type"] == JSON
    other = await invoke(toy, body("mean", [[[0, 1, 2], [3, 4, 5]]]), sent)
    assert other.json() == {"model": "mean", "version": 1, "predictions": [{"value": 2.5}]}


async def test_without_a_content_type_a_body_is_json(toy: httpx.AsyncClient) -> None:
    reply = await toy.post("/invocations", content=b'{"instances": [[1, 2, 3, 4]]}')
    assert "content-type" not in reply.request.headers
    assert reply.status_code == 200


# -------------------------------------------------- POST /invocations: CSV

ROW, OTHER = [1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]
GOOD: list[tuple[str, bytes, list[list[float]]]] = [
    ("one row", b"1,2,3,4\n", [ROW]),
    ("no final newline", b"1,2,3,4", [ROW]),
    ("LF", b"1,2,3,4\n5,6,7,8\n", [ROW, OTHER]),
    ("CRLF", b"1,2,3,4\r\n5,6,7,8\r\n", [ROW, OTHER]),
    ("CR", b"1,2,3,4\r5,6,7,8\r", [ROW, OTHER]),
    ("each in its way", b"1,2,3,4\r\n5,6,7,8\n1,2,3,4\r5,6,7,8", [ROW, OTHER, ROW, OTHER]),
    ("byte order mark", b"\xef\xbb\xbf1,2,3,4\n", [ROW]),
    ("quoted cells", b'"1","2",3,"4"\n', [ROW]),
    ("a plus", b"+1,2,3,+4.0\n", [ROW]),
    ("a minus", b"-1,-2.5,-0,-3e2\n", [[-1, -2.5, 0, -300]]),
    ("a bare point", b".5,5.,-.5,+.5\n", [[0.5, 5, -0.5, 0.5]]),
    ("powers of ten", b"1e3,1E3,1e+3,1e-3\n", [[1000, 1000, 1000, 0.001]]),
    ("leading zeros", b"01,002,3.0,0004\n", [ROW]),
    ("spaces", b" 1, 2,3 ,\t4 \n", [ROW]),
    ("spaces and quotes", b'" 1",2,3,4\n', [ROW]),
    ("blank lines", b"\n1,2,3,4\n\n\n5,6,7,8\n\n", [ROW, OTHER]),
    ("blank CRLF lines", b"\r\n1,2,3,4\r\n\r\n5,6,7,8\r\n\r\n", [ROW, OTHER]),
    ("lines of spaces", b"  \n1,2,3,4\n \t\n5,6,7,8\n   ", [ROW, OTHER]),
    ("as many as there may be", b"1,2,3,4\n" * MAX_ROWS, [ROW] * MAX_ROWS),
    ("float32 at most", b"3.4028234e38,0,0,0", [[3.4028234663852886e38, 0, 0, 0]]),
]


@pytest.mark.parametrize(("what", "content", "rows"), GOOD)
async def test_csv_has_no_header_and_a_line_for_each_row(
    same: httpx.AsyncClient, what: str, content: bytes, rows: list[list[float]]
) -> None:
    """SageMaker, "Common data formats for inference": commas between values, no header."""
    reply = await invoke(same, content)
    assert read(reply) == np.array(rows, np.float32).tolist()
    assert reply.json()["model"] == "same"


@pytest.mark.parametrize(
    "sent", ["text/csv", "TEXT/CSV", "text/csv;charset=utf-8", "text/csv; header=absent"]
)
async def test_a_media_type_is_known_in_any_case_and_with_parameters(
    same: httpx.AsyncClient, sent: str
) -> None:
    assert read(await invoke(same, b"1,2,3,4\n", sent)) == [ROW]


async def test_an_image_is_a_line_of_all_its_pixels(mean: httpx.AsyncClient) -> None:
    reply = await invoke(mean, b"0,1,2,3,4,5\n1,2,3,4,5,6\n")
    assert reply.json()["predictions"] == [{"value": 2.5}, {"value": 3.5}]
    reply = await invoke(mean, b"0,1,2\n3,4,5\n")
    assert (reply.status_code, reply.json()) == (
        400,
        {"error": "line 1: expected 6 values, got 3"},
    )


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        (b"1,2\n-3,+4\n", [[1, 2], [-3, 4]]),
        (b"1.0,2e3\n", [[1, 2000]]),
        (b"9007199254740993,-9007199254740993\n", [[9007199254740993, -9007199254740993]]),
        (
            b"9223372036854775807,-9223372036854775808\n",
            [[9223372036854775807, -9223372036854775808]],
        ),
    ],
)
async def test_whole_numbers_come_through_exactly(
    whole: httpx.AsyncClient, content: bytes, rows: list[list[int]]
) -> None:
    assert read(await invoke(whole, content)) == rows


async def test_whole_numbers_are_to_be_whole_and_to_fit(whole: httpx.AsyncClient) -> None:
    for content, got in (
        (b"1,2.5", "2.5"),
        (b"1,9223372036854775808", "9223372036854775808"),
        (b"1,-9223372036854775809", "-9223372036854775809"),
        (b"1,nan", "NaN"),
        (b"1,-1e400", "-Infinity"),
    ):
        reply = await invoke(whole, content)
        assert reply.status_code == 400
        assert reply.json()["error"] == (
            "line 1[1]: expected a whole number from -9223372036854775808 to "
            f"9223372036854775807, got {got}"
        )


async def test_a_row_of_one_value_is_a_line_of_one(single: httpx.AsyncClient) -> None:
    assert read(await invoke(single, b"1\n2\n\n 3\n")) == [[1], [2], [3]]
    reply = await invoke(single, b'1\n""\n')  # something is missing there, rather than nothing
    assert reply.json() == {"error": 'line 2[0]: expected a number, got ""'}


# ------------------------------------------- POST /invocations: JSON Lines


@pytest.mark.parametrize("sent", [LINES, "application/x-ndjson", "Application/JsonLines"])
async def test_json_lines_have_an_instance_in_each(same: httpx.AsyncClient, sent: str) -> None:
    """SageMaker, "Common data formats for inference": a record in each line."""
    for content, rows in (
        (b"[1,2,3,4]\n", [ROW]),
        (b"[1,2,3,4]", [ROW]),
        (b"[1,2,3,4]\r\n[5,6,7,8]\r\n", [ROW, OTHER]),
        (b"\n [1, 2.0, 3e0, 4] \n\n  \n[5,6,7,8]\n", [ROW, OTHER]),
        (b"\xef\xbb\xbf[1,2,3,4]\n", [ROW]),
    ):
        assert read(await invoke(same, content, sent)) == rows


async def test_json_lines_may_name_features_or_nest_an_image(
    toy: httpx.AsyncClient, mean: httpx.AsyncClient
) -> None:
    reply = await invoke(toy, b'{"d": 4, "c": 3, "b": 2, "a": 1}\n[1,2,3,4]\n', LINES)
    first, second = reply.json()["predictions"]
    assert first == second
    expected = toy_answer(np.array([ROW]))[0]
    assert list(first["probabilities"].values()) == pytest.approx(expected, abs=1e-6)
    reply = await invoke(mean, b"[[0,1,2],[3,4,5]]\n[1,2,3,4,5,6]\n", LINES)
    assert reply.json()["predictions"] == [{"value": 2.5}, {"value": 3.5}]


async def test_json_lines_of_whole_numbers_are_exact(whole: httpx.AsyncClient) -> None:
    reply = await invoke(whole, b"[9007199254740993, -9007199254740993]\n", LINES)
    assert read(reply) == [[9007199254740993, -9007199254740993]]


async def test_the_deadline_of_predict_holds_here_too(tmp_path: Path) -> None:
    save_dear(tmp_path, 600)
    async with of(tmp_path, "dear") as client:
        for path, sent, content in (
            ("/invocations", CSV, b"1,2,3,4\n"),
            ("/invocations", CSV, b"+1,2,3,4\n"),
            ("/invocations", LINES, b"[1,2,3,4]\n"),
            ("/invocations", JSON, b'{"instances": [[1,2,3,4]]}'),
            (PREDICT, JSON, b'{"instances": [[1,2,3,4]]}'),
        ):
            headers = {"content-type": sent, "x-request-timeout-ms": "1"}
            reply = await client.post(path, content=content, headers=headers)
            assert reply.status_code == 504


@pytest.mark.parametrize(
    ("sent", "content"),
    [
        (CSV, b"1,2,3,4\n"),
        (CSV, b"+1,2,3,4\n"),
        (LINES, b"[1,2,3,4]\n"),
        (JSON, b'{"instances": [[1,2,3,4]]}'),
    ],
)
async def test_a_packed_body_is_unpacked(
    same: httpx.AsyncClient, sent: str, content: bytes
) -> None:
    reply = await invoke(same, gzip.compress(content), sent, **{"content-encoding": "gzip"})
    assert read(reply) == [ROW]


async def test_answers_are_counted_for_their_model(folder: Path) -> None:
    async with of(folder, "same") as client:
        await invoke(client, b"1,2,3,4\n")
        await invoke(client, b"+1,2,3,4\n")
        await invoke(client, b"[1,2,3,4]\n", LINES)
        await invoke(client, body("mean", [[0, 1, 2, 3, 4, 5]]), JSON)
        await client.post(PREDICT, content=b'{"instances": [[1,2,3,4]]}')
        metrics = (await client.get("/metrics")).text

    def requests(labels: str) -> float:
        return counted(metrics, "torchlit_requests_total", labels)

    assert requests('model="same",outcome="ok"') == 4
    assert requests('model="mean",outcome="ok"') == 1
    assert requests("") == 5


# ----------------------------------------------------- POST /invocations: Accept


@pytest.mark.parametrize(
    ("accept", "given"),
    [
        (None, JSON),
        ("", JSON),
        ("*/*", JSON),
        (JSON, JSON),
        ("Application/JSON; verbose=true", JSON),
        (CSV, CSV),
        ("TEXT/CSV", CSV),
        ("text/csv;q=0.1, application/json", CSV),  # the first that is known, whatever its q
        ("image/png, application/jsonlines, text/csv", LINES),
        (" , text/csv", CSV),
        (LINES, LINES),
        ("application/x-ndjson", LINES),
        ("text/html, */*;q=0.8", JSON),
        ("application/x-recordio-protobuf", JSON),
    ],
)
async def test_the_reply_is_of_the_first_type_in_accept_that_is_known(
    same: httpx.AsyncClient, accept: str | None, given: str
) -> None:
    """SageMaker, "InvokeEndpoint": Accept is the MIME type of the inference that is wanted."""
    same.headers.pop("accept", None)  # httpx sends one of its own
    headers = {} if accept is None else {"accept": accept}
    reply = await invoke(same, b"1,2,3,4\n", **headers)
    assert reply.status_code == 200
    assert reply.headers["content-type"] == given
    assert int(reply.headers["content-length"]) == len(reply.content)


async def formats(client: httpx.AsyncClient, content: bytes) -> tuple[bytes, bytes]:
    """Return the replies as CSV and as JSON Lines; JSON says the same as the latter."""
    replies = {
        accept: await invoke(client, content, accept=accept) for accept in (JSON, CSV, LINES)
    }
    lines = [json.loads(line) for line in replies[LINES].content.splitlines()]
    assert lines == replies[JSON].json()["predictions"]
    return replies[CSV].content, replies[LINES].content


async def test_a_classification_is_label_probability_and_probabilities(
    toy: httpx.AsyncClient,
) -> None:
    csv, lines = await formats(toy, b"0,0,0,0\n0,0,0,0\n")
    third = "0.3333333432674408"  # the float32 next to a third
    assert csv.decode() == f"red,{third},{third},{third},{third}\n" * 2
    probabilities = f'{{"red":{third},"green":{third},"blue":{third}}}'
    line = f'{{"label":"red","probability":{third},"probabilities":{probabilities}}}\n'
    assert lines.decode() == line * 2


async def test_labels_are_quoted_where_csv_needs_it(tmp_path: Path) -> None:
    example = Example(name="zero", input=[0.0] * 4, output=[1 / 3] * 3)
    save_toy(tmp_path, card=toy_card(labels=["a,b", 'say "c"', "é"], examples=[example]))
    async with of(tmp_path, "toy") as client:
        csv, _ = await formats(client, b"9,0,0,0\n0,9,0,0\n0,0,0,9\n")
    assert [line.split(",0.9")[0] for line in csv.decode().splitlines()] == [
        '"a,b"',
        '"say ""c"""',
        "é",
    ]


async def test_a_regression_is_its_value(mean: httpx.AsyncClient) -> None:
    csv, lines = await formats(mean, b"0,1,2,3,4,5\n1,2,3,4,5,6\n")
    assert csv == b"2.5\n3.5\n"
    assert lines == b'{"value":2.5}\n{"value":3.5}\n'


async def test_an_interval_is_value_lower_and_upper(tmp_path: Path) -> None:
    save_bounded(tmp_path)
    async with of(tmp_path, "bounded") as client:
        csv, lines = await formats(client, b"1\n2\n")
    assert csv == b"2.0,1.0,3.0\n4.0,3.0,5.0\n"
    assert lines == (
        b'{"value":2.0,"lower":1.0,"upper":3.0}\n{"value":4.0,"lower":3.0,"upper":5.0}\n'
    )


async def test_several_targets_follow_each_other(tmp_path: Path) -> None:
    save_bounded(tmp_path, targets=2)
    async with of(tmp_path, "bounded") as client:
        csv, lines = await formats(client, b"1,2\n")
    assert csv == b"2.0,1.0,3.0,4.0,3.0,5.0\n"
    assert lines == (
        b'{"twice_0":{"value":2.0,"lower":1.0,"upper":3.0},'
        b'"twice_1":{"value":4.0,"lower":3.0,"upper":5.0}}\n'
    )


async def test_a_model_without_card_is_its_outputs(
    same: httpx.AsyncClient, whole: httpx.AsyncClient, tmp_path: Path
) -> None:
    assert await formats(same, b"1,2,3,4.5\n") == (
        b"1.0,2.0,3.0,4.5\n",
        b'{"output":[1.0,2.0,3.0,4.5]}\n',
    )
    assert (await formats(whole, b"1,-9007199254740993\n"))[0] == b"1,-9007199254740993\n"
    save_same(tmp_path, ["batch", 2, 2])
    async with of(tmp_path, "same") as client:
        assert (await formats(client, b"1,2,3,4\n"))[0] == b"1.0,2.0,3.0,4.0\n"


# ------------------------------------------------------------ two ways of CSV


@pytest.fixture(scope="module")
def four(folder: Path) -> Model:
    return Model.open(folder / "same/1/model.onnx")


@pytest.fixture(scope="module")
def reader(folder: Path) -> platforms.Platforms:
    """Reads CSV; its models are not needed for that."""
    settings = Settings(models_dir=folder, max_request_rows=MAX_ROWS)
    return platforms.Platforms(create_app(settings).models, Pictures(settings), settings)


def told(rows: Any) -> Any:
    """Return what came of reading: rows, the words of an error, or nothing."""
    try:
        read = rows()
        return None if read is None else read.tolist()
    except RequestError as error:
        return f"{type(error).__name__}: {error}"


cells = st.one_of(
    st.floats(width=32, allow_nan=False, allow_infinity=False).flatmap(
        lambda number: st.sampled_from(
            [f"{number!r}", f"{number:g}", f"{number:.9e}", f"{number:+}", f"{number:.3f}"]
        )
    ),
    st.integers(-(10**40), 10**40).map(str),
    st.sampled_from(["1.", ".5", "00", "-0", "1e3", "1E+3", "1e", "", "x", "true", "null", "1e99"]),
)
padded = st.builds(
    "{}{}{}".format, st.sampled_from(["", " ", "\t"]), cells, st.sampled_from(["", " ", "\r", '"'])
)
lines = st.lists(st.one_of(cells, padded), min_size=3, max_size=5).map(",".join)
fitting = st.lists(cells, min_size=4, max_size=4).map(",".join)
ends = st.sampled_from(["\n", "\r\n", "\n\n", "\r", "\n \n", "\n\t\r\n"])
tables = st.lists(
    st.tuples(st.one_of(fitting, lines, st.just("")), ends), max_size=MAX_ROWS + 1
).map(lambda parts: "".join(line + end for line, end in parts))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(text=tables)
def test_what_goes_the_fast_way_gives_the_rows_of_the_slow_one(
    text: str, four: Model, reader: platforms.Platforms
) -> None:
    content = text.encode()
    fast = told(lambda: reader._of_plain_csv(content, four))
    slow = told(lambda: platforms.csv_rows(content, four, MAX_ROWS))
    if fast is not None:
        assert fast == slow or (fast[:9] == "TooLarge:" and slow[:13] == "InvalidInput:")


@settings(max_examples=30, deadline=None)
@given(
    rows=st.lists(
        st.lists(
            st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=4, max_size=4
        ),
        min_size=1,
        max_size=MAX_ROWS,
    ),
    end=st.sampled_from(["\n", "\r\n"]),
    form=st.sampled_from(["{!r}", "{:.17g}", " {!r}", "{!r} "]),
    last=st.booleans(),
)
def test_plain_csv_goes_the_fast_way(
    rows: list[list[float]],
    end: str,
    form: str,
    last: bool,
    four: Model,
    reader: platforms.Platforms,
) -> None:
    text = end.join(",".join(map(form.format, row)) for row in rows) + (end if last else "")
    read = reader._of_plain_csv(text.encode(), four)
    assert read is not None
    assert np.array_equal(read, np.array(rows, np.float32))
    assert np.array_equal(read, platforms.csv_rows(text.encode(), four, MAX_ROWS))


async def test_one_that_cannot_go_the_fast_way_leaves_it_free(
    same: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """simdjson's parser refuses while something that it parsed is alive."""
    for content in (b"1,2,3\n", b"1,2,3,x\n", b"1,2,3,4\n" * (MAX_ROWS + 1), b"1,2,3,true\n"):
        assert (await invoke(same, content)).status_code in (400, 413)
        with monkeypatch.context() as patch:
            patch.setattr(platforms, "csv_rows", None)  # the slow way
            assert read(await invoke(same, b"1,2,3,4\n")) == [ROW]


class Held:
    """Stands in the way of a reader of lines until it is let go."""

    def __init__(self, read: Any) -> None:
        self._read = read
        self._loop = asyncio.get_running_loop()
        self.reached, self._go = asyncio.Event(), threading.Event()

    def __call__(self, *arguments: Any) -> Any:
        self._loop.call_soon_threadsafe(self.reached.set)
        assert self._go.wait(10)
        return self._read(*arguments)

    def let_go(self) -> None:
        self._go.set()


@pytest.mark.parametrize(
    ("name", "sent", "content"),
    [("csv_rows", CSV, b"+1,2,3,4\n"), ("json_lines_rows", LINES, b"[1,2,3,4]\n")],
)
async def test_lines_that_take_long_to_read_delay_nobody(
    same: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, name: str, sent: str, content: bytes
) -> None:
    held = Held(getattr(platforms, name))
    monkeypatch.setattr(platforms, name, held)
    slow = asyncio.create_task(invoke(same, content, sent))
    try:
        await held.reached.wait()
        assert read(await invoke(same, b"5,6,7,8\n")) == [OTHER]
        assert (await same.get("/ping")).status_code == 200
        assert not slow.done()
    finally:
        held.let_go()
    assert read(await slow) == [ROW]


async def test_what_cannot_go_the_fast_way_is_not_read_as_json_by_the_loop(
    same: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object) -> None:
        raise AssertionError("the slow way of JSON was taken")

    monkeypatch.setattr("service.formats.json_rows.parse_slowly", forbidden)
    monkeypatch.setattr("service.formats.json_rows.slow_rows", forbidden)
    assert read(await invoke(same, b"+1,2,3,4\n")) == [ROW]


async def test_lines_are_for_the_version_that_answers_when_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_toy(tmp_path, 1)
    async with serving(Settings(models_dir=tmp_path, watch=False)) as client:
        held = Held(platforms.csv_rows)
        monkeypatch.setattr(platforms, "csv_rows", held)
        slow = asyncio.create_task(invoke(client, b"+1,2,3,4\n"))
        try:
            await held.reached.wait()
            save_toy(tmp_path, 2)
            (tmp_path / "toy/1/model.onnx").unlink()
            (tmp_path / "toy/1").rmdir()
            await client.app.models.reload()
        finally:
            held.let_go()
        reply = await slow
    assert (reply.status_code, reply.json()["version"]) == (200, 2)


async def test_who_leaves_while_lines_are_read_is_counted_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with of(folder, "same") as client:
        held = Held(platforms.csv_rows)
        monkeypatch.setattr(platforms, "csv_rows", held)
        slow = asyncio.create_task(invoke(client, b"+1,2,3,4\n"))
        await held.reached.wait()
        slow.cancel()
        with pytest.raises((asyncio.CancelledError, AssertionError)):
            await slow  # the service returns without a reply
        held.let_go()
        metrics = (await client.get("/metrics")).text
    assert counted(metrics, "torchlit_requests_total", 'model="same",outcome="cancelled"') == 1
    assert counted(metrics, "torchlit_requests_total", 'model="same"') == 1


# ------------------------------------------------- GET /execution-parameters


@pytest.mark.parametrize(
    ("max_body_bytes", "max_request_rows", "expected"),
    [
        (2**24, 4096, (16, "SINGLE_RECORD", 6)),  # as it is unless set
        (2**24, 3_145_728, (16, "MULTI_RECORD", 6)),
        (2**24, 3_145_727, (16, "SINGLE_RECORD", 6)),
        (2**22, 4096, (25, "SINGLE_RECORD", 4)),
        (2**20, 524_288, (100, "MULTI_RECORD", 1)),
        (1000, 4096, (100, "SINGLE_RECORD", 1)),  # there is no less than 1
    ],
)
async def test_batch_transform_is_told_what_one_request_may_hold(
    folder: Path, max_body_bytes: int, max_request_rows: int, expected: tuple[int, str, int]
) -> None:
    """SageMaker, "... with Batch Transform": these three names; MULTI_RECORD fills the payload.

    "CreateTransformJob": payload in MB times requests at once is 100 at most.
    """
    settings = Settings(
        models_dir=folder, max_body_bytes=max_body_bytes, max_request_rows=max_request_rows
    )
    async with serving(settings) as client:
        reply = await client.get("/execution-parameters")
    concurrent, strategy, payload_mb = expected
    assert reply.status_code == 200
    assert reply.json() == {
        "MaxConcurrentTransforms": concurrent,
        "BatchStrategy": strategy,
        "MaxPayloadInMB": payload_mb,
    }
    assert concurrent * payload_mb <= 100


# ------------------------------------------------------- which model answers


async def test_the_only_model_answers_who_names_none(tmp_path: Path) -> None:
    save_mean(tmp_path)
    async with serving(Settings(models_dir=tmp_path, predict_route=PREDICT)) as client:
        content = b'{"instances": [[0, 1, 2, 3, 4, 5]]}'
        assert read_values(await invoke(client, b"0,1,2,3,4,5\n")) == [2.5]
        for path in ("/invocations", PREDICT, "/predict"):
            assert read_values(await client.post(path, content=content)) == [2.5]


async def test_the_default_model_answers_who_names_none(mean: httpx.AsyncClient) -> None:
    content = b'{"instances": [[0, 1, 2, 3, 4, 5]]}'
    for path in ("/invocations", PREDICT, "/predict"):
        reply = await mean.post(path, content=content)
        assert read_values(reply) == [2.5]
        assert reply.json().get("model", "mean") == "mean"
    other = await mean.post("/predict", content=body("toy", [ROW]))
    assert other.json()["model"] == "toy"
    other = await mean.post("/predict/toy", content=json.dumps({"instances": [ROW]}).encode())
    assert other.json()["model"] == "toy"


async def test_a_default_model_that_is_not_there_stops_the_start(models_dir: Path) -> None:
    models = ModelRepository(
        Settings(models_dir=models_dir, default_model="tyo"), Metrics(Blocks())
    )
    with pytest.raises(
        InvalidSetting, match=r"^TORCHLIT_DEFAULT_MODEL: expected one of mean, toy, got 'tyo'$"
    ):
        async with models:
            pass


async def test_a_default_model_that_failed_says_so(models_dir: Path) -> None:
    (models_dir / "toy/1/model.onnx").write_bytes(b"")
    async with serving(Settings(models_dir=models_dir, default_model="toy")) as client:
        for sent, content in ((CSV, b"1,2,3,4\n"), (JSON, b'{"instances": [[1, 2, 3, 4]]}')):
            reply = await invoke(client, content, sent)
            assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")


def read_values(reply: httpx.Response) -> list[float]:
    assert reply.status_code == 200, reply.text
    return [each["value"] for each in reply.json()["predictions"]]


# ------------------------------------------------------------------ Vertex AI


@pytest.mark.parametrize(
    "instance", [[1, 2, 3, 4], {"a": 1, "b": 2, "c": 3, "d": 4}, [[0, 1, 2], [3, 4, 5]]]
)
async def test_vertex_gets_predictions_and_nothing_else(
    toy: httpx.AsyncClient, mean: httpx.AsyncClient, instance: Any
) -> None:
    """Vertex AI, "Custom container requirements for prediction", "Response requirements"."""
    client = mean if isinstance(instance, list) and isinstance(instance[0], list) else toy
    content = json.dumps({"instances": [instance] * 3}).encode()
    reply = await client.post(PREDICT, content=content, headers={"content-type": JSON})
    expected = await client.post("/predict", content=content)
    assert reply.status_code == 200
    assert reply.headers["content-type"] == JSON
    assert reply.json() == {"predictions": expected.json()["predictions"]}
    assert len(reply.json()["predictions"]) == 3


@pytest.mark.parametrize(
    "parameters",
    [
        None,
        {},
        {"model": "mean"},
        {"model": "mean", "version": 1},
        {"model": "mean", "version": 1.0},  # as a protobuf Value has it
        {"version": None, "model": None},
    ],
)
async def test_vertex_may_name_a_model_in_its_parameters(
    mean: httpx.AsyncClient, toy: httpx.AsyncClient, parameters: Any
) -> None:
    """Vertex AI, as above, "Request requirements": parameters is an object of any content."""
    names = bool(parameters and parameters["model"])
    for row in ([0, 1, 2, 3, 4, 5], [[0, 1, 2], [3, 4, 5]]):
        content = json.dumps({"instances": [row], "parameters": parameters}).encode()
        reply = await (toy if names else mean).post(PREDICT, content=content)
        assert reply.json() == {"predictions": [{"value": 2.5}]}


async def test_the_route_of_vertex_may_be_that_of_predict(folder: Path) -> None:
    settings = Settings(
        models_dir=folder, default_model="mean", predict_route="/predict", health_route="/health"
    )
    async with serving(settings) as client:
        content = b'{"instances": [[0, 1, 2, 3, 4, 5]]}'
        reply = await client.post("/predict", content=content)
        assert reply.json() == {"predictions": [{"value": 2.5}]}
        reply = await client.post("/predict/mean", content=content)  # that is ours still
        assert reply.json()["model"] == "mean"
        assert (await client.get("/health")).status_code == 200
        assert (await client.get("/health/live")).json() == {"status": "live"}


async def test_the_route_of_vertex_may_name_the_model(folder: Path) -> None:
    settings = Settings(models_dir=folder, predict_route="/predict/mean")
    async with serving(settings) as client:
        content = b'{"instances": [[0, 1, 2, 3, 4, 5]]}'
        reply = await client.post("/predict/mean", content=content)
        assert reply.json() == {"predictions": [{"value": 2.5}]}
        reply = await client.post("/predict/toy", content=b'{"instances": [[0, 1, 2, 3]]}')
        assert reply.json()["model"] == "toy"


async def test_a_route_of_v2_stays_what_it_is(folder: Path) -> None:
    route = "/v2/models/mean/infer"
    settings = Settings(models_dir=folder, predict_route=route, health_route="/v2/health/ready")
    sent = {"name": "input", "shape": [1, 6], "datatype": "FP32", "data": [0, 1, 2, 3, 4, 5]}
    async with serving(settings) as client:
        assert (await client.post(route, json={"inputs": [sent]})).status_code == 200
        assert (await client.get("/v2/health/ready")).status_code == 200


@pytest.mark.parametrize("content_type", ["text/csv", "application/jsonlines"])
@pytest.mark.parametrize("line", ["0,1,2,3,4,5\n", '"0",1,2,3,4,5\n', "\n", "\r"])
async def test_a_packed_body_of_many_lines_costs_nothing(
    folder: Path, content_type: str, line: str
) -> None:
    """Lines are counted before they are read: no thread was asked for."""
    body = gzip.compress(line.encode() * 50_000)
    headers = {"Content-Type": content_type, "Content-Encoding": "gzip"}
    async with serving(Settings(models_dir=folder, default_model="mean")) as client:
        threads = threading.active_count()
        reply = await client.post("/invocations", content=body, headers=headers)
        assert threading.active_count() <= threads + 1  # that unpacked
    assert reply.status_code == 413
    assert reply.json() == {
        "error": "body: expected at most 4096 rows in one request, got 50000 lines"
    }


async def test_both_routes_of_vertex_may_be_one_path(folder: Path) -> None:
    """Vertex AI, "ModelContainerSpec": both default to .../deployedModels/DEPLOYED_MODEL:predict.

    "Custom container requirements for prediction" has the health route without `:predict`.
    """
    settings = Settings(
        models_dir=folder,
        default_model="mean",
        predict_route=PREDICT,
        health_route=PREDICT,
        api_keys=KEY,
    )
    async with serving(settings) as client:
        content = b'{"instances": [[0, 1, 2, 3, 4, 5]]}'
        assert (await client.get(PREDICT)).json()["status"] == "ready"
        assert (await client.post(PREDICT, content=content)).status_code == 401
        headers = {"authorization": f"Bearer {KEY}"}
        reply = await client.post(PREDICT, content=content, headers=headers)
        assert reply.json() == {"predictions": [{"value": 2.5}]}
        reply = await client.put(PREDICT, content=content, headers=headers)
        assert reply.status_code == 405


@pytest.mark.parametrize(
    "path", ["/", "/health", "/predict", "/predict/health", "/v2/models/x/infer"]
)
async def test_any_path_may_tell_health(folder: Path, path: str) -> None:
    async with of(folder, "mean", health_route=path) as client:
        reply = await client.get(path)
        assert (reply.status_code, reply.json()["status"]) == (200, "ready")


async def test_a_route_that_begins_like_a_probe_needs_its_key(folder: Path) -> None:
    for route in ("/pinged", "/health/predict", "/metrics/predict", "/ping"):
        settings = Settings(
            models_dir=folder, default_model="mean", predict_route=route, api_keys=KEY
        )
        async with serving(settings) as client:
            reply = await client.post(route, content=b'{"instances": [[0, 1, 2, 3, 4, 5]]}')
            assert reply.status_code == 401, route


async def test_without_its_routes_there_are_none(toy: httpx.AsyncClient) -> None:
    assert (await toy.get(HEALTH)).status_code == 404


# ------------------------------------------------- what holds for all of them

PATHS = ("/ping", HEALTH)


async def test_probes_need_no_key_unless_they_are_protected(folder: Path) -> None:
    routes = {"health_route": HEALTH}
    async with of(folder, "toy", api_keys=KEY, **routes) as client:
        for path in PATHS:
            assert (await client.get(path)).status_code == 200
        for path in ("/invocations", PREDICT):
            assert (await client.post(path, content=b"{}")).status_code == 401
        assert (await client.get("/execution-parameters")).status_code == 401
        reply = await invoke(client, b"1,2,3,4\n", authorization=f"Bearer {KEY}")
        assert reply.status_code == 200
    async with of(folder, "toy", api_keys=KEY, protect_health=True, **routes) as client:
        for path in PATHS:
            assert (await client.get(path)).status_code == 401
            reply = await client.get(path, headers={"authorization": f"Bearer {KEY}"})
            assert reply.status_code == 200


async def test_probes_are_answered_when_all_connections_are_taken(folder: Path) -> None:
    app = create_app(Settings(models_dir=folder, predict_route=PREDICT, health_route=HEALTH))
    transport = httpx.ASGITransport(app=app.answer_when_full)
    async with (
        app.lifespan(),
        httpx.AsyncClient(transport=transport, base_url="http://toy") as client,
    ):
        for path in PATHS:
            assert (await client.get(path)).status_code == 200
        for path in ("/invocations", PREDICT):
            reply = await client.post(path, content=b"{}")
            assert (reply.status_code, reply.headers["connection"]) == (503, "close")


async def test_ids_logs_and_pages_are_as_elsewhere(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    origin = "https://page.example"
    routes = {"health_route": HEALTH}
    async with of(folder, "toy", cors_origins=origin, access_log=True, **routes) as client:
        with caplog.at_level(logging.INFO, "torchlit.access"):
            for method, path in (
                ("GET", "/ping"),
                ("GET", HEALTH),
                ("GET", "/execution-parameters"),
                ("POST", "/invocations"),
                ("POST", PREDICT),
            ):
                caplog.clear()
                headers = {"x-request-id": "mine", "origin": origin}
                content = b'{"instances": [[1, 2, 3, 4]]}' if method == "POST" else None
                reply = await client.request(method, path, content=content, headers=headers)
                assert reply.status_code == 200
                assert reply.headers["x-request-id"] == "mine"
                assert reply.headers["access-control-allow-origin"] == origin
                (record,) = caplog.records
                assert record.getMessage().startswith(f"{method} {path} 200 ")
        asked = {"origin": origin, "access-control-request-method": "POST"}
        assert (await client.options("/invocations", headers=asked)).status_code == 200


# ------------------------------------------------------------ a real process


@contextmanager
def started(models_dir: Path, **variables: str) -> Iterator[Process]:
    """Start the service as a platform does: `serve` behind the command, and its own variables."""
    process = subprocess.Popen(
        [sys.executable, "-m", "service", "serve"],
        env=environment(models_dir=models_dir, host="0.0.0.0", drain_s=0.2) | variables,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    service = Process(process)
    try:
        yield service
    finally:
        service.kill()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


@pytest.mark.slow
@pytest.mark.parametrize("variable", ["SAGEMAKER_BIND_TO_PORT", "PORT"])
def test_sagemaker_and_cloud_run_choose_the_port(models_dir: Path, variable: str) -> None:
    """SageMaker runs `docker run image serve`, and sends SIGTERM, then SIGKILL 30 s later.

    Cloud Run and Knative set PORT and want 0.0.0.0; SIGTERM comes 10 s before SIGKILL.
    """
    port = free_port()
    chosen = {variable: str(port), "TORCHLIT_DEFAULT_MODEL": "mean"}
    with started(models_dir, **chosen) as service:
        assert service.url == f"http://0.0.0.0:{port}"
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            assert client.get("/ping").status_code == 200
            headers = {"content-type": CSV, "accept": CSV}
            content = b"0,1,2,3,4,5\n1,2,3,4,5,6\n"
            reply = client.post("/invocations", content=content, headers=headers)
            assert (reply.status_code, reply.content) == (200, b"2.5\n3.5\n")
            assert reply.headers["content-type"] == CSV
            reply = client.post(
                "/invocations",
                content=iter([b"+0,1,2,", b"3,4,5\n"]),
                headers=headers | {"accept": LINES},
            )
            assert reply.content == b'{"value":2.5}\n'
            assert client.get("/execution-parameters").status_code == 200
        assert service.stop() == 0


@pytest.mark.slow
def test_vertex_chooses_port_and_routes(models_dir: Path) -> None:
    """Vertex AI, as above: AIP_HTTP_PORT, AIP_HEALTH_ROUTE, AIP_PREDICT_ROUTE, and others."""
    port = free_port()
    chosen = {
        "AIP_HTTP_PORT": str(port),
        "AIP_HEALTH_ROUTE": HEALTH,
        "AIP_PREDICT_ROUTE": PREDICT,
        "AIP_MODE": "PREDICTION",
        "AIP_STORAGE_URI": "",
        "TORCHLIT_DEFAULT_MODEL": "mean",
    }
    with started(models_dir, **chosen) as service:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            assert client.get(HEALTH).status_code == 200
            content = b'{"instances": [[0, 1, 2, 3, 4, 5]], "parameters": {"version": 1.0}}'
            reply = client.post(PREDICT, content=content, headers={"content-type": JSON})
            assert reply.json() == {"predictions": [{"value": 2.5}]}
        assert service.stop() == 0


@pytest.mark.parametrize("row", ["-0,0", '"-0","0"', "-0.0,+0"])
async def test_minus_zero_keeps_its_sign_in_csv(row: str, tmp_path: Path) -> None:
    save_same(tmp_path, ["batch", 2])
    async with serving(Settings(models_dir=tmp_path, watch=False)) as client:
        headers = {"content-type": "text/csv", "accept": "application/json"}
        answer = await client.post("/invocations", content=row, headers=headers)
    signs = [math.copysign(1, each) for each in answer.json()["predictions"][0]["output"]]
    assert signs == [-1, 1]
