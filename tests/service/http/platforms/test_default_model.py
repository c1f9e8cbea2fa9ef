"""Which model answers a request that names none."""

import json
from pathlib import Path

import pytest

from service.errors import InvalidSetting
from service.settings import Settings
from tests.support.catalogs import reloader
from tests.support.platforms import CSV, JSON, PREDICT, ROW, invoke, read_values
from tests.support.toys import Client, body, save_mean, serving

pytestmark = pytest.mark.anyio


async def test_the_only_model_answers_who_names_none(tmp_path: Path) -> None:
    save_mean(tmp_path)
    async with serving(Settings(models_dir=tmp_path, predict_route=PREDICT)) as client:
        content = b'{"instances": [[0, 1, 2, 3, 4, 5]]}'
        assert read_values(await invoke(client, b"0,1,2,3,4,5\n")) == [2.5]
        for path in ("/invocations", PREDICT, "/predict"):
            assert read_values(await client.post(path, content=content)) == [2.5]


async def test_the_default_model_answers_who_names_none(mean: Client) -> None:
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
    models = reloader(Settings(models_dir=models_dir, default_model="tyo"))
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
