"""The calls of a connection: from their headers to what is answered."""

import asyncio
from collections.abc import Callable
from math import inf
from time import perf_counter
from typing import Protocol

from service import logs
from service.batching import Timing
from service.entrance import compression
from service.entrance.memory import bytes_of
from service.errors import (
    NotFound,
    RequestError,
    TooManyConnections,
    UnsupportedMediaType,
)
from service.formats.reply_size import UNKNOWN, check_outputs, check_reply
from service.grpc import heads, infer, methods
from service.grpc.framing import message_in
from service.grpc.messages import parsed
from service.grpc.methods import INFER, METHODS, PROBES, WATCH
from service.grpc.status import CODES, Code
from service.grpc.stream import Answer, Stream
from service.grpc.template import Templates
from service.grpc.worker import Worker
from service.inference import Slowly, Work
from service.logs.request_id import begin, request_id
from service.v2.metadata import check_control

_TIMING = b"x-request-timing"


class Out(Protocol):
    """Where answers go."""

    def answer(self, stream: Stream, parts: list[bytes | memoryview]) -> None:
        """Send a message, and end the call."""

    def refuse(self, stream: Stream, code: Code, sentence: str) -> None:
        """Send what went wrong, and end the call."""

    def say(self, stream: Stream, message: bytes) -> None:
        """Send one of several messages."""


class Calls:
    """Answers the calls of a connection."""

    def __init__(self, worker: Worker, out: Out, has_place: Callable[[], bool]) -> None:
        self._worker = worker
        self._services = worker.services
        self._inference = worker.services.inference
        self._splits = worker.services.catalog.splits
        self._memory = worker.limits.memory
        self._settings = worker.services.settings
        self._out = out
        self._has_place = has_place
        self._templates = Templates(worker.services)
        self._loop = asyncio.get_running_loop()
        self.watching: dict[int, Stream] = {}

    def check_head(self, stream: Stream, headers: list[tuple[bytes, bytes]]) -> None:
        """Note what the headers of a call say. Raises RequestError."""
        fields, call = stream.headers, stream.call
        begin(stream.request_id, fields)
        heads.check_allowed(fields)
        if not heads.is_grpc(fields):
            raise UnsupportedMediaType(
                "expected gRPC over HTTP/2 (POST, content-type: application/grpc); all else is "
                "served over HTTP/1.1 on the same port"
            )
        call.deadline = call.start + self._settings.request_timeout_s
        path = stream.path
        if self._worker.keys.are_needed and not self._is_open(path):
            self._worker.keys.check(headers)
        if path not in PROBES and not self._has_place():
            raise TooManyConnections("too many connections are open; try again later")
        call.deadline = call.start + heads.timeout_s(fields, self._settings.request_timeout_s)
        heads.check_encoding(fields)
        if fields.get(_TIMING) == b"true":
            call.is_timed = True
            call.timing = call.timing or Timing()
        if self._splits is not None:
            call.ticket = self._splits.ticket(fields)
        stream.method = METHODS.get(path)
        if stream.method is None and path not in (INFER, WATCH):
            raise methods.unknown(path)
        if stream.method is not None and stream.method.is_control:
            check_control(self._settings)

    def most_bytes(self, stream: Stream) -> int:
        """Return how many bytes the message of a call may have."""
        most = self._settings.max_body_bytes
        return most if stream.path == INFER else min(most, methods.MOST_BYTES)

    def _is_open(self, path: str) -> bool:
        return path in PROBES and not self._settings.protect_health

    def begin(self, stream: Stream) -> None:
        """Answer a call whose message is complete."""
        try:
            data, is_compressed = message_in(stream.buffer)
            stream.buffer = b""
            if is_compressed:
                heads.check_compressed(stream.headers)
                self._follow_in_task(stream, data, is_compressed=True)
            elif stream.path == INFER:
                self._infer(stream, data)
            else:
                self._follow_in_task(stream, data, is_compressed=False)
        except Exception as error:
            self.fail(stream, error)

    def _infer(self, stream: Stream, data: bytes) -> None:
        work = self._templates.read(stream.call, data)
        if (
            isinstance(work, Slowly)
            or not work.served.batcher.fits(work.rows, work.kind)
            or work.reply_bytes == UNKNOWN
            or infer.is_slowly_written(work)
        ):
            self._follow_in_task(stream, work, is_compressed=False)
            return
        self._hold(stream, bytes_of(work.inputs))
        answer = Answer(self._inference, stream, work, self)
        stream.answer = answer
        self._worker.tasks.add(answer)
        answer.begin()

    def _hold(self, stream: Stream, size: int) -> None:
        """Hold so many bytes of a call, if it does not hold more already. Raises MemoryFull."""
        more = size - stream.held
        if more > 0:
            self._memory.take(more, stream.held)
            stream.held += more

    def _follow_in_task(
        self, stream: Stream, what: "bytes | Slowly | Work", *, is_compressed: bool
    ) -> None:
        task = self._loop.create_task(self._follow(stream, what, is_compressed))
        stream.answer = task
        self._worker.tasks.add(task)
        task.add_done_callback(self._worker.tasks.discard)

    async def _follow(
        self, stream: Stream, what: "bytes | Slowly | Work", is_compressed: bool
    ) -> None:
        """Answer a call for which something has to be waited for."""
        begin(stream.request_id, stream.headers)
        try:
            if is_compressed and isinstance(what, bytes):
                limit = self.most_bytes(stream)
                what = await compression.decompressed(what, b"gzip", limit, "message")
                self._hold(stream, len(what))
            if stream.path == INFER:
                parts = await self._inferred(stream, what)
            elif isinstance(what, bytes):
                parts = await self._said(stream, what)
        except Exception as error:
            self.fail(stream, error)
            return
        if stream.path == INFER:
            self._inference.count(stream.call, "ok")
        if parts:
            self.succeed(stream, parts)

    async def _inferred(
        self, stream: Stream, what: "bytes | Slowly | Work"
    ) -> list[bytes | memoryview]:
        """Return the parts of the answer to ModelInfer. Raises RequestError."""
        call = stream.call
        work = infer.read(self._services, call, what) if isinstance(what, bytes) else what
        with work.served:
            if isinstance(work, Slowly):
                work = await work.finish()
            self._hold(stream, bytes_of(work.inputs))
            outputs = await self._inference.run(call, work)
            most = self._settings.most_reply_bytes
            if work.reply_bytes == UNKNOWN:
                check_outputs(outputs, most)
            id, served, asked = stream.request_id, work.served, work.asked
            if not infer.is_slowly_written(work, [array.size for array in outputs]):
                parts = infer.written(asked, served, outputs, id)
            else:
                parts = await self._services.bodies.in_thread(
                    lambda: infer.written(asked, served, outputs, id), call.deadline
                )
            if work.reply_bytes == UNKNOWN:
                check_reply(sum(map(len, parts)), most)
            return parts

    async def _said(self, stream: Stream, data: bytes) -> list[bytes | memoryview]:
        """Return the parts of the answer of another method; none for Watch, which goes on."""
        method = stream.method
        if method is None:
            self._watch(stream, parsed(methods.WatchRequest, data).service)
            return []
        answered = method.said(self._services, parsed(method.request, data))
        if not isinstance(answered, dict):
            answered = await answered
        return [methods.message_of(method, answered)]

    def _watch(self, stream: Stream, name: str) -> None:
        stream.watched = name, 0
        stream.answer = None
        self.watching[stream.id] = stream
        self._out.say(stream, self._health(stream) or b"")

    def _health(self, stream: Stream) -> bytes | None:
        """Return what is to be said of a name that is watched, None if it was said."""
        assert stream.watched is not None
        name, before = stream.watched
        try:
            status = methods.health_of(self._services, name)
        except NotFound:
            status = methods.SERVICE_UNKNOWN
        stream.watched = name, status
        return None if status == before else methods.health_message(status)

    def check_watched(self) -> None:
        """Say what changed to those who watch; called now and then."""
        for stream in list(self.watching.values()):
            if stream.stuck_since < inf:  # the last is not read yet
                continue
            message = self._health(stream)
            if message is not None:
                self._out.say(stream, message)

    def stop_watching(self) -> None:
        """End the calls of those who watch, as the connection does."""
        for stream in list(self.watching.values()):
            del self.watching[stream.id]
            self._out.refuse(stream, Code.UNAVAILABLE, "the connection ends; watch on another")
            self._log(stream, Code.UNAVAILABLE)

    def succeed(self, stream: Stream, parts: list[bytes | memoryview]) -> None:
        """Send an answer."""
        self._end(stream)
        self._out.answer(stream, parts)
        self._log(stream, Code.OK)

    def fail(self, stream: Stream, error: Exception) -> None:
        """Say what went wrong; a call that infers is counted."""
        begin(stream.request_id, stream.headers)
        told = self._worker.failing.told(error, stream.call, stream.path)
        if stream.path == INFER:
            self._inference.count(stream.call, told.outcome)
        self._refuse(stream, told)

    def refuse(self, stream: Stream, error: RequestError) -> None:
        """Say why a call is not answered whose message is not read; it is counted."""
        if stream.answer is None:
            told = self._worker.failing.told(error, stream.call, stream.path)
            self._worker.limits.count(told.outcome)
            self._refuse(stream, told)

    def _refuse(self, stream: Stream, told: RequestError) -> None:
        self._end(stream)
        code = CODES[type(told)]
        self._out.refuse(stream, code, str(told))
        self._log(stream, code)

    def _end(self, stream: Stream) -> None:
        """Let go what a call holds."""
        self._worker.tasks.discard(stream.answer)
        stream.answer = None
        stream.buffer = b""
        self._memory.give(stream.held)
        stream.held = 0

    def cancel(self, stream: Stream) -> None:
        """Answer a call no more: its caller left."""
        answer = stream.answer
        if self.watching.pop(stream.id, None) is None and answer is None and not stream.body:
            self._worker.limits.count("cancelled")  # it had not come completely
        self._end(stream)
        if isinstance(answer, asyncio.Task) and stream.path == INFER:
            self._inference.count(stream.call, "cancelled")  # the task may not have begun
        if answer is not None:
            answer.cancel()

    def _log(self, stream: Stream, code: Code) -> None:
        if self._settings.access_log:
            begin(stream.request_id, stream.headers)
            logs.access_grpc(stream.path, code.name, perf_counter() - stream.call.start)


def id_of(headers: dict[bytes, bytes], make_id: Callable[[], bytes]) -> bytes:
    """Return the id that a caller gave a request, or a new one."""
    return request_id(headers) or make_id()
