"""What a client of HTTP/2 may do, and how its connection ends."""

import asyncio
import gzip
import logging
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hpack import NeverIndexedHeaderTuple
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from service.grpc import budget, reading
from service.grpc.blocks import MOST_FIELDS
from service.grpc.messages import HEALTH, SERVICE
from service.grpc.opened import MOST_STREAMS, WINDOW
from service.grpc.shortcuts import MOST_SETTINGS
from service.grpc.status import Code
from service.settings import Settings
from tests.support import onnx_graphs
from tests.support.clients import counted, reset
from tests.support.grpc_client import INFER, Answered, Client, framed, infer_request
from tests.support.sockets import Listening, listening
from tests.support.toys import save_dear, save_toy

pytestmark = pytest.mark.anyio

ROW = np.array([[1, 2, 3, 4]], np.float32)
ASKED = infer_request("toy", ROW).SerializeToString()
SLOW = infer_request("dear", ROW).SerializeToString()
LAST_OF_ALL = 2**31 - 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    save_toy(folder)
    save_dear(folder, 1000)
    onnx_graphs.save_series(folder)
    return folder


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough for those who set something."""
    folder = tmp_path_factory.mktemp("toys")
    save_toy(folder)
    return folder


@pytest.fixture(scope="module")
async def service(folder: Path) -> AsyncIterator[Listening]:
    async with listening(Settings(models_dir=folder)) as service:
        yield service


@pytest.fixture
async def client(service: Listening) -> AsyncIterator[Client]:
    async with Client(service.port) as client:
        yield client


async def metrics(service: Listening, series: str, labels: str) -> float:
    """Return what /metrics says, over HTTP/1.1."""
    reader, writer = await service.connect()
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    text = (await reader.read()).decode()
    writer.close()
    return counted(text, series, labels)


async def test_more_streams_than_there_may_be_are_told_to_come_again(client: Client) -> None:
    waiting = [client.begin(INFER) for _ in range(MOST_STREAMS)]
    over = client.start(INFER, ASKED)
    answered = await client.answer(over)
    assert answered.reset == ErrorCodes.REFUSED_STREAM
    client.send(waiting[0], framed(ASKED))
    assert (await client.answer(waiting[0])).code == 0
    assert (await client.call(INFER, ASKED)).code == 0


async def test_the_client_hears_how_much_it_may_send(client: Client) -> None:
    await client.call(INFER, ASKED)
    settings = client.h2.remote_settings
    assert settings.max_concurrent_streams == MOST_STREAMS
    assert settings.initial_window_size == WINDOW
    assert client.h2.outbound_flow_control_window > WINDOW - 1000


def ping(client: Client) -> None:
    client.h2.ping(b"12345678")


def settings(client: Client) -> None:
    client.h2.update_settings({})


def empty_data(client: Client) -> None:
    id = next(iter(client.calls), None) or client.begin(INFER)
    client.h2.send_data(id, b"")


def priority(client: Client) -> None:
    client.writer.write(PriorityFrame(99).serialize())


def cancelled(client: Client) -> None:
    client.h2.reset_stream(client.begin(INFER))


def windows(client: Client) -> None:
    client.h2.increment_flow_control_window(1)


def behind_the_end(kind: Callable[..., Frame], **fields: int) -> Callable[[Client], None]:
    """Return what sends a frame of a stream that ended: h2 says nothing of it."""

    def send(client: Client) -> None:
        if not client.calls:
            client.h2.reset_stream(client.begin(INFER))
            client.flush()
        client.writer.write(kind(next(iter(client.calls)), **fields).serialize())

    return send


FLOODS = [
    *(ping, settings, empty_data, priority, cancelled, windows),
    *(behind_the_end(DataFrame), behind_the_end(WindowUpdateFrame, window_increment=1)),
    behind_the_end(RstStreamFrame),
]


@pytest.mark.parametrize("what", FLOODS)
async def test_a_flood_of_what_costs_nothing_is_sent_away(
    client: Client,
    service: Listening,
    what: Callable[[Client], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for kind in budget.MOST:
        monkeypatch.setitem(budget.MOST, kind, 20)
    async with Client(service.port) as flooding:
        for _ in range(15):
            what(flooding)
        flooding.flush()
        await flooding.call(f"/{SERVICE}/ServerLive")
        service.later(0.5)  # the count begins anew
        for _ in range(15):
            what(flooding)
        flooding.flush()
        await flooding.call(f"/{SERVICE}/ServerLive")
        assert not flooding.goaways
        for _ in range(50):
            what(flooding)
        flooding.flush()
        await flooding.until(lambda: flooding.is_closed)
        assert flooding.goaways[0][1] == ErrorCodes.ENHANCE_YOUR_CALM
    assert (await client.call(INFER, ASKED)).code == 0


@pytest.mark.parametrize(
    ("count", "is_too_many"), [(MOST_SETTINGS, False), (MOST_SETTINGS + 1, True)]
)
async def test_who_sends_many_settings_in_a_frame_is_sent_away(
    client: Client, count: int, is_too_many: bool
) -> None:
    """There is room for ten thousand, each of which takes time and memory."""
    client.writer.write(SettingsFrame(0, dict.fromkeys(range(100, 100 + count), 1)).serialize())
    if not is_too_many:
        assert (await client.call(INFER, ASKED)).code == 0
        return
    await client.until(lambda: client.is_closed)
    assert client.goaways == [(0, ErrorCodes.ENHANCE_YOUR_CALM)]


async def test_who_is_answered_much_may_change_windows_more_often(
    service: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    """grpcio does for each call, and for each part of a large answer."""
    monkeypatch.setitem(budget.MOST, budget.WINDOWS, 20)
    large = infer_request("series", np.ones((1, 30_000), np.float32)).SerializeToString()
    async with Client(service.port) as much, Client(service.port, reads=False) as slowly:
        for _ in range(50):
            assert (await much.call(INFER, ASKED)).code == 0
            for _ in range(budget.EARNED[budget.WINDOWS]):
                windows(much)
        assert (await much.call(INFER, large)).code == 0  # the client opens windows itself
        assert not much.goaways
        # A little at a time: each is a frame of an answer too, but a small one.
        slowly.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 0})
        id = slowly.begin(INFER)
        await slowly.send_all(id, framed(large))
        slowly.h2.increment_flow_control_window(2**20)
        got = slowly.calls[id].data
        for size in range(500, 100_000, 500):
            slowly.h2.increment_flow_control_window(500, id)
            slowly.flush()
            await slowly.until(lambda size=size: slowly.is_closed or len(got) >= size)
            if slowly.is_closed:
                break
        assert slowly.goaways[0][1] == ErrorCodes.ENHANCE_YOUR_CALM


async def test_headers_that_never_end_are_cut_off(client: Client) -> None:
    first = HeadersFrame(1, b"\x82" * 10)
    client.writer.write(first.serialize())
    for _ in range(70):
        client.writer.write(ContinuationFrame(1, b"\x82" * 10).serialize())
    await client.until(lambda: client.is_closed)
    assert client.goaways[0][1] == ErrorCodes.PROTOCOL_ERROR


async def test_headers_that_are_too_long_are_cut_off(client: Client) -> None:
    client.begin(INFER, **{f"x-{n}": "a" * 8_000 for n in range(9)})
    client.flush()
    await client.until(lambda: client.is_closed)
    assert client.goaways[0][1] == ErrorCodes.ENHANCE_YOUR_CALM


@pytest.mark.parametrize("is_in_table", [True, False])
async def test_who_sends_many_header_fields_is_sent_away(client: Client, is_in_table: bool) -> None:
    """One of a byte takes longer to read than a small call."""
    fields = [*GOOD, *GRPC, ("x", "a")]
    more = fields[-1:] * (MOST_FIELDS - len(fields))
    send = client.h2.send_headers if is_in_table else partial(send_headers, client)
    for id, headers in ((1, fields), (3, fields + more)):
        send(id, headers)
        client.calls[id] = Answered()
        client.send(id, framed(ASKED))
        assert (await client.answer(id)).code == Code.OK
    send(5, [*fields, *more, fields[-1]])
    client.flush()
    await client.until(lambda: client.is_closed)
    assert client.goaways == [(3, ErrorCodes.ENHANCE_YOUR_CALM)]


GOOD = [(":method", "POST"), (":scheme", "http"), (":path", INFER), (":authority", "x")]
GRPC = [("content-type", "application/grpc"), ("te", "trailers")]


def send_headers(client: Client, id: int, headers: list[tuple[str, str]], **ends: bool) -> None:
    """Send headers, also those that h2 would not."""
    client.h2.config.validate_outbound_headers = False
    client.h2.config.normalize_outbound_headers = False
    kept = [NeverIndexedHeaderTuple(*each) for each in headers]  # the table stays the same
    client.h2.send_headers(id, kept, **ends)
    client.calls[id] = client.calls.get(id) or Answered()
    client.flush()


@pytest.mark.parametrize(
    "headers",
    [
        [*GOOD, ("Upper", "a")],
        [*GOOD, ("name", "secret\nb")],
        [*GOOD, ("connection", "close")],
        [*GOOD, ("te", "gzip")],
        [*GOOD, ("", "a")],
        [*GOOD[:3], ("name", "a"), GOOD[3]],
        [*GOOD, GOOD[2]],
        [*GOOD, (":status", "200")],
        GOOD[1:],
        GOOD[:2],
        [*GOOD, ("host", "y")],
    ],
    ids=[
        *("upper case", "line feed", "connection", "te", "no name", "pseudo last", "path twice"),
        *("unknown pseudo", "no method", "no path", "two hosts"),
    ],
)
async def test_headers_that_are_not_allowed_are_told_and_end_nothing_else(
    client: Client, headers: list[tuple[str, str]]
) -> None:
    waiting = client.begin(INFER)
    for id in (3, 5):  # also when its block is known
        send_headers(client, id, [*headers, *GRPC], end_stream=True)
        answered = await client.answer(id)
        assert answered.code == Code.INVALID_ARGUMENT
        assert answered.sentence.startswith("headers: expected what RFC 9113 allows, got: ")
        assert "secret" not in answered.sentence
    client.send(waiting, framed(ASKED))
    assert (await client.answer(waiting)).code == Code.OK
    assert not client.goaways


async def test_blanks_around_values_are_none_of_theirs(toys: Path) -> None:
    settings = Settings(models_dir=toys, api_keys="a-key-of-20-characters")
    async with listening(settings) as service, Client(service.port) as client:
        keys = [("authorization", "Bearer a-key-of-20-characters "), ("x-request-id", "\t17 ")]
        send_headers(client, 1, [*GOOD, *GRPC, *keys])
        client.send(1, framed(ASKED))
        assert (await client.answer(1)).code == Code.OK
        assert client.calls[1].headers["x-request-id"] == "17"


async def test_a_request_without_any_pseudo_header_is_reset(client: Client) -> None:
    for id in (1, 3):  # also when its block is known
        send_headers(client, id, GRPC)
        assert (await client.answer(id)).reset == ErrorCodes.PROTOCOL_ERROR


async def test_a_client_may_send_trailers(client: Client) -> None:
    for id, trailers, code in (
        (1, [("x-any", "a")], Code.OK),
        (3, GOOD, Code.INVALID_ARGUMENT),
        (5, [("Upper", "a")], Code.INVALID_ARGUMENT),
    ):
        send_headers(client, id, GOOD + GRPC)
        client.h2.send_data(id, framed(ASKED))
        send_headers(client, id, trailers, end_stream=True)
        assert (await client.answer(id)).code == code


async def test_what_is_no_http2_ends_the_connection(client: Client) -> None:
    client.writer.write(bytes(3) + b"\0" + bytes(5))  # DATA of no stream
    await client.until(lambda: client.is_closed)
    assert client.goaways[0][1] == ErrorCodes.PROTOCOL_ERROR


async def test_a_frame_that_is_too_large_is_not_waited_for(client: Client) -> None:
    client.writer.write(b"\xff\xff\xff\0" + bytes(4) + b"\1" + bytes(2 * WINDOW))
    await client.until(lambda: client.is_closed)
    assert client.goaways[0][1] == ErrorCodes.ENHANCE_YOUR_CALM


@pytest.mark.parametrize("sent", [b"", b"\0\0", framed(ASKED)[:-1], framed(ASKED)])
async def test_a_call_that_never_ends_is_cut_off(
    service: Listening, client: Client, sent: bytes
) -> None:
    id = client.begin(INFER)
    client.send(id, sent, end=False)
    await client.call(f"/{SERVICE}/ServerLive")  # it was read
    service.later(9)
    assert not client.calls[id].is_ended
    service.later(2)
    answered = await client.answer(id)
    assert answered.code == Code.DEADLINE_EXCEEDED
    assert answered.sentence == "expected the complete request within 10 s"
    assert (await client.call(INFER, ASKED)).code == 0


async def test_an_answer_that_nobody_takes_is_cut_off(service: Listening) -> None:
    rows = np.zeros((1, 100_000), np.float32)
    memory = service.app.services.memory
    async with Client(service.port, reads=False) as client:
        id = client.begin(INFER)
        await client.send_all(id, framed(infer_request("series", rows).SerializeToString()))
        await client.until(lambda: len(client.calls[id].data) >= 65_535)
        assert memory.held > 300_000
        service.later(11)
        await client.until(lambda: client.calls[id].reset is not None)
        assert client.calls[id].reset == ErrorCodes.CANCEL
        assert memory.held == 0
        assert not client.is_closed


async def test_an_answer_waits_for_the_window_and_others_pass(service: Listening) -> None:
    rows = np.arange(50_000, dtype=np.float32)[None]
    async with Client(service.port, reads=False) as client:
        client.h2.increment_flow_control_window(2**20)  # of the connection
        id = client.begin(INFER)
        await client.send_all(id, framed(infer_request("series", rows).SerializeToString()))
        await client.until(lambda: len(client.calls[id].data) >= 65_535)
        assert (await client.call(INFER, ASKED)).code == 0
        client.h2.increment_flow_control_window(2**20, id)
        client.flush()
        assert (await client.answer(id)).code == 0
        assert len(client.calls[id].data) > rows.nbytes
        assert service.app.services.memory.held == 0


async def test_a_window_that_opens_for_a_call_that_is_cancelled_opens_nothing(
    service: Listening,
) -> None:
    rows = np.zeros((1, 50_000), np.float32)
    async with Client(service.port, reads=False) as client:
        client.h2.increment_flow_control_window(2**20)
        id = client.begin(INFER)
        await client.send_all(id, framed(infer_request("series", rows).SerializeToString()))
        await client.until(lambda: len(client.calls[id].data) >= 65_535)
        client.h2.increment_flow_control_window(2**20, id)
        client.h2.reset_stream(id)  # both are read together
        client.flush()
        assert (await client.call(INFER, ASKED)).code == 0
        assert service.app.services.memory.held == 0


async def test_a_call_that_ended_while_its_message_came_is_forgotten(client: Client) -> None:
    """h2 has forgotten the first, of which so much came that its window would be opened again."""
    await client.call(INFER, ASKED)  # the settings are here
    first = client.begin(INFER)
    client.h2.send_data(first, b"\0" + (900_000).to_bytes(4))
    for _ in range(0, WINDOW // 2, 16_384):
        client.h2.send_data(first, bytes(16_384))
    client.h2.reset_stream(first)
    client.begin(INFER)
    client.flush()
    assert (await client.call(INFER, ASKED)).code == 0


async def test_who_watches_and_reads_nothing_is_sent_away_at_a_stop(service: Listening) -> None:
    async with Client(service.port) as client:
        client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 0})
        id = client.start(f"/{HEALTH}/Watch")
        await client.until(lambda: client.calls[id].headers)
        for each in list(service.state.connections):
            each.shutdown()
        await client.until(lambda: client.calls[id].is_ended)
        assert client.calls[id].code == Code.UNAVAILABLE
        await client.until(lambda: client.is_closed)


async def test_rows_of_a_call_that_is_cancelled_leave_the_queue(
    service: Listening, client: Client
) -> None:
    labels = 'model="dear",outcome="cancelled"'
    before = await metrics(service, "torchlit_requests_total", labels)
    calls = [client.start(INFER, SLOW) for _ in range(5)]
    await client.call(f"/{SERVICE}/ServerLive")
    for id in calls[1:]:
        client.cancel(id)
    assert (await client.answer(calls[0])).code == 0
    assert (await client.call(INFER, SLOW)).code == 0
    assert await metrics(service, "torchlit_requests_total", labels) == before + 4
    assert not service.state.tasks


async def test_a_call_that_is_cancelled_before_its_task_runs_is_counted(
    service: Listening, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "TURN_S", 60)

    async def cancelled_calls() -> float:
        """Also as it is where the reset comes later than it should, and the task began."""
        of_none = await metrics(service, "torchlit_unmatched_requests_total", '"cancelled"')
        of_model = 'model="dear",outcome="cancelled"'
        return of_none + await metrics(service, "torchlit_requests_total", of_model)

    before = await cancelled_calls()
    id = client.begin(INFER, grpc_encoding="gzip")
    message = gzip.compress(SLOW)
    client.h2.send_data(id, b"\1" + framed(message)[1:], end_stream=True)
    for _ in range(reading.PIECE // 16):  # so that the end of it is in another piece
        ping(client)
    client.cancel(id)
    assert (await client.call(INFER, ASKED)).code == 0
    assert await cancelled_calls() == before + 1
    assert not service.state.tasks
    assert service.app.services.memory.held == 0


async def test_a_connection_that_is_lost_takes_its_calls_along(service: Listening) -> None:
    labels = 'model="dear",outcome="cancelled"'
    before = await metrics(service, "torchlit_requests_total", labels)
    async with Client(service.port) as client:
        for _ in range(3):
            client.start(INFER, SLOW)
        client.begin(INFER)
        client.flush()
        await client.call(f"/{SERVICE}/ServerLive")
        reset(client.writer)
    async with asyncio.timeout(20):
        while service.state.connections or service.state.tasks:
            await asyncio.sleep(0)
    assert await metrics(service, "torchlit_requests_total", labels) == before + 3
    assert await metrics(service, "torchlit_unmatched_requests_total", '"cancelled"') > 0
    assert service.app.services.memory.held == 0


async def test_the_deadline_counts_in_the_queue(service: Listening, client: Client) -> None:
    first = client.start(INFER, SLOW)
    late = client.start(INFER, SLOW, grpc_timeout="100u")
    answered = await client.answer(late)
    assert answered.code == Code.DEADLINE_EXCEEDED
    assert answered.sentence.startswith("the deadline passed")
    assert (await client.answer(first)).code == 0


@pytest.mark.slow
async def test_a_full_queue_and_full_memory_are_told_apart(folder: Path) -> None:
    full = Settings(models_dir=folder, max_queue_rows=1, max_held_bytes=1000)
    async with listening(full) as service, Client(service.port) as client:
        calls = [client.start(INFER, SLOW) for _ in range(4)]
        codes = [(await client.answer(id)).code for id in calls]
        assert codes.count(Code.UNAVAILABLE) > 0
        held = client.begin(INFER)
        client.send(held, framed(bytes(900))[:-1], end=False)
        answered = await client.call(INFER, bytes(2000))
        assert answered.code == Code.RESOURCE_EXHAUSTED
        assert "TORCHLIT_MAX_HELD_BYTES" in answered.sentence


async def test_at_a_stop_what_is_on_its_way_is_answered(service: Listening, client: Client) -> None:
    waiting = client.start(INFER, SLOW)
    await client.call(f"/{SERVICE}/ServerLive")
    for each in list(service.state.connections):
        each.shutdown()
    late = client.start(INFER, ASKED)  # before the client hears of it
    assert (await client.answer(late)).code == 0
    assert (await client.answer(waiting)).code == 0
    await client.until(lambda: client.is_closed)
    assert client.goaways == [(LAST_OF_ALL, 0), (late, 0)]


async def test_while_it_drains_clients_are_told_to_go(service: Listening, client: Client) -> None:
    assert (await client.call(INFER, ASKED)).code == 0
    service.host.is_draining = True
    service.later(0.5)
    service.host.is_draining = False
    await client.until(lambda: client.is_closed)
    assert client.goaways == [(LAST_OF_ALL, 0), (1, 0)]


async def test_a_connection_that_is_idle_is_closed(service: Listening, client: Client) -> None:
    assert (await client.call(INFER, ASKED)).code == 0
    service.later(74)
    assert (await client.call(INFER, ASKED)).code == 0
    service.later(76)
    await client.until(lambda: client.is_closed)
    assert client.goaways == [(3, 0)]


async def test_beyond_the_limit_of_connections_only_probes_are_answered(toys: Path) -> None:
    async with (
        listening(Settings(models_dir=toys, max_connections=1)) as service,
        Client(service.port) as first,
    ):
        assert (await first.call(INFER, ASKED)).code == 0
        async with Client(service.port) as second:
            assert (await second.call(f"/{HEALTH}/Check")).code == 0
            answered = await second.call(INFER, ASKED)
            assert answered.code == Code.UNAVAILABLE
            assert answered.sentence == "too many connections are open; try again later"
            await second.until(lambda: second.is_closed)
        labels = '"too_many_connections"'
        assert await metrics(service, "torchlit_unmatched_requests_total", labels) == 1
        assert (await first.call(INFER, ASKED)).code == 0


async def test_each_call_is_in_the_access_log(toys: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "torchlit.access")
    async with (
        listening(Settings(models_dir=toys, access_log=True)) as service,
        Client(service.port) as client,
    ):
        await client.call(INFER, ASKED)
        await client.call("/a.B/ü")
    ok, other = (each.getMessage() for each in caplog.records if each.name == "torchlit.access")
    assert ok.startswith(f"POST {INFER} OK in ")
    assert other.startswith("POST /a.B/\\xc3\\xbc UNIMPLEMENTED in ")


async def test_a_client_that_goes_is_let_go(service: Listening, client: Client) -> None:
    await client.call(INFER, ASKED)
    client.h2.close_connection()
    client.flush()
    await client.until(lambda: client.is_closed)
    async with Client(service.port) as other:
        assert (await other.call(INFER, ASKED)).code == 0


@pytest.mark.parametrize("code", [0, 1])
async def test_a_client_that_goes_gets_the_answers_to_what_it_asked(
    client: Client, code: int
) -> None:
    """Those of Java and Node say GOAWAY when they are shut down, and wait for their calls."""
    slow, watched = client.start(INFER, SLOW), client.start(f"/{HEALTH}/Watch")
    await client.until(lambda: client.calls[watched].data)
    quick = client.start(INFER, ASKED)
    client.writer.write(GoAwayFrame(0, 0, code).serialize())
    late = client.start(INFER, ASKED)
    assert (await client.answer(quick)).code == (await client.answer(slow)).code == 0
    assert (await client.answer(watched)).code == Code.UNAVAILABLE
    assert (await client.answer(late)).reset == ErrorCodes.REFUSED_STREAM
    await client.until(lambda: client.is_closed)


def no_pseudo_header(client: Client) -> None:
    id = client.h2.get_next_available_stream_id()
    block = client.h2.encoder.encode([NeverIndexedHeaderTuple("te", "trailers")])
    client.writer.write(HeadersFrame(id, block, flags=["END_HEADERS"]).serialize())


def half_a_window(client: Client) -> None:
    id = client.begin("/a.B/C")
    for _ in range(WINDOW // 2 // 16_384):
        client.h2.send_data(id, bytes(16_384))


@pytest.mark.parametrize("what", [no_pseudo_header, half_a_window])
async def test_what_stands_before_a_goaway_is_taken(
    service: Listening, what: Callable[[Client], None]
) -> None:
    """It is read together with it."""
    async with Client(service.port) as client:
        await client.call(INFER, ASKED)
        what(client)
        client.writer.write(client.h2.data_to_send() + GoAwayFrame(0).serialize())
        await client.until(lambda: client.goaways and client.is_closed)


async def test_who_goes_again_and_again_is_sent_away(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(budget.MOST, budget.CONTROL, 20)
    client.begin(INFER)
    client.writer.write(client.h2.data_to_send() + GoAwayFrame(0).serialize() * 50)
    await client.until(lambda: client.is_closed)
    assert client.goaways == [(1, 0), (1, ErrorCodes.ENHANCE_YOUR_CALM)]


async def test_off_it_is_no_http(toys: Path) -> None:
    async with listening(Settings(models_dir=toys, grpc=False)) as service:
        reader, writer = await service.connect()
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        assert b" 400 " in await reader.readline()
        writer.close()
