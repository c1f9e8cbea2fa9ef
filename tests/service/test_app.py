from pathlib import Path

import httpx
import pytest
from toys import save_toy, serving, toy_card

from service.app import create_app
from service.settings import Settings

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
    assert version["card"]["features"][0]["unit"] == "cm"
    assert version["card"]["labels"] == ["red", "green", "blue"]


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


@pytest.mark.parametrize(
    ("method", "path", "status", "sentence"),
    [
        ("GET", "/nothing", 404, "GET /nothing: no such path; /schema/openapi.json lists all"),
        ("GET", "/schema/nothing", 404, "GET /schema/nothing: no such path"),
        ("GET", "/models/tyo", 404, "model: expected one of mean, toy; got 'tyo'"),
        ("POST", "/models", 405, "method: expected GET"),
        ("DELETE", "/health/live", 405, "method: expected GET"),
    ],
)
async def test_errors_of_the_framework_have_our_form(
    client: httpx.AsyncClient, method: str, path: str, status: int, sentence: str
) -> None:
    reply = await client.request(method, path)
    assert reply.status_code == status
    assert list(reply.json()) == ["error"]
    assert reply.json()["error"].startswith(sentence)


def test_the_app_never_shows_tracebacks(models_dir: Path) -> None:
    assert create_app(Settings(models_dir=models_dir))._others.debug is False


async def test_a_bug_is_logged_and_tells_the_caller_nothing(
    models_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(Settings(models_dir=models_dir)) as client:
        versions = client._transport.app.models.versions
        versions["odd"] = None  # what no code does
        replies = [await client.get("/models"), await client.get("/health/ready")]
        del versions["odd"]
    assert [reply.status_code for reply in replies] == [500, 500]
    assert [reply.json() for reply in replies] == [{"error": "internal error"}] * 2
    assert "GET /models: this is a bug" in caplog.text


async def test_a_model_that_takes_no_card_is_listed(tmp_path: Path) -> None:
    save_toy(tmp_path, card=None)
    async with serving(Settings(models_dir=tmp_path)) as client:
        (listed,) = (await client.get("/models")).json()["models"]
    assert listed["versions"][0]["card"] is None
