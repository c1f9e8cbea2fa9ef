"""A request is answered by the version that it holds, whatever the folder says meanwhile."""

import asyncio
import shutil
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.catalog import reload
from service.catalog.served import ServedModel
from service.engine.model import Model
from service.errors import InferenceFailed, NotFound
from service.settings import Settings
from tests.support.clients import counted
from tests.support.toys import Client, body, save_same, save_toy, serving, toy_answer

pytestmark = pytest.mark.anyio

ROW = [1, 2, 3, 4]
LARGE = b"\n".join([b"+1,2,3,4"] * 1000)  # is read in a thread


class Gate:
    """Holds what comes by in a thread until it is opened."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.is_reached, self._open = asyncio.Event(), threading.Event()

    def wait(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            self._loop.call_soon_threadsafe(self.is_reached.set)
            assert self._open.wait(10)

    def open(self) -> None:
        self._open.set()


@pytest.fixture
async def gate(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Gate]:
    """Holds the threads that read bodies, where they make rows of what they have read."""
    gate, rows_of = Gate(), Model.rows_of

    def held(self: Model, numbers: Any) -> Any:
        gate.wait()
        return rows_of(self, numbers)

    monkeypatch.setattr(Model, "rows_of", held)
    monkeypatch.setattr(reload, "PAUSE_S", 0)
    yield gate
    gate.open()


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    save_toy(tmp_path)
    save_same(tmp_path, ["batch", 4])
    async with serving(Settings(models_dir=tmp_path, watch=False)) as client:
        yield client


async def send_large(client: Client) -> Any:
    reply = await client.post("/predict/toy", content=LARGE, headers={"content-type": "text/csv"})
    assert reply.status_code == 200, reply.text
    return reply.json()


def check(reply: Any, version: int, scale: float) -> None:
    """Check that all rows were answered by one version of toy, whose weights are so scaled."""
    assert (reply["version"], len(reply["predictions"])) == (version, 1000)
    expected = toy_answer(np.array([ROW]) * scale)[0]
    for each in reply["predictions"]:
        assert each["probabilities"] == pytest.approx(expected.tolist(), abs=1e-6)


def check_is_closed(served: ServedModel) -> None:
    with pytest.raises(InferenceFailed):
        served.model.run([np.zeros((1, 4), np.float32)])


async def answer_of(client: Client, model: str) -> Any:
    reply = await client.post("/predict", content=body(model, [ROW]))
    assert reply.status_code == 200, reply.text
    return reply.json()


async def test_a_request_is_answered_by_the_version_that_it_holds(
    client: Client, gate: Gate, tmp_path: Path
) -> None:
    catalog, reloader = client.services.catalog, client.services.reloader
    old = catalog.get("toy")
    slow = asyncio.create_task(send_large(client))
    await gate.is_reached.wait()

    save_toy(tmp_path, scale=2)
    await reloader.reload()  # it returns, though the old one is held
    new = catalog.get("toy")
    assert new is not old
    settled = asyncio.create_task(reloader.settled())
    save_same(tmp_path, ["batch", 4], name="other")
    await reloader.reload()  # other models come meanwhile
    assert (await answer_of(client, "other"))["predictions"] == [{"output": ROW}]
    twice = toy_answer(np.array([ROW]) * 2)[0].tolist()
    (prediction,) = (await answer_of(client, "toy"))["predictions"]
    assert prediction["probabilities"] == pytest.approx(twice, abs=1e-6)  # the new one
    assert not slow.done()
    assert not settled.done()
    old.model.run([np.zeros((1, 4), np.float32)])  # it is not closed

    gate.open()
    check(await slow, 1, scale=1)
    await settled
    check_is_closed(old)
    new.model.run([np.zeros((1, 4), np.float32)])


async def test_a_request_is_answered_by_a_version_that_is_gone(
    client: Client, gate: Gate, tmp_path: Path
) -> None:
    catalog, reloader = client.services.catalog, client.services.reloader
    old = catalog.get("toy")
    slow = asyncio.create_task(send_large(client))
    await gate.is_reached.wait()
    save_toy(tmp_path, 2, scale=2)
    shutil.rmtree(tmp_path / "toy/1")
    await reloader.reload()
    assert catalog.get("toy").version == 2
    with pytest.raises(NotFound):
        catalog.get("toy", 1)
    gate.open()
    check(await slow, 1, scale=1)
    await reloader.settled()
    check_is_closed(old)


async def test_a_model_that_several_hold_is_closed_behind_the_last(
    client: Client, gate: Gate, tmp_path: Path
) -> None:
    old = client.services.catalog.get("toy")
    slow = asyncio.create_task(send_large(client))
    await gate.is_reached.wait()
    save_toy(tmp_path, scale=2)
    with old:
        await client.services.reloader.reload()
        gate.open()
        check(await slow, 1, scale=1)
        settled = asyncio.create_task(client.services.reloader.settled())
        await answer_of(client, "toy")
        assert not settled.done()
        old.model.run([np.zeros((1, 4), np.float32)])
    await settled
    check_is_closed(old)


async def test_who_leaves_holds_a_model_no_longer_and_is_counted_once(
    client: Client, gate: Gate, tmp_path: Path
) -> None:
    old = client.services.catalog.get("toy")
    slow = asyncio.create_task(send_large(client))
    await gate.is_reached.wait()
    save_toy(tmp_path, scale=2)
    await client.services.reloader.reload()
    slow.cancel()
    with pytest.raises((asyncio.CancelledError, AssertionError)):
        await slow  # the service returns without a reply
    await client.services.reloader.settled()
    check_is_closed(old)
    gate.open()
    metrics = (await client.get("/metrics")).text
    assert counted(metrics, "torchlit_requests_total", 'model="toy",outcome="cancelled"') == 1
    assert counted(metrics, "torchlit_requests_total", 'model="toy"') == 1


async def test_a_request_that_is_refused_holds_nothing(client: Client, tmp_path: Path) -> None:
    old = client.services.catalog.get("toy")
    for content in (body("toy", [[1]]), body("toy", [])):
        assert (await client.post("/predict", content=content)).status_code == 400
    assert (await client.post("/v2/models/toy/infer", content=b"{}")).status_code == 400
    save_toy(tmp_path, scale=2)
    await client.services.reloader.reload()
    await client.services.reloader.settled()
    check_is_closed(old)
