"""Weights in files of other names: followed, named when missing, never half used."""

import asyncio
import os
from pathlib import Path

import httpx
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from service.settings import Settings
from tests.support.foreign_models import linear, outside, save, weights
from tests.support.toys import body, serving

pytestmark = pytest.mark.anyio

ROW = [1.0, 2.0, 3.0, 4.0]


def scaled(scale: float) -> onnx.ModelProto:
    """The linear model, its matrix times a number."""
    model = linear()
    matrix = next(each for each in model.graph.initializer if each.name == "w")
    matrix.CopyFrom(numpy_helper.from_array(weights(4, 3) * np.float32(scale), "w"))
    return model


def answer_of(scale: float) -> list[float]:
    row = np.array(ROW, np.float32)
    return (row @ (weights(4, 3) * np.float32(scale)) + weights(3)).tolist()


async def ask(client: httpx.AsyncClient) -> list[float]:
    reply = await client.post("/predict", content=body("linear", [ROW]))
    assert reply.status_code == 200, reply.text
    answer: list[float] = reply.json()["predictions"][0]["y"]
    return answer


async def wait_for(client: httpx.AsyncClient, scale: float) -> None:
    async with asyncio.timeout(20):
        while (await ask(client)) != pytest.approx(answer_of(scale), rel=1e-5):
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("name", ["weights.bin", "deep/er/w"])
async def test_weights_that_are_replaced_are_served(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "linear" / "1"
    save(tmp_path, "linear", outside(scaled(1), folder, w=name))
    async with serving(Settings(models_dir=tmp_path)) as client:
        assert await ask(client) == pytest.approx(answer_of(1), rel=1e-5)
        new = folder / "new"
        new.write_bytes((weights(4, 3) * np.float32(2)).tobytes())
        os.replace(new, folder / name)
        await wait_for(client, 2)


@pytest.mark.slow
async def test_weights_that_are_overwritten_in_place_are_tested_before_they_are_served(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "linear" / "1"
    save(tmp_path, "linear", outside(scaled(1), folder, w="w.bin"))
    async with serving(Settings(models_dir=tmp_path)) as client:
        (folder / "w.bin").write_bytes(b"short")  # less than the graph needs
        async with asyncio.timeout(20):
            while "serves on" not in (await client.get("/models/linear")).text:
                await asyncio.sleep(0.05)
        assert await ask(client) == pytest.approx(answer_of(1), rel=1e-5)
        (folder / "w.bin").write_bytes((weights(4, 3) * np.float32(3)).tobytes())
        await wait_for(client, 3)


async def test_weights_that_are_missing_are_named_and_served_once_they_come(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "linear" / "1"
    save(tmp_path, "linear", outside(scaled(1), folder, w="w.bin"))
    content = (folder / "w.bin").read_bytes()
    (folder / "w.bin").unlink()
    sentence = "its weights are in 'w.bin', expected in the folder linear/1: no such file"
    async with serving(Settings(models_dir=tmp_path)) as client:
        ready = await client.get("/health/ready")
        assert ready.status_code == 503
        assert sentence in ready.json()["models"]["linear"]["reason"]
        assert sentence in (await client.get("/models")).text
        assert sentence in caplog.text
        (folder / "w.bin").write_bytes(content)
        async with asyncio.timeout(20):
            while (await client.get("/health/ready")).status_code != 200:
                await asyncio.sleep(0.05)
        assert await ask(client) == pytest.approx(answer_of(1), rel=1e-5)
