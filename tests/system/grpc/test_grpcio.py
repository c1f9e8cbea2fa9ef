"""gRPC's own client: whatever it does to a connection, each call has its own answer."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import pytest

from service.grpc.messages import HEALTH, SERVICE, ModelInferResponse
from tests.support.clients import counted
from tests.support.grpc_client import INFER, infer_request, outputs_of
from tests.support.processes import Process, running
from tests.support.toys import save_dear, save_toy, toy_answer

grpc = pytest.importorskip("grpc", reason="grpcio is not here")

pytestmark = [pytest.mark.anyio, pytest.mark.grpc]

ROW = np.array([[1, 2, 3, 4]], np.float32)
ASKED = infer_request("toy", ROW).SerializeToString()
SLOW = infer_request("dear", ROW).SerializeToString()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    folder = tmp_path_factory.mktemp("models")
    save_toy(folder)
    save_dear(folder, 1000)
    with running(models_dir=folder) as service:
        yield service


@pytest.fixture(scope="module", autouse=True)
async def one_loop() -> None:
    """Let all tests here have the same event loop: grpc.aio polls for it in a thread."""


def channel_to(service: Process, **options: Any) -> Any:
    given = [(f"grpc.{name}", value) for name, value in options.items()]
    given.append(("grpc.use_local_subchannel_pool", 1))  # a connection of its own
    return grpc.aio.insecure_channel(service.url.removeprefix("http://"), given)


@pytest.fixture
async def channel(service: Process) -> AsyncIterator[Any]:
    async with channel_to(service) as channel:
        yield channel


async def refused(code: str, sentence: str, call: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code().name == code
    assert caught.value.details().startswith(sentence)


async def test_calls_that_are_wrong_are_refused_as_the_client_reads_it(channel: Any) -> None:
    await refused("INVALID_ARGUMENT", "message: expected", channel.unary_unary(INFER)(b"\xff\xff"))
    await refused("UNIMPLEMENTED", '"/a.B/C": no such', channel.unary_unary("/a.B/C")(b""))
    stream = channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")(iter([]))
    with pytest.raises(grpc.aio.AioRpcError, match="streams of inferences are not served"):
        await stream.read()
    refusing = channel.unary_unary(INFER)(ASKED, compression=grpc.Compression.Deflate)
    await refused("UNIMPLEMENTED", "grpc-encoding: expected", refusing)
    assert await channel.unary_unary(INFER)(ASKED, compression=grpc.Compression.Gzip)


async def test_metadata_go_both_ways(channel: Any) -> None:
    call = channel.unary_unary(INFER)(ASKED, metadata=(("x-request-id", "mine"),))
    await call
    assert dict(await call.initial_metadata())["x-request-id"] == "mine"


async def test_a_deadline_and_a_cancellation_leave_the_queue(
    channel: Any, service: Process
) -> None:
    before = service.get("/metrics").text
    infer = channel.unary_unary(INFER)
    calls = [infer(SLOW) for _ in range(20)]
    await infer(ASKED)
    for each in calls[1:]:
        each.cancel()
    await refused("DEADLINE_EXCEEDED", "", infer(SLOW, timeout=0.001))
    assert await calls[0]
    await infer(SLOW)
    after = service.get("/metrics").text
    gone = 'torchlit_requests_total{model="dear"', 'outcome="cancelled"'
    assert counted(after, *gone) - counted(before, *gone) > 0  # others were answered before
    assert counted(after, "torchlit_queue_rows") == 0


async def test_more_calls_than_streams_are_all_answered(channel: Any) -> None:
    random = np.random.default_rng(0)
    rows = [random.random((1, 4)).astype(np.float32) for _ in range(500)]
    infer = channel.unary_unary(INFER)
    asked = [infer(infer_request("toy", each).SerializeToString()) for each in rows]
    for each, data in zip(rows, await asyncio.gather(*asked), strict=True):
        (answer,) = outputs_of(ModelInferResponse.FromString(data))
        assert np.abs(answer - toy_answer(each)).max() < 1e-6


async def test_a_storm_of_cancellations_hurts_nobody(channel: Any, service: Process) -> None:
    infer = channel.unary_unary(INFER)
    for _ in range(10):
        calls = [infer(SLOW) for _ in range(60)]
        await asyncio.sleep(0)
        for each in calls[::2]:
            each.cancel()
        for each in calls[1::2]:
            each.cancel()
        assert await infer(ASKED)
    async with channel_to(service) as other:
        assert await other.unary_unary(INFER)(ASKED)


async def test_health_is_checked_and_watched(channel: Any) -> None:
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    stub = health_pb2_grpc.HealthStub(channel)
    serving = health_pb2.HealthCheckResponse.SERVING
    for name in ("", "toy", SERVICE):
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == serving
    await refused(
        "NOT_FOUND", "model: expected", stub.Check(health_pb2.HealthCheckRequest(service="x"))
    )
    watching = stub.Watch(health_pb2.HealthCheckRequest())
    assert (await watching.read()).status == serving
    watching.cancel()
    assert health_pb2.DESCRIPTOR.services_by_name["Health"].full_name == HEALTH


async def test_nothing_is_lost_when_the_service_is_stopped(tmp_path: Any) -> None:
    """Calls that a connection refuses are made again by the client itself, elsewhere or nowhere."""
    save_toy(tmp_path)
    with running(models_dir=tmp_path, drain_s=0.5) as service:
        answered, refusals = 0, list[Any]()

        async def ask() -> None:
            nonlocal answered
            async with channel_to(service) as channel:
                infer = channel.unary_unary(INFER)
                while True:
                    try:
                        await infer(ASKED)
                    except grpc.aio.AioRpcError as error:
                        refusals.append(error)
                        return
                    answered += 1

        asking = [asyncio.create_task(ask()) for _ in range(16)]
        while answered < 500:
            await asyncio.sleep(0.01)
        assert not refusals
        status = await asyncio.to_thread(service.stop, signal.SIGTERM)
        assert status == 0
        await asyncio.gather(*asking)
        for error in refusals:  # what found no server any more: no call that one had accepted
            assert error.code() == grpc.StatusCode.UNAVAILABLE
            assert "connect" in error.details().lower(), error
        assert "cut off" not in "".join(service.log)


@pytest.mark.slow
async def test_100_000_calls_of_one_connection_are_answered(channel: Any) -> None:
    infer = channel.unary_unary(INFER)

    async def ask() -> None:
        for _ in range(100_000 // 64):
            await infer(ASKED)

    await asyncio.gather(*(ask() for _ in range(64)))
