"""What is done without h2's objects is what h2 does: the events, the bytes, the states."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import Event
from h2.exceptions import H2Error, ProtocolError
from hpack import Encoder, HeaderTuple, NeverIndexedHeaderTuple
from hyperframe.frame import ContinuationFrame, DataFrame, Frame, HeadersFrame, RstStreamFrame
from hypothesis import example, given, settings
from hypothesis import strategies as st

from service.grpc.blocks import begin_of_answer, literal, with_id, written
from service.grpc.opened import MOST_STREAMS, WINDOW, opened
from service.grpc.shortcuts import MOST_UNCOUNTED, SaidNothing, Shortcuts
from service.http.opening import PREFACE

HEADERS = [
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/service/Method"),
    (b":authority", b"here"),
    (b"content-type", b"application/grpc"),
]
ANSWER = with_id(begin_of_answer((b"content-type", b"application/grpc")), b"7")
TRAILERS = literal(b"grpc-status", b"0")
SETTINGS_ACK = b"\0\0\0\4\1\0\0\0\0"
EMPTY_SETTINGS = b"\0\0\0\4\0\0\0\0\0"

# What a client does: what is usual, what is allowed, and what is the end of a connection.
USUAL = ["request", "end", "answer"]
ALLOWED = [
    *("data", "own", "length", "malformed", "status", "padded", "priority", "continued", "reset"),
    *("window", "ping", "settings", "ack", "table", "unknown", "our reset", "our head"),
    *("trailers", "reserved bit", "large answer"),
]
ENDS = [
    *("bad length", "cut block", "goaway", "low", "even", "zero", "huge", "overrun", "garbage"),
]
OURS = {"answer", "large answer", "our head", "our reset", "overrun"}  # the server's
DEEDS = st.lists(
    st.tuples(
        st.sampled_from(USUAL * 18 + ALLOWED * 2 + ENDS),
        st.integers(0, 6),  # on which stream
        st.integers(0, 400),
    ),
    max_size=40,
)


def begun() -> Shortcuts:
    h2 = opened()
    h2.data_to_send()
    return h2


class Client:
    """Makes the frames of a client that does what it likes."""

    def __init__(self) -> None:
        self.encoder = Encoder()
        self.next = 1
        self.ids: list[int] = []

    def block(self, *more: tuple[bytes, bytes], is_kept: bool = False) -> bytes:
        kind = HeaderTuple if is_kept else NeverIndexedHeaderTuple
        return self.encoder.encode([kind(*each) for each in [*HEADERS, *more]])

    def frames(self, what: str, which: int, number: int) -> list[Frame | bytes]:
        """Return frames, ready or not."""
        id = self.ids[which % len(self.ids)] if self.ids else 1
        own = {
            "own": ((b"x-id", b"%d" % number),),
            "length": ((b"content-length", b"%d" % (number % 3 * 10)),),
            "bad length": ((b"content-length", b"1"), (b"content-length", b"2")),
            "malformed": ((b"Upper", b"1"),),
            "status": ((b":status", b"100"),),
        }.get(what, ())
        if what in ("request", "own", "length", "bad length", "malformed", "status"):
            return [self._begin(self.block(*own, is_kept=number % 2 > 0), {"END_HEADERS"})]
        data = b"d" * (number % 30)
        match what:
            case "data":
                return [DataFrame(id, data)]
            case "end":
                return [DataFrame(id, data, flags={"END_STREAM"})]
            case "trailers":
                block = self.encoder.encode([NeverIndexedHeaderTuple(b"a", b"b")])
                flags = {"END_HEADERS"} | ({"END_STREAM"} if number % 4 else set())
                return [HeadersFrame(id, block, flags=flags)]
            case "padded":
                return [DataFrame(id, data, pad_length=number % 9, flags={"PADDED"})]
            case "priority":
                frame = self._begin(self.block(), {"END_HEADERS", "PRIORITY"})
                frame.depends_on, frame.stream_weight = 0, number % 255
                return [frame]
            case "continued":
                block = self.block()
                first = self._begin(block[:5], set())
                rest = ContinuationFrame(first.stream_id, block[5:], flags={"END_HEADERS"})
                return [first, *([DataFrame(id, b"between")] if number % 3 == 0 else []), rest]
            case "reserved bit":
                frame = bytearray(self._begin(self.block(), {"END_HEADERS"}).serialize())
                frame[5] |= 0x80
                return [bytes(frame)]
            case "cut block":
                return [self._begin(self.block()[: -1 - number % 3], {"END_HEADERS"})]
            case "reset":
                return [RstStreamFrame(id, number % 14)]
            case "window":
                end = id if which % 2 else 0
                return [b"\0\0\4\x08\0" + end.to_bytes(4) + (number % 9).to_bytes(4)]
            case "ping":
                return [b"\0\0\x08\6\0\0\0\0\0" + b"12345678"]
            case "settings":
                # the size of windows, or of frames
                pair = (4, number) if number % 2 else (5, 16_384 + number)
                return [b"\0\0\6\4\0\0\0\0\0" + pair[0].to_bytes(2) + pair[1].to_bytes(4)]
            case "table":
                return [b"\0\0\6\4\0\0\0\0\0" + (1).to_bytes(2) + number.to_bytes(4)]
            case "ack":
                return [SETTINGS_ACK]
            case "goaway":
                return [b"\0\0\x08\7\0\0\0\0\0" + bytes(8)] if number % 5 == 0 else []
            case "unknown":
                return [b"\0\0\1\xee\xff" + id.to_bytes(4) + b"x"]
            case "low":
                return [HeadersFrame(max(1, id - 2), self.block(), flags={"END_HEADERS"})]
            case "even":
                return [HeadersFrame(self.next + 1, self.block(), flags={"END_HEADERS"})]
            case "zero":
                return [b"\0\0\0\0\1\0\0\0\0"]
            case "huge":
                return [(2**17).to_bytes(3) + b"\0\0" + id.to_bytes(4) + bytes(2**17)]
            case "garbage":
                return [bytes([number % 256]) * (which + 1)]
        return []

    def _begin(self, block: bytes, flags: set[str]) -> HeadersFrame:
        frame = HeadersFrame(self.next, block, flags=flags)
        self.ids.append(self.next)
        self.next += 2
        return frame


def done(deed: Callable[..., Any], *arguments: Any) -> Any:
    """Return what comes of a deed: what it returns, or what it raises."""
    try:
        return deed(*arguments)
    except (H2Error, KeyError) as error:
        return type(error), str(error), getattr(error, "error_code", None)


def told(came: Any) -> Any:
    """Return events, or what was raised, in a form that can be compared."""
    if isinstance(came, list):
        return [told(each) for each in came]
    if isinstance(came, Event):
        return repr(came), {name: told(each) for name, each in vars(came).items()}
    return came if isinstance(came, str | int | bytes | tuple) else repr(came)


def state(h2: Shortcuts) -> Any:
    """Return all that matters later on."""
    _ = h2.open_inbound_streams  # forgets those that are closed
    windows = h2._inbound_flow_control_window_manager
    streams = {
        id: (
            vars(each.state_machine),
            each.outbound_flow_control_window,
            vars(each._inbound_window_manager),
            each._actual_content_length,
            each._expected_content_length,
            each.max_outbound_frame_size,
        )
        for id, each in h2.streams.items()
    }
    return (
        *(h2.state_machine.state, h2.highest_inbound_stream_id, h2.outbound_flow_control_window),
        *(vars(windows), dict(h2._closed_streams), streams, h2.max_outbound_frame_size),
    )


def answered(h2: Shortcuts, id: int, body: bytes, is_short: bool = False) -> bool:
    """Answer a request, in one of two ways, if windows and frames are large enough."""
    if is_short and h2.send_answer(id, ANSWER, body, TRAILERS):
        return True
    most = min(h2.local_flow_control_window(id), h2.max_outbound_frame_size)
    if len(body) > most:
        return False
    h2.send_headers(id, written(ANSWER))
    h2.send_data(id, body)
    h2.send_headers(id, written(TRAILERS), end_stream=True)
    return True


def narrowed(h2: Shortcuts, id: int, size: int) -> None:
    """Let a client send so many bytes more; if that is even, half of them on one stream."""
    h2._inbound_flow_control_window_manager.current_window_size = size
    if id in h2.streams and size % 2 == 0:
        h2.streams[id]._inbound_window_manager.current_window_size = size // 2


def compare(deeds: list[tuple[str, int, int]], cuts: list[int]) -> tuple[Shortcuts, list[Any]]:
    """See that both ways come to the same; return the short one, and its events."""
    short, plain, client = begun(), begun(), Client()
    pending, seen = PREFACE + EMPTY_SETTINGS, []

    def hand_over(data: bytes) -> bool:
        places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
        for start, end in pairwise(places):
            came, expected = (
                done(take, data[start:end]) for take in (short.take, plain.receive_data)
            )
            if type(came) is list:
                came = [each for each in came if type(each) is not SaidNothing]
            elif came[1] == "too many settings in a frame":  # h2 takes any number
                return False
            assert told(came) == told(expected)
            assert short.data_to_send() == plain.data_to_send()
            assert state(short) == state(plain)
            if type(came) is tuple:
                return False
            seen.extend(came)
        return True

    for what, which, number in deeds:
        for frame in client.frames(what, which, number):
            pending += frame if type(frame) is bytes else frame.serialize()
        if what in OURS and client.ids:
            if not hand_over(pending):
                return short, seen
            pending = b""
            id = client.ids[which % len(client.ids)]
            if what == "our reset":
                both = [done(h2.reset_stream, id) for h2 in (short, plain)]
            elif what == "overrun":
                both = [narrowed(h2, id, number) for h2 in (short, plain)]
            elif what == "our head":
                both = [done(h2.send_headers, id, written(ANSWER)) for h2 in (short, plain)]
            else:
                body = b"b" * (number + 16_384 * (what == "large answer"))
                both = [done(answered, short, id, body, True), done(answered, plain, id, body)]
            assert both[0] == both[1]
            assert short.data_to_send() == plain.data_to_send()
            assert state(short) == state(plain)
    hand_over(pending)
    return short, seen


@settings(max_examples=300, deadline=None)
@example(deeds=[("garbage", 0, 1), ("reset", 0, 0)], cuts=[])  # the head of many settings
@given(deeds=DEEDS, cuts=st.lists(st.integers(0, 3000), max_size=6))
def test_all_is_done_as_h2_does_it(deeds: list[tuple[str, int, int]], cuts: list[int]) -> None:
    compare(deeds, cuts)


@pytest.mark.slow
@settings(max_examples=5_000, deadline=None)
@given(deeds=DEEDS, cuts=st.lists(st.integers(0, 3000), max_size=6))
def test_all_is_done_as_h2_does_it_many_times(
    deeds: list[tuple[str, int, int]], cuts: list[int]
) -> None:
    compare(deeds, cuts)


SEQUENCES = {
    "a table that changes": [("table", 0, 0), ("request", 0, 0), ("end", 0, 9), ("answer", 0, 9)],
    "a block that is interrupted": [("request", 0, 0), ("continued", 0, 0)],
    "the window of a stream": [("request", 0, 0), ("overrun", 0, 20), ("data", 0, 15)],
    "the window of all": [("request", 0, 0), ("overrun", 0, 13), ("data", 0, 15)],
    "a client's window of all": [
        *[(what, n, 0) for n in range(5) for what in ("request", "end", "large answer")],
    ],
    "a frame that is too large": [("request", 0, 0), ("huge", 0, 0)],
    "an answer that has begun": [
        *[("request", 0, 0), ("end", 0, 9), ("our head", 0, 0), ("answer", 0, 9)],
    ],
    "a client's small window": [
        *[("settings", 0, 31), ("request", 0, 0), ("end", 0, 9), ("answer", 0, 60)],
    ],
    "an answer of many frames": [("request", 0, 0), ("end", 0, 9), ("large answer", 0, 1)],
    "a bit that is reserved": [("reserved bit", 0, 0), ("reserved bit", 0, 0), ("end", 0, 9)],
}


@pytest.mark.parametrize("cuts", [[], list(range(1, 150))], ids=["together", "byte by byte"])
@pytest.mark.parametrize("name", SEQUENCES)
def test_what_is_not_usual_is_done_by_h2(name: str, cuts: list[int]) -> None:
    compare([("request", 0, 0), ("reset", 0, 0), *SEQUENCES[name]], cuts)
    compare(SEQUENCES[name], cuts)


@pytest.mark.parametrize("cuts", [[], list(range(1, 150))])
def test_usual_calls_are_answered(cuts: list[int]) -> None:
    deeds = [(what, n, 40) for n in range(5) for what in ("request", "data", "end", "answer")]
    short, seen = compare(deeds, cuts)
    names = ["RequestReceived", "DataReceived", "DataReceived", "StreamEnded"]
    assert [type(each).__name__ for each in seen][1:] == names * 5  # behind the settings
    assert not short.streams


def test_what_h2_says_nothing_of_is_told_by_frame() -> None:
    short = begun()
    id, block = 1, Encoder().encode(HEADERS)
    head, part = (HeadersFrame(id, block[:9]), ContinuationFrame(id, block[9:]))
    part.flags.add("END_HEADERS")
    short.take(PREFACE + EMPTY_SETTINGS)
    begun_and_ended = (head, part, DataFrame(id, b"1"), RstStreamFrame(id))
    came = short.take(b"".join(each.serialize() for each in begun_and_ended))
    assert SaidNothing not in map(type, came)
    behind = DataFrame(id, b"1").serialize() + RstStreamFrame(id).serialize()
    assert list(map(type, short.take(behind * 3))) == [SaidNothing] * 6


def test_usual_frames_make_no_objects_of_h2(monkeypatch: pytest.MonkeyPatch) -> None:
    short, client = begun(), Client()
    first = b"".join(each.serialize() for each in client.frames("request", 0, 0))
    short.take(PREFACE + EMPTY_SETTINGS + first)  # h2 begins
    calls: list[bytes] = []
    monkeypatch.setattr(H2Connection, "receive_data", lambda _, data: calls.append(data) or [])
    monkeypatch.setattr(H2Connection, "send_headers", lambda *_, **__: calls.append(b"sent"))
    rest = [("end", 0, 9), ("own", 0, 1), ("end", 1, 9), ("request", 0, 0), ("end", 2, 9)]
    for each in rest:
        for frame in client.frames(*each):
            short.take(frame.serialize())
    assert all(short.send_answer(id, ANSWER, b"body", TRAILERS) for id in client.ids)
    assert not calls
    assert not short.streams


def test_a_client_reads_what_is_answered() -> None:
    """h2's own client, which checks what it gets."""
    server, client = begun(), H2Connection(H2Configuration(client_side=True))
    client.initiate_connection()
    for id in (1, 3, 5):
        client.send_headers(id, HEADERS)
        client.send_data(id, b"question", end_stream=True)
        server.take(client.data_to_send())
        assert server.send_answer(id, ANSWER, b"answer", TRAILERS)
        came = client.receive_data(server.data_to_send())
        names = [type(each).__name__ for each in came]
        expected = ["ResponseReceived", "DataReceived", "TrailersReceived", "StreamEnded"]
        assert names[-4:] == expected
        assert came[-3].data == b"answer"  # type: ignore[attr-defined]


def test_streams_that_end_are_forgotten_and_no_more_are_open_than_may_be() -> None:
    short, client = begun(), Client()
    short.take(PREFACE + EMPTY_SETTINGS)
    for _ in range(3 * MOST_UNCOUNTED):  # each answered with an error: h2 ends those itself
        for frame in client.frames("request", 0, 0) + client.frames("end", -1, 1):
            short.take(frame.serialize())
        short.send_headers(client.ids[-1], written(TRAILERS), end_stream=True)
    assert len(short.streams) <= MOST_UNCOUNTED + 1
    short.take(SETTINGS_ACK)  # from now on the client knows how many there may be
    most = short.local_settings.max_concurrent_streams
    assert most == MOST_STREAMS >= MOST_UNCOUNTED
    frames = [client.frames("request", 0, 0)[0].serialize() for _ in range(most + 1)]
    assert len(short.take(b"".join(frames[:-1]))) == most
    with pytest.raises(ProtocolError, match="Max inbound streams is 128, 128 open"):
        short.take(frames[-1])


def test_a_connection_that_lives_long_takes_no_more_memory() -> None:
    short, client = begun(), Client()
    short.take(PREFACE + EMPTY_SETTINGS)
    for _ in range(2 * Shortcuts.MAX_CLOSED_STREAMS):
        for frame in client.frames("request", 0, 0) + client.frames("end", -1, 1):
            short.take(frame.serialize())
        assert short.send_answer(client.ids[-1], ANSWER, b"body", TRAILERS)
    assert len(short._closed_streams) == Shortcuts.MAX_CLOSED_STREAMS
    assert len(short.streams) <= MOST_UNCOUNTED


def test_windows_are_as_wide_as_was_said() -> None:
    short, client = begun(), Client()
    frames = client.frames("request", 0, 0)
    short.take(PREFACE + EMPTY_SETTINGS + b"".join(each.serialize() for each in frames))
    parts = DataFrame(1, bytes(2**15)).serialize() * (WINDOW // 2**15)
    assert len(short.take(parts)) == WINDOW // 2**15
    with pytest.raises(H2Error, match="below 0"):
        short.take(DataFrame(1, b"1").serialize())
