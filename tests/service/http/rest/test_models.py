"""GET /models, and the plots that cards list."""

import asyncio
import os
import re
import threading
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.settings import Settings
from service.settings.verdicts import Verdicts
from tests.support.devices import Gpu
from tests.support.toys import (
    PNG,
    save_columns,
    save_imputed,
    save_pictured,
    save_same,
    save_sum,
    save_toy,
    serving,
    toy_card,
)

pytestmark = pytest.mark.anyio


async def test_models_show_their_cards_and_where_they_run(client: httpx.AsyncClient) -> None:
    listed = (await client.get("/models")).json()["models"]
    assert [each["model"] for each in listed] == ["mean", "toy"]
    toy = (await client.get("/models/toy")).json()
    assert toy == listed[1]
    assert toy["default_version"] == 1
    (version,) = toy["versions"]
    assert (version["version"], version["state"]) == (1, "ready")
    assert (version["provider"], version["device"]) == ("CPUExecutionProvider", "cpu")
    content = (client.services.settings.models_dir / "toy/1/model.onnx").read_bytes()
    digest = sha256(content).hexdigest()
    assert version["files"] == [{"name": "model.onnx", "bytes": len(content), "sha256": digest}]
    assert version["nodes"] == {"CPUExecutionProvider": 2}
    assert "fallback" not in version
    assert version["batching"] == {
        "of": "rows",
        "largest_batch": 64,
        "reason": "rows of a trial had the same answers alone and in batches of up to 64",
    }
    assert version["card"]["features"][0]["unit"] == "cm"
    assert version["card"]["labels"] == ["red", "green", "blue"]


async def test_models_show_which_operators_fell_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Gpu(monkeypatch).lacks = ["Softmax"]
    save_toy(tmp_path)
    async with serving(Settings(models_dir=tmp_path, device="cuda")) as client:
        (version,) = (await client.get("/models/toy")).json()["versions"]
        text = (await client.get("/metrics")).text
    nodes = {"CUDAExecutionProvider": 1, "CPUExecutionProvider": 1}
    assert (version["device"], version["nodes"]) == ("cuda", nodes)
    assert version["fallback"] == {"Softmax": 1}
    for provider in nodes:
        labels = f'model="toy",provider="{provider}",version="1"'
        assert f"torchlit_model_nodes{{{labels}}} 1.0" in text.splitlines()


async def test_models_show_why_their_requests_run_one_by_one(tmp_path: Path) -> None:
    save_same(tmp_path, [1, 2])
    save_toy(tmp_path)
    settings = Settings(models_dir=tmp_path, batching=Verdicts("toy=requests"))
    async with serving(settings) as client:
        listed = (await client.get("/models")).json()["models"]
    same, toy = (each["versions"][0] for each in listed)
    assert same["batching"] == {
        "of": "requests",
        "largest_batch": 1,
        "reason": "the first dimension of input input is fixed at 1; an export with dynamic_shapes "
        "lets it vary",
    }
    assert toy["batching"] == {
        "of": "requests",
        "largest_batch": 1,
        "reason": "TORCHLIT_BATCHING says requests, though rows of a trial had the same answers "
        "alone and in batches of up to 64",
    }
    assert "why_no_rows" not in same | toy


async def test_a_model_that_takes_no_card_is_listed(tmp_path: Path) -> None:
    save_toy(tmp_path, card=None)
    async with serving(Settings(models_dir=tmp_path)) as client:
        (listed,) = (await client.get("/models")).json()["models"]
    assert listed["versions"][0]["card"] is None
    assert listed["versions"][0]["pictures"] == []


async def test_a_picture_is_served_at_the_url_that_is_listed(models_dir: Path) -> None:
    save_pictured(models_dir)
    async with serving(Settings(models_dir=models_dir)) as client:
        mean, toy = (await client.get("/models")).json()["models"]
        reply = await client.get("/models/toy/1/loss.png")
    assert mean["versions"][0]["pictures"] == []
    assert toy["versions"][0]["pictures"] == [{"title": "Loss", "url": "/models/toy/1/loss.png"}]
    assert (reply.status_code, reply.content) == (200, PNG)
    assert reply.headers["content-type"] == "image/png"
    assert reply.headers["content-length"] == str(len(PNG))


@pytest.mark.parametrize("known", ["{}", "W/{}", '"other", {}', "*"])
async def test_a_picture_is_sent_again_only_when_it_changed(models_dir: Path, known: str) -> None:
    path = save_pictured(models_dir)
    async with serving(Settings(models_dir=models_dir)) as client:
        first = await client.get("/models/toy/1/loss.png", headers={"if-none-match": '"other"'})
        etag = first.headers["etag"]
        headers = {"if-none-match": known.format(etag)}
        same = await client.get("/models/toy/1/loss.png", headers=headers)
        path.write_bytes(PNG + b"trained again")
        changed = await client.get("/models/toy/1/loss.png", headers={"if-none-match": etag})
    assert (first.status_code, first.headers["cache-control"]) == (200, "no-cache")
    assert (same.status_code, same.content) == (304, b"")
    assert same.headers["etag"] == etag != changed.headers["etag"]
    assert changed.content == PNG + b"trained again"


@pytest.mark.parametrize("make", [None, Path.mkdir, os.mkfifo])
async def test_a_picture_that_is_no_file_is_404(models_dir: Path, make: Any) -> None:
    path = save_pictured(models_dir)
    path.unlink()
    if make:
        make(path)
    async with serving(Settings(models_dir=models_dir)) as client:
        try:
            async with asyncio.timeout(5):
                reply = await client.get("/models/toy/1/loss.png")
        finally:
            if path.is_fifo():
                os.close(os.open(path, os.O_RDWR))  # lets go whoever waits for it
    assert reply.status_code == 404
    assert reply.json() == {
        "error": "model toy: version 1: plot: loss.png: "
        "expected a file beside model.onnx, got none: it is missing"
    }


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
async def test_a_picture_that_cannot_be_read_is_404(models_dir: Path) -> None:
    save_pictured(models_dir).chmod(0)
    async with serving(Settings(models_dir=models_dir)) as client:
        reply = await client.get("/models/toy/1/loss.png")
    assert reply.status_code == 404
    assert reply.json()["error"].endswith("got one that cannot be read: Permission denied")


async def test_others_are_answered_while_a_picture_is_read(
    models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_pictured(models_dir)
    loop, reading, answered = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def read_slowly(_: Path) -> bytes:
        loop.call_soon_threadsafe(reading.set)
        return PNG if answered.wait(5) else b"nobody was answered"

    async with serving(Settings(models_dir=models_dir)) as client:
        monkeypatch.setattr(Path, "read_bytes", read_slowly)
        picture = asyncio.create_task(client.get("/models/toy/1/loss.png"))
        await reading.wait()
        assert (await client.get("/health/live")).status_code == 200
        answered.set()
        assert (await picture).content == PNG


async def test_columns_are_listed_with_their_types(tmp_path: Path) -> None:
    save_columns(tmp_path)
    save_imputed(tmp_path)
    save_sum(tmp_path)
    save_toy(tmp_path, card=toy_card())
    async with serving(Settings(models_dir=tmp_path, watch=False)) as client:

        async def listed(name: str) -> Any:
            (version,) = (await client.get(f"/models/{name}")).json()["versions"]
            return version.get("columns")

        assert await listed("columns") == [
            {"name": "age", "type": "number", "takes_missing": False, "example": 0},
            {"name": "rooms", "type": "integer", "takes_missing": False, "example": 0},
            {"name": "city", "type": "string", "takes_missing": False, "example": ""},
            {"name": "paid", "type": "boolean", "takes_missing": False, "example": False},
        ]
        assert [each["takes_missing"] for each in await listed("imputed")] == [True, False]
        assert await listed("sum") is None
        names = [each.name for each in toy_card().features]
        assert [each["name"] for each in await listed("toy")] == names  # with a card too


async def test_the_metrics_name_the_device_that_models_name(models_dir: Path) -> None:
    async with serving(Settings(models_dir=models_dir, device="auto")) as client:
        (version,) = (await client.get("/models/toy")).json()["versions"]
        (line,) = re.findall(r'_info\{.*model="toy".*', (await client.get("/metrics")).text)
    assert f'device="{version["device"]}"' in line
    assert f'provider="{version["provider"]}"' in line
