"""GET /health and GET /metrics."""

import asyncio
import threading
from pathlib import Path

import httpx
import pytest

from service.entrance.services import Host
from service.metrics import Blocks, Reading
from service.settings import Settings
from tests.support.toys import save_toy, serving, toy_card

pytestmark = pytest.mark.anyio


async def test_a_failed_model_is_told_everywhere_and_the_others_are_ready(
    models_dir: Path,
) -> None:
    broken = save_toy(models_dir / "more", card=toy_card(), scale=2)
    (models_dir / "wrong").mkdir()
    broken.parent.rename(models_dir / "wrong/1")
    async with serving(Settings(models_dir=models_dir)) as client:
        ready = await client.get("/health/ready")
        shown = (await client.get("/models/wrong")).json()
        metrics = (await client.get("/metrics")).text
        answer = await client.post("/predict/toy", json={"instances": [[1, 2, 3, 4]]})
    assert ready.status_code == 503
    states = ready.json()["models"]
    assert ready.json()["status"] == "not ready"
    assert states["toy"] == {"ready": True, "version": 1, "device": "cpu"}
    assert states["wrong"]["ready"] is False
    assert states["wrong"]["reason"].startswith("wrong/1: example 'one': expected [")
    assert shown["default_version"] is None
    assert shown["versions"] == [
        {"version": 1, "state": "failed", "reason": states["wrong"]["reason"]}
    ]
    assert 'torchlit_model_ready{model="wrong",version="1"} 0.0' in metrics
    assert 'torchlit_model_ready{model="toy",version="1"} 1.0' in metrics
    assert answer.status_code == 200


async def test_a_broken_newer_version_leaves_the_model_ready_and_is_named(
    models_dir: Path,
) -> None:
    save_toy(models_dir, 2, card=toy_card(), scale=2)
    async with serving(Settings(models_dir=models_dir)) as client:
        ready = await client.get("/health/ready")
    assert ready.status_code == 200
    assert ready.json()["models"]["toy"]["version"] == 1
    assert ready.json()["models"]["toy"]["failed"][0].startswith("toy/2: ")


async def test_live_and_ready(client: httpx.AsyncClient) -> None:
    live = await client.get("/health/live")
    assert (live.status_code, live.json()) == (200, {"status": "live"})
    ready = await client.get("/health/ready")
    assert (ready.status_code, ready.json()["status"]) == (200, "ready")


async def test_metrics_are_prometheus_text(client: httpx.AsyncClient) -> None:
    reply = await client.get("/metrics")
    assert reply.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "# TYPE torchlit_request_seconds histogram" in reply.text


async def test_while_it_drains_it_is_live_and_not_ready(models_dir: Path) -> None:
    host = Host()
    async with serving(Settings(models_dir=models_dir), host) as client:
        host.is_draining = True
        ready = await client.get("/health/ready")
        live = await client.get("/health/live")
    assert (ready.status_code, ready.json()["status"]) == (503, "draining")
    assert ready.json()["models"]["toy"] == {"ready": True, "version": 1, "device": "cpu"}
    assert live.status_code == 200


@pytest.mark.parametrize("path", ["/metrics", "/v2/models/stats", "/v2/models/toy/stats"])
async def test_while_counters_are_read_others_are_answered(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    read, began, may_go_on = Blocks.read, threading.Event(), threading.Event()

    def slow(blocks: Blocks) -> Reading:
        began.set()
        assert may_go_on.wait(10)  # which never comes where the event loop waits for this
        return read(blocks)

    monkeypatch.setattr(Blocks, "read", slow)
    reading = asyncio.create_task(client.get(path))
    assert await asyncio.to_thread(began.wait, 10)
    assert (await client.get("/health/live")).status_code == 200
    may_go_on.set()
    assert (await reading).status_code == 200
