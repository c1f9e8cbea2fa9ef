"""POST /prepare: images as the model sees them."""

import asyncio
import base64
import json
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from service.http.rest.prepare import LARGEST_IN_LOOP
from service.settings import Settings
from tests.support.drawings import png, three_lines
from tests.support.images import read
from tests.support.toys import save_mean, save_seen, serving

pytestmark = pytest.mark.anyio

KEY = "a-key-of-24-characters-01"
DRAWN = png(255 * (1 - three_lines(np.random.default_rng(1))))
PIXELS = read(DRAWN)
B64 = {"b64": base64.b64encode(DRAWN).decode()}


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    """Models that answer the mean of grey images, of coloured ones, and of 2 x 3 numbers."""
    save_seen(tmp_path)
    save_seen(tmp_path, channels=3, side=4, name="coloured")
    save_mean(tmp_path)
    return tmp_path


async def send(
    client: httpx.AsyncClient, path: str, content: bytes, sent: str = "image/png"
) -> httpx.Response:
    return await client.post(path, content=content, headers={"content-type": sent})


async def test_what_is_prepared_can_be_predicted_as_it_is(client: httpx.AsyncClient) -> None:
    form = await client.post("/prepare/seen", files={"f": DRAWN})
    raw = await send(client, "/prepare/seen?version=1", DRAWN)
    assert raw.json() == {"model": "seen", "version": 1, "instances": [PIXELS.tolist()]}
    assert form.json() == raw.json()
    given = {"instances": [B64, PIXELS.ravel().tolist()]}
    for content_type in ("application/json", "", "application/x-www-form-urlencoded"):
        reply = await send(client, "/prepare/seen", json.dumps(given).encode(), content_type)
        assert reply.json()["instances"] == [PIXELS.tolist()] * 2
    predicted = await client.post("/predict", json=raw.json())
    mean = pytest.approx(float(PIXELS.mean()), abs=1e-3)
    assert predicted.json()["predictions"] == [{"value": mean}]


async def test_numbers_that_are_no_grey_values_are_shown_as_they_are(
    client: httpx.AsyncClient,
) -> None:
    halves = [[0.5, 1, 2], [3, 4, 1e30]]
    reply = await client.post("/prepare/mean", json={"instances": [halves]})
    np.testing.assert_allclose(reply.json()["instances"], [halves], rtol=1e-6)


class Counting(ThreadPoolExecutor):
    """The threads of an event loop, and how much they were given to do."""

    given = 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.given += 1
        return super().submit(fn, *args, **kwargs)


async def test_a_long_reply_is_written_in_a_thread(models_dir: Path) -> None:
    """Images are read in another one, which is not among those of the loop."""
    threads = Counting(1)
    asyncio.get_running_loop().set_default_executor(threads)
    short = LARGEST_IN_LOOP // PIXELS.size
    async with serving(Settings(models_dir=models_dir, watch=False)) as client:
        await client.services.reloader.reload()
        for count, in_threads in ((short, 0), (short + 1, 1)):
            before = threads.given
            reply = await client.post("/prepare/seen", json={"instances": [B64] * count})
            assert reply.json()["instances"] == [PIXELS.tolist()] * count
            assert threads.given - before == in_threads


async def test_colours_are_left_to_models_of_three_channels(client: httpx.AsyncClient) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 4, 3))
    reply = await send(client, "/prepare/coloured", png(pixels))
    assert reply.json()["instances"] == [pixels.tolist()]


async def test_prepare_needs_a_key_where_keys_are_set(models_dir: Path) -> None:
    async with serving(Settings(models_dir=models_dir, api_keys=KEY)) as guarded:
        assert (await send(guarded, "/prepare/seen", DRAWN)).status_code == 401
        guarded.headers["x-api-key"] = KEY
        assert (await send(guarded, "/prepare/seen", DRAWN)).status_code == 200
