import asyncio
import json
import logging
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from service.card import Example, Target
from service.entrance.services import Host
from service.settings import Settings
from service.settings.verdicts import MissingValues, Verdicts
from tests.support.toys import (
    body,
    save_bounded,
    save_columns,
    save_fussy,
    save_graph,
    save_imputed,
    save_picky,
    save_same,
    save_sequenced,
    save_sum,
    save_toy,
    serving,
    tensor,
    toy_answer,
    toy_card,
)

pytestmark = pytest.mark.anyio


async def post(client: httpx.AsyncClient, content: bytes, path: str = "/predict") -> httpx.Response:
    return await client.post(path, content=content)


async def test_a_classification_names_label_and_probabilities(client: httpx.AsyncClient) -> None:
    reply = await post(client, body("toy", [[1, 2, 3, 4], {"d": 0, "c": 0, "b": 9, "a": 0}]))
    assert reply.status_code == 200
    assert reply.headers["content-type"] == "application/json"
    answer = reply.json()
    assert (answer["model"], answer["version"]) == ("toy", 1)
    first, second = answer["predictions"]
    expected = toy_answer(np.array([[1, 2, 3, 4]]))[0]
    assert first["label"] == "red"
    assert first["probability"] == pytest.approx(expected[0], abs=1e-6)
    assert list(first["probabilities"]) == ["red", "green", "blue"]
    assert list(first["probabilities"].values()) == pytest.approx(expected, abs=1e-6)
    assert second["label"] == "green"


async def test_a_regression_gives_a_value(client: httpx.AsyncClient) -> None:
    reply = await post(client, body("mean", [[1, 2, 3, 4, 5, 6], [[0, 0, 0], [0, 0, 6]]]))
    assert reply.json() == {
        "model": "mean",
        "version": 1,
        "predictions": [{"value": 3.5}, {"value": 1.0}],
    }


async def test_the_name_may_stand_in_the_path(client: httpx.AsyncClient) -> None:
    content = b'{"instances": [[1,2,3,4,5,6]]}'
    for path in ("/predict/mean", "/predict/mean/"):
        assert (await post(client, content, path)).json()["predictions"] == [{"value": 3.5}]
    both = await post(client, body("mean", [[1, 2, 3, 4, 5, 6]]), "/predict/mean")
    assert both.status_code == 200


async def test_a_version_may_be_named(tmp_path: Path) -> None:
    seconds, nanoseconds = 1732700000, 1732700000123456789  # Unix times, as other servers have
    for version in (1, seconds, nanoseconds):
        save_toy(tmp_path, version, card=toy_card())
    async with serving(Settings(models_dir=tmp_path)) as client:
        for fields, version in (
            ({}, nanoseconds),
            ({"version": 1}, 1),
            ({"version": None}, nanoseconds),
            ({"version": seconds}, seconds),
            ({"version": nanoseconds}, nanoseconds),
        ):
            reply = await post(client, body("toy", [[1, 2, 3, 4]], **fields))
            assert reply.json()["version"] == version
            rows = body("toy", [[1, 2, 3, 4]] * 3000, **fields)  # read in a thread, in blocks
            assert (await post(client, rows)).json()["version"] == version
        for version in (seconds, nanoseconds):
            packed = msgspec.msgpack.encode({"version": version, "instances": [[1, 2, 3, 4]]})
            headers = {"content-type": "application/msgpack"}
            reply = await client.post("/predict/toy", content=packed, headers=headers)
            assert reply.json()["version"] == version
            reply = await post(client, body("toy", [[1] * 4]), f"/predict?version={version}")
            assert reply.json()["version"] == version
            described = await client.get(f"/v2/models/toy/versions/{version}")
            assert str(version) in described.json()["versions"]
        shown = (await client.get("/models/toy")).json()
        assert shown["default_version"] == nanoseconds
        assert f'model="toy",version="{nanoseconds}"' in (await client.get("/metrics")).text
        reply = await post(client, body("toy", [[1] * 4], version=10**19))
        assert reply.status_code == 404


async def test_several_targets_are_named(tmp_path: Path) -> None:
    targets = [Target(name=name, unit="", description="") for name in ("low", "mid", "high")]
    card = toy_card(
        task="regression",
        labels=[],
        targets=targets,
        examples=[Example(name="zero", input=[0.0] * 4, output=[1 / 3] * 3)],
    )
    save_toy(tmp_path, card=card)
    async with serving(Settings(models_dir=tmp_path)) as client:
        reply = await post(client, body("toy", [[0, 0, 0, 0]]))
    assert reply.json()["predictions"] == [
        {name: pytest.approx(1 / 3) for name in ("low", "mid", "high")}
    ]


async def test_a_value_comes_with_its_interval(tmp_path: Path) -> None:
    save_bounded(tmp_path)
    async with serving(Settings(models_dir=tmp_path)) as client:
        reply = await post(client, body("bounded", [[1], [2]]))
    assert reply.json()["predictions"] == [
        {"value": 2.0, "lower": 1.0, "upper": 3.0},
        {"value": 4.0, "lower": 3.0, "upper": 5.0},
    ]


async def test_several_values_come_with_their_intervals(tmp_path: Path) -> None:
    save_bounded(tmp_path, targets=2)
    async with serving(Settings(models_dir=tmp_path)) as client:
        reply = await post(client, body("bounded", [[1, 2]]))
    assert reply.json()["predictions"] == [
        {
            "twice_0": {"value": 2.0, "lower": 1.0, "upper": 3.0},
            "twice_1": {"value": 4.0, "lower": 3.0, "upper": 5.0},
        }
    ]


async def test_a_model_without_card_answers_plain_numbers(tmp_path: Path) -> None:
    save_toy(tmp_path, card=None)
    async with serving(Settings(models_dir=tmp_path)) as client:
        reply = await post(client, body("toy", [[1, 2, 3, 4]]))
        described = (await client.get("/models/toy")).json()
    expected = toy_answer(np.array([[1, 2, 3, 4]]))[0]
    (prediction,) = reply.json()["predictions"]
    assert prediction == {"probabilities": pytest.approx(expected.tolist(), abs=1e-6)}
    assert described["versions"][0]["card"] is None


async def test_while_it_drains_it_serves_and_sends_its_clients_elsewhere(models_dir: Path) -> None:
    host = Host()
    async with serving(Settings(models_dir=models_dir), host) as client:
        host.is_draining = True
        reply = await post(client, body("toy", [[1, 2, 3, 4]]))
        ready = await client.get("/health/ready")
        live = await client.get("/health/live")
    assert (reply.status_code, reply.headers["connection"]) == (200, "close")
    assert (ready.status_code, ready.json()["status"]) == (503, "draining")
    assert live.status_code == 200


async def test_the_fast_way_is_the_one_that_is_taken(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object) -> None:
        raise AssertionError("the slow way was taken")

    for slow in ("slow_rows", "parse"):
        monkeypatch.setattr(f"service.formats.json_fast.{slow}", forbidden)
    rows = [[1, 2, 3, 4], {"a": 1, "b": 2, "c": 3, "d": 4}]
    for _ in range(3):
        answered = await asyncio.gather(*(post(client, body("toy", [row])) for row in rows))
        assert [reply.status_code for reply in answered] == [200, 200]


async def test_a_body_in_chunks_is_put_together(client: httpx.AsyncClient) -> None:
    async def chunks() -> Any:
        content = body("toy", [[1, 2, 3, 4]])
        yield content[:10]
        yield content[10:]
        yield b" " * 100

    assert (await client.post("/predict", content=chunks())).status_code == 200


async def test_a_caller_sets_a_shorter_deadline_but_no_longer_one(models_dir: Path) -> None:
    content = body("toy", [[1, 2, 3, 4]])
    late = 'torchlit_rejected_rows_total{model="toy",reason="deadline",version="1"}'
    async with serving(Settings(models_dir=models_dir, max_queue_delay_ms=100)) as client:
        headers = {"X-Request-Timeout-Ms": "10"}
        reply = await client.post("/predict", content=content, headers=headers)
        assert (reply.status_code, "deadline passed" in reply.text) == (504, True)
        assert (await post(client, content)).status_code == 200
        assert await counted(client, late) == 1
    settings = Settings(models_dir=models_dir, max_queue_delay_ms=100, request_timeout_s=0.01)
    async with serving(settings) as client:
        headers = {"X-Request-Timeout-Ms": "60000"}
        assert (await client.post("/predict", content=content, headers=headers)).status_code == 504


async def counted(client: httpx.AsyncClient, series: str) -> float:
    lines = (await client.get("/metrics")).text.splitlines()
    return next(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(series))


async def test_an_answer_is_counted_under_its_model(client: httpx.AsyncClient) -> None:
    await post(client, body("toy", [[1, 2, 3, 4]]))
    requests = 'torchlit_requests_total{model="toy",outcome="ok",version="1"}'
    assert await counted(client, requests) == 1


async def test_many_callers_at_once_share_batches_and_get_their_own_answers(
    client: httpx.AsyncClient,
) -> None:
    rows = np.random.default_rng(2).uniform(0, 10, (100, 4)).round(3)
    replies = await asyncio.gather(*(post(client, body("toy", [row.tolist()])) for row in rows))
    for row, reply in zip(rows, replies, strict=True):
        (prediction,) = reply.json()["predictions"]
        expected = toy_answer(row[None])[0]
        assert list(prediction["probabilities"].values()) == pytest.approx(expected, abs=1e-6)
    assert await counted(client, 'torchlit_batches_total{model="toy"') < 100


async def test_an_answer_that_is_not_finite_fails_alone(tmp_path: Path) -> None:
    save_fussy(tmp_path)
    async with serving(Settings(models_dir=tmp_path)) as client:
        for _ in range(2):  # also when it is known that there may be such answers
            replies = await asyncio.gather(
                *(post(client, body("fussy", [[number]])) for number in (8, 7, 9))
            )
            assert [reply.status_code for reply in replies] == [200, 500, 200]
            assert replies[1].json() == {
                "error": "the model answered NaN or infinity for this input: ask /v2 in binary"
            }
            assert replies[2].json()["predictions"] == [{"output": [0.5]}]
        mixed = await post(client, body("fussy", [[8], [7]]))
        assert mixed.status_code == 500
        assert await counted(client, 'torchlit_batches_total{model="fussy"') == 3  # they shared


def save_whole(folder: Path, *, name: str = "sum", is_added: bool = False) -> Path:
    """Write a model of the largest numbers of all rows, each row of which may be added to them."""
    path = folder / name / "1/model.onnx"
    nodes = [helper.make_node("ReduceMax", ["input", "first"], ["largest"], keepdims=1)]
    if is_added:
        nodes.append(helper.make_node("Add", ["input", "largest"], ["output"]))
    output = tensor("output" if is_added else "largest", ["n", 2])
    first = numpy_helper.from_array(np.array([0]), "first")
    save_graph(path, nodes, [tensor("input", ["batch", 2])], [output], [first], None)
    return path


FIXED = (
    "the first dimension of input input is fixed at %d; an export with dynamic_shapes lets it vary"
)
NO_ROWS: list[tuple[Callable[[Path], Path], list[int], str]] = [
    (save_sum, [1, 2], "it has 2 inputs, and left holds more than one value of a row"),
    (partial(save_same, shape=[2], name="sum"), [2], FIXED % 2),
    (partial(save_same, shape=[1], name="sum"), [1], FIXED % 1),
    (partial(save_same, shape=[], name="sum"), [], "input input is a single number, without rows"),
    (partial(save_same, shape=[2, 1], name="sum"), [2, 1], FIXED % 2),
    (
        save_whole,
        [1, 2],
        "output largest: the answer to 2 rows of a trial has shape (1, 2)",
    ),
]


@pytest.mark.parametrize(("save", "shape", "why"), NO_ROWS)
async def test_a_model_that_takes_no_rows_names_the_path_that_it_has(
    tmp_path: Path, save: Callable[[Path], Path], shape: list[int], why: str
) -> None:
    save(tmp_path)
    async with serving(Settings(models_dir=tmp_path)) as client:
        assert (await client.get("/health/ready")).status_code == 200
        reply = await post(client, body("sum", [[1, 2]]))
        inputs = (await client.get("/v2/models/sum")).json()["inputs"]
        for each in inputs:
            data = [1, 2][: math.prod(shape)]
            each |= {"shape": shape, "data": data}
        inferred = await client.post("/v2/models/sum/infer", json={"inputs": inputs})
    assert reply.status_code == 400
    assert reply.json() == {
        "error": f"model sum: expected one that takes rows, but {why}: use /v2/models/sum/infer"
    }
    assert inferred.status_code == 200


async def test_a_model_of_one_row_a_run_answers_instances_one_by_one(tmp_path: Path) -> None:
    save_same(tmp_path, [1, 2])
    save_same(tmp_path, ["batch", 2], name="single")
    path = tmp_path / "single/1/model.onnx"
    model = onnx.load(path)  # its graph says that the rows are open, and it can run one
    model.graph.node[0].CopyFrom(helper.make_node("Reshape", ["input", "one"], ["output"]))
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 2]), "one"))
    onnx.save(model, path)
    rows = [[number, -number] for number in range(5)]
    async with serving(Settings(models_dir=tmp_path)) as client:
        for name in ("same", "single"):
            replies = await asyncio.gather(
                *(post(client, body(name, instances)) for instances in (rows, rows[3:], rows[:1]))
            )
            answers = [
                [each["output"] for each in reply.json()["predictions"]] for reply in replies
            ]
            assert answers == [rows, rows[3:], rows[:1]]
            assert await counted(client, f'torchlit_batches_total{{model="{name}"') == 8


async def test_a_model_whose_rows_depend_on_each_other_gets_them_as_they_were_sent(
    tmp_path: Path,
) -> None:
    save_whole(tmp_path, name="mixed", is_added=True)
    several = [[[1, 2], [5, 0], [0, 3]], [[7, 8]], [[1, 1], [0, 0]]]
    async with serving(Settings(models_dir=tmp_path, max_batch_size=2)) as client:
        replies = await asyncio.gather(*(post(client, body("mixed", rows)) for rows in several))
        assert await counted(client, 'torchlit_batches_total{model="mixed"') == 3
    for rows, reply in zip(several, replies, strict=True):
        answers = [each["output"] for each in reply.json()["predictions"]]
        np.testing.assert_array_equal(answers, np.array(rows) + np.max(rows, axis=0))


@pytest.mark.parametrize("batching", ["", "picky=requests", "picky=rows"])
async def test_rows_that_get_no_answer_are_no_predictions(tmp_path: Path, batching: str) -> None:
    save_picky(tmp_path, least=-1e9)  # no trial has such rows
    settings = Settings(models_dir=tmp_path, batching=Verdicts(batching))
    async with serving(settings) as client:
        good = await post(client, body("picky", [[1, 2, 3, 4], [0, 0, 0, 0]]))
        reply = await post(client, body("picky", [[1, 2, 3, 4], [-2e9, 0, 0, 0]]))
    assert len(good.json()["predictions"]) == 2
    assert (reply.status_code, reply.json()) == (
        500,
        {"error": "the model did not answer with one row for each row"},
    )


async def test_what_is_left_out_of_the_outputs_is_left_out_of_a_prediction(tmp_path: Path) -> None:
    save_sequenced(tmp_path)
    async with serving(Settings(models_dir=tmp_path)) as client:
        reply = await post(client, body("sequenced", [[0, 1]]))
    assert reply.json()["predictions"] == [{"output": [0, 1]}]


async def test_a_model_that_raises_is_logged_and_tells_the_caller_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_graph(
        tmp_path / "table/1/model.onnx",
        [helper.make_node("Gather", ["entries", "input"], ["output"])],
        [tensor("input", ["batch", 1], TensorProto.INT64)],
        [tensor("output", ["batch", 1])],
        [numpy_helper.from_array(np.arange(3, dtype=np.float32), "entries")],
        None,
    )
    async with serving(Settings(models_dir=tmp_path)) as client:
        with caplog.at_level(logging.ERROR):
            reply = await post(client, body("table", [[9]]))
    assert reply.status_code == 500
    assert reply.json() == {"error": "the model failed on this input"}
    assert "Gather" in caplog.text


async def test_a_full_queue_is_503(models_dir: Path) -> None:
    settings = Settings(models_dir=models_dir, max_queue_rows=2)
    async with serving(settings) as client:
        replies = await asyncio.gather(
            *(post(client, body("toy", [[1, 2, 3, 4]] * 2)) for _ in range(3))
        )
    refused = [reply for reply in replies if reply.status_code == 503]
    assert refused
    assert refused[0].headers["retry-after"] == "1"
    assert "the queue is full" in refused[0].json()["error"]
    assert any(reply.status_code == 200 for reply in replies)


async def test_a_request_with_more_rows_than_a_batch_is_answered_in_order(
    models_dir: Path,
) -> None:
    rows = np.random.default_rng(3).uniform(0, 10, (50, 4)).round(2)
    async with serving(Settings(models_dir=models_dir, max_batch_size=8)) as client:
        reply = await post(client, body("toy", rows.tolist()))
    got = [list(each["probabilities"].values()) for each in reply.json()["predictions"]]
    np.testing.assert_allclose(got, toy_answer(rows), atol=1e-6)


async def test_the_reply_is_plain_json(client: httpx.AsyncClient) -> None:
    reply = await post(client, body("toy", [[1, 2, 3, 4]]))
    assert int(reply.headers["content-length"]) == len(reply.content)
    json.loads(reply.content, parse_constant=lambda name: pytest.fail(name))


@pytest.mark.parametrize("further", ["", ",[100000000000000000000,0]"])  # it goes the slow way
async def test_numbers_come_as_their_text_says(tmp_path: Path, further: str) -> None:
    save_same(tmp_path, ["batch", 2])
    text = f"[[-0,3.4028235e38],[0,-3.4028235e38]{further}]"
    async with serving(Settings(models_dir=tmp_path)) as client:
        reply = await post(client, f'{{"instances":{text}}}'.encode())
        too_large = await post(client, b'{"instances":[[0,3.4028235677973366e38]]}')
    largest = float(np.finfo(np.float32).max)
    (zero, high), (plain, low) = (each["output"] for each in reply.json()["predictions"][:2])
    assert (zero, str(zero), plain, str(plain)) == (0, "-0.0", 0, "0.0")
    assert (high, low) == (largest, -largest)
    assert too_large.status_code == 400
    assert too_large.json()["error"].startswith("instances[0][1]: expected a finite number that ")


HOUSES = [{"age": 1.5, "rooms": 2, "city": "rome", "paid": True}, [0, -1, "", False]]
PRICED = [{"price": [113.5], "town": ["rome"]}, {"price": [-1], "town": [""]}]


@pytest.mark.parametrize("batching", ["", "columns=requests"])
async def test_a_model_of_columns_answers_each_row(tmp_path: Path, batching: str) -> None:
    save_columns(tmp_path)
    settings = Settings(models_dir=tmp_path, batching=Verdicts(batching), watch=False)
    async with serving(settings) as client:
        (version,) = (await client.get("/models/columns")).json()["versions"]
        assert "why_no_rows" not in version
        assert version["batching"]["of"] == (batching.partition("=")[2] or "rows")
        replies = await asyncio.gather(
            *(post(client, body("columns", HOUSES * count)) for count in (1, 2, 40))
        )
    for count, reply in zip((1, 2, 40), replies, strict=True):
        assert reply.json()["predictions"] == PRICED * count


@pytest.mark.parametrize("shape", [["batch", 2, "wide"], [1, 2, "wide"]])
async def test_rows_of_an_open_shape_are_answered_each_in_its_own(
    tmp_path: Path, shape: list[Any]
) -> None:
    save_same(tmp_path, shape)
    short, wide = [[1, 2], [3, 4]], [[1, 2, 3], [4, 5, 6]]
    async with serving(Settings(models_dir=tmp_path, watch=False)) as client:
        for instances in ([short], [short, short, short], [short, wide, short], [wide]):
            reply = await post(client, body("same", instances))
            assert reply.json()["predictions"] == [{"output": each} for each in instances]
        for wrong, why in (
            ([[1, 2]], "expected nested lists of 2 x any numbers, got a list of 1"),
            ([[1, 2], [3]], "expected a list of 2, got a list of 1"),
            ([1, 2], "expected nested lists of 2 x any numbers, got a list of 2"),
            (7, "expected nested lists of 2 x any numbers, got 7"),
        ):
            reply = await post(client, body("same", [wrong]))
            assert (reply.status_code, why in reply.json()["error"]) == (400, True), reply.json()


MISSING = "expected a number, got null: the model takes no missing values, unless"


@pytest.mark.parametrize(
    ("content", "media_type"),
    [
        (b'{"instances": [{"age": null, "size": 1}, [2, 1], [null, 2]]}', "application/json"),
        (b'{"age": null, "size": 1}\n[2, 1]\n[null, 2]\n', "application/jsonlines"),
        (b",1\n2,1\nNaN,2\n", "text/csv"),
        (b'"",1\n2,1\n ,2\n', "text/csv"),
        (
            msgspec.msgpack.encode({"instances": [[None, 1], [2, 1], [float("nan"), 2]]}),
            "application/msgpack",
        ),
    ],
)
async def test_a_missing_value_is_taken_where_the_model_knows_what_to_do(
    tmp_path: Path, content: bytes, media_type: str
) -> None:
    save_imputed(tmp_path)
    async with serving(Settings(models_dir=tmp_path, watch=False)) as client:
        headers = {"content-type": media_type}
        reply = await client.post("/predict/imputed", content=content, headers=headers)
        assert [each["sum"] for each in reply.json()["predictions"]] == [[8], [3], [9]]
        for instance in ([1, None], {"age": 1, "size": None}):
            reply = await post(client, body("imputed", [instance]))
            assert (reply.status_code, MISSING in reply.json()["error"]) == (400, True)


async def test_a_setting_says_whether_missing_values_are_taken(tmp_path: Path) -> None:
    save_imputed(tmp_path)
    save_same(tmp_path, ["batch", 2])
    missing = MissingValues("imputed=refuse same=allow")
    async with serving(Settings(models_dir=tmp_path, missing=missing, watch=False)) as client:
        reply = await post(client, body("imputed", [[None, 1]]))
        assert (reply.status_code, MISSING in reply.json()["error"]) == (400, True)
        reply = await post(client, body("same", [[None, 1]]))
        assert (reply.status_code, reply.json()["error"]) == (
            500,
            "the model answered NaN or infinity for this input: ask /v2 in binary",
        )
