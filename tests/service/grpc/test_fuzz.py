"""Frames in any split and any order: nothing hangs or crashes, and no answer is another's."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.exceptions import H2Error
from h2.settings import SettingCodes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.grpc.messages import HEALTH, ModelInferResponse
from service.http.opening import PREFACE
from service.settings import Settings
from tests.support import onnx_graphs
from tests.support.grpc_client import INFER, framed, infer_request, outputs_of
from tests.support.sockets import Listening, listening
from tests.support.toys import save_toy, toy_answer

pytestmark = pytest.mark.slow

Run = Callable[[Callable[[Listening], Coroutine[Any, Any, None]]], None]
HEADERS = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", INFER),
    (":authority", "here"),
    ("content-type", "application/grpc"),
]
FRAMES = st.builds(
    lambda kind, flags, stream, data: (
        len(data).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + data
    ),
    st.integers(0, 10),
    st.integers(0, 255),
    st.sampled_from([0, 1, 2, 3, 5, 7, 2**31 - 1]),
    st.binary(max_size=30),
)
FAST = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Run a coroutine with a service that lives as long as the module."""
    folder: Path = tmp_path_factory.mktemp("models")
    save_toy(folder)
    onnx_graphs.save_series(folder)
    with asyncio.Runner() as runner:
        ready, done = asyncio.Event(), asyncio.Event()
        services: list[Listening] = []

        async def serve() -> None:
            async with listening(Settings(models_dir=folder)) as service:
                services.append(service)
                ready.set()
                await done.wait()

        serving = runner.get_loop().create_task(serve())
        runner.run(ready.wait())
        yield lambda case: runner.run(case(services[0]))
        done.set()
        runner.run(asyncio.wait_for(serving, 20))


def begun() -> H2Connection:
    h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
    h2.initiate_connection()
    return h2


async def send(writer: asyncio.StreamWriter, data: bytes, cuts: list[int]) -> None:
    """Send in pieces, with turns of the loop between them."""
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for start, end in pairwise(places):
        writer.write(data[start:end])
        for _ in range(4):
            await asyncio.sleep(0)


def noted_problems() -> list[Any]:
    """Return where the event loop puts what nobody answers, from now on."""
    problems: list[Any] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: problems.append(context))
    return problems


async def ended_well(
    service: Listening, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Say no more, and see that nothing is left of the connection."""
    writer.write_eof()
    await asyncio.wait_for(reader.read(), 20)
    writer.close()
    async with asyncio.timeout(20):
        while service.state.connections or service.state.tasks:
            await asyncio.sleep(0)
    assert service.app.services.memory.held == 0


@FAST
@given(cuts=st.lists(st.integers(0, 10_000), max_size=12), order=st.permutations(range(4)))
def test_however_calls_are_cut_each_has_its_own_answer(
    run: Run, cuts: list[int], order: list[int]
) -> None:
    rows = [np.full((1 + n, 4), n / 8, np.float32) for n in range(4)]

    async def case(service: Listening) -> None:
        reader, writer = await service.connect()
        h2 = begun()
        bodies = [framed(infer_request("toy", each).SerializeToString()) for each in rows]
        ids = [1 + 2 * n for n in range(4)]
        for id in ids:
            h2.send_headers(id, HEADERS)
        for place in (0, 1):  # halves of the messages, in an order of their own
            for n in order:
                half = len(bodies[n]) // 2
                part = bodies[n][half:] if place else bodies[n][:half]
                h2.send_data(ids[n], part, end_stream=bool(place))
        await send(writer, h2.data_to_send(), cuts)
        got: dict[int, bytearray] = {id: bytearray() for id in ids}
        ended = 0
        while ended < 4:
            for event in h2.receive_data(await asyncio.wait_for(reader.read(65_536), 20)):
                if type(event).__name__ == "DataReceived":
                    got[event.stream_id] += event.data  # type: ignore[attr-defined]
                ended += type(event).__name__ == "StreamEnded"
        for id, each in zip(ids, rows, strict=True):
            (answer,) = outputs_of(ModelInferResponse.FromString(bytes(got[id][5:])))
            assert np.abs(answer - toy_answer(each)).max() < 1e-6
        writer.close()

    run(case)


@FAST
@given(frames=st.lists(FRAMES, max_size=8), cuts=st.lists(st.integers(0, 500), max_size=4))
def test_whatever_frames_come_the_service_goes_on(
    run: Run, frames: list[bytes], cuts: list[int]
) -> None:
    async def case(service: Listening) -> None:
        problems = noted_problems()
        reader, writer = await service.connect()
        h2 = begun()
        h2.send_headers(1, HEADERS)
        h2.send_data(
            1, framed(infer_request("toy", np.ones((1, 4), np.float32)).SerializeToString())
        )
        data = h2.data_to_send()
        assert data.startswith(PREFACE)
        await send(writer, data + b"".join(frames), cuts)
        await ended_well(service, reader, writer)
        asyncio.get_running_loop().set_exception_handler(None)
        assert not problems

    run(case)


LARGE = framed(infer_request("series", np.ones((1, 30_000), np.float32)).SerializeToString())
SMALL = framed(infer_request("toy", np.ones((1, 4), np.float32)).SerializeToString())
WATCH = framed(b"")
KINDS = ["small", "large", "part", "watch", "cancel", "open", "shut", "turn", "ping"]
DEEDS = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 7)), max_size=25)


@FAST
@given(deeds=DEEDS)
def test_whatever_a_client_does_the_service_goes_on(run: Run, deeds: list[tuple[str, int]]) -> None:
    """It calls, cancels, opens windows or leaves them shut, in any order, many in one write."""

    async def case(service: Listening) -> None:
        problems = noted_problems()
        reader, writer = await service.connect()
        h2 = begun()
        ids: list[int] = []
        for what, number in deeds:
            chosen = ids[number % len(ids)] if ids else 0
            try:
                if what in ("small", "large", "part", "watch"):
                    id = h2.get_next_available_stream_id()
                    path = [(":path", f"/{HEALTH}/Watch")] if what == "watch" else HEADERS[2:3]
                    h2.send_headers(id, [*HEADERS[:2], *path, *HEADERS[3:]])
                    body = {"large": LARGE, "watch": WATCH}.get(what, SMALL)
                    if what == "part":
                        h2.send_data(id, body[: len(body) // (number + 1)])
                    else:
                        for start in range(0, len(body), 16_384):
                            h2.outbound_flow_control_window = 2**24
                            h2.streams[id].outbound_flow_control_window = 2**24
                            h2.send_data(id, body[start : start + 16_384])
                        h2.end_stream(id)
                    ids.append(id)
                elif what == "cancel" and chosen:
                    h2.reset_stream(chosen)
                elif what == "open":
                    h2.increment_flow_control_window(20_000)
                    if chosen:
                        h2.increment_flow_control_window(20_000, chosen)
                elif what == "shut":
                    h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: number * 1000})
                elif what == "ping":
                    h2.ping(b"12345678")
            except (H2Error, KeyError):  # that is no more possible
                continue
            if what == "turn":
                writer.write(h2.data_to_send())
                for _ in range(4):
                    await asyncio.sleep(0)
        writer.write(h2.data_to_send())
        for _ in range(10):
            await asyncio.sleep(0)
        if len(deeds) % 2:
            for each in list(service.state.connections):
                each.shutdown()
        await ended_well(service, reader, writer)
        asyncio.get_running_loop().set_exception_handler(None)
        assert not problems

    run(case)
