"""Batcher: many small calls become few large ones. Pure asyncio; knows no ONNX and no HTTP.

A call puts its rows in a queue and waits. Idle, the queue is run at the end of the event
loop's turn; while a batch runs, what arrives forms the next one. There is no timer, unless
`max_queue_delay_s` wants one. This is the scheme of huggingface/text-embeddings-inference
(core/src/queue.rs): entries that are cancelled are dropped before the batch forms.

Without an executor, batches run in the event loop, one a turn, so that other work gets its turn
too; with one, they run there and the loop stays free. A request that is larger than a batch puts
two parts at a time into the queue, so that smaller ones pass between them. A caller who is alone
waits for neither: its rows are run where it stands, if they are few enough for the loop. A batch
that holds the loop for more than SLOW_S is the last one there, unless it was the machine that did:
a quota that is used up, or a busy neighbour, holds a batch of microseconds for 100 ms, and no clock
shows which it was (in a virtual machine not even that of CPU time). So it is run again in the
executor.

It has more than 400 lines: what can become of an entry stands in one place.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Executor
from time import perf_counter
from typing import Any

import numpy as np

from service.batching.arrays import Inputs, Outputs, check_rows, joined
from service.batching.entry import UNSHARED, Entry, Observer, Spare, Stop, Timing
from service.batching.execution import Executed, execute
from service.errors import DeadlineExceeded, InvalidInput, QueueFull, Unavailable

PARTS_AT_ONCE = 2  # of a request that is larger than a batch; with one its model would pause
SLOW_S = 0.02  # what holds the event loop for longer does not belong there
_NO_WAIT = (0.0,)


class Batcher:
    """Runs rows in batches of at most `max_batch_size`, in the order they came.

    `run` takes arrays (n, ...) and returns arrays whose first dimension is n. If it raises, or
    returns others, the entries of the batch are run one by one, so that only the culprit fails.
    The arrays of an entry that is run by itself are handed to `run` as they are, and so is what
    it returns.
    """

    def __init__(
        self,
        run: Callable[[Inputs], Outputs],
        observer: Observer,
        *,
        max_batch_size: int,
        max_queue_rows: int,
        max_queue_delay_s: float = 0.0,
        executor: Executor | None = None,
        max_rows_in_loop: int | None = None,
        spare: Spare | None = None,
        stop: Stop | None = None,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        """Take the parts, in the event loop that will call; `executor` is where `run` is called.

        max_rows_in_loop: how many rows may be run in the loop for a caller who is alone; a
        full batch if not given.
        spare: where batches go once one has held the loop for more than SLOW_S; for good if that
        one is slow there too.
        stop: ends the batch in the executor once nobody waits for it any more.
        clock: seconds, by which deadlines are given.
        """
        self._loop = asyncio.get_running_loop()  # kept: finding it costs a system call in 3.11
        self._run = run
        self._observer = observer
        self._clock = clock
        self._max_batch_size = max_batch_size
        self._max_queue_rows = max_queue_rows
        self._max_queue_delay_s = max_queue_delay_s
        self._executor = executor
        self._max_rows_in_loop = max_batch_size
        if max_rows_in_loop is not None:
            self._max_rows_in_loop = min(max_batch_size, max_rows_in_loop)
        self._spare = spare
        self._in_loop = self._executor, self._max_rows_in_loop  # while nothing is too slow for it
        self._check: asyncio.Future[bool] | None = None  # of a batch that was
        self._queue: deque[Entry] = deque()
        self._queued_rows = 0
        self._later_rows = 0  # of requests that are larger than a batch: not in the queue yet
        self._wake: asyncio.Handle | None = None  # the coming batch, if its time is set
        self._wake_is_delayed = False
        self._running: asyncio.Future[Any] | None = None  # the batch in the executor
        self._batch: list[Entry] = []  # its entries
        self._running_since = 0.0
        self._stop = stop
        self._closed = False
        self._someone_left = False  # since the queue was last cleared of cancelled entries
        self._idle = asyncio.Event()
        self._idle.set()

    async def submit(
        self,
        inputs: Inputs,
        rows: int,
        deadline: float,
        *,
        alone: bool = False,
        kind: Hashable = None,
        timing: Timing | None = None,
    ) -> Outputs:
        """Return the outputs for `inputs`, `rows` of them, as arrays whose first dimension is that.

        Only entries of one `kind` share a batch, those of the kind UNSHARED none, and they are not
        cut into several batches. `alone` says that no other caller is about to
        come in this turn of the loop. Raises QueueFull immediately when too many rows wait,
        DeadlineExceeded after `deadline`, Unavailable once closed, and whatever `run` raises for
        these rows. A caller that is cancelled while its rows wait takes them with it; its
        batch-mates are not touched. `timing` gets where the time went.
        """
        if rows > self._max_batch_size and kind is not UNSHARED:
            return await self._submit_in_parts(inputs, rows, deadline, kind, timing)
        future: asyncio.Future[Outputs] = self._loop.create_future()
        entry = Entry(inputs, rows, kind, future, deadline, timing)
        outputs = self.put(entry, alone=alone)
        if outputs is not None:
            return outputs
        try:
            return await future
        except asyncio.CancelledError:
            self.left()
            raise

    async def _submit_in_parts(
        self, inputs: Inputs, rows: int, deadline: float, kind: Hashable, timing: Timing | None
    ) -> Outputs:
        """As `submit`; a part waits until the one before the last is done, so that others pass."""
        now = self._admitted(rows, deadline)
        step, outputs = self._max_batch_size, list[Outputs]()
        waiting: deque[tuple[int, asyncio.Future[Outputs]]] = deque()
        later = rows
        self._note_later(later)
        try:
            for start in range(0, rows, step):
                if len(waiting) == PARTS_AT_ONCE:
                    outputs.append(await self._part(waiting))
                part = [array[start : start + step] for array in inputs]
                size, future = min(step, later), self._loop.create_future()
                later -= size
                self._note_later(-size)
                waiting.append((size, future))
                entry = Entry(part, size, kind, future, deadline, timing)
                self._enqueue(entry, self._clock())
                entry.since = now  # it has waited for those before it
            while waiting:
                outputs.append(await self._part(waiting))
        except BaseException:  # cancelled, or one part failed: nobody wants the others
            for _, future in waiting:
                future.cancel()
            self.left()
            if later:
                self._note_later(-later)
                self._observer.dropped("cancelled", later)
            raise
        finally:
            if not self._queue and self._wake is None and self._running is None:
                self._go_on()
        try:
            return [np.concatenate(arrays) for arrays in zip(*outputs, strict=True)]
        except ValueError as error:
            raise InvalidInput(
                f"the answers to {step} rows each differ in shape; send at most {step} rows"
            ) from error

    async def _part(self, waiting: deque[tuple[int, asyncio.Future[Outputs]]]) -> Outputs:
        """Return the outputs of the first part that waits, which then waits no more."""
        size, future = waiting[0]
        outputs = await future
        check_rows(outputs, size)
        waiting.popleft()
        return outputs

    def _note_later(self, rows: int) -> None:
        """Note rows that were admitted, and stand in the queue when parts before them are done."""
        self._later_rows += rows
        self._observer.queued(rows)
        if self._later_rows:
            self._idle.clear()

    def fits(self, rows: int, kind: Hashable) -> bool:
        """Whether so many rows are one entry."""
        return rows <= self._max_batch_size or kind is UNSHARED

    def put(self, entry: Entry, *, alone: bool = False) -> Outputs | None:
        """As `submit`, for an entry that `fits` and that has its own waiter.

        Return the outputs if they are here already; else the waiter gets them, or what is raised
        when its rows run. Whose waiter is cancelled calls `left`.
        """
        now = self._admitted(entry.size, entry.deadline)
        if alone and entry.size <= self._max_rows_in_loop and self._may_run_immediately():
            return self._run_immediately(entry)
        self._enqueue(entry, now)
        return None

    def left(self) -> None:
        """Note that a waiter waits no more: its rows need no room in the queue."""
        self._someone_left = True
        self._stop_if_unwanted()

    @property
    def running_s(self) -> float:
        """How long the batch in the executor has run so far, in seconds; 0 if none runs there."""
        return 0.0 if self._running is None else self._clock() - self._running_since

    def _stop_if_unwanted(self) -> None:
        """Let the batch in the executor end if nobody waits for it: it might run for ever."""
        runs_for_nobody = self._batch and all(entry.waiter.done() for entry in self._batch)
        if self._stop is not None and runs_for_nobody:
            self._stop.set()

    async def close(self) -> None:
        """Refuse new rows, run those that wait now, and return when each has its answer."""
        self._closed = True
        if self._wake is not None and self._wake_is_delayed:  # for rows that will not come
            self._wake.cancel()
            self._wake_is_delayed = False
            self._wake = self._loop.call_soon(self._run_next)
        await self._idle.wait()
        if self._check is not None:
            await asyncio.wait([self._check])

    def _admitted(self, rows: int, deadline: float) -> float:
        """Return the time. Raises DeadlineExceeded, Unavailable, QueueFull."""
        now = self._clock()
        if deadline <= now:
            self._observer.dropped("deadline", rows)
            raise DeadlineExceeded("the deadline passed before the request was complete")
        if self._closed:
            raise Unavailable("the model is closing; try again")
        if self._waiting_rows + rows > self._max_queue_rows:
            self._make_room(rows)
        return now

    def _make_room(self, rows: int) -> None:
        if self._someone_left:
            self._drop_cancelled()
        # An empty queue takes one request of any size: refusing it would be for ever.
        if self._waiting_rows and self._waiting_rows + rows > self._max_queue_rows:
            self._observer.dropped("queue_full", rows)
            raise QueueFull(
                f"the queue is full: at most {self._max_queue_rows} rows may wait, "
                f"{self._waiting_rows} do; try again later"
            )

    @property
    def _waiting_rows(self) -> int:
        return self._queued_rows + self._later_rows

    def _may_run_immediately(self) -> bool:
        return self._idle.is_set() and not self._max_queue_delay_s

    def _run_immediately(self, entry: Entry) -> Outputs:
        start = self._clock()
        try:
            return self._run(entry.inputs)
        finally:
            seconds = self._clock() - start
            if seconds > SLOW_S:
                self._leave_loop([entry.inputs], entry.size)
            self._observer.ran(entry.size, seconds, _NO_WAIT)
            if entry.timing is not None:
                entry.timing.note(start, start, seconds, ())

    def _enqueue(self, entry: Entry, now: float) -> None:
        entry.since = now
        if self._executor is not None or self._max_queue_delay_s:
            entry.timer = self._loop.call_later(entry.deadline - now, self._expire, entry)
        self._queue.append(entry)
        self._queued_rows += entry.size
        self._observer.queued(entry.size)
        self._schedule()

    def _schedule(self) -> None:
        """Set the time of the coming batch, unless it is set or a batch runs."""
        if self._wake is not None and not self._wake_is_delayed:
            return
        self._idle.clear()
        if self._running is not None:
            return
        is_full = self._queued_rows >= self._max_batch_size
        if self._wake is not None and self._wake_is_delayed and is_full:
            self._wake.cancel()  # the delay is for batches that are not full
            self._wake = None
        if self._wake is None:
            self._wake_is_delayed = bool(self._max_queue_delay_s) and not is_full
            if self._wake_is_delayed:
                self._wake = self._loop.call_later(self._max_queue_delay_s, self._run_next)
            else:
                self._wake = self._loop.call_soon(self._run_next)

    def _run_next(self) -> None:
        """Form the next batch and run it, here or in the executor."""
        self._wake = None
        queued_before = self._queued_rows
        batch = self._form_batch(self._clock())
        self._observer.queued(self._queued_rows - queued_before)
        if batch and self._executor is None:
            executed = execute(self._run, batch, self._clock)
            self._finish(batch, executed)
            if executed[1] > SLOW_S:
                self._leave_loop([each.inputs for each in batch], sum(each.size for each in batch))
        elif batch and self._is_begun(batch):
            return
        self._go_on()

    def _is_begun(self, batch: list[Entry]) -> bool:
        """Begin with a batch in the executor; if that takes none, answer it, and return False."""
        try:
            self._running = self._loop.run_in_executor(
                self._executor, execute, self._run, batch, self._clock
            )
        except Exception as error:
            self._finish(batch, (self._clock(), 0.0, [error] * len(batch)))
            return False
        self._batch, self._running_since = batch, self._clock()
        self._running.add_done_callback(self._on_executed)
        return True

    def _leave_loop(self, parts: Sequence[Inputs], rows: int) -> None:
        """Run in the spare executor from now on, at first the inputs of a batch again, to see."""
        if self._spare is None or self._check is not None:
            return
        try:
            inputs = joined(parts)
        except ValueError:  # they do not fit together, and were run one by one
            inputs = max(parts, key=lambda each: len(each[0]))
        try:
            executor = self._spare.executor()
        except RuntimeError:  # the system has no thread for it now
            return
        self._executor, self._max_rows_in_loop = executor, 0
        for entry in self._queue:
            if entry.timer is None:  # none is needed in the loop: a batch checks the time
                left = entry.deadline - self._clock()
                entry.timer = self._loop.call_later(left, self._expire, entry)
        self._check = self._loop.run_in_executor(self._executor, self._spare.is_slow, inputs, rows)
        self._check.add_done_callback(self._on_checked)

    def _on_checked(self, check: asyncio.Future[bool]) -> None:
        if check.cancelled() or check.exception() is not None or check.result():
            return  # it stays there
        self._executor, self._max_rows_in_loop = self._in_loop
        self._check = None

    def _on_executed(self, done: asyncio.Future[Any]) -> None:
        batch, self._batch, self._running = self._batch, [], None
        if self._stop is not None:
            self._stop.clear()
        try:
            executed = done.result()
        except BaseException as error:  # as SystemExit in a thread: it ends that batch alone
            executed = self._clock(), 0.0, [RuntimeError(repr(error))] * len(batch)
        self._finish(batch, executed)
        self._go_on()

    def _go_on(self) -> None:
        if self._queue:
            self._schedule()
        elif not self._later_rows:
            self._idle.set()

    def _form_batch(self, now: float) -> list[Entry]:
        """Take entries from the queue's head while they fit; drop the expired and the cancelled."""
        batch: list[Entry] = []
        kind: Hashable = None
        room = self._max_batch_size
        queue = self._queue
        while queue:
            entry = queue[0]
            if not batch:
                kind = entry.kind
            elif entry.size > room or entry.kind != kind or kind is UNSHARED:
                break
            queue.popleft()
            self._queued_rows -= entry.size
            if entry.waiter.done():
                self._dropped(entry)
            elif entry.deadline <= now:
                self._loop.call_soon(self._expire, entry)  # who is told may put rows in the queue
                self._dropped(entry)
            else:
                room -= entry.size
                batch.append(entry)
        return batch

    def _finish(self, batch: list[Entry], executed: Executed) -> None:
        start, seconds, results = executed
        waits: list[float] = []
        rows = 0
        for entry, result in zip(batch, results, strict=True):
            rows += entry.size
            waits.append(start - entry.since)
            if entry.timing is not None:
                entry.timing.note(entry.since, start, seconds, batch)
            if entry.timer is not None:
                entry.timer.cancel()
            if entry.waiter.done():  # its caller left while the batch ran
                continue
            if isinstance(result, Exception):
                entry.waiter.set_exception(result)
            else:
                entry.waiter.set_result(result)
        self._observer.ran(rows, seconds, waits)

    def _expire(self, entry: Entry) -> None:
        if not entry.waiter.done():
            self._someone_left = True
            waited = self._clock() - entry.since
            entry.waiter.set_exception(
                DeadlineExceeded(f"the deadline passed after {waited:.3f} s of waiting")
            )
            self._stop_if_unwanted()

    def _drop_cancelled(self) -> None:
        """Take the entries nobody waits for out of the queue."""
        queued_before = self._queued_rows
        waiting = [entry for entry in self._queue if not entry.waiter.done()]
        for entry in self._queue:
            if entry.waiter.done():
                self._queued_rows -= entry.size
                self._dropped(entry)
        self._queue.clear()
        self._queue.extend(waiting)
        self._someone_left = False
        self._observer.queued(self._queued_rows - queued_before)

    def _dropped(self, entry: Entry) -> None:
        if entry.timer is not None:
            entry.timer.cancel()
        if entry.timing is not None:
            entry.timing.dropped(entry.since)
        cancelled = entry.waiter.cancelled()
        self._observer.dropped("cancelled" if cancelled else "deadline", entry.size)
