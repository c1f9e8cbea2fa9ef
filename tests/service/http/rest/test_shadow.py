"""GET /models/{model}/shadow."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from service.card import Example
from service.http.rest.replies import ShadowList
from service.settings import Settings
from service.settings.shadows import ShadowVersions
from tests.support.onnx_graphs import save_several
from tests.support.toys import Client, save_toy, serving, toy_answer, toy_card

pytestmark = pytest.mark.anyio

ROW = [1.0, 2.0, 3.0, 4.0]


def save(folder: Path) -> Path:
    """Write a toy, and as version 2 one that answers with other labels."""
    for version, scale in ((1, 1), (2, -1)):
        output = toy_answer(np.array([ROW]) * scale)[0].tolist()
        card = toy_card(examples=[Example(name="one", input=ROW, output=output)])
        save_toy(folder, version, card=card, scale=scale)
    return folder


async def compared(client: Client, model: str, rows: int) -> Any:
    """Return what is said of the only shadow once so many rows were compared."""
    async with asyncio.timeout(20):
        while True:
            reply = await client.get(f"/models/{model}/shadow")
            assert reply.status_code == 200, reply.text
            msgspec.json.decode(reply.content, type=ShadowList)
            (described,) = reply.json()["shadows"]
            if sum(described["rows"].values()) >= rows:
                return described
            await asyncio.sleep(0.01)


async def test_what_came_of_rows_is_shown_and_none_is_kept(tmp_path: Path) -> None:
    settings = Settings(models_dir=save(tmp_path), shadow=ShadowVersions("toy/1=2"))
    async with serving(settings) as client:
        first = await compared(client, "toy", 0)
        assert (first["version"], first["shadow"], first["share"]) == (1, 2, 1.0)
        assert (first["state"], first["agree_means"]) == ("comparing", "the same label")
        assert first["agreement"] is None
        for path in ("/predict", "/v2/models/toy/infer"):
            inputs = [{"name": "input", "datatype": "FP32", "shape": [1, 4], "data": ROW}]
            rows = {"model": "toy", "instances": [ROW]}
            asked = rows if path == "/predict" else {"inputs": inputs}
            reply = await client.post(path, json=asked)
            assert reply.status_code == 200
        described = await compared(client, "toy", 2)
        assert described["rows"] == {"agree": 0, "disagree": 2, "failed": 0, "dropped": 0}
        assert described["agreement"] == 0
        labels = [toy_card().labels[toy_answer(np.array([ROW]) * s).argmax()] for s in (1, -1)]
        pair = dict(zip(("label", "shadow_label"), labels, strict=True))
        assert described["other_labels"] == [pair | {"rows": 2}]
        (difference,) = described["differences"]
        assert difference["of"] == "probability"
        apart = (toy_answer([ROW]) - toy_answer(-np.array([ROW])))[0, toy_answer([ROW]).argmax()]
        assert difference["mean"] == pytest.approx(apart, abs=1e-6)
        assert sum(each["rows"] for each in difference["buckets"]) == 2
        assert difference["buckets"][-1]["upper_bound"] is None
        assert described["disagreements"] == []
        assert (await client.get("/models/toy")).json()["default_version"] == 1


async def test_the_last_rows_that_were_answered_otherwise_are_kept_where_a_setting_says_so(
    tmp_path: Path,
) -> None:
    settings = Settings(models_dir=save(tmp_path), shadow=ShadowVersions("toy/1=2"), shadow_keep=2)
    async with serving(settings) as client:
        rows = [[number, 2.0, 3.0, 4.0] for number in range(5)]
        reply = await client.post("/predict", json={"model": "toy", "instances": rows})
        described = await compared(client, "toy", 5)
        kept = described["disagreements"]
        assert [each["inputs"] for each in kept] == [{"input": row} for row in rows[:2:-1]]
        assert [each["answer"] for each in kept] == reply.json()["predictions"][:2:-1]
        assert kept[0]["shadow_answer"]["label"] != kept[0]["answer"]["label"]
        assert kept[0]["at"].endswith("+00:00")


async def test_rows_of_a_foreign_model_are_kept_by_the_names_of_its_tensors(tmp_path: Path) -> None:
    save_several(tmp_path)
    other = tmp_path / "several/2"
    other.mkdir()
    (other / "model.onnx").write_bytes((tmp_path / "several/1/model.onnx").read_bytes())
    settings = Settings(
        models_dir=tmp_path, shadow=ShadowVersions("several/1=2"), shadow_keep=3, watch=False
    )
    async with serving(settings) as client:
        served: Any = client.services.catalog.get("several", 2)
        run = served.model.run
        served.model.run = lambda inputs, stop: [run(inputs, stop)[0] + 1, *run(inputs, stop)[1:]]
        inputs = [
            {"name": "price", "datatype": "FP32", "shape": [1], "data": [5]},
            {"name": "counts", "datatype": "INT64", "shape": [1, 3], "data": [1, 2, 3]},
            {"name": "name", "datatype": "BYTES", "shape": [1, 1], "data": ["Ann"]},
        ]
        reply = await client.post("/v2/models/several/infer", json={"inputs": inputs})
        assert reply.status_code == 200, reply.text
        (kept,) = (await compared(client, "several", 1))["disagreements"]
        assert kept["inputs"] == {"price": 5.0, "counts": [1, 2, 3], "name": ["Ann"]}
        assert kept["answer"]["less"] != kept["shadow_answer"]["less"]
        assert kept["answer"]["greeting"] == kept["shadow_answer"]["greeting"]


async def test_a_model_without_a_shadow_has_none(client: Client) -> None:
    reply = await client.get("/models/toy/shadow")
    assert reply.status_code == 404
    assert reply.json()["error"] == (
        "model toy: expected one that TORCHLIT_SHADOW names, as mnist/1=2; no versions of this one "
        "are compared"
    )
    reply = await client.get("/models/no/shadow")
    assert (reply.status_code, reply.json()["error"]) == (
        404,
        "model: expected one of mean, toy; got 'no'",
    )


async def test_one_that_waits_says_why(tmp_path: Path) -> None:
    (save(tmp_path) / "toy/2/model.onnx").write_bytes(b"no model")
    settings = Settings(models_dir=tmp_path, shadow=ShadowVersions("toy/1=2"))
    async with serving(settings) as client:
        described = await compared(client, "toy", 0)
        assert (described["state"], described["reason"]) == ("waiting", "toy/2 does not answer")
