"""The frames of nearly every call, read and written without h2's objects for each of them.

h2 keeps the states of the connection and of its streams, and does all that is unusual. A frame is
usual if it is a request's headers, complete, or a part of its message; an answer is, if it goes
immediately and completely. What is done for those is what h2 does (RFC 9113, sections 5.1, 6.1, 6.2
and 6.9; tests compare the two), without its objects of frames and flags, its texts of frames for a
log that nobody reads, and its count of the open streams: they cost more than the rest of a call.

In three things h2 is not followed: it says nothing of a frame whose stream has ended, so a flood of
them could not be counted; a client's GOAWAY is the end of all to it, also of calls that the client
waits for; and it takes any number of settings in a frame.

It uses what h2 keeps for itself, so pyproject.toml bounds h2's minor version.
"""

from struct import Struct
from typing import Any

from h2.config import H2Configuration
from h2.connection import ConnectionState, H2Connection, _decode_headers
from h2.errors import ErrorCodes
from h2.events import ConnectionTerminated, DataReceived, Event, RequestReceived, StreamEnded
from h2.exceptions import DenialOfServiceError, ProtocolError
from h2.stream import H2Stream, StreamClosedBy, StreamState
from hyperframe.frame import Frame, GoAwayFrame

from service.grpc.blocks import BlockDecoder, BlockEncoder

_PREFACE_BYTES = len(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
_HEAD = Struct(">HBBBL")  # of a frame: its length in two parts, kind, flags, stream
_HEAD_BYTES = _HEAD.size
_STREAM_BITS = 0x7FFF_FFFF  # the first one is reserved
_DATA, _HEADERS, _SETTINGS, _PUSH_PROMISE, _CONTINUATION = 0, 1, 4, 5, 9  # kinds of frames
_SETTING_BYTES = 6
MOST_SETTINGS = 32  # of a frame, as nghttp2 has it; h2 keeps those too that it does not know
_BLOCKS = frozenset({_HEADERS, _PUSH_PROMISE, _CONTINUATION})
_END_STREAM, _END_HEADERS = 0x1, 0x4
_IS_OPEN = ConnectionState.SERVER_OPEN
_OPEN, _HALF_CLOSED = StreamState.OPEN, StreamState.HALF_CLOSED_REMOTE
MOST_UNCOUNTED = 128  # streams; from there on h2 counts those that are open, and forgets others


class SaidNothing(Event):
    """A frame came of which h2 says nothing, as its stream has ended."""


class Shortcuts(H2Connection):
    """A server's connection of h2."""

    encoder: BlockEncoder
    decoder: BlockDecoder
    # How many streams that have ended are known by how they did; h2's 65,536 take 11 MB, and matter
    # only to headers that come behind a reset.
    MAX_CLOSED_STREAMS = 1024

    def __init__(self, config: H2Configuration) -> None:
        """Begin before the client's preface."""
        super().__init__(config)
        self._begin = b""  # of the head of a frame that is not here completely
        self.missing = _PREFACE_BYTES  # bytes of what h2 has the beginning of
        self._is_in_block = False  # of headers: its other frames follow

    def take(self, data: bytes) -> list[Event]:
        """Return what bytes that came say, as `receive_data` does, and which say nothing.

        Raises H2Error.
        """
        if self._begin:
            data, self._begin = self._begin + data, b""
        came: list[Event] = []
        place, end = 0, len(data)
        if self.missing:
            place = min(self.missing, end)
            self.missing -= place
            came += self.receive_data(data[:place])
        while end - place >= _HEAD_BYTES:
            high, low, kind, flags, id = _HEAD.unpack_from(data, place)
            begin = place + _HEAD_BYTES
            behind = begin + (high << 8 | low)
            is_taken = False
            if behind <= end and not self._is_in_block:
                if kind == _DATA and not flags & ~_END_STREAM:
                    is_taken = self._take_data(id & _STREAM_BITS, data[begin:behind], flags, came)
                elif kind == _HEADERS and flags == _END_HEADERS:
                    is_taken = self._take_request(id & _STREAM_BITS, data[begin:behind], came)
            if not is_taken:
                if kind == _SETTINGS and behind - begin > MOST_SETTINGS * _SETTING_BYTES:
                    self._terminate_connection(ErrorCodes.ENHANCE_YOUR_CALM)
                    raise DenialOfServiceError("too many settings in a frame")
                if kind in _BLOCKS:
                    self._is_in_block = not flags & _END_HEADERS
                self.missing = max(0, behind - end)
                said = self.receive_data(data[place:behind])
                if not (said or self.missing or self._is_in_block):
                    said = [SaidNothing()]
                came += said
            place = behind
        if place < end:
            self._begin = data[place:]
        return came

    def _receive_goaway_frame(self, frame: GoAwayFrame) -> tuple[list[Frame], list[Event]]:
        """Say that the client goes; to h2 all ends here, also the calls that it waits for."""
        return [], [ConnectionTerminated()]

    def _take_request(self, id: int, block: bytes, came: list[Event]) -> bool:
        """Open a stream, if that is allowed; whether it was done. Raises ProtocolError."""
        if (
            not id & 1
            or id <= self.highest_inbound_stream_id
            or self.state_machine.state is not _IS_OPEN
            or (len(self.streams) >= MOST_UNCOUNTED and not self._has_room())
        ):
            return False
        try:
            headers: Any = self.decoder.known(block) or _decode_headers(self.decoder, block)
            own, others = self.local_settings, self.remote_settings
            stream = H2Stream(id, self.config, own.initial_window_size, others.initial_window_size)
            stream.max_outbound_frame_size = self.max_outbound_frame_size
            self.streams[id] = stream
            self.highest_inbound_stream_id = id
            machine = stream.state_machine
            machine.state = _OPEN
            machine.client = False
            machine.headers_received = True
            stream._initialize_content_length(headers)
        except ProtocolError as error:
            self._terminate_connection(error.error_code)
            raise
        came.append(RequestReceived(stream_id=id, headers=headers))
        return True

    def _has_room(self) -> bool:
        return self.open_inbound_streams < self.local_settings.max_concurrent_streams

    def _take_data(self, id: int, data: bytes, flags: int, came: list[Event]) -> bool:
        """Take a part of a message, if it is allowed; whether it was done."""
        stream = self.streams.get(id)
        if (
            stream is None
            or stream.state_machine.state is not _OPEN
            or self.state_machine.state is not _IS_OPEN
        ):
            return False
        size = len(data)
        of_all, own = self._inbound_flow_control_window_manager, stream._inbound_window_manager
        length = stream._actual_content_length + size
        expected = stream._expected_content_length
        if (
            size > of_all.current_window_size
            or size > own.current_window_size
            or size > self.max_inbound_frame_size
            or (expected is not None and (length > expected or (flags and length != expected)))
        ):
            return False
        of_all.window_consumed(size)
        own.window_consumed(size)
        stream._actual_content_length = length
        event = DataReceived(stream_id=id, data=data, flow_controlled_length=size)
        came.append(event)
        if flags:
            stream.state_machine.state = _HALF_CLOSED
            event.stream_ended = StreamEnded(stream_id=id)
            came.append(event.stream_ended)
        return True

    def send_answer(self, id: int, headers: bytes, body: bytes, trailers: bytes) -> bool:
        """Answer a request and end its stream; whether it was done: else nothing was.

        headers, trailers: blocks of fields that no table keeps.
        """
        stream = self.streams.get(id)
        size = len(body)
        if (
            stream is None
            or stream.state_machine.state is not _HALF_CLOSED
            or stream.state_machine.headers_sent
            or self.state_machine.state is not _IS_OPEN
            or self.encoder.header_table.resized  # the client has to be told of that first
            or size > self.outbound_flow_control_window
            or size > stream.outbound_flow_control_window
            or max(size, len(headers), len(trailers)) > self.max_outbound_frame_size
        ):
            return False
        self._data_to_send += b"".join(
            (
                *(_head(_HEADERS, _END_HEADERS, id, len(headers)), headers),
                *(_head(_DATA, 0, id, size), body),
                *(_head(_HEADERS, _END_HEADERS | _END_STREAM, id, len(trailers)), trailers),
            )
        )
        self.outbound_flow_control_window -= size
        # As h2 does it with a stream that ended, when the next one begins.
        del self.streams[id]
        self._closed_streams[id] = StreamClosedBy.SEND_END_STREAM
        return True


def _head(kind: int, flags: int, id: int, size: int) -> bytes:
    """Return the head of a frame."""
    return _HEAD.pack(size >> 8, size & 0xFF, kind, flags, id)
