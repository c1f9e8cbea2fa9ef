"""HTTP/1.1 as uvicorn speaks it, with one system call a reply, with limits, and a direct way.

uvicorn waits for ever for a client that connects and says nothing, or that sends a byte now and
then; it bounds neither the head of a request nor the number of connections so that probes still
get through; and it answers a client that has left. What it lacks is here.
"""

import asyncio
from math import inf
from typing import Any

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from service.entrance.limits import Limits
from service.entrance.memory import grown
from service.entrance.writes import JoinedWrites
from service.errors import MemoryFull, RequestError, RequestTimeout
from service.http import arrival
from service.http.direct import Answer, Direct, Head
from service.http.heads import Heads
from service.http.reply import (
    WHOLE_REPLY,
    Fragments,
    Reply,
    all_headers,
    error_reply,
    sent,
    written,
)
from service.http.status import Headers

JUST_CONNECTED_S = 1.0  # what a new connection gets at a stop to say something
SHORT_REST = 65_536  # bytes of a request that are read behind its reply, to keep the connection
HEAD_END = b"\r\n\r\n"


class Protocol(Heads):
    """uvicorn's protocol over JoinedWrites, within Limits."""

    def __init__(self, limits: Limits, direct: Direct, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._limits = limits
        self._direct = direct
        self._answer: Answer | None = None  # that is under way directly
        self._new_head = b""  # of the request that is parsed, to be learned
        self._was_heard = False  # whether a request came
        self._is_last = False  # whether to close behind what is answered directly
        self._running: tuple[RequestResponseCycle, asyncio.Task[None]] | None = None
        self._waiting_since = inf  # since when a complete request, of which something is here
        self._idle_since = inf  # since when the next request
        self._is_begun = False  # a request; its end has not come
        self._may_stay = False  # open behind the reply to that, once its end has come
        self._body: bytes | bytearray = b""  # what is here of the request that comes in
        self.extensions: dict[str, Any] = {WHOLE_REPLY: self._send_whole}
        self._held = 0  # bytes of what came in, until it is answered
        self._is_half_closed = False  # the client sends no more, and waits for answers

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to speak on a new connection."""
        self._writes = JoinedWrites(transport, self.loop)  # type: ignore[arg-type]
        super().connection_made(self._writes)  # type: ignore[arg-type]
        self.flow: arrival.Flow = arrival.Flow(self._writes)
        self._waiting_since = self._limits.now  # who connects is to say something
        self._has_place = self._limits.enter(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the task that would answer: nobody waits for it."""
        super().connection_lost(exc)
        self._limits.leave(self)
        self._hold(0)
        self._limits.memory.give(self._writes.unsent)
        self._writes.unsent = 0
        self.extensions.clear()  # it holds this connection, and is held by its last request
        if self._answer is not None:
            self.tasks.discard(self._answer)
            self._answer.cancel()
            self._answer = None  # it holds this connection, too
        if self._is_arriving():
            self._limits.count("cancelled")
        self._cancel_running()

    def _cancel_running(self) -> None:
        if self._running is not None and not self._running[1].done():
            cycle, task = self._running
            cycle.disconnected = True  # uvicorn says it to the newest only, which may wait behind
            task.cancel()

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio takes it
        """Answer what came completely, then close: the client sends no more (RFC 9112, 9.6)."""
        self._writes.is_receiving = False
        self._is_half_closed = self._is_awaited()
        if self._is_half_closed:
            self._limits.half_closed.add(self)
        else:
            self._writes.flush()  # uvloop closes
        return self._is_half_closed

    def _is_awaited(self) -> bool:
        """Whether a request that came completely has no answer yet."""
        return self._answer is not None or self._is_behind() or bool(self.pipeline)

    def data_received(self, data: bytes) -> None:
        """Take what the client sent; refuse a head, or trailers, that are too long."""
        if self._answer is not None or self.pipeline:
            self.flow.put_behind(data)
            return
        if not self._is_begun and (self.cycle is None or self.cycle.response_complete):
            size = data.find(HEAD_END) + len(HEAD_END)
            self._new_head = data[:size] if size >= len(HEAD_END) else b""
            head = self._direct.heads.get(self._new_head)
            if (
                head is not None
                and len(data) == size + head.body_bytes
                and self._may_be_direct()
                and self._is_answered_directly(head, data[size:])
            ):
                return
        for place, piece in arrival.pieces(data, self.rest):
            if self.pipeline:
                self.flow.put_behind(data[place:])
            if self.pipeline or self.transport.is_closing():
                break
            self.head_bytes += len(piece)
            self.feed(piece)
            if self.head_bytes > arrival.MAX_HEAD_BYTES and not self.transport.is_closing():
                self.refuse(arrival.head_too_large())
        if self._is_begun:
            self._expect_rest()

    def _expect_rest(self) -> None:
        """Make a reply that comes before the rest of its request the last one (RFC 9112, 9.3).

        Unless the rest is short, and comes: who waits to be told to go on may never send it.
        """
        self._writes.is_receiving = True
        cycle = self.cycle
        if cycle is None or cycle.scope is not self.scope or not cycle.keep_alive:
            return
        if self.rest() > SHORT_REST or cycle.waiting_for_100_continue:
            cycle.keep_alive = False
            self._may_stay = True

    def _may_be_direct(self) -> bool:
        return self._has_place and not self.flow.write_paused

    def _is_answered_directly(self, head: Head, body: bytes) -> bool:
        self._answer = answer = self._direct.answer(self, head, body)
        if answer is None:
            return False
        self._was_heard = True
        self._waiting_since = self._idle_since = inf
        self.tasks.add(answer)  # type: ignore[arg-type]  # waited for, and cancelled, as one
        answer.begin()
        return True

    def is_alone(self) -> bool:
        """Whether no other caller is about to send something in this turn of the loop."""
        return len(self.connections) == 1

    def write(self, reply: Reply, id: bytes, others: bytes, *, is_last: bool) -> None:
        """Send the reply of what is answered directly, and go on to what comes next.

        others: lines of further headers. is_last: whether to close behind it.
        """
        self.tasks.discard(self._answer)
        self._answer = None
        self._idle_since = self._limits.now
        if self._writes.is_closing():
            return
        lines = self._direct.default_lines(self.server_state.default_headers)
        self._writes.write_now(written(reply, id, lines + others))
        if is_last or self._is_last:
            self._writes.is_receiving = bool(self.flow.behind)
            self.transport.close()
        elif self.flow.behind or self._is_half_closed:
            self._go_on()

    def _go_on(self) -> None:
        """Read again, first what is here already."""
        behind = self.flow.take_behind()
        if behind:
            self.data_received(behind)
        if self._is_half_closed and not self._is_awaited():
            self.transport.close()

    def on_message_begin(self) -> None:
        """Begin with a request: its first byte is here."""
        super().on_message_begin()
        self._is_begun = self._was_heard = True
        self._body = b""
        self._waiting_since = self._limits.now
        self._idle_since = inf

    def on_body(self, body: bytes) -> None:
        """Take a fragment of the body; the app gets all of them together, unless that is too long.

        uvicorn copies each fragment thrice and stops reading after 64 kB, until the app took them.
        """
        self.head_bytes = 0
        if self.cycle.response_complete or self.transport.is_closing():
            return  # refused before it was complete
        self.body_bytes += len(body)
        try:
            self._limits.memory.take(len(body), self._held)
        except MemoryFull as error:
            self._body = b""
            self.refuse(error)
            self._limits.make_room()
            return
        self._held += len(body)
        self._body = grown(self._body, body)
        if self.body_bytes > self._limits.max_body_bytes:
            super().on_body(bytes(self._body))  # the app will refuse it
            self._body = b""

    def on_message_complete(self) -> None:
        """Note that the complete request is here."""
        if self.has_offer:
            self._new_head = b""
            return
        if self._new_head:
            self._direct.learn(self._new_head, self.scope)  # type: ignore[arg-type]  # the same, by ASGI
            self._new_head = b""
        if self._body:
            self.cycle.body = self._body  # type: ignore[assignment]  # it is only read
            self._body = b""
        super().on_message_complete()
        self._is_begun = self._writes.is_receiving = False
        if self._may_stay:
            self._may_stay = False
            self.cycle.keep_alive = not self.cycle.response_started
        if not self.parser.should_keep_alive():  # it parses no more, also where a trailer said so
            self.cycle.keep_alive = False
            if self.cycle.response_complete:
                self.transport.close()
        self._waiting_since = inf
        if self.flow.read_paused and not self.pipeline:
            self.flow.resume_reading()  # else nobody would see that the client leaves

    def on_response_complete(self) -> None:
        """Go on to what the connection brings next; a reply that is the only one is not held.

        Others leave together at the end of the turn: their callers then ask again together, which
        makes full batches (sent one by one, MNIST lost a third of its requests per second).
        This is uvicorn's without its timer for each request; `Limits.check` sees who is idle.
        """
        self.server_state.total_requests += 1
        self._hold(self.body_bytes if self._is_begun else 0)
        if len(self.tasks) == 1:
            self._writes.flush()
        if self.transport.is_closing():
            return
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self._idle_since = self._limits.now
        if not self.pipeline:
            self._go_on()

    def cut_off_if_slow(self) -> None:
        """Close the connection if the client is slow, to send or to take a reply, or idle."""
        limits = self._limits
        limits.memory.held += self._writes.look(limits.now)
        if self._is_half_closed and self._writes.is_reset():
            self.transport.abort()
            return
        if limits.is_over(self._writes.untaken_since, limits.timeout_s):
            self.transport.abort()
        elif self._writes.is_lingering:
            self._idle_since = min(self._idle_since, limits.now)
            if limits.is_over(self._idle_since, limits.timeout_s):
                self.transport.abort()
        elif self._is_behind():  # reading is paused
            self._waiting_since = limits.now if self._is_begun else inf
        elif limits.is_over(self._waiting_since, limits.timeout_s):
            if self._is_arriving():
                within = f"{limits.timeout_s:g} s"
                self.refuse(RequestTimeout(f"expected the complete request within {within}"))
            else:  # nothing was said, or the rest of what is answered already does not come
                self.transport.close()
        elif limits.is_over(self._idle_since, limits.keep_alive_s):
            self.transport.close()

    def _hold(self, size: int) -> None:
        """Hold so many bytes of what came in, and no more."""
        self._limits.memory.give(self._held - size)
        self._held = size

    def idle_since(self) -> float:
        """Return since when nobody waits for anything here; infinity if somebody does."""
        if self._is_arriving() or self.transport.get_write_buffer_size() > 0:
            return inf
        return self._idle_since if self._was_heard else self._waiting_since

    def is_answering(self) -> bool:
        """Whether a request that came completely waits for its answer."""
        return self._running is not None and not self._running[1].done() and not self._is_begun

    def let_go(self) -> None:
        """End immediately, unless a reply is on its way: its client may have left."""
        self._writes.flush()
        cycle = None if self._running is None else self._running[0]
        waits = self._answer is not None or (cycle is not None and not cycle.response_started)
        if waits and self.transport.get_write_buffer_size() == 0:
            self.transport.abort()

    def give_way(self) -> None:
        """End immediately, for another connection."""
        is_answered = self.cycle is not None and self.cycle.response_started
        if not self._has_place and not is_answered and not self.transport.is_closing():
            self._limits.count("too_many_connections")
            self._is_begun = False  # it is counted
        self.transport.abort()

    def shutdown(self) -> None:
        """Close when all is answered; who has just connected is about to ask, and may."""
        if not self._was_heard:
            self.loop.call_later(JUST_CONNECTED_S, self._close_if_silent)
        elif self._answer is not None:
            self._is_last = True
        else:
            self._may_stay = False
            super().shutdown()

    def _close_if_silent(self) -> None:
        if not self._was_heard and self in self.connections:  # no other took it over
            self.transport.close()

    def _is_behind(self) -> bool:
        """Whether what comes in stands behind a request that is being answered."""
        if self._running is None:
            return False
        cycle, _ = self._running
        return not cycle.response_complete and not (self._is_begun and cycle.scope is self.scope)

    def _is_arriving(self) -> bool:
        """Whether a request has begun whose end has not come, nor its answer."""
        return self._is_begun and not self._is_answered()

    def _is_answered(self) -> bool:
        """Whether the request that comes in has got a reply already."""
        is_own = self.cycle is not None and self.cycle.scope is self.scope
        return is_own and self.cycle.response_started

    def refuse(self, error: RequestError) -> None:
        """Answer in place of the app, and close."""
        self._writes.is_receiving = True
        if self._is_begun and self._is_answered():
            self.transport.close()
            return
        self._limits.count(error.outcome)
        if self._running is not None and self._is_behind():
            self._running[0].keep_alive = False  # that answer comes first, and is the last
            self.pipeline.clear()
            self.flow.pause_reading()
            self._is_begun = False
            return
        self._is_begun = False
        self._cancel_running()
        reply = error_reply(error)
        headers = [*self.server_state.default_headers, (b"connection", b"close")]
        self.transport.write(sent(reply.status, all_headers(reply, headers), reply.body))
        self.transport.close()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """As uvicorn's, but keep the task, to cancel it when the client leaves."""
        if not self._has_place:
            self._has_place = self._limits.place(self)
            if not self._has_place:
                app = self._limits.when_full
                cycle.keep_alive = False
        cycle.scope["extensions"] = self.extensions
        task = self.loop.create_task(cycle.run_asgi(app))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)
        self._running = cycle, task

    async def _send_whole(self, status: int, headers: Headers, body: Fragments) -> None:
        """Send the complete reply of the request that is answered, as two calls of its `send` do.

        Those match each header of each reply with regular expressions, for 2 microseconds.
        """
        assert self._running is not None
        cycle, _ = self._running
        if cycle.flow.write_paused and not cycle.disconnected:
            await cycle.flow.drain()
        if cycle.disconnected:
            return
        if (b"connection", b"close") in headers:
            cycle.keep_alive = False
        elif not cycle.keep_alive:
            headers.append((b"connection", b"close"))
        body = [] if cycle.scope["method"] == "HEAD" else body
        self.transport.write(sent(status, (*cycle.default_headers, *headers), body))
        cycle.response_started = cycle.response_complete = True
        cycle.message_event.set()
        if not cycle.keep_alive:
            self.transport.close()
        self.on_response_complete()
