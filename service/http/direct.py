"""Requests that infer, answered where they arrive: without a parser, ASGI, a task, or a future.

The clients of a connection send the same head again and again. So what a head means is kept, once
the parser took it to its end without complaint: the same bytes mean the same. With the complete
body behind it, the steps of its procedure are taken on the spot, and the batch that its rows are
in calls back. What does not fit goes the ordinary way, which says what is wrong with it.
"""

import asyncio
from math import inf
from time import perf_counter
from typing import Any, Protocol

from litestar.types import HTTPScope
from msgspec import Struct

from service import logs
from service.batching import Outputs, Timing
from service.entrance.memory import bytes_of
from service.errors import RequestError
from service.http.app import App
from service.http.procedure import Procedure
from service.http.reply import Reply, compress, encoding_for, lines_of, note_timing
from service.http.request import TICKET, Request, note_wishes
from service.http.status import Headers
from service.inference import Call, Slowly, Work
from service.logs.request_id import begin, request_id

MOST_HEADS = 1024  # kept at a time: callers may make them up
LONGEST_HEAD = 4096  # bytes of one
MOST_REPLY_BYTES = 262_144  # of a reply that is written in the event loop
# Headers of requests that are more than a head and a body.
CLOSE = b"connection: close\r\n"
_OTHERS = frozenset({b"transfer-encoding", b"content-encoding", b"expect", b"upgrade"})


class Connection(Protocol):
    """Where a request came from, and its answer goes."""

    extensions: dict[str, Any]  # of its requests, for the ordinary way

    def is_alone(self) -> bool:
        """Whether no other caller is about to send something in this turn of the loop."""

    def write(self, reply: Reply, id: bytes, others: bytes, *, is_last: bool) -> None:
        """Send a reply with its id and the lines of other headers; go on to what comes next."""


class Head(Struct, frozen=True):
    """What the bytes of a head mean."""

    procedure: Procedure
    said: Any
    path: str
    route: str  # as the table of routes has it
    headers: dict[bytes, bytes]
    body_bytes: int
    timeout_s: float
    is_timed: bool
    id: bytes | None  # that the caller gave
    reply_lines: bytes


class Direct:
    """Answers requests whose head it knows."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._max_body_bytes = app.services.settings.max_body_bytes
        self._memory = app.services.memory
        self._splits = app.services.catalog.splits
        self.heads: dict[bytes, Head] = {}  # by their bytes, the empty line too
        self._headers: Headers = []
        self._lines = b""

    def default_lines(self, headers: Headers) -> bytes:
        """Return the lines of headers that all replies have; each second uvicorn makes others."""
        if headers is not self._headers:
            self._headers, self._lines = headers, lines_of(headers)
        return self._lines

    def learn(self, head: bytes, scope: HTTPScope) -> None:
        """Keep what a head means that the parser took; nothing if the ordinary way is needed."""
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"")
        found = self._app.routes_that_infer.find(scope["path"])
        if (
            found is None
            or found[0].procedure is None
            or scope["method"] != found[0].method
            or scope["http_version"] != "1.1"
            or len(head) > LONGEST_HEAD
            # It is the head that was parsed: no empty lines before it, a line for each header, and
            # no name twice.
            or not head.startswith(b"POST ")
            or head.count(b"\r\n") != len(headers) + 2
            or not _OTHERS.isdisjoint(headers)
            or headers.get(b"connection", b"keep-alive").lower() != b"keep-alive"
            or not length.isdigit()
            or int(length) > self._max_body_bytes
        ):
            return
        access, path = self._app.access, scope["path"]
        call = Call(0.0, inf, _never)
        request = Request(scope, headers, _nothing, b"", found[1], call, self._memory)
        try:
            access.check(scope["method"], path, scope["headers"])
            note_wishes(call, headers, self._app.services.settings.request_timeout_s)
            said = found[0].procedure.said(request)
        except RequestError:
            return
        if len(self.heads) >= MOST_HEADS:
            self.heads.clear()
        self.heads[head] = Head(
            procedure=found[0].procedure,
            said=said,
            path=path,
            route=found[0].path,
            headers=headers,
            body_bytes=int(length),
            timeout_s=call.deadline,
            is_timed=call.is_timed,
            id=request_id(headers),
            reply_lines=lines_of(access.cors_headers(scope["method"], headers)),
        )

    def answer(
        self, connection: Connection, head: Head, body: bytes, timing: Timing | None = None
    ) -> "Answer | None":
        """Return the answer, which is to `begin`; None if the ordinary way is needed.

        timing: gets where the time went, whether or not the caller is told.
        """
        start = perf_counter()
        if head.is_timed:
            timing = timing or Timing()
        deadline = start + head.timeout_s
        call = Call(start, deadline, connection.is_alone, timing, head.is_timed)
        if self._splits is not None:
            call.ticket = self._splits.ticket(head.headers)
        try:
            work = head.procedure.read(self._app.services, call, head.said, body)
        except Exception:  # that way says what is wrong
            _give_up(connection, call)
            return None
        if (
            isinstance(work, Slowly)
            or work.parts
            or not work.served.batcher.fits(work.rows, work.kind)
            or work.reply_bytes > MOST_REPLY_BYTES
        ):
            _give_up(connection, call)
            return None
        held = bytes_of(work.inputs)  # the body lies in the same memory, or goes now
        if not self._memory.takes(held):
            _give_up(connection, call)
            return None
        return Answer(self._app, connection, head, call, work, held)


class Answer:
    """A request that is being answered: it waits for its outputs, in place of a task."""

    __slots__ = (
        "__weakref__",
        "_app",
        "_call",
        "_compressing",
        "_connection",
        "_head",
        "_held",
        "_id",
        "_is_cancelled",
        "_is_done",
        "_work",
    )

    def __init__(
        self, app: App, connection: Connection, head: Head, call: Call, work: Work, held: int
    ) -> None:
        """held: bytes of memory, taken for it."""
        self._app = app
        self._connection = connection
        self._head = head
        self._call = call
        self._work = work
        self._held = held
        self._id = head.id or app.make_id()
        self._is_done = self._is_cancelled = False
        self._compressing: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Hand over the work."""
        self._work.served.hold()
        try:
            outputs = self._app.services.inference.start(self._call, self._work, self)
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
        """Take the outputs, and reply."""
        call, head = self._call, self._head
        try:
            self._work.check(outputs)
            reply = head.procedure.reply(head.said, self._work, outputs, self._id)
        except Exception as error:
            self.set_exception(error)
            return
        if call.is_timed and call.timing is not None:
            note_timing(reply, call.timing)
        self._end("ok", reply)

    def set_exception(self, error: Exception) -> None:
        """Take what went wrong, and reply."""
        begin(self._id, self._head.headers)  # it may be logged
        self._end(*self._app.failure(error, self._call, self._head.path))

    def cancel(self, msg: object = None) -> None:
        """Reply nothing: the caller left."""
        if self._compressing is not None:
            self._compressing.cancel()
        elif not self._is_done:
            self._is_cancelled = True
            self._release("cancelled")
            self._work.served.batcher.left()

    def _release(self, outcome: str) -> None:
        self._is_done = True
        self._app.services.memory.give(self._held)
        self._work.served.release()
        self._app.services.inference.count(self._call, outcome)

    def _end(self, outcome: str, reply: Reply) -> None:
        self._release(outcome)
        if reply.is_compressible:
            encoding = encoding_for(reply, self._head.headers.get(b"accept-encoding"))
            if encoding is not None:
                loop = asyncio.get_running_loop()
                self._compressing = loop.create_task(self._compress(reply, encoding))
                return
        self._write(reply)

    async def _compress(self, reply: Reply, encoding: str) -> None:
        await compress(reply, encoding)
        self._write(reply)

    def _write(self, reply: Reply) -> None:
        head, app = self._head, self._app
        is_last = app.services.host.is_draining
        lines = head.reply_lines + CLOSE if is_last else head.reply_lines
        self._connection.write(reply, self._id, lines, is_last=is_last)
        if app.is_logged:
            begin(self._id, head.headers)
            logs.access("POST", head.path, reply.status, perf_counter() - self._call.start)


def _give_up(connection: Connection, call: Call) -> None:
    """Leave a request to the ordinary way, where the same version is to answer it.

    Else what a version refuses, or is slow with, would be refused less often than it has weight.
    """
    if call.ticket is not None:
        connection.extensions[TICKET] = call.ticket


def _never() -> bool:
    return False


async def _nothing() -> Any:
    raise RuntimeError("what is said in a head needs no body. This is a bug.")
