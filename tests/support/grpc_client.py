"""A client of gRPC that is made of h2, with no library of gRPC: each frame is the test's."""

import asyncio
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote_to_bytes

import numpy as np
from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from hyperframe.frame import GoAwayFrame
from msgspec import Struct, field
from numpy.typing import NDArray

from service.formats.tensors import NAMES, as_binary
from service.grpc.messages import SERVICE, ModelInferRequest, ModelInferResponse, answer_of

INFER = f"/{SERVICE}/ModelInfer"


class Answered(Struct):
    """What came of a call."""

    headers: dict[str, str] = field(default_factory=dict)
    trailers: dict[str, str] = field(default_factory=dict)
    data: bytearray = field(default_factory=bytearray)
    is_ended: bool = False
    reset: int | None = None

    @property
    def code(self) -> int:
        return int((self.trailers or self.headers)["grpc-status"])

    @property
    def sentence(self) -> str:
        return unquote_to_bytes((self.trailers or self.headers)["grpc-message"]).decode()

    @property
    def message(self) -> bytes:
        assert self.code == 0, self.sentence
        assert self.data[0] == 0
        assert int.from_bytes(self.data[1:5]) == len(self.data) - 5
        return bytes(self.data[5:])


def framed(message: bytes) -> bytes:
    return b"\0" + len(message).to_bytes(4) + message


class Client:
    """A connection to a port."""

    def __init__(self, port: int, *, reads: bool = True) -> None:
        """reads: whether windows are opened again for what came."""
        self._port = port
        self._reads = reads
        self.h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self.calls: dict[int, Answered] = {}
        self.events: list[events.Event] = []
        self._came = asyncio.Condition()
        self.is_closed = False
        self.goaways: list[tuple[int, int]] = []  # last stream and code of each
        self._buffer = bytearray()

    async def __aenter__(self) -> Self:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self._port)
        self.h2.initiate_connection()
        if self._reads:
            self.h2.increment_flow_control_window(2**24)
        self.flush()
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._reading.cancel()
        self.writer.close()

    def flush(self) -> None:
        self.writer.write(self.h2.data_to_send())

    async def _read(self) -> None:
        while True:
            try:
                data = await self.reader.read(65_536)
            except ConnectionError:
                data = b""
            if not data:
                break
            for event in self.h2.receive_data(self._without_goaways(data)):
                self._take(event)
            self.flush()
            async with self._came:
                self._came.notify_all()
        self.is_closed = True
        async with self._came:
            self._came.notify_all()

    def _without_goaways(self, data: bytes) -> bytes:
        """Return complete frames but GOAWAY, which is the end of all to h2; note those."""
        self._buffer += data
        kept, place = bytearray(), 0
        while len(self._buffer) - place >= 9:
            end = place + 9 + int.from_bytes(self._buffer[place : place + 3])
            if end > len(self._buffer):
                break
            frame = self._buffer[place:end]
            if frame[3] == GoAwayFrame.type:
                last, code = (int.from_bytes(frame[n : n + 4]) for n in (9, 13))
                self.goaways.append((last, code))
            else:
                kept += frame
            place = end
        del self._buffer[:place]
        return bytes(kept)

    def _take(self, event: events.Event) -> None:
        self.events.append(event)
        call = self.calls.get(getattr(event, "stream_id", None) or 0, Answered())
        match event:
            case events.ResponseReceived():
                call.headers = dict(event.headers)  # type: ignore[arg-type]
            case events.TrailersReceived():
                call.trailers = dict(event.headers)  # type: ignore[arg-type]
            case events.DataReceived():
                call.data += event.data
                if self._reads and event.stream_ended is None:
                    size = event.flow_controlled_length
                    self.h2.acknowledge_received_data(size, event.stream_id)
            case events.StreamEnded():
                call.is_ended = True
            case events.StreamReset():
                call.reset = int(event.error_code)

    async def until(self, is_so: Any) -> None:
        """Wait for what came to make something true."""
        async with asyncio.timeout(20), self._came:
            await self._came.wait_for(is_so)

    async def first(self, kind: type[events.Event]) -> Any:
        """Return the first event of a kind."""
        await self.until(lambda: any(isinstance(each, kind) for each in self.events))
        return next(each for each in self.events if isinstance(each, kind))

    def begin(self, path: str, *others: tuple[str, str], **headers: str) -> int:
        """Send the headers of a call; return its stream."""
        id = self.h2.get_next_available_stream_id()
        given = {
            ":method": "POST",
            ":scheme": "http",
            ":path": path,
            ":authority": "here",
            "te": "trailers",
            "content-type": "application/grpc",
        } | {name.replace("_", "-"): value for name, value in headers.items()}
        self.h2.send_headers(id, [*given.items(), *others])
        self.calls[id] = Answered()
        return id

    def send(self, id: int, data: bytes, *, end: bool = True) -> None:
        self.h2.send_data(id, data, end_stream=end)
        self.flush()

    def start(self, path: str, message: bytes = b"", **headers: str) -> int:
        """Send a call; return its stream."""
        id = self.begin(path, **headers)
        self.send(id, framed(message))
        return id

    async def answer(self, id: int) -> Answered:
        call = self.calls[id]
        await self.until(lambda: call.is_ended or call.reset is not None or self.is_closed)
        return call

    async def call(self, path: str, message: bytes = b"", **headers: str) -> Answered:
        id = self.begin(path, **headers)
        await self.send_all(id, framed(message))
        return await self.answer(id)

    async def ask(self, method: str, request: bytes = b"", **headers: str) -> Any:
        """Return the message that a method of the protocol answers."""
        answered = await self.call(f"/{SERVICE}/{method}", request, **headers)
        return answer_of(SERVICE, method).FromString(answered.message)

    async def infer(self, message: bytes, **headers: str) -> Any:
        answered = await self.call(INFER, message, **headers)
        return ModelInferResponse.FromString(answered.message)

    async def send_all(self, id: int, data: bytes) -> None:
        """Send as the windows of the server allow, and end the stream."""
        place = 0
        while place < len(data):
            room = min(self.h2.local_flow_control_window(id), self.h2.max_outbound_frame_size)
            if room == 0:
                seen = len(self.events)
                await self.until(lambda seen=seen: len(self.events) > seen or self.is_closed)
                if self.is_closed or self.calls[id].reset is not None:
                    return
                continue
            self.h2.send_data(id, data[place : place + room])
            place += room
            self.flush()
        self.h2.end_stream(id)
        self.flush()

    def cancel(self, id: int) -> None:
        self.h2.reset_stream(id, ErrorCodes.CANCEL)
        self.flush()


def infer_request(
    model: str, *arrays: NDArray[Any], names: Iterable[str] = ("input",), **fields: Any
) -> Any:
    """Return the message of an inference with raw contents."""
    message = ModelInferRequest(model_name=model, **fields)
    for name, array in zip(names, arrays, strict=True):
        datatype = NAMES[np.object_ if array.dtype == object else array.dtype.type]
        message.inputs.add(name=name, datatype=datatype, shape=array.shape)
        message.raw_input_contents.append(bytes(as_binary(array)))
    return message


def outputs_of(answer: Any) -> list[NDArray[Any]]:
    """Return the arrays of an answer with raw contents."""
    from service.formats.tensors import read_binary

    return [
        read_binary(memoryview(data), list(each.shape), each.datatype, "here")
        for each, data in zip(answer.outputs, answer.raw_output_contents, strict=True)
    ]
