"""Pictures over HTTP: on every route for rows, in every body, read in a thread of their own."""

import asyncio
import base64
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from service.formats.images.decode import Reader
from service.settings import Settings
from service.settings.versions import Versions
from tests.support.drawings import png, three_lines
from tests.support.images import read
from tests.support.toys import save_seen, save_toy, serving, toy_card

pytestmark = pytest.mark.anyio

Array = NDArray[Any]
ROOT = Path(__file__).parents[3]
PNG, JPEG = "image/png", "image/jpeg"
VERTEX = "/v1/endpoints/1/deployedModels/2:predict"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictured")
    save_seen(folder)
    save_toy(folder, card=toy_card())
    return folder


@pytest.fixture(scope="module")
async def client(folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    chosen = Settings(
        models_dir=folder,
        default_model="seen",
        predict_route=VERTEX,
        max_request_rows=5,
        max_image_pixels=100_000,
        max_body_bytes=200_000,
        watch=False,
    )
    async with serving(chosen) as client:
        yield client


DRAWN = png(255 * (1 - three_lines(np.random.default_rng(1))))
PIXELS = read(DRAWN)
MEAN = {"value": pytest.approx(float(PIXELS.mean()), abs=1e-3)}
SMALL = png(PIXELS)  # as the model takes it
B64 = base64.b64encode(DRAWN).decode()


async def send(
    client: httpx.AsyncClient, path: str, content: bytes, sent: str = PNG
) -> httpx.Response:
    return await client.post(path, content=content, headers={"content-type": sent})


@pytest.mark.parametrize(
    "path",
    ["/predict/seen", "/predict/seen/", "/predict/seen?version=1", "/predict", "/invocations"],
)
@pytest.mark.parametrize("sent", [PNG, JPEG, "image/jpg", "Image/PNG; q=1"])
async def test_a_picture_is_a_body(client: httpx.AsyncClient, path: str, sent: str) -> None:
    for content in (DRAWN, SMALL):
        reply = await send(client, path, content, sent)
        assert reply.json() == {"model": "seen", "version": 1, "predictions": [MEAN]}


async def test_a_form_has_a_prediction_for_each_file(client: httpx.AsyncClient) -> None:
    dark = png(np.pad(np.full((10, 10), 200), 9))
    files = [("any", ("a.png", DRAWN, PNG)), ("other", ("b.png", dark, PNG))]
    for path in ("/predict/seen", "/predict", "/invocations"):
        reply = await client.post(path, files=files)
        first, second = reply.json()["predictions"]
        assert first == MEAN
        assert second["value"] == pytest.approx(200 * 100 / 784, abs=1e-3)


async def test_base64_may_stand_beside_lists(client: httpx.AsyncClient) -> None:
    instances = [
        {"b64": B64},
        PIXELS.tolist(),
        {"b64": "data:image/png;base64," + base64.encodebytes(DRAWN).decode()},  # has line breaks
        PIXELS.ravel().tolist(),
        {"b64": base64.b64encode(SMALL).decode()},
    ]
    whole: dict[str, Any] = {"instances": instances}
    for path, content in (
        ("/predict", whole | {"model": "seen"}),
        ("/predict/seen", whole | {"version": 1}),
        ("/invocations", whole),
        (VERTEX, whole | {"parameters": {"model": "seen"}}),
    ):
        reply = await client.post(path, json=content)
        assert reply.json()["predictions"] == [MEAN] * len(instances), path
    for one in instances:
        reply = await client.post("/predict", json={"instances": [one]})
        assert reply.json()["predictions"] == [MEAN]


async def test_json_lines_may_hold_pictures(client: httpx.AsyncClient) -> None:
    lines = b"".join(json.dumps(each).encode() + b"\n" for each in ({"b64": B64}, PIXELS.tolist()))
    reply = await send(client, "/invocations", lines, "application/jsonlines")
    assert reply.json()["predictions"] == [MEAN] * 2


@contextmanager
def held_reading() -> Iterator[tuple[threading.Event, threading.Event]]:
    """Hold the thread that reads: (it has begun, it may go on)."""
    held, go_on = threading.Event(), threading.Event()
    original = Reader.read

    def hold(self: Reader, data: bytes, where: str) -> Any:
        if threading.current_thread() is not threading.main_thread():
            held.set()
            go_on.wait(5)
        return original(self, data, where)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Reader, "read", hold)
        yield held, go_on


async def until_set(event: threading.Event) -> None:
    while not event.is_set():
        await asyncio.sleep(0)


async def test_who_waits_for_other_pictures_is_told_in_time(client: httpx.AsyncClient) -> None:
    with held_reading() as (held, go_on):
        first = asyncio.create_task(send(client, "/predict/seen", DRAWN))
        await until_set(held)
        headers = {"content-type": PNG, "x-request-timeout-ms": "50"}
        late = await client.post("/predict/seen", content=DRAWN, headers=headers)
        assert not first.done()
        go_on.set()
        assert (await first).status_code == 200
    assert late.status_code == 504
    assert late.json()["error"] == "the deadline passed before the body was read"


async def test_preparation_may_be_switched_off(client: httpx.AsyncClient) -> None:
    light = png(255 - PIXELS)
    for path in ("/predict/seen", "/invocations"):
        off = await send(client, path + "?prepare=false", light)
        assert off.json()["predictions"][0]["value"] == pytest.approx(
            255 - float(PIXELS.mean()), abs=0.01
        )
        auto = await send(client, path + "?prepare=auto", light)
        assert auto.json()["predictions"] != off.json()["predictions"]
    content = {"instances": [{"b64": base64.b64encode(light).decode()}]}
    shown = await client.post("/prepare/seen?prepare=false", json=content)
    assert shown.json()["instances"] == [(255 - PIXELS).tolist()]


async def test_a_late_picture_is_not_read(client: httpx.AsyncClient) -> None:
    with held_reading() as (held, go_on):
        first = asyncio.create_task(send(client, "/predict/seen", DRAWN))
        await until_set(held)
        headers = {"content-type": PNG, "x-request-timeout-ms": "1"}
        late = asyncio.create_task(client.post("/predict/seen", content=DRAWN, headers=headers))
        small = await send(client, "/predict/seen", SMALL)  # the loop waits for no thread
        assert small.status_code == 200
        until = perf_counter() + 0.01
        while perf_counter() < until:
            await asyncio.sleep(0)
        go_on.set()
        assert (await first).status_code == 200
        assert (await late).status_code == 504


async def test_images_are_answered_by_the_version_that_they_were_sent_to(tmp_path: Path) -> None:
    """The request holds it: it answers, though the folder has another by then."""
    save_seen(tmp_path)
    async with serving(Settings(models_dir=tmp_path, watch=False)) as client:
        with held_reading() as (held, go_on):
            slow = asyncio.create_task(send(client, "/predict/seen", DRAWN))
            await until_set(held)
            (tmp_path / "seen/1").rename(tmp_path / "seen/2")
            await client.services.reloader.reload()
            assert client.services.catalog.get("seen").version == 2
            go_on.set()
            reply = await slow
    assert reply.json() == {"model": "seen", "version": 1, "predictions": [MEAN]}


async def test_the_served_model_answers_a_picture_as_its_pixels(
    held_out: tuple[Array, Array],
) -> None:
    digits = held_out[0][:64]
    async with serving(
        Settings(models_dir=ROOT / "models", versions=Versions("mnist=2"))
    ) as client:
        raw = await client.post("/predict/mnist", json={"instances": digits.tolist()})
        files = [("file", (f"{n}.png", png(digit), PNG)) for n, digit in enumerate(digits)]
        sent = await client.post("/predict/mnist", files=files)
    assert sent.json() == raw.json()
