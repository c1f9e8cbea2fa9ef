"""One call: what came of it, its answer, and what of that waits for the client's window."""

import asyncio
from math import inf
from typing import Protocol

from service.batching import Outputs
from service.entrance.memory import grown
from service.errors import InvalidInput, RequestError
from service.grpc import infer
from service.grpc.framing import PREFIX_BYTES, check_length
from service.grpc.methods import Method
from service.inference import Call, Inference, Work


class Stream:
    """A stream of HTTP/2 that is open, and the call in it."""

    __slots__ = (
        *("answer", "body", "buffer", "call", "has_begun", "headers", "held", "id", "is_ended"),
        *("method", "path", "place", "refusal", "request_id", "since", "stuck_since"),
        *("unacked", "watched"),
    )

    def __init__(self, id: int, headers: dict[bytes, bytes], call: Call, since: float) -> None:
        """since: when it began, by the clock of Limits."""
        self.id = id
        self.headers = headers
        self.path = headers.get(b":path", b"").decode("latin-1")
        self.call = call
        self.since = since
        self.request_id = b""
        self.method: Method | None = None  # None: of ModelInfer, or what is none
        self.refusal: RequestError | None = None  # why it is not answered
        self.is_ended = False  # by the client
        self.has_begun = False  # its answer
        self.buffer: bytes | bytearray = b""  # what came
        self.held = 0  # bytes of it, and of its answer
        self.unacked = 0  # bytes for which the client's window was not opened again
        self.answer: Answer | asyncio.Task[None] | None = None  # while it is answered
        self.body = memoryview(b"")  # of an answer for which the window is too small
        self.place = 0  # in it: what is sent already
        self.stuck_since = inf  # since when nothing of it could be sent
        self.watched: tuple[str, int] | None = None  # of Watch: a name, and what was said of it

    def add(self, data: bytes, most: int) -> None:
        """Add a fragment to the message of a self. Raises TooLarge, InvalidInput."""
        before = len(self.buffer)
        self.buffer = grown(self.buffer, data)
        size = len(self.buffer)
        if before < PREFIX_BYTES <= size:
            check_length(self.buffer, most)
        if size > PREFIX_BYTES + most:
            raise InvalidInput("message: expected one, got more behind it")


class Caller(Protocol):
    """Where a call came from, and its answer goes."""

    def succeed(self, stream: Stream, parts: list[bytes | memoryview]) -> None:
        """Send a message, which is in parts."""

    def fail(self, stream: Stream, error: Exception) -> None:
        """Say what went wrong."""


class Answer:
    """A call that infers, while it waits for its outputs: without a task, or a future."""

    __slots__ = (
        *("__weakref__", "_caller", "_inference", "_is_cancelled", "_is_done", "_stream"),
        "_work",
    )

    def __init__(self, inference: Inference, stream: Stream, work: Work, caller: Caller) -> None:
        self._inference = inference
        self._stream = stream
        self._work = work
        self._caller = caller
        self._is_done = self._is_cancelled = False

    def begin(self) -> None:
        """Hand over the work."""
        self._work.served.hold()
        try:
            outputs = self._inference.start(self._stream.call, self._work, self)
        except Exception as error:
            self.set_exception(error)
            return
        if outputs is not None:
            self.set_result(outputs)

    def done(self) -> bool:
        """Whether it waits no more."""
        return self._is_done

    def cancelled(self) -> bool:
        """Whether its caller left."""
        return self._is_cancelled

    def set_result(self, outputs: Outputs) -> None:
        """Take the outputs, and answer."""
        work = self._work
        try:
            parts = infer.written(work.asked, work.served, outputs, self._stream.request_id)
        except Exception as error:
            self.set_exception(error)
            return
        self._release("ok")
        self._caller.succeed(self._stream, parts)

    def set_exception(self, error: Exception) -> None:
        """Take what went wrong, and say it."""
        self._is_done = True
        self._work.served.release()
        self._caller.fail(self._stream, error)

    def cancel(self, msg: object = None) -> None:
        """Answer nothing: the caller left."""
        if not self._is_done:
            self._is_cancelled = True
            self._release("cancelled")
            self._work.served.batcher.left()

    def _release(self, outcome: str) -> None:
        self._is_done = True
        self._work.served.release()
        self._inference.count(self._stream.call, outcome)
