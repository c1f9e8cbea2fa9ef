"""Replies that are large: refused before the model runs, else written beside the event loop."""

import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from service.formats import predictions, tensors
from service.settings import Settings
from tests.support.toys import Client, save_same, serving

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    save_same(folder, ["batch", 300], name="wide")
    save_same(folder, ["batch", "n"], name="open")
    save_same(folder, ["batch", 3], TensorProto.STRING, name="words")
    return folder


@pytest.fixture(scope="module")
async def client(folder: Path) -> AsyncIterator[Client]:
    settings = Settings(models_dir=folder, watch=False, max_reply_bytes=1_000_000)
    async with serving(settings) as client:
        yield client


def tensor(rows: int, columns: int, datatype: str = "FP32", **more: Any) -> dict[str, Any]:
    data = (["a"] if datatype == "BYTES" else [0.5]) * rows * columns
    sent = {"name": "input", "shape": [rows, columns], "datatype": datatype, "data": data}
    return {"inputs": [sent], **more}


@pytest.mark.parametrize("rows", [1, 64, 120, 200])
async def test_rows_are_refused_if_their_reply_may_be_too_large(client: Client, rows: int) -> None:
    reply = await client.post("/predict/wide", json={"instances": [[0.5] * 300] * rows})
    if rows <= 120:
        assert reply.json()["predictions"] == [{"output": [0.5] * 300}] * rows
    else:
        assert reply.status_code == 413
        assert reply.json()["error"] == (
            "instances: expected at most 126 rows, as the reply to each may have 7920 bytes, and "
            "all at most 1000000 (TORCHLIT_MAX_REPLY_BYTES); got 200"
        )


async def test_tensors_are_refused_by_what_is_wanted_of_them(client: Client) -> None:
    path = "/v2/models/wide/infer"
    assert (await client.post(path, json=tensor(120, 300))).status_code == 200
    reply = await client.post(path, json=tensor(200, 300))
    assert reply.status_code == 413
    assert reply.json()["error"].startswith("inputs: expected at most 128 rows, as the reply to")
    binary = tensor(200, 300, parameters={"binary_data_output": True})
    assert (await client.post(path, json=binary)).status_code == 200
    for most, status in ((1, 200), (300, 413)):
        classes = [{"name": "output", "parameters": {"classification": most}}]
        reply = await client.post(path, json=tensor(200, 300, outputs=classes))
        assert reply.status_code == status


async def test_what_is_only_known_afterwards_is_refused_then(client: Client) -> None:
    assert (await client.post("/v2/models/open/infer", json=tensor(1, 20_000))).status_code == 200
    reply = await client.post("/v2/models/open/infer", json=tensor(2, 300_000))
    assert reply.status_code == 413
    assert reply.json()["error"] == (
        "reply: expected at most 1000000 bytes (TORCHLIT_MAX_REPLY_BYTES), got at least 1200000; "
        "send fewer rows"
    )
    for rows, status in ((500, 200), (4096, 200), (4000, 413)):
        words = tensor(rows, 3, "BYTES")
        words["inputs"][0]["data"] = ["a" * (90 if status == 413 else 50)] * rows * 3
        reply = await client.post("/v2/models/words/infer", json=words)
        assert reply.status_code == status, reply.text[:200]


@pytest.mark.parametrize("path", ["/predict/wide", "/v2/models/wide/infer"])
async def test_a_large_reply_is_written_in_a_thread(
    client: Client, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = set()

    def noted(module: Any, name: str) -> None:
        original = getattr(module, name)

        def note(*arguments: Any) -> Any:
            threads.add(threading.current_thread())
            return original(*arguments)

        monkeypatch.setattr(module, name, note)

    noted(predictions, "slices")
    noted(tensors, "as_json")
    rows = np.arange(64 * 300).reshape(64, 300) / 7
    rows = rows.astype(np.float32)
    if path.startswith("/predict"):
        reply = await client.post(path, json={"instances": rows.tolist()})
        got = [each["output"] for each in reply.json()["predictions"]]
    else:
        message = tensor(64, 300)
        message["inputs"][0]["data"] = rows.tolist()
        reply = await client.post(path, json=message)
        got = reply.json()["outputs"][0]["data"]
    assert np.array_equal(np.array(got, np.float32).ravel(), rows.ravel())
    assert threads
    assert threading.current_thread() not in threads
