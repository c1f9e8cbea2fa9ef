"""HTTP/2 with gRPC in it, over h2: one connection, its limits and its end.

RFC 9113, and https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md. h2 speaks HTTP/2; what
a client may do with it is bounded here and in budget.py.
"""

import asyncio
import contextlib
from collections.abc import Callable
from math import inf
from time import perf_counter
from typing import Any

from h2 import events
from h2.errors import ErrorCodes
from h2.exceptions import H2Error, StreamClosedError
from hyperframe.frame import GoAwayFrame

from service.entrance.writes import JoinedWrites
from service.errors import RequestError, RequestTimeout, UnsupportedMediaType
from service.grpc import budget, heads
from service.grpc.blocks import MALFORMED
from service.grpc.budget import KINDS, Budget
from service.grpc.calls import id_of
from service.grpc.opened import LARGEST_FRAME, MOST_STREAMS, WINDOW, opened
from service.grpc.reading import Reading
from service.grpc.sending import Sending
from service.grpc.status import Code
from service.grpc.stream import Stream
from service.grpc.worker import Worker
from service.inference import Call

LINGER_S = 1.0  # for a client to close, when everything is said
ROUND_S = 1.0  # for a client to answer a ping
# A frame means nothing until it is complete: h2 says that one is too large, or a header block, only
# when all of it is here.
_MOST_QUIET = WINDOW + 2 * LARGEST_FRAME
_LAST_OF_ALL = 2**31 - 1
_GOODBYE = b"goodbye!"  # in the ping behind the first GOAWAY


class Connection(asyncio.Protocol):
    """A client that speaks HTTP/2."""

    def __init__(
        self, worker: Worker, transport: asyncio.Transport, budget: Budget | None = None
    ) -> None:
        """Begin to speak; the first bytes of the client follow."""
        loop = asyncio.get_running_loop()
        self._worker = worker
        self._limits = worker.limits
        self.transport = transport
        self._writes = JoinedWrites(transport, loop)
        self._budget = budget or Budget()
        self._h2 = opened()
        self._sending = Sending(self._h2, self._writes, self._limits, self._budget)
        self._reading = Reading(transport, self._take, self._sending.flush)
        self._calls = worker.calls(worker, self, self._takes_place)
        self._streams: dict[int, Stream] = {}
        # To be done when what is read now is: behind it may stand that the client left.
        self._ready: list[Stream] = []
        self._is_opened = False  # some window
        self._quiet = 0  # bytes that came and meant nothing
        self._unacked = 0  # bytes for which the window of the connection was not opened again
        self._idle_since = self._limits.now
        self._said_goodbye = inf  # when the first GOAWAY was sent
        self._is_last = False  # no more streams are answered than those there are
        self._is_over = False
        worker.connections.add(self)
        self._has_place = self._limits.enter(self)
        self._sending.flush()

    def _takes_place(self) -> bool:
        self._has_place = self._has_place or self._limits.place(self)
        return self._has_place

    def connection_lost(self, exc: Exception | None) -> None:
        """End what would be answered: nobody waits for it."""
        self._worker.connections.discard(self)
        self._limits.leave(self)
        self._limits.memory.give(self._writes.unsent)
        self._writes.unsent = 0
        self._drop_all()

    def _drop_all(self) -> None:
        self._is_over = True
        self._reading.drop()
        while self._streams:
            _, stream = self._streams.popitem()
            self._calls.cancel(stream)
            self._sending.forget(stream)
        self._ready.clear()

    def eof_received(self) -> bool:
        """Close: a client that sends no more cannot open its windows."""
        return False

    def pause_writing(self) -> None:
        """Read and send no more while the client does not take what is written."""
        self._sending.pause()
        self._reading.pause()

    def resume_writing(self) -> None:
        """Go on."""
        self._sending.resume()
        if not self._is_over:
            self._reading.resume()
            self._go_on()

    def data_received(self, data: bytes) -> None:
        """Take what the client sent."""
        if not self._is_over:
            self._reading.add(data)

    def _take(self, piece: bytes) -> int:
        """Return how many bytes of a frame are missing; raises nothing that a client causes."""
        self._sending.is_receiving = True
        try:
            came = self._h2.take(piece)
        except H2Error:  # h2 wrote GOAWAY
            self._close()
            return 0
        self._quiet = 0 if came else self._quiet + len(piece)
        if self._quiet > _MOST_QUIET:
            self._send_away("bytes without a frame")
        for event in came:
            if take := _TAKES.get(type(event)):
                take(self, event)
            if (kind := KINDS.get(type(event))) and (too_many := self._budget.spend(kind)):
                self._send_away(too_many)
            if self._is_over:
                return 0
        self._begin_ready()
        return self._h2.missing

    def _begin_ready(self) -> None:
        if self._is_opened:
            self._is_opened = False
            self._go_on()
        ready, self._ready = self._ready, []
        for stream in ready:
            if stream.id not in self._streams:
                continue
            if stream.refusal is None:
                self._calls.begin(stream)
            elif isinstance(stream.refusal, UnsupportedMediaType) and not heads.is_grpc(
                stream.headers
            ):
                self._sending.refuse_http(stream, str(stream.refusal))
                self._ended(stream)
            else:
                self._calls.refuse(stream, stream.refusal)

    def _refuse_later(self, stream: Stream, error: RequestError) -> None:
        if stream.refusal is None:
            stream.refusal = error
            self._ready.append(stream)

    def _reset(self, id: int, code: ErrorCodes) -> None:
        with contextlib.suppress(StreamClosedError):  # the client ended it meanwhile
            self._h2.reset_stream(id, code)

    def _turn_away(self, id: int, code: ErrorCodes) -> None:
        """Answer nothing to a request that is none here."""
        self._reset(id, code)
        if too_many := self._budget.spend(budget.RESETS):
            self._send_away(too_many)

    def _is_alone(self) -> bool:
        """Whether no other caller is about to send something in this turn of the loop."""
        return len(self._worker.connections) == 1 and len(self._streams) == 1

    def _on_request(self, event: events.RequestReceived) -> None:
        id, headers = event.stream_id, event.headers
        if self._is_last or len(self._streams) >= MOST_STREAMS:
            self._turn_away(id, ErrorCodes.REFUSED_STREAM)  # it may be tried again
            return
        fields = dict(headers)
        if not fields.keys() & {b":method", MALFORMED}:  # BlockDecoder took them for trailers
            self._turn_away(id, ErrorCodes.PROTOCOL_ERROR)
            return
        start = perf_counter()
        stream = Stream(id, fields, Call(start, inf, self._is_alone), self._limits.now)
        stream.request_id = id_of(fields, self._worker.make_id)
        self._streams[id] = stream
        self._idle_since = inf
        try:
            self._calls.check_head(stream, headers)
        except RequestError as error:
            self._refuse_later(stream, error)
            if not self._has_place:
                self._say_goodbye()

    def _on_data(self, event: events.DataReceived) -> None:
        size, data = event.flow_controlled_length, event.data
        self._unacked += size
        if self._unacked >= WINDOW // 2:
            self._h2.increment_flow_control_window(self._unacked)
            self._unacked = 0
        if not data and event.stream_ended is None and (kind := self._budget.spend(budget.CONTROL)):
            self._send_away(kind)
        stream = self._streams.get(event.stream_id)
        if stream is None or stream.refusal is not None:
            return
        try:
            self._limits.memory.take(len(data), stream.held)
            stream.held += len(data)
            stream.add(data, self._calls.most_bytes(stream))
        except RequestError as error:
            self._refuse_later(stream, error)
            return
        stream.unacked += size
        if stream.unacked >= WINDOW // 2 and event.stream_ended is None:
            with contextlib.suppress(StreamClosedError, KeyError):  # h2 4.4: it forgot the stream
                self._h2.increment_flow_control_window(stream.unacked, stream.id)
            stream.unacked = 0

    def _on_end(self, event: events.StreamEnded) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is not None:
            stream.is_ended = True
            if stream.refusal is None:
                self._ready.append(stream)

    def _on_trailers(self, event: events.TrailersReceived) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is not None:
            try:
                heads.check_trailers(dict(event.headers))
            except RequestError as error:
                self._refuse_later(stream, error)

    def _on_reset(self, event: events.StreamReset) -> None:
        stream = self._streams.pop(event.stream_id, None)
        if stream is not None:
            self._calls.cancel(stream)
            self._sending.forget(stream)
            self._look_whether_idle()

    def _on_window(self, event: events.Event) -> None:
        self._is_opened = True

    def _on_pong(self, event: events.PingAckReceived) -> None:
        if event.ping_data == _GOODBYE:
            self._say_last()

    def _go_on(self) -> None:
        """Send what waited for a window."""
        for stream in list(self._sending.stuck.values()):
            if self._sending.go_on(stream) and stream.watched is None:
                self._ended(stream)

    # What Calls wants sent

    def answer(self, stream: Stream, parts: list[bytes | memoryview]) -> None:
        """Send a message, and end the call."""
        if self._sending.answer(stream, parts):
            self._ended(stream)

    def refuse(self, stream: Stream, code: Code, sentence: str) -> None:
        """Send what went wrong, and end the call."""
        self._sending.refuse(stream, code, sentence)
        self._ended(stream)

    def say(self, stream: Stream, message: bytes) -> None:
        """Send one of several messages."""
        self._sending.say(stream, message)
        self._look_whether_idle()

    def _ended(self, stream: Stream) -> None:
        """Forget a stream that is answered; its client sends no more of it (RFC 9113, 8.1)."""
        if not stream.is_ended:
            self._reset(stream.id, ErrorCodes.NO_ERROR)
        self._streams.pop(stream.id, None)
        self._sending.forget(stream)
        self._limits.memory.give(stream.held)
        stream.held = 0
        self._look_whether_idle()

    def _look_whether_idle(self) -> None:
        if len(self._streams) == len(self._calls.watching):
            self._idle_since = self._limits.now
        if self._is_last and not self._streams:
            self._close()

    # Limits and the end

    def cut_off_if_slow(self) -> None:
        """Cut off what is slow, and the connection if its client takes nothing, or is idle."""
        limits = self._limits
        self._budget.renew()
        limits.memory.held += self._writes.look(limits.now)
        if limits.is_over(self._writes.untaken_since, limits.timeout_s):
            self.transport.abort()
        elif self._is_over:
            if limits.is_over(self._idle_since, LINGER_S):
                self.transport.abort()
        else:
            self._cut_off_slow_streams()
            self._calls.check_watched()
            if self._worker.services.host.is_draining:
                self._say_goodbye()
            if limits.is_over(self._said_goodbye, ROUND_S) or (
                not self._streams and limits.is_over(self._idle_since, limits.keep_alive_s)
            ):
                self._say_last()
            self._sending.flush()

    def _cut_off_slow_streams(self) -> None:
        limits = self._limits
        for stream in list(self._streams.values()):
            if limits.is_over(stream.stuck_since, limits.timeout_s):
                self._reset(stream.id, ErrorCodes.CANCEL)
                self._streams.pop(stream.id, None)
                self._calls.cancel(stream)
                self._sending.forget(stream)
                self._look_whether_idle()
            elif not stream.is_ended and limits.is_over(stream.since, limits.timeout_s):
                late = f"expected the complete request within {limits.timeout_s:g} s"
                self._calls.refuse(stream, RequestTimeout(late))

    def _send_away(self, too_many: str) -> None:
        """End a connection whose client does too much of something."""
        if not self._is_over:
            self._limits.count("invalid")
            self._sending.flush()
            self._goaway(ErrorCodes.ENHANCE_YOUR_CALM, self._h2.highest_inbound_stream_id, too_many)
            self._close()

    def shutdown(self) -> None:
        """Close when all is answered, also what is on its way here."""
        self._say_goodbye()

    def _say_goodbye(self) -> None:
        """Tell the client to go elsewhere; what it sent before it hears of that is answered.

        What it sent is here when it answers the ping (RFC 9113, section 6.8).
        """
        if self._said_goodbye == inf and not self._is_over:
            self._said_goodbye = self._limits.now
            self._sending.flush()
            self._goaway(ErrorCodes.NO_ERROR, _LAST_OF_ALL)
            self._h2.ping(_GOODBYE)
            self._sending.flush()

    def _say_last(self) -> None:
        """Answer no further streams, and close when those there are have ended."""
        if not self._is_last and not self._is_over:
            self._is_last = True
            self._sending.flush()
            self._goaway(ErrorCodes.NO_ERROR, self._h2.highest_inbound_stream_id)
            self._calls.stop_watching()
            if not self._streams:
                self._close()

    def _goaway(self, code: ErrorCodes, last: int, why: str = "") -> None:
        """Write GOAWAY; h2's own is the end of the connection to it."""
        frame = GoAwayFrame(0, last, code, additional_data=why.encode())
        self._writes.write_now(frame.serialize())

    def _close(self) -> None:
        """Send what there is, and close when the client does."""
        self._sending.flush()
        self._drop_all()
        self._idle_since = self._limits.now
        self._writes.is_receiving = True
        self._writes.close()

    def idle_since(self) -> float:
        """Return since when nobody waits for anything here; infinity if somebody does."""
        return self._idle_since

    def is_answering(self) -> bool:
        """Whether a request that came completely waits for its answer."""
        return any(stream.answer is not None for stream in self._streams.values())

    def give_way(self) -> None:
        """End immediately, for another connection."""
        if not self._is_over:
            self._sending.flush()
            self._goaway(ErrorCodes.NO_ERROR, self._h2.highest_inbound_stream_id)
        self.transport.abort()

    def let_go(self) -> None:
        """End immediately, as the client may have left; one that is half closed is closed here."""
        self.transport.abort()


_TAKES: dict[type[events.Event], Callable[[Connection, Any], None]] = {
    events.RequestReceived: Connection._on_request,
    events.DataReceived: Connection._on_data,
    events.StreamEnded: Connection._on_end,
    events.TrailersReceived: Connection._on_trailers,
    events.StreamReset: Connection._on_reset,
    events.WindowUpdated: Connection._on_window,
    events.RemoteSettingsChanged: Connection._on_window,
    events.PingAckReceived: Connection._on_pong,
    events.ConnectionTerminated: lambda each, _: each._say_last(),
}
