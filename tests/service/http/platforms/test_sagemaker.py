"""What SageMaker asks of a container, each demand named by the document that makes it.

"Use Your Own Inference Code with Hosting Services", "Use Your Own Inference Code with Batch
Transform", "Common data formats for inference", and of the API reference "CreateTransformJob".
"""

import gzip
import json
import math
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.card import Example
from service.entrance.services import Host
from service.settings import Settings
from tests.support.clients import counted
from tests.support.platforms import (
    CSV,
    HEALTH,
    JSON,
    LINES,
    MAX_ROWS,
    OTHER,
    PREDICT,
    ROW,
    invoke,
    of,
    read,
)
from tests.support.toys import (
    Client,
    body,
    save_bounded,
    save_columns,
    save_dear,
    save_same,
    save_toy,
    serving,
    toy_answer,
    toy_card,
)

pytestmark = pytest.mark.anyio

# ---------------------------------------------------------------- GET /ping


async def test_ping_says_200_once_every_model_answers(toy: Client) -> None:
    """SageMaker, "... with Hosting Services": a 200 means ready; the body may be anything."""
    reply = await toy.get("/ping")
    assert reply.status_code == 200
    assert reply.json() == (await toy.get("/health/ready")).json()


async def test_ping_says_503_while_a_model_has_failed_or_it_drains(models_dir: Path) -> None:
    broken = models_dir / "broken/1/model.onnx"
    host = Host()
    async with serving(Settings(models_dir=models_dir, health_route=HEALTH), host) as client:
        host.is_draining = True
        for path in ("/ping", HEALTH):
            reply = await client.get(path)
            assert (reply.status_code, reply.json()["status"]) == (503, "draining")
        host.is_draining = False
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
async def test_json_is_the_body_of_predict_with_or_without_a_model(toy: Client, sent: str) -> None:
    rows: list[Any] = [[1, 2, 3, 4], {"d": 0, "c": 0, "b": 9, "a": 0}]
    named = await invoke(toy, body("toy", rows, version=1), sent)
    expected = await toy.post("/predict", content=body("toy", rows))
    unnamed = await invoke(toy, json.dumps({"instances": rows}).encode(), sent)
    assert named.status_code == 200
    assert named.content == unnamed.content == expected.content
    assert named.headers["content-type"] == JSON
    other = await invoke(toy, body("mean", [[[0, 1, 2], [3, 4, 5]]]), sent)
    assert other.json() == {"model": "mean", "version": 1, "predictions": [{"value": 2.5}]}


async def test_without_a_content_type_a_body_is_json(toy: Client) -> None:
    reply = await toy.post("/invocations", content=b'{"instances": [[1, 2, 3, 4]]}')
    assert "content-type" not in reply.request.headers
    assert reply.status_code == 200


# -------------------------------------------------- POST /invocations: CSV

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
    same: Client, what: str, content: bytes, rows: list[list[float]]
) -> None:
    """SageMaker, "Common data formats for inference": commas between values, no header."""
    reply = await invoke(same, content)
    assert read(reply) == np.array(rows, np.float32).tolist()
    assert reply.json()["model"] == "same"


@pytest.mark.parametrize(
    "sent",
    ["TEXT/CSV", "text/csv;charset=utf-8", "text/csv; header=absent", "application/csv"],
)
async def test_a_media_type_is_known_in_any_case_and_with_parameters(
    same: Client, sent: str
) -> None:
    assert read(await invoke(same, b"1,2,3,4\n", sent)) == [ROW]


async def test_an_image_is_a_line_of_all_its_pixels(mean: Client) -> None:
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
    whole: Client, content: bytes, rows: list[list[int]]
) -> None:
    assert read(await invoke(whole, content)) == rows


async def test_whole_numbers_are_to_be_whole_and_to_fit(whole: Client) -> None:
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


async def test_a_row_of_one_value_is_a_line_of_one(single: Client) -> None:
    assert read(await invoke(single, b"1\n2\n\n 3\n")) == [[1], [2], [3]]
    reply = await invoke(single, b'1\n""\n')  # something is missing there, rather than nothing
    error = 'line 2.input: expected a number, got "": the model takes no missing values, unless '
    assert reply.json()["error"].startswith(error)


# ------------------------------------------- POST /invocations: JSON Lines


@pytest.mark.parametrize("sent", [LINES, "application/jsonl", "Application/X-NDJson"])
async def test_json_lines_have_an_instance_in_each(same: Client, sent: str) -> None:
    """SageMaker, "Common data formats for inference": a record in each line."""
    for content, rows in (
        (b"[1,2,3,4]\n", [ROW]),
        (b"[1,2,3,4]", [ROW]),
        (b"[1,2,3,4]\r\n[5,6,7,8]\r\n", [ROW, OTHER]),
        (b"\n [1, 2.0, 3e0, 4] \n\n  \n[5,6,7,8]\n", [ROW, OTHER]),
        (b"\xef\xbb\xbf[1,2,3,4]\n", [ROW]),
    ):
        assert read(await invoke(same, content, sent)) == rows


async def test_json_lines_may_name_features_or_nest_an_image(toy: Client, mean: Client) -> None:
    reply = await invoke(toy, b'{"d": 4, "c": 3, "b": 2, "a": 1}\n[1,2,3,4]\n', LINES)
    first, second = reply.json()["predictions"]
    assert first == second
    expected = toy_answer(np.array([ROW]))[0]
    assert list(first["probabilities"].values()) == pytest.approx(expected, abs=1e-6)
    reply = await invoke(mean, b"[[0,1,2],[3,4,5]]\n[1,2,3,4,5,6]\n", LINES)
    assert reply.json()["predictions"] == [{"value": 2.5}, {"value": 3.5}]


async def test_json_lines_of_whole_numbers_are_exact(whole: Client) -> None:
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
async def test_a_compressed_body_is_decompressed(same: Client, sent: str, content: bytes) -> None:
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
        ("text/csv, application/json", CSV),  # the first of those that are as good
        ("text/csv;q=0.1, application/json", JSON),
        ("text/csv;q=0.5, application/jsonlines;q=0.9, application/json;q=0.1", LINES),
        ("*/*, text/csv", CSV),  # what is named is wanted more
        ("image/png, application/jsonlines, text/csv", LINES),
        (" , text/csv", CSV),
        (LINES, LINES),
        ("application/x-ndjson", "application/x-ndjson"),
        ("text/html, */*;q=0.8", JSON),
        ("text/csv;q=0", JSON),
        ("text/csv;q=1e400", CSV),
        ("text/csv; q=0.0, application/jsonlines;q=0.1", LINES),
        ("application/x-recordio-protobuf", JSON),
        ("text/csv;q=.2, application/json;q=.1", CSV),
        ("application/csv", "application/csv"),
        ("text/tab-separated-values, text/csv;q=0.1", CSV),  # of which there are none
        ("application/json;q=0", CSV),  # the first that is not refused
        ("*/*;q=0", JSON),
    ],
)
async def test_the_reply_is_of_the_type_that_accept_wants_most_of_those_there_are(
    same: Client, accept: str | None, given: str
) -> None:
    """SageMaker, "InvokeEndpoint": Accept is the MIME type of the inference that is wanted."""
    same.headers.pop("accept", None)  # httpx sends one of its own
    headers = {} if accept is None else {"accept": accept}
    reply = await invoke(same, b"1,2,3,4\n", **headers)
    assert reply.status_code == 200
    assert reply.headers["content-type"] == given
    assert int(reply.headers["content-length"]) == len(reply.content)


@pytest.mark.parametrize(
    ("lines", "given"),
    [
        ([JSON + ";q=0.5", CSV], CSV),
        ([CSV, JSON + ";q=0.5"], CSV),
        ([CSV + ";q=0", "*/*;q=0.1", LINES], LINES),
    ],
)
async def test_several_lines_of_accept_are_one(same: Client, lines: list[str], given: str) -> None:
    """RFC 9110, section 5.3."""
    same.headers.pop("accept", None)
    headers = [("content-type", CSV), *(("accept", line) for line in lines)]
    reply = await same.post("/invocations", content=b"1,2,3,4\n", headers=headers)
    assert reply.headers["content-type"] == given


async def formats(client: Client, content: bytes) -> tuple[bytes, bytes]:
    """Return the replies as CSV and as JSON Lines; JSON says the same as the latter."""
    replies = {
        accept: await invoke(client, content, accept=accept) for accept in (JSON, CSV, LINES)
    }
    lines = [json.loads(line) for line in replies[LINES].content.splitlines()]
    assert lines == replies[JSON].json()["predictions"]
    return replies[CSV].content, replies[LINES].content


async def test_a_classification_is_label_probability_and_probabilities(
    toy: Client,
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


async def test_a_regression_is_its_value(mean: Client) -> None:
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
    same: Client, whole: Client, tmp_path: Path
) -> None:
    assert await formats(same, b"1,2,3,4.5\n") == (
        b"1.0,2.0,3.0,4.5\n",
        b'{"output":[1.0,2.0,3.0,4.5]}\n',
    )
    assert (await formats(whole, b"1,-9007199254740993\n"))[0] == b"1,-9007199254740993\n"
    save_same(tmp_path, ["batch", 2, 2])
    async with of(tmp_path, "same") as client:
        assert (await formats(client, b"1,2,3,4\n"))[0] == b"1.0,2.0,3.0,4.0\n"


@pytest.mark.parametrize("content_type", ["text/csv", "application/jsonlines"])
@pytest.mark.parametrize("line", ["0,1,2,3,4,5\n", '"0",1,2,3,4,5\n', "\n", "\r"])
async def test_a_compressed_body_of_many_lines_costs_nothing(
    folder: Path, content_type: str, line: str
) -> None:
    """Lines are counted before they are read: no thread reads them."""
    body = gzip.compress(line.encode() * 50_000)
    headers = {"Content-Type": content_type, "Content-Encoding": "gzip"}
    async with serving(Settings(models_dir=folder, default_model="mean")) as client:
        threads = threading.active_count()
        reply = await client.post("/invocations", content=body, headers=headers)
        assert threading.active_count() <= threads + 1  # that decompressed
    assert reply.status_code == 413
    assert reply.json() == {
        "error": "body: expected at most 4096 rows in one request, got 50000 lines"
    }


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


@pytest.mark.parametrize("row", ["-0,0", '"-0","0"', "-0.0,+0"])
async def test_minus_zero_keeps_its_sign_in_csv(row: str, tmp_path: Path) -> None:
    save_same(tmp_path, ["batch", 2])
    async with serving(Settings(models_dir=tmp_path, watch=False)) as client:
        answer = await invoke(client, row.encode())
    signs = [math.copysign(1, each) for each in read(answer)[0]]
    assert signs == [-1, 1]


async def test_columns_are_taken_by_every_route_for_rows(tmp_path: Path) -> None:
    save_columns(tmp_path)
    settings = Settings(models_dir=tmp_path, watch=False, predict_route="/v1/vertex")
    async with serving(settings) as client:
        reply = await client.post(
            "/invocations",
            content=b"1.5,2,rome,true\n0,-1,,0\n",
            headers={"content-type": "text/csv", "accept": "text/csv"},
        )
        assert reply.text == "113.5,rome\n-1.0,\n"
        instances = [{"age": 1.5, "rooms": 2, "city": "rome", "paid": True}]
        reply = await client.post("/v1/vertex", json={"instances": instances})
        assert reply.json() == {"predictions": [{"price": [113.5], "town": ["rome"]}]}
