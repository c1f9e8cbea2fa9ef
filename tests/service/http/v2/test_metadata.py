import asyncio
import json
import subprocess
import time
from collections.abc import AsyncIterator
from hashlib import sha256
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from onnx import TensorProto

from service.catalog import reload
from service.entrance.services import Host
from service.metrics.exposition import render
from service.settings import Settings
from tests.support.clients import counted
from tests.support.foreign_models import linear, outside, save
from tests.support.processes import running
from tests.support.toys import (
    Client,
    save_dear,
    save_same,
    save_toy,
    serving,
    toy_answer,
    toy_card,
)
from tests.support.toys import body as predict_body

pytestmark = pytest.mark.anyio

ROW = [1, 2, 3, 4]
EXPECTED = toy_answer(np.array([ROW]))[0]
INPUTS = [{"name": "input", "datatype": "FP32", "shape": [-1, 4]}]
OUTPUTS = [{"name": "probabilities", "datatype": "FP32", "shape": [-1, 3]}]
NO_MODEL = "model: expected one of %s; got %r"
OPENED_NOT = "not a model that ONNX Runtime can open: it is cut off, or no ONNX file (8 bytes)"


def asked(*rows: list[float], datatype: str = "FP32") -> bytes:
    shape = [len(rows), len(rows[0])]
    data = [number for row in rows for number in row]
    tensor = {"name": "input", "datatype": datatype, "shape": shape, "data": data}
    return json.dumps({"inputs": [tensor]}).encode()


GOOD = asked(ROW)


@pytest.fixture(scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[httpx.AsyncClient]:
    """One service for the tests that change nothing of it.

    It has toy in versions 1 and 3, a model that fails in versions 2 and 4, one without rows, and
    some whose names are the words of paths.
    """
    folder = tmp_path_factory.mktemp("models")
    save_toy(folder, 1, card=toy_card())
    save_toy(folder, 3, scale=2)
    for version in (2, 4):
        path = folder / "broken" / str(version) / "model.onnx"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"no model")
    save_same(folder, [2, 3], TensorProto.INT8, name="fixed")
    for name in ("stats", "infer", "ready"):
        save_same(folder, ["batch", 2], TensorProto.STRING, name=name)
    settings = Settings(models_dir=folder, max_batch_size=16, max_request_rows=100, watch=False)
    async with serving(settings) as client:
        yield client


def digest_of(client: httpx.AsyncClient, name: str, version: int) -> str:
    folder: Path = client.services.settings.models_dir
    return sha256((folder / f"{name}/{version}/model.onnx").read_bytes()).hexdigest()


def metadata(name: str, versions: list[str], inputs: Any, outputs: Any) -> dict[str, Any]:
    return {
        "name": name,
        "versions": versions,
        "platform": "onnxruntime_onnx",
        "inputs": inputs,
        "outputs": outputs,
    }


WORDS = [{"name": "input", "datatype": "BYTES", "shape": [-1, 2]}]
WORDS_OUT = [{"name": "output", "datatype": "BYTES", "shape": [-1, 2]}]
FIXED = [{"name": "input", "datatype": "INT8", "shape": [2, 3]}]
FIXED_OUT = [{"name": "output", "datatype": "INT8", "shape": [2, 3]}]
TOY = metadata("toy", ["1", "3"], INPUTS, OUTPUTS)
EXTENSIONS = ["binary_tensor_data", "classification", "model_configuration", "statistics"]

ANSWERS: list[tuple[str, int, Any]] = [
    # (path, status, body)
    ("/v2", 200, {"name": "torchlit", "version": version_of("torchlit"), "extensions": EXTENSIONS}),
    ("/v2/health/live", 200, {"live": True}),
    ("/v2/health/ready", 503, {"live": True, "ready": False}),  # broken is not
    ("/v2/models", 200, {"models": ["fixed", "infer", "ready", "stats", "toy"]}),
    ("/v2/models/toy", 200, TOY),
    ("/v2/models/toy/versions/1", 200, TOY),
    ("/v2/models/toy/versions/3", 200, TOY),
    ("/v2/models/fixed", 200, metadata("fixed", ["1"], FIXED, FIXED_OUT)),
    ("/v2/models/infer", 200, metadata("infer", ["1"], WORDS, WORDS_OUT)),
    ("/v2/models/ready", 200, metadata("ready", ["1"], WORDS, WORDS_OUT)),
    ("/v2/models/stats/versions/1", 200, metadata("stats", ["1"], WORDS, WORDS_OUT)),
    ("/v2/models/toy/ready", 200, {"name": "toy", "ready": True}),
    ("/v2/models/toy/versions/1/ready", 200, {"name": "toy", "ready": True}),
    ("/v2/models/ready/ready", 200, {"name": "ready", "ready": True}),
    ("/v2/models/stats/ready", 200, {"name": "stats", "ready": True}),
]


@pytest.mark.parametrize(("path", "status", "expected"), ANSWERS, ids=lambda each: str(each)[:50])
async def test_what_is_asked_for_is_answered(
    client: httpx.AsyncClient, path: str, status: int, expected: Any
) -> None:
    for asked_for in (path, path + "/"):
        reply = await client.get(asked_for)
        assert (reply.status_code, reply.json()) == (status, expected)
        assert reply.headers["content-type"] == "application/json"
        assert reply.headers["x-request-id"]


async def test_all_ready_is_200(tmp_path: Path) -> None:
    save_toy(tmp_path)
    async with serving(Settings(models_dir=tmp_path)) as client:
        reply = await client.get("/v2/health/ready")
    assert (reply.status_code, reply.json()) == (200, {"live": True, "ready": True})


@pytest.mark.parametrize("version", ["", "/versions/1", "/versions/3"])
async def test_a_config_tells_load_tools_what_they_read(
    client: httpx.AsyncClient, version: str
) -> None:
    digest = digest_of(client, "toy", 1 if version.endswith("1") else 3)
    for end in ("", "/"):
        reply = await client.get(f"/v2/models/toy{version}/config{end}")
        assert reply.json() == {
            "name": "toy",
            "platform": "onnxruntime_onnx",
            "backend": "onnxruntime",
            "version_policy": {"latest": {"num_versions": 1}},
            "max_batch_size": 100,
            "input": [{"name": "input", "data_type": "TYPE_FP32", "dims": [4]}],
            "output": [{"name": "probabilities", "data_type": "TYPE_FP32", "dims": [3]}],
            "instance_group": [{"name": "toy", "kind": "KIND_CPU", "count": 1}],
            "default_model_filename": "model.onnx",
            "parameters": {
                "batching": {"string_value": "rows"},
                "batching_reason": {
                    "string_value": "rows of a trial had the same answers alone and in batches of "
                    "up to 16"
                },
                "sha256": {"string_value": digest},
                "nodes": {"string_value": "2 of 2 nodes on cpu"},
            },
            "dynamic_batching": {"preferred_batch_size": [16], "max_queue_delay_microseconds": 0},
        }


async def test_the_config_of_a_model_without_rows_has_no_batches(
    client: httpx.AsyncClient,
) -> None:
    config = (await client.get("/v2/models/fixed/config")).json()
    assert config["max_batch_size"] == 0
    assert "dynamic_batching" not in config
    assert config["input"] == [{"name": "input", "data_type": "TYPE_INT8", "dims": [2, 3]}]
    assert config["parameters"] == {
        "batching": {"string_value": "requests"},
        "batching_reason": {
            "string_value": "the first dimension of input input is fixed at 2; an export with "
            "dynamic_shapes lets it vary"
        },
        "sha256": {"string_value": digest_of(client, "fixed", 1)},
        "nodes": {"string_value": "1 of 1 nodes on cpu"},
    }
    words = (await client.get("/v2/models/stats/config")).json()
    assert words["output"] == [{"name": "output", "data_type": "TYPE_STRING", "dims": [2]}]


async def test_the_config_has_digests_of_weights_as_sha256sum_writes_them(tmp_path: Path) -> None:
    folder = tmp_path / "linear/1"
    save(tmp_path, "linear", outside(linear(), folder, w="w.bin"))
    async with serving(Settings(models_dir=tmp_path)) as client:
        parameters = (await client.get("/v2/models/linear/config")).json()["parameters"]
    lines = subprocess.run(["sha256sum", "w.bin"], cwd=folder, capture_output=True, text=True)
    assert parameters["weights_sha256"] == {"string_value": lines.stdout.removesuffix("\n")}


async def test_the_config_tells_the_delay(tmp_path: Path) -> None:
    save_toy(tmp_path)
    async with serving(Settings(models_dir=tmp_path, max_queue_delay_ms=1.5)) as client:
        config = (await client.get("/v2/models/toy/config")).json()
    assert config["dynamic_batching"] == {
        "preferred_batch_size": [64],
        "max_queue_delay_microseconds": 1500,
    }


@pytest.mark.parametrize("name", ["stats", "infer", "ready"])
async def test_a_model_may_have_the_name_of_a_word_in_paths(
    client: httpx.AsyncClient, name: str
) -> None:
    for path in (f"/v2/models/{name}/infer", f"/v2/models/{name}/versions/1/infer"):
        reply = await client.post(path, content=asked(["a", "b"], datatype="BYTES"))
        assert (reply.json()["model_name"], reply.json()["outputs"][0]["data"]) == (
            name,
            ["a", "b"],
        )
    (one,) = (await client.get(f"/v2/models/{name}/stats")).json()["model_stats"]
    assert one["name"] == name
    (one,) = (await client.get(f"/v2/models/{name}/versions/1/stats")).json()["model_stats"]
    assert one["name"] == name


def entry(name: str, version: int, reason: str = "") -> dict[str, str]:
    state = "UNAVAILABLE" if reason else "READY"
    return {"name": name, "version": str(version), "state": state, "reason": reason}


def opened_not(version: int) -> str:
    return f"broken/{version}: model.onnx: {OPENED_NOT}"


@pytest.mark.parametrize("end", ["", "/"])
async def test_the_index_lists_each_version_and_why_it_does_not_serve(
    client: httpx.AsyncClient, end: str
) -> None:
    ready = [
        *(entry(name, 1) for name in ("fixed", "infer", "ready", "stats")),
        *(entry("toy", version) for version in (1, 3)),
    ]
    every = [*(entry("broken", version, opened_not(version)) for version in (2, 4)), *ready]
    for content, expected in (
        (b"", every),
        (b"{}", every),
        (b'{"ready": false, "more": 1}', every),
        (b'{"ready": true}', ready),
    ):
        reply = await client.post(f"/v2/repository/index{end}", content=content)
        assert (reply.status_code, reply.json()) == (200, expected)


async def test_while_it_drains_it_is_live_and_answers_but_is_not_ready(tmp_path: Path) -> None:
    save_toy(tmp_path)
    host = Host()
    async with serving(Settings(models_dir=tmp_path), host) as client:
        host.is_draining = True
        live = await client.get("/v2/health/live")
        ready = await client.get("/v2/health/ready")
        answered = await client.post("/v2/models/toy/infer", content=GOOD)
        model = await client.get("/v2/models/toy/ready")
    assert (live.status_code, live.json()) == (200, {"live": True})
    assert (ready.status_code, ready.json()) == (503, {"live": True, "ready": False})
    assert (answered.status_code, answered.headers["connection"]) == (200, "close")
    assert model.json() == {"name": "toy", "ready": True}


NEVER = {"count": 0, "ns": 0}


async def statistics(client: httpx.AsyncClient, path: str = "toy/stats") -> dict[str, Any]:
    (one,) = (await client.get(f"/v2/models/{path}")).json()["model_stats"]
    return one


async def test_statistics_are_zeros_before_anything_was_sent(tmp_path: Path) -> None:
    save_toy(tmp_path)
    async with serving(Settings(models_dir=tmp_path)) as client:
        assert await statistics(client) == {
            "name": "toy",
            "version": "1",
            "last_inference": 0,
            "inference_count": 0,
            "execution_count": 0,
            "inference_stats": dict.fromkeys(
                (
                    *("success", "fail", "queue", "compute_input", "compute_infer"),
                    *("compute_output", "cache_hit", "cache_miss"),
                ),
                NEVER,
            ),
            "response_stats": {},
            "batch_stats": [],
            "memory_usage": [],
        }


async def test_statistics_say_what_was_sent(tmp_path: Path) -> None:
    save_toy(tmp_path, card=toy_card())
    async with serving(Settings(models_dir=tmp_path, max_batch_size=8)) as client:
        began_ms = time.time() * 1000
        start = time.perf_counter()
        for content in (GOOD, asked(ROW, ROW), asked(*[ROW] * 20)):  # the last in 3 batches
            assert (await client.post("/v2/models/toy/infer", content=content)).status_code == 200
        assert (await client.post("/predict", content=predict_body("toy", [ROW] * 3))).is_success
        for path, content in (
            ("/v2/models/toy/infer", b"{"),
            ("/v2/models/toy/infer", asked(ROW[:3])),
            ("/predict", predict_body("toy", [[1]])),
            ("/v2/models/toy/infer", asked(*[ROW] * 4097)),
            ("/v2/models/toy/versions/1/infer", asked(ROW, datatype="FP64")),
        ):
            assert (await client.post(path, content=content)).is_error
        await client.post("/v2/models/tyo/infer", content=GOOD)  # of no model
        await client.get("/v2/models/toy/infer")
        taken_ns = (time.perf_counter() - start) * 1e9
        one = await statistics(client)
        same = [await statistics(client, path) for path in ("stats", "toy/versions/1/stats")]
        ended_ms = time.time() * 1000
    assert same == [one, one]
    assert (one["inference_count"], one["execution_count"]) == (1 + 2 + 20 + 3, 1 + 1 + 3 + 1)
    counts = {name: each["count"] for name, each in one["inference_stats"].items()}
    assert counts == {
        "success": 4,
        "fail": 5,
        "queue": 6,
        "compute_input": 0,
        "compute_infer": 6,
        "compute_output": 0,
        "cache_hit": 0,
        "cache_miss": 0,
    }
    spent = {name: each["ns"] for name, each in one["inference_stats"].items()}
    assert 0 < spent["compute_infer"] < spent["success"]
    assert spent["queue"] > 0
    assert spent["fail"] > 0
    assert spent["success"] + spent["fail"] < taken_ns
    assert began_ms - 1 <= one["last_inference"] <= ended_ms + 1


async def test_statistics_of_a_model_are_those_of_each_version(tmp_path: Path) -> None:
    save_toy(tmp_path, 1)
    save_toy(tmp_path, 2)
    save_same(tmp_path, ["batch", 2])
    async with serving(Settings(models_dir=tmp_path)) as client:
        for version, count in ((1, 2), (2, 1)):
            for _ in range(count):
                await client.post(f"/v2/models/toy/versions/{version}/infer", content=GOOD)
        found = {}
        for path in (
            "toy/stats",
            "toy/versions/1/stats",
            "toy/versions/2/stats/",
            "stats",
            "stats/",
        ):
            each = (await client.get(f"/v2/models/{path}")).json()["model_stats"]
            found[path] = [(one["name"], one["version"], one["inference_count"]) for one in each]
    both = [("toy", "1", 2), ("toy", "2", 1)]
    assert found == {
        "toy/stats": both,
        "toy/versions/1/stats": both[:1],
        "toy/versions/2/stats/": both[1:],
        "stats": [("same", "1", 0), *both],
        "stats/": [("same", "1", 0), *both],
    }


@pytest.fixture
async def controlled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Client]:
    """A service whose callers may load and unload toy and same; it scans twice without a pause."""
    save_toy(tmp_path)
    save_same(tmp_path, ["batch", 2])
    monkeypatch.setattr(reload, "PAUSE_S", 0)
    async with serving(Settings(models_dir=tmp_path, model_control=True)) as client:
        yield client


async def control(
    client: httpx.AsyncClient, what: str, name: str = "toy", content: bytes = b"{}"
) -> tuple[int, Any]:
    reply = await client.post(f"/v2/repository/models/{name}/{what}", content=content)
    return reply.status_code, reply.json()


async def index(client: httpx.AsyncClient) -> Any:
    return (await client.post("/v2/repository/index")).json()


async def check_answer(client: httpx.AsyncClient, scale: float = 1) -> None:
    reply = await client.post("/v2/models/toy/infer", content=GOOD)
    assert reply.status_code == 200, reply.text
    expected = toy_answer(np.array([ROW]) * scale)[0]
    assert reply.json()["outputs"][0]["data"] == pytest.approx(expected, abs=1e-6)


async def test_control_is_told_where_it_is_allowed(controlled: Client) -> None:
    extensions = (await controlled.get("/v2")).json()["extensions"]
    assert extensions == [
        *EXTENSIONS,
        "model_repository",
        "model_repository(unload_dependents)",
    ]


async def test_a_model_that_is_unloaded_is_gone_until_it_is_loaded(
    controlled: Client, tmp_path: Path
) -> None:
    client = controlled
    await check_answer(client)
    unloading = b'{"parameters": {"unload_dependents": false}}'
    assert await control(client, "unload", content=unloading) == (200, {})
    gone = {"error": NO_MODEL % ("same", "toy")}
    for path in ("/v2/models/toy", "/v2/models/toy/ready", "/v2/models/toy/stats"):
        reply = await client.get(path)
        assert (reply.status_code, reply.json()) == (404, gone)
    for path, content in (
        ("/v2/models/toy/infer", GOOD),
        ("/v2/models/toy/versions/1/infer", GOOD),
        ("/predict/toy", predict_body("toy", [ROW])),
    ):
        reply = await client.post(path, content=content)
        assert (reply.status_code, reply.json()) == (404, gone)
    assert await index(client) == [entry("same", 1), entry("toy", 1, "unloaded")]
    ready = await client.post("/v2/repository/index", content=b'{"ready": true}')
    assert ready.json() == [entry("same", 1)]
    assert (await client.get("/v2/models")).json() == {"models": ["same"]}
    assert (await client.get("/v2/health/ready")).status_code == 200  # it was wanted so

    save_toy(tmp_path, scale=2)  # what changes does not bring it back
    save_toy(tmp_path, 2, scale=3)
    await client.services.reloader.reload()
    assert await index(client) == [entry("same", 1), entry("toy", 1, "unloaded")]
    assert (await client.post("/v2/models/toy/infer", content=GOOD)).status_code == 404
    assert await control(client, "unload") == (200, {})  # again

    assert await control(client, "load") == (200, {})
    await check_answer(client, scale=3)
    assert await index(client) == [entry("same", 1), entry("toy", 1), entry("toy", 2)]
    assert (await client.get("/v2/models/toy/ready")).json() == {"name": "toy", "ready": True}


async def test_a_load_takes_what_is_new(controlled: Client, tmp_path: Path) -> None:
    assert await control(controlled, "load", content=b"") == (200, {})
    await check_answer(controlled)
    save_toy(tmp_path, scale=2)
    assert await control(controlled, "load") == (200, {})
    await check_answer(controlled, scale=2)
    save_toy(tmp_path, 7, scale=4)
    save_same(tmp_path, ["batch", 1], name="new")
    assert await control(controlled, "load", "new") == (200, {})
    await check_answer(controlled, scale=4)  # all that is new is taken
    assert (await controlled.get("/v2/models/new/ready")).status_code == 200


async def test_a_broken_file_is_not_loaded_and_the_old_one_serves_on(
    controlled: Client, tmp_path: Path
) -> None:
    path = tmp_path / "toy" / "1" / "model.onnx"
    path.write_bytes(b"no model")
    reason = f"toy/1: model.onnx: {OPENED_NOT}"
    sentence = f"model toy: could not be loaded: {reason}; what was opened before serves on"
    tried = []
    for _ in range(3):
        assert await control(controlled, "load") == (400, {"error": sentence})
        await check_answer(controlled)
        text = (await controlled.get("/metrics")).text
        tried.append(counted(text, "torchlit_reloads_total", 'outcome="failed"'))
    assert tried == [tried[0], tried[0] + 1, tried[0] + 2]  # opened anew each time
    assert (await index(controlled))[1] == {
        **entry("toy", 1),
        "reason": f"{reason}; what was opened before serves on",
    }
    save_toy(tmp_path, scale=2)
    assert await control(controlled, "load") == (200, {})
    await check_answer(controlled, scale=2)
    assert (await index(controlled))[1] == entry("toy", 1)


async def test_what_is_broken_and_was_unloaded_cannot_be_loaded_until_it_is_mended(
    controlled: Client, tmp_path: Path
) -> None:
    assert await control(controlled, "unload") == (200, {})
    path = tmp_path / "toy" / "1" / "model.onnx"
    path.write_bytes(b"no model")
    reason = f"toy/1: model.onnx: {OPENED_NOT}"
    for _ in range(2):
        assert await control(controlled, "load") == (
            400,
            {"error": f"model toy: could not be loaded: {reason}"},
        )
        assert await index(controlled) == [entry("same", 1), entry("toy", 1, reason)]
    reply = await controlled.post("/v2/models/toy/infer", content=GOOD)
    assert (reply.status_code, reply.json()) == (
        503,
        {"error": "model toy: no version of it could be opened"},
    )
    save_toy(tmp_path)
    assert await control(controlled, "load") == (200, {})
    await check_answer(controlled)


async def test_a_model_whose_folder_went_while_it_was_unloaded_is_unknown(
    controlled: Client, tmp_path: Path
) -> None:
    assert await control(controlled, "unload") == (200, {})
    (tmp_path / "toy").rename(tmp_path.parent / f"{tmp_path.name}-elsewhere")
    assert await control(controlled, "load") == (404, {"error": NO_MODEL % ("same", "toy")})
    assert await index(controlled) == [entry("same", 1)]


async def test_all_models_may_be_unloaded_and_come_back(controlled: Client) -> None:
    for name in ("toy", "same"):
        assert await control(controlled, "unload", name) == (200, {})
    assert (await controlled.get("/v2/models")).json() == {"models": []}
    assert (await controlled.get("/v2/models/stats")).json() == {"model_stats": []}
    assert (await controlled.get("/v2/health/ready")).json()["ready"] is True
    assert await index(controlled) == [entry("toy", 1, "unloaded"), entry("same", 1, "unloaded")]
    assert await control(controlled, "load", "same") == (200, {})
    assert await index(controlled) == [entry("same", 1), entry("toy", 1, "unloaded")]
    assert await control(controlled, "load") == (200, {})
    await check_answer(controlled)


async def test_statistics_go_on_when_a_model_comes_back(controlled: Client) -> None:
    await check_answer(controlled)
    await control(controlled, "unload")
    await control(controlled, "load")
    await check_answer(controlled)
    assert (await statistics(controlled))["inference_count"] == 2


async def test_many_who_control_at_once_leave_it_whole(controlled: Client) -> None:
    calls = [control(controlled, what) for what in ("unload", "load", "load", "unload") * 5]
    done = await asyncio.gather(*calls)
    assert {status for status, _ in done} <= {200, 404}  # unloaded again before it could answer
    assert await control(controlled, "load") == (200, {})
    await check_answer(controlled)
    assert await index(controlled) == [entry("same", 1), entry("toy", 1)]


@pytest.mark.parametrize("side", [2, 600], ids=["in the event loop", "in a thread"])
async def test_what_waits_when_a_model_is_unloaded_is_answered(tmp_path: Path, side: int) -> None:
    save_dear(tmp_path, side=side)
    save_toy(tmp_path)
    settings = Settings(
        models_dir=tmp_path, model_control=True, max_batch_size=4, max_queue_delay_ms=50
    )
    async with serving(settings) as client:
        assert client.services.catalog.get("dear").model.is_fast is (side == 2)
        asking = [
            asyncio.create_task(client.post("/v2/models/dear/infer", content=asked([n, 0, 0, 0])))
            for n in range(7)
        ]
        queued = 0.0
        while not queued:
            await asyncio.sleep(0)
            text = render(client.services.metrics).decode()
            queued = counted(text, "torchlit_queue_rows", 'model="dear"')
        unloading = asyncio.create_task(control(client, "unload", "dear"))
        while "dear" in client.services.catalog.names:
            await asyncio.sleep(0)
        late = await client.post("/v2/models/dear/infer", content=asked([1, 0, 0, 0]))
        assert late.status_code == 404
        assert not all(each.done() for each in asking)
        assert not unloading.done()  # it is when all have their answers
        await check_answer(client)  # of another model, meanwhile
        assert await unloading == (200, {})
        replies = await asyncio.gather(*asking)
    assert [reply.status_code for reply in replies] == [200] * 7
    firsts = [reply.json()["outputs"][0]["data"][0] for reply in replies]
    assert firsts == [pytest.approx(side + n) for n in range(7)]


@pytest.mark.slow
async def test_under_load_each_request_is_answered_right_or_told_there_is_no_model(
    tmp_path: Path,
) -> None:
    save_toy(tmp_path)
    save_same(tmp_path, ["batch", 2])
    with running(models_dir=tmp_path, model_control=True, max_batch_size=4) as service:
        async with httpx.AsyncClient(base_url=service.url) as client:
            stopped = asyncio.Event()

            async def ask(number: int) -> list[int]:
                statuses = []
                while not stopped.is_set():
                    row = [number, len(statuses) % 10, 3, 4]
                    content = asked(*[row] * (1 + number % 6))  # of one batch, or of two
                    reply = await client.post("/v2/models/toy/infer", content=content)
                    statuses.append(reply.status_code)
                    if reply.status_code == 200:
                        got = np.reshape(reply.json()["outputs"][0]["data"], (-1, 3))
                        np.testing.assert_allclose(got, toy_answer([row] * len(got)), atol=1e-6)
                return statuses

            asking = [asyncio.create_task(ask(number)) for number in range(8)]
            assert await control(client, "unload") == (200, {})
            assert await control(client, "load") == (200, {})
            stopped.set()
            seen = {status for each in asking for status in await each}
    assert seen == {200, 404}


async def test_health_is_open_and_a_key_opens_all_else(tmp_path: Path) -> None:
    save_toy(tmp_path)
    key = "a-key-of-some-length"
    settings = Settings(models_dir=tmp_path, api_keys=key, model_control=True)
    async with serving(settings) as client:
        for path in ("/v2/health/live", "/v2/health/ready", "/v2/health/live/", "/health/live"):
            assert (await client.get(path)).status_code == 200
        for headers in ({"X-API-Key": key}, {"Authorization": f"Bearer {key}"}):
            reply = await client.post("/v2/models/toy/infer", content=GOOD, headers=headers)
            assert reply.status_code == 200
            assert (await client.get("/v2/models/toy", headers=headers)).status_code == 200


async def test_health_may_need_the_key_too(tmp_path: Path) -> None:
    save_toy(tmp_path)
    settings = Settings(models_dir=tmp_path, api_keys="a-key-of-some-length", protect_health=True)
    async with serving(settings) as client:
        for path in ("/v2/health/live", "/v2/health/ready"):
            assert (await client.get(path)).status_code == 401


@pytest.mark.slow
def test_several_workers_add_up_their_statistics_and_refuse_control(tmp_path: Path) -> None:
    save_toy(tmp_path, card=toy_card())

    async def ask(client: httpx.AsyncClient) -> None:
        for number in range(10):
            reply = await client.post("/v2/models/toy/infer", content=asked(ROW, ROW))
            assert reply.status_code == 200
            if number % 2:
                await client.post("/v2/models/toy/infer", content=b"{")

    async def ask_much(url: str) -> None:
        async with httpx.AsyncClient(base_url=url) as client:
            await asyncio.gather(*(ask(client) for _ in range(20)))

    apart = {"Connection": "close"}  # on connections of their own: either worker answers
    with (
        running(models_dir=tmp_path, workers=2, model_control=True) as service,
        httpx.Client(base_url=service.url, headers=apart) as client,
    ):
        asyncio.run(ask_much(service.url))
        last_ms = time.time() * 1000
        assert client.post("/v2/models/toy/infer", content=GOOD).status_code == 200
        seen = [client.get("/v2/models/stats").json()["model_stats"][0] for _ in range(10)]
        extensions = client.get("/v2").json()["extensions"]
        config = client.get("/v2/models/toy/config").json()
        refused = client.post("/v2/repository/models/toy/unload", content=b"{}")
    assert all(each == seen[0] for each in seen)
    assert seen[0]["last_inference"] >= last_ms - 1  # of the worker that was the last
    assert seen[0]["inference_count"] == 401
    assert seen[0]["inference_stats"]["success"]["count"] == 201
    assert seen[0]["inference_stats"]["fail"]["count"] == 100
    assert 1 < seen[0]["execution_count"] <= 201
    assert extensions == EXTENSIONS
    assert config["instance_group"][0]["count"] == 2
    assert (refused.status_code, refused.json()) == (
        501,
        {
            "error": "loading and unloading of models is off: it would reach one worker of 2; "
            "change the models folder, which all of them follow"
        },
    )


def test_a_process_that_stops_is_live_and_not_ready_and_answers(tmp_path: Path) -> None:
    save_toy(tmp_path)
    with (
        running(models_dir=tmp_path, drain_s=5) as service,
        httpx.Client(base_url=service.url) as client,
    ):
        assert client.get("/v2/health/ready").status_code == 200
        service.process.terminate()
        while (ready := client.get("/v2/health/ready")).status_code == 200:
            pass
        assert (ready.status_code, ready.json()) == (503, {"live": True, "ready": False})
        assert client.get("/v2/health/live").json() == {"live": True}
        assert client.post("/v2/models/toy/infer", content=GOOD).status_code == 200
