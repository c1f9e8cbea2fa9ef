"""Files that we did not write, alone and together, against ONNX Runtime alone."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from service.formats import tensors
from service.settings import Settings
from tests.support.foreign_models import (
    FLOAT,
    FOREIGN,
    Foreign,
    Inputs,
    graph,
    info,
    node,
    save,
    session,
    weights,
)
from tests.support.toys import body, save_toy, serving, toy_answer, toy_card

pytestmark = pytest.mark.anyio


def request_of(inputs: Inputs) -> tuple[bytes, dict[str, str]]:
    """A request of binary tensors, which carries every number as it is."""
    described, data = [], []
    for name, array in inputs.items():
        data.append(bytes(tensors.as_binary(array)))
        described.append(
            {
                "name": name,
                "shape": array.shape,
                "datatype": tensors.NAMES[array.dtype.type],
                "parameters": {"binary_data_size": len(data[-1])},
            }
        )
    head = {"inputs": described, "parameters": {"binary_data_output": True}}
    text = json.dumps(head).encode()
    return b"".join([text, *data]), {"inference-header-content-length": str(len(text))}


def arrays_of(response: httpx.Response) -> list[NDArray[Any]]:
    assert response.status_code == 200, response.text
    end = int(response.headers["inference-header-content-length"])
    found = []
    for output in json.loads(response.content[:end])["outputs"]:
        start, end = end, end + output["parameters"]["binary_data_size"]
        data = memoryview(response.content)[start:end]
        found.append(tensors.read_binary(data, output["shape"], output["datatype"], ""))
    return found


def right_answers(oracle: ort.InferenceSession, inputs: Inputs) -> list[NDArray[Any]]:
    is_scalar = {each.name for each in oracle.get_inputs() if each.name == "rate"}
    feed = {name: each.reshape(()) if name in is_scalar else each for name, each in inputs.items()}
    answers: list[NDArray[Any]] = oracle.run(None, feed)
    return answers


def assert_same(got: Sequence[NDArray[Any]], expected: Sequence[NDArray[Any]]) -> None:
    for one, other in zip(got, expected, strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


# What tells most; the others are run once.
TELLING = {"lagged", "column", "best", "attention", "of_any_rank"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(each, marks=() if each in TELLING else pytest.mark.slow) for each in FOREIGN],
)
async def test_every_answer_is_that_of_onnx_runtime_alone_and_beside_others(
    name: str, tmp_path: Path
) -> None:
    made = FOREIGN[name]
    oracle = session(save(tmp_path, name, made.model))
    random = np.random.default_rng(3)
    async with serving(Settings(models_dir=tmp_path, watch=False)) as client:

        async def ask(count: int) -> None:
            inputs = made.inputs(random, count)
            content, headers = request_of(inputs)
            path = f"/v2/models/{name}/infer"
            response = await client.post(path, content=content, headers=headers)
            assert_same(arrays_of(response), right_answers(oracle, inputs))

        for count in (1, 3, 70):
            await ask(count)
        await asyncio.gather(*(ask(1 + number % 3) for number in range(32)))
        config = (await client.get(f"/v2/models/{name}/config")).json()
        assert (config["max_batch_size"] > 0) is made.is_batched
        (version,) = (await client.get(f"/models/{name}")).json()["versions"]
        assert version["batching"]["of"] == ("rows" if made.is_batched else "requests")
        reason = {"string_value": version["batching"]["reason"]}
        assert config["parameters"]["batching_reason"] == reason


@pytest.mark.parametrize("largest", [1, 2, 64])
async def test_a_model_that_is_not_batched_runs_requests_as_they_were_sent(
    largest: int, tmp_path: Path
) -> None:
    oracle = session(save(tmp_path, "pairs", FOREIGN["pairs"].model))
    inputs = FOREIGN["pairs"].inputs(np.random.default_rng(0), 3)
    settings = Settings(models_dir=tmp_path, watch=False, max_batch_size=largest)
    async with serving(settings) as client:
        content, headers = request_of(inputs)
        response = await client.post("/v2/models/pairs/infer", content=content, headers=headers)
        (answer,) = arrays_of(response)
    assert answer.shape == (3, 3)
    assert_same([answer], right_answers(oracle, inputs))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("time_first", "output y: row 1 of 2 has another answer than alone by"),
        ("pairs", "output y: the answer to a row has shape (1, 1) alone, (1, 2) in a batch of 2"),
        ("quantized", "DynamicQuantizeLinear takes one scale from all rows of a batch"),
        ("best", "output y: the answer to 2 rows of a trial has shape (1, 4)"),
        ("of_any_rank", "the file says no shape for input x"),
        ("with_scalar", "input rate is a single number, without rows"),
        ("one_row_inside", "a row can be run alone, 2 together fail: Reshape:"),
        ("attention", "rows of a trial had the same answers alone and in batches of up to 64"),
    ],
)
async def test_the_verdict_says_what_was_seen(
    name: str, reason: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path, name, FOREIGN[name].model)
    with caplog.at_level("INFO", "torchlit"):
        async with serving(Settings(models_dir=tmp_path, watch=False)) as client:
            (version,) = (await client.get(f"/models/{name}")).json()["versions"]
    assert version["batching"]["reason"].startswith(reason)
    assert f"model {name} version 1: runs " in caplog.text
    assert reason in caplog.text


async def test_metadata_say_what_is_answered(tmp_path: Path) -> None:
    for name in ("label_of_one", "column", "of_any_rank", "with_scalar", "cache"):
        save(tmp_path, name, FOREIGN[name].model)
    async with serving(Settings(models_dir=tmp_path, watch=False)) as client:

        async def shapes(name: str) -> tuple[list[Any], list[Any]]:
            said = (await client.get(f"/v2/models/{name}")).json()
            return tuple([each["shape"] for each in said[key]] for key in ("inputs", "outputs"))  # type: ignore[return-value]

        assert await shapes("label_of_one") == ([[-1, 4]], [[-1], [-1, 4]])
        assert await shapes("column") == ([[-1, 4]], [[-1, 1]])
        assert await shapes("of_any_rank") == ([[-1]], [[-1]])
        assert await shapes("with_scalar") == ([[-1, 4], []], [[-1, 4]])
        assert (await shapes("cache"))[1] == [[-1, -1, 4]]


async def test_predict_takes_rows_where_the_graph_declares_one_answer(tmp_path: Path) -> None:
    save(tmp_path, "label_of_one", FOREIGN["label_of_one"].model)
    async with serving(Settings(models_dir=tmp_path, watch=False)) as client:
        rows = [[0, 9, 0, 0], [0, 0, 0, 9]]
        answer = await client.post("/predict", content=body("label_of_one", rows))
    assert [each["label"] for each in answer.json()["predictions"]] == [1, 3]


def fixed(rows: int) -> Foreign:
    """An export without dynamic_shapes: so many rows, no more and no less."""
    made = graph(
        [node("MatMul", ["x", "w"], ["y"])],
        [info("x", FLOAT, [rows, 4])],
        [info("y", FLOAT, [rows, 2])],
        w=weights(4, 2),
    )
    return Foreign(made, False, lambda random, n: {"x": np.ones((rows, 4), np.float32)})


@pytest.mark.parametrize("made", [fixed(1), FOREIGN["one_row_inside"]])
async def test_predict_runs_rows_one_by_one_where_a_run_takes_one(
    made: Foreign, tmp_path: Path
) -> None:
    oracle = session(save(tmp_path, "single", made.model))
    rows = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
    async with serving(Settings(models_dir=tmp_path, watch=False)) as client:
        answer = await client.post("/predict", content=body("single", rows.tolist()))
    assert answer.status_code == 200, answer.text
    got = np.array([each["y"] for each in answer.json()["predictions"]])
    expected = np.concatenate([oracle.run(None, {"x": row[None]})[0] for row in rows])
    np.testing.assert_allclose(got, expected, rtol=1e-5)


async def test_predict_says_what_an_export_lacks(tmp_path: Path) -> None:
    save(tmp_path, "three", fixed(3).model)
    save(tmp_path, "best", FOREIGN["best"].model)
    async with serving(Settings(models_dir=tmp_path, watch=False)) as client:
        for name, said in (
            (
                "three",
                "the first dimension of input x is fixed at 3; an export with dynamic_shapes",
            ),
            ("best", "output y: the answer to 2 rows of a trial has shape (1, 4)"),
        ):
            answer = await client.post("/predict", content=body(name, [[1, 2, 3, 4]]))
            assert answer.status_code == 400
            assert said in answer.json()["error"]


async def test_predict_answers_rows_that_depend_on_each_other_as_they_were_sent(
    tmp_path: Path,
) -> None:
    oracle = session(save(tmp_path, "scaled", FOREIGN["scaled_by_all"].model))
    rows = np.random.default_rng(0).standard_normal((6, 3, 4)).astype(np.float32)
    async with serving(Settings(models_dir=tmp_path, watch=False)) as client:
        answers = await asyncio.gather(
            *(client.post("/predict", content=body("scaled", each.tolist())) for each in rows)
        )
    for each, answer in zip(rows, answers, strict=True):
        got = [prediction["y"] for prediction in answer.json()["predictions"]]
        np.testing.assert_allclose(got, oracle.run(None, {"x": each})[0], rtol=1e-5)


@pytest.mark.parametrize("shape", [[], [1]])
async def test_a_single_number_may_be_sent_as_a_list_of_one(
    shape: list[int], tmp_path: Path
) -> None:
    save(tmp_path, "with_scalar", FOREIGN["with_scalar"].model)
    inputs = [
        {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]},
        {"name": "rate", "shape": shape, "datatype": "FP32", "data": [2]},
    ]
    async with serving(Settings(models_dir=tmp_path, watch=False)) as client:
        answer = await client.post("/v2/models/with_scalar/infer", json={"inputs": inputs})
    assert answer.json()["outputs"][0]["data"] == [2, 4, 6, 8]


@pytest.mark.parametrize("name", ["cache", "time_first", "of_any_rank", "pairs", "detector"])
async def test_no_rows_at_all_are_refused_before_the_model_sees_them(
    name: str, tmp_path: Path
) -> None:
    save(tmp_path, name, FOREIGN[name].model)
    inputs = FOREIGN[name].inputs(np.random.default_rng(0), 1)
    content, headers = request_of({key: each[:0] for key, each in inputs.items()})
    async with serving(Settings(models_dir=tmp_path, watch=False)) as client:
        path = f"/v2/models/{name}/infer"
        answer = await client.post(path, content=content, headers=headers)
        assert answer.status_code == 400
        assert "inputs[0].shape: expected" in answer.json()["error"]


async def test_what_cannot_be_run_alone_is_not_made_of_several_callers_rows(
    tmp_path: Path,
) -> None:
    """Rows of 6 numbers in windows of 4: two of them would make three windows."""
    save(tmp_path, "windows", FOREIGN["windows"].model)
    async with serving(Settings(models_dir=tmp_path, watch=False)) as client:

        async def statuses(length: int) -> set[int]:
            rows = np.random.default_rng(0).random((32, 1, length), np.float32)
            requests = [request_of({"x": each}) for each in rows]
            path = "/v2/models/windows/infer"
            replies = await asyncio.gather(
                *(client.post(path, content=text, headers=head) for text, head in requests)
            )
            return {each.status_code for each in replies}

        async def batches() -> int:
            stats = (await client.get("/v2/models/windows/stats")).json()
            count: int = stats["model_stats"][0]["execution_count"]
            return count

        for _ in range(2):
            assert await statuses(6) == {500}
        assert await statuses(8) == {200}
        before = await batches()
        assert await statuses(8) == {200}  # a row of that size was answered: they share a run
        assert await batches() - before < 32


@pytest.mark.parametrize("huge", [[1, 2**31 - 1, 2**31 - 1, 0], [1, 0, 2**31 - 1, 2**31 - 1]])
async def test_sizes_beside_a_zero_have_a_limit(huge: list[int], tmp_path: Path) -> None:
    made = graph(
        [node("Neg", ["x"], ["y"])], [info("x", FLOAT, list("nabc"))], [info("y", FLOAT, None)]
    )
    save(tmp_path, "open", made)
    sent = {"name": "x", "shape": huge, "datatype": "FP32", "data": []}
    async with serving(Settings(models_dir=tmp_path, watch=False)) as client:
        answer = await client.post("/v2/models/open/infer", json={"inputs": [sent]})
    assert answer.status_code == 400
    assert "inputs[0].shape: expected" in answer.json()["error"]


async def test_empty_inner_sizes_are_taken_as_json_too(tmp_path: Path) -> None:
    save(tmp_path, "cache", FOREIGN["cache"].model)
    new = {"name": "new", "shape": [1, 1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}
    async with serving(Settings(models_dir=tmp_path, watch=False)) as client:
        for data in ([], [[]]):
            past = {"name": "past", "shape": [1, 0, 4], "datatype": "FP32", "data": data}
            answer = await client.post("/v2/models/cache/infer", json={"inputs": [past, new]})
            assert answer.status_code == 200, answer.text
            assert answer.json()["outputs"][0]["shape"] == [1, 1, 4]


async def test_a_setting_overrules_the_trial(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path, "scaled", FOREIGN["scaled_by_all"].model)
    save(tmp_path, "single", fixed(1).model)
    save_toy(tmp_path, card=toy_card())
    said = {"TORCHLIT_BATCHING": "scaled=rows toy=requests single=rows nobody=rows"}
    settings = Settings.from_env({"TORCHLIT_MODELS_DIR": str(tmp_path), **said})
    async with serving(settings) as client:
        models = (await client.get("/models")).json()["models"]
        batching = {each["model"]: each["versions"][0]["batching"] for each in models}
        rows = [[1.0, 2, 3, 4], [5, 6, 7, 8]]
        answer = (await client.post("/predict", content=body("toy", rows))).json()
        config = (await client.get("/v2/models/toy/config")).json()
    assert batching["scaled"]["of"] == "rows"
    assert batching["scaled"]["largest_batch"] == 64
    assert batching["scaled"]["reason"].startswith("TORCHLIT_BATCHING says rows, though output y")
    assert batching["toy"] == {
        "of": "requests",
        "largest_batch": 1,
        "reason": "TORCHLIT_BATCHING says requests, though rows of a trial had the same answers "
        "alone and in batches of up to 64",
    }
    assert batching["single"]["of"] == "requests"
    assert "TORCHLIT_BATCHING says rows, but the first dim" in batching["single"]["reason"]
    assert config["max_batch_size"] == 0
    got = [list(each["probabilities"].values()) for each in answer["predictions"]]
    np.testing.assert_allclose(got, toy_answer(np.array(rows)), atol=1e-6)
    assert "TORCHLIT_BATCHING: 'nobody': no such model" in caplog.text
