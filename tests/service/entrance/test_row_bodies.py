"""Where the rows of a message are read: in the event loop, or in a thread."""

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace
from numpy.typing import NDArray
from onnx import TensorProto

from service.catalog.served import ServedModel
from service.engine.model import Model
from service.entrance.row_bodies import RowBodies
from service.entrance.services import Services
from service.errors import DeadlineExceeded, InvalidInput
from service.formats import tensors
from service.formats.message import LARGEST_IN_LOOP, Limits, Slow
from service.http.app import App, create_app
from service.http.routes import routes_for
from service.settings import Settings
from tests.support.toys import Client, save_same, serving

pytestmark = pytest.mark.anyio

ROWS = np.zeros((1, 4), np.float32)
MAX_ROWS, MAX_PIXELS = 7, 1000


class Quick:
    """A message that is read where it stands."""

    needs_images = False

    def __init__(self) -> None:
        self.fields: dict[str, Any] = {}
        self.read: list[tuple[threading.Thread, Model, Limits]] = []

    def rows(self, model: Model, limits: Limits) -> NDArray[Any]:
        self.read.append((threading.current_thread(), model, limits))
        return ROWS


class Held(Quick):
    """A message that takes long, and is being read until it is let go."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self._error = error
        self._loop = asyncio.get_running_loop()
        self.is_reached, self._go = asyncio.Event(), threading.Event()

    def rows(self, model: Model, limits: Limits) -> NDArray[Any]:
        if limits.in_loop:
            raise Slow
        super().rows(model, limits)
        self._loop.call_soon_threadsafe(self.is_reached.set)
        assert self._go.wait(10)
        if self._error is not None:
            raise self._error
        return ROWS

    def let_go(self) -> None:
        self._go.set()


@pytest.fixture
async def services(models_dir: Path) -> AsyncIterator[Services]:
    settings = Settings(
        models_dir=models_dir, max_request_rows=MAX_ROWS, max_image_pixels=MAX_PIXELS
    )
    async with serving(settings) as client:
        yield client.services


@pytest.fixture
def bodies(services: Services) -> RowBodies:
    return services.bodies


@pytest.fixture
def toy(services: Services) -> ServedModel:
    return services.catalog.get("toy")


@pytest.fixture
def mean(services: Services) -> ServedModel:
    """One that takes images."""
    return services.catalog.get("mean")


def soon() -> float:
    return perf_counter() + 10


@contextlib.contextmanager
def released(*messages: Held) -> Iterator[None]:
    """Let them go at the end, also after an assertion that failed: a thread would wait else."""
    try:
        yield
    finally:
        for each in messages:
            each.let_go()


@pytest.mark.parametrize("prepare", [False, True])
async def test_what_is_quick_is_read_where_it_stands(
    bodies: RowBodies, toy: ServedModel, prepare: bool
) -> None:
    message = Quick()
    assert bodies.quick_rows(message, toy.model, prepare) is ROWS
    ((thread, model, limits),) = message.read
    assert (thread, model) == (threading.current_thread(), toy.model)
    assert (limits.in_loop, limits.prepare, limits.max_rows) == (True, prepare, MAX_ROWS)
    assert (limits.max_pixels, limits.max_pixels_in_all) == (MAX_PIXELS, 4 * MAX_PIXELS)


@pytest.mark.parametrize("prepare", [False, True])
async def test_what_is_slow_is_left_to_a_thread(
    bodies: RowBodies, toy: ServedModel, prepare: bool
) -> None:
    message, deadline = Held(), soon()
    assert bodies.quick_rows(message, toy.model, prepare) is None
    message.let_go()
    assert await bodies.slow_rows(message, toy.model, prepare, deadline) is ROWS
    ((thread, model, limits),) = message.read
    assert thread is not threading.current_thread()
    assert model is toy.model
    expected = Limits(MAX_ROWS, MAX_PIXELS, 4 * MAX_PIXELS, deadline, prepare, in_loop=False)
    assert limits == expected


async def test_others_are_answered_while_a_body_is_read(
    bodies: RowBodies, toy: ServedModel
) -> None:
    slow = Held()
    with released(slow):
        reading = asyncio.create_task(bodies.slow_rows(slow, toy.model, True, soon()))
        await slow.is_reached.wait()
        assert bodies.quick_rows(Quick(), toy.model, True) is ROWS
        assert not reading.done()
    assert await reading is ROWS


async def test_images_are_read_one_at_a_time_and_other_bodies_beside_them(
    bodies: RowBodies, toy: ServedModel, mean: ServedModel
) -> None:
    first, second, lines, more = Held(), Held(), Held(), Held()
    with released(first, second, lines, more):
        reading = [
            asyncio.create_task(bodies.slow_rows(message, served.model, True, soon()))
            for message, served in ((first, mean), (second, mean), (lines, toy), (more, toy))
        ]
        for each in (first, lines, more):
            await each.is_reached.wait()
        assert not second.read
        first.let_go()
        await second.is_reached.wait()
        assert first.read[0][0] is second.read[0][0]  # the thread
    assert all(rows is ROWS for rows in await asyncio.gather(*reading))


async def test_what_is_wrong_is_found_in_the_thread_too(
    bodies: RowBodies, toy: ServedModel
) -> None:
    message = Held(InvalidInput("line 7: no"))
    message.let_go()
    with pytest.raises(InvalidInput, match=r"^line 7: no$"):
        await bodies.slow_rows(message, toy.model, True, soon())


async def test_who_is_late_is_told_so_and_what_waits_is_not_read(
    bodies: RowBodies, mean: ServedModel
) -> None:
    first, late, last = Held(), Held(), Held()
    with released(first, late, last):
        reading = asyncio.create_task(bodies.slow_rows(first, mean.model, True, soon()))
        await first.is_reached.wait()
        with pytest.raises(DeadlineExceeded, match=r"^the deadline passed before the body was re"):
            await bodies.slow_rows(late, mean.model, True, perf_counter() + 0.01)
        first.let_go()
        await reading
        last.let_go()
        await bodies.slow_rows(last, mean.model, True, soon())  # behind both
    assert not late.read


async def test_what_waits_for_a_caller_who_left_is_not_read(
    bodies: RowBodies, mean: ServedModel
) -> None:
    first, left, last = Held(), Held(), Held()
    with released(first, left, last):
        reading = asyncio.create_task(bodies.slow_rows(first, mean.model, True, soon()))
        await first.is_reached.wait()
        leaving = asyncio.create_task(bodies.slow_rows(left, mean.model, True, soon()))
        await asyncio.sleep(0)  # it waits for the thread now
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        first.let_go()
        await reading
        last.let_go()
        await bodies.slow_rows(last, mean.model, True, soon())
    assert not left.read


async def test_at_the_end_nobody_waits_for_what_is_being_read(
    bodies: RowBodies, mean: ServedModel
) -> None:
    first, second = Held(), Held()
    with released(first, second):
        reading = asyncio.create_task(bodies.slow_rows(first, mean.model, True, soon()))
        waiting = asyncio.create_task(bodies.slow_rows(second, mean.model, True, soon()))
        await first.is_reached.wait()
        bodies.close()  # returns though the first is being read
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert await reading is ROWS


def save_large(folder: Path) -> None:
    """Write models of rows of 300 numbers, so that a few rows are many bytes."""
    save_same(folder, ["batch", 300])
    save_same(folder, ["batch", 300], TensorProto.INT64, name="whole")


NUMBERS = [[10**6 + n for n in range(300)]] * 5  # more than 8192 bytes in any format
LARGE: dict[str, tuple[str, str, bytes]] = {  # model, media type, body
    "JSON": (
        "whole",
        "application/json",
        json.dumps({"instances": NUMBERS}).replace(" ", " " * 200).encode(),
    ),
    "JSON with whole floats": (
        "same",
        "application/json",
        json.dumps({"instances": [*NUMBERS, [10**20] * 300]}).encode(),
    ),
    "CSV": (
        "whole",
        "text/csv",
        "\n".join(f",{' ' * 200}".join(map(str, row)) for row in NUMBERS).encode(),
    ),
    "CSV with a plus": (
        "same",
        "text/csv",
        "\n".join(",".join(f"+{n}" for n in row) for row in NUMBERS).encode(),
    ),
    "JSON Lines": (
        "whole",
        "application/jsonlines",
        "\n".join(map(json.dumps, NUMBERS)).encode(),
    ),
}


@pytest.mark.parametrize("what", LARGE)
async def test_what_is_large_and_takes_long_is_read_in_a_thread_and_right(
    tmp_path: Path, what: str
) -> None:
    save_large(tmp_path)
    model, media_type, content = LARGE[what]
    assert len(content) > LARGEST_IN_LOOP
    threads: list[threading.Thread] = []

    class Noting(RowBodies):
        def in_thread(self, work: Any, *more: Any) -> Any:
            def noted() -> Any:
                threads.append(threading.current_thread())
                return work()

            return super().in_thread(noted, *more)

    settings = Settings(models_dir=tmp_path, watch=False)
    services = replace(create_app(settings).services, bodies=Noting(settings))
    app = App(services, routes_for(settings))
    headers = {"content-type": media_type}
    async with app.lifespan(), Client(app) as client:
        reply = await client.post(f"/predict/{model}", content=content, headers=headers)
    assert reply.status_code == 200, reply.text
    outputs = [each["output"] for each in reply.json()["predictions"]]
    assert outputs[:5] == NUMBERS
    (thread,) = threads
    assert thread is not threading.current_thread()


@pytest.mark.parametrize("datatype", ["INT64", "BYTES"])
@pytest.mark.parametrize("is_binary", [False, True])
async def test_long_tensors_are_read_in_a_thread_and_right(
    tmp_path: Path, datatype: str, is_binary: bool
) -> None:
    kind = TensorProto.STRING if datatype == "BYTES" else TensorProto.INT64
    save_same(tmp_path, ["batch", 300], kind)
    rows = [[str(n) if datatype == "BYTES" else n for n in range(300)]] * 300
    sent: dict[str, Any] = {"name": "input", "shape": [300, 300], "datatype": datatype}
    headers = {}
    flat = np.array(rows, tensors.DATATYPES[datatype]).ravel()
    binary = bytes(tensors.as_binary(flat)) if is_binary else b""
    sent |= {"parameters": {"binary_data_size": len(binary)}} if is_binary else {"data": rows}
    content = json.dumps({"inputs": [sent]}).encode()
    if is_binary:
        headers = {"inference-header-content-length": str(len(content))}
    threads: list[threading.Thread] = []

    class Noting(RowBodies):
        async def in_thread(self, work: Any, *more: Any) -> Any:
            threads.append(threading.current_thread())
            return await super().in_thread(work, *more)

    settings = Settings(models_dir=tmp_path, watch=False)
    services = replace(create_app(settings).services, bodies=Noting(settings))
    app = App(services, routes_for(settings))
    async with app.lifespan(), Client(app) as client:
        reply = await client.post(
            "/v2/models/same/infer", content=content + binary, headers=headers
        )
    assert reply.status_code == 200, reply.text
    assert reply.json()["outputs"][0]["data"] == [value for row in rows for value in row]
    reading = 0 if is_binary and datatype == "INT64" else 1
    assert len(threads) == reading + 1  # and the reply is written
