"""What is sent on a connection: answers, as far as the client's windows let them go."""

import asyncio
from collections.abc import Sequence
from math import inf

from hpack import HeaderTuple, NeverIndexedHeaderTuple

from service.entrance.limits import Limits
from service.entrance.version import version_headers
from service.entrance.writes import JoinedWrites
from service.formats.predictions import encode
from service.grpc.blocks import begin_of_answer, literal, with_id, written
from service.grpc.budget import LARGE_FRAME, Budget
from service.grpc.framing import ACCEPTED, framed
from service.grpc.shortcuts import Shortcuts
from service.grpc.status import Code, in_header
from service.grpc.stream import Stream

LARGEST_FRAME = 65_536  # bytes, whatever the client takes
MOST_HELD = 262_144  # bytes that h2 holds before they are written

_OK = HeaderTuple(b":status", b"200")
_TYPE = HeaderTuple(b"content-type", b"application/grpc")
_ENCODINGS = HeaderTuple(b"grpc-accept-encoding", ACCEPTED)
_TRAILERS = literal(b"grpc-status", b"0")
_BEGIN = begin_of_answer(_TYPE, _ENCODINGS)


class Sending:
    """Sends the answers of a connection."""

    def __init__(self, h2: Shortcuts, writes: JoinedWrites, limits: Limits, budget: Budget) -> None:
        self._h2 = h2
        self._budget = budget
        self._writes = writes
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._flushing: asyncio.Handle | None = None
        self.is_receiving = False  # a piece of what came is taken: `flush` is called behind it
        self._is_paused = False  # the client does not take what is written
        self.stuck: dict[int, Stream] = {}  # whose answers wait for a window

    def flush(self) -> None:
        """Write what h2 has."""
        self.is_receiving = False
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        data = self._h2.data_to_send()
        if data and not self._writes.is_closing():
            self._writes.write_now(data)

    def flush_soon(self) -> None:
        """Write it at the end of this turn: answers of a batch leave together."""
        if self._flushing is None and not self.is_receiving:
            self._flushing = self._loop.call_soon(self.flush)

    def answer(self, stream: Stream, parts: Sequence[bytes | memoryview]) -> bool:
        """Send a message and the end of a call; whether all of it could be sent."""
        self._budget.earn()
        body, head = framed(parts), _head(stream)
        if not self._is_paused and self._h2.send_answer(stream.id, head, body, _TRAILERS):
            self.flush_soon()
            return True
        self._begin(stream, head)
        self.send_later(stream, body)
        return self.go_on(stream)

    def _begin(self, stream: Stream, head: bytes) -> None:
        stream.has_begun = True
        self._h2.send_headers(stream.id, written(head))

    def say(self, stream: Stream, message: bytes) -> None:
        """Send one of several messages, before which all others were sent."""
        if not stream.has_begun:
            self._begin(stream, _head(stream))
        self.send_later(stream, framed([message]))
        self.go_on(stream)

    def send_later(self, stream: Stream, body: bytes) -> None:
        """Let a body be sent as far as it can be; it counts as memory that is held."""
        stream.body, stream.place = memoryview(body), 0
        stream.held += len(body)
        self._limits.memory.held += len(body)
        stream.stuck_since = self._limits.now
        self.stuck[stream.id] = stream

    def go_on(self, stream: Stream) -> bool:
        """Send more of an answer; whether that was the end of it."""
        h2, body, id = self._h2, stream.body, stream.id
        largest = min(LARGEST_FRAME, h2.max_outbound_frame_size)
        sent = 0
        while stream.place < len(body) and not self._is_paused:
            size = min(h2.local_flow_control_window(id), largest, len(body) - stream.place)
            if size <= 0:
                break
            h2.send_data(id, body[stream.place : stream.place + size])
            stream.place += size
            sent += size
            if size >= LARGE_FRAME:
                self._budget.earn()
            if sent >= MOST_HELD:
                sent = 0
                self.flush()
            stream.stuck_since = self._limits.now
        if stream.place < len(body):
            self.flush_soon()
            return False
        self.stuck.pop(id, None)
        stream.stuck_since = inf
        if stream.watched is None:
            h2.send_headers(id, written(_TRAILERS), end_stream=True)
        self.flush_soon()
        return True

    def refuse(self, stream: Stream, code: Code, sentence: str) -> None:
        """Send what went wrong, and nothing else."""
        status = (b"grpc-status", b"%d" % code)
        text = NeverIndexedHeaderTuple(b"grpc-message", in_header(sentence))
        if not stream.has_begun:
            version = version_headers(stream.call.served)
            headers = [_OK, _TYPE, _ENCODINGS, _id(stream), *version, status, text]
            self._h2.send_headers(stream.id, headers, end_stream=True)
        else:
            self._h2.send_headers(stream.id, [status, text], end_stream=True)
        self.flush_soon()

    def refuse_http(self, stream: Stream, sentence: str) -> None:
        """Answer a request that is no call of gRPC."""
        body = encode({"error": sentence})
        headers = [
            (b":status", b"415"),
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            _id(stream),
        ]
        has_body = stream.headers.get(b":method") != b"HEAD"
        self._h2.send_headers(stream.id, headers, end_stream=not has_body)
        if has_body and self._h2.local_flow_control_window(stream.id) >= len(body):
            self._h2.send_data(stream.id, body, end_stream=True)
        elif has_body:  # a client that takes no 200 bytes takes nothing
            self._h2.reset_stream(stream.id)
        self.flush_soon()

    def pause(self) -> None:
        """Send no more, as the client does not take what is written."""
        self._is_paused = True

    def resume(self) -> None:
        """Send again."""
        self._is_paused = False

    def forget(self, stream: Stream) -> None:
        """Send no more of a stream that ended."""
        self.stuck.pop(stream.id, None)
        stream.body = memoryview(b"")


def _head(stream: Stream) -> bytes:
    """Return the block of headers of an answer."""
    timing = stream.call.timing
    begin = _BEGIN
    if timing is not None and stream.call.is_timed:
        durations = (timing.queue_s * 1e3, timing.compute_s * 1e3)
        begin += literal(b"server-timing", b"queue;dur=%.3f, compute;dur=%.3f" % durations)
    return with_id(begin, stream.request_id)


def _id(stream: Stream) -> NeverIndexedHeaderTuple:
    """Return the header with the id of a request: each is another, and no table is to keep it."""
    return NeverIndexedHeaderTuple(b"x-request-id", stream.request_id)
