"""Shadow: the rows that one version answered are answered by another one too, and compared.

Callers have their answers by then, or are about to, and nothing of this reaches them. What was run
is put into a queue of its own, and a thread of its own takes it out again. It works for WORK_S at a
time, then rests REST times as long, so that less than one in a hundred requests can meet it, and
the 99th percentile of their latency stays. Where the queue is full rows are dropped. A low priority
would do worse: the thread would be held up while it has Python's lock, and everybody with it.

Where rows are independent they are chosen one by one, each with the same probability: by batches or
requests, the callers who send many rows would count in lumps. Where they are not, a request is
chosen or not. What finds room is taken, however large it is; once something does not, everything is
dropped until there is room again: small requests get in no more often than large ones.
"""

import asyncio
import contextlib
import logging
import sys
import threading
from collections import deque
from random import random
from time import perf_counter, time
from typing import Any

import numpy as np
from msgspec import Struct

from service.batching import Inputs, Outputs, check_rows
from service.batching.arrays import have_rows
from service.catalog.agreement import Agreement, Compared, rows_of
from service.catalog.served import Kind, ServedModel
from service.engine.model import Model, Stop
from service.errors import InferenceFailed
from service.metrics import ShadowMetrics

logger = logging.getLogger("torchlit.shadow")

GATHER_S = 0.02  # in which rows come together before they are run
WORK_S = 0.005  # at a time
REST = 200  # times as long as it worked
MOST_REST_S = 60.0
WATCH_S = 0.5  # between two looks at what runs
MOST_ROWS = 8192  # that wait
MOST_BYTES = 2**25  # of them, with their answers
MOST_KEPT_BYTES = 2**20  # of rows that were answered otherwise
_NONE = np.empty(0, np.intp)


class Answered(Struct, frozen=True):
    """Rows with their answers."""

    inputs: Inputs
    outputs: Outputs
    rows: int
    are_rows: bool  # independent ones; else they are run as they were
    bytes: int


class Kept(Struct, frozen=True):
    """A row that was answered otherwise, or a request of such rows."""

    since_1970_s: float
    model: Model  # that answered it
    inputs: Inputs
    before: Outputs
    after: Outputs
    bytes: int


class Disagreements:
    """The last rows that were answered otherwise. Any thread may look at them."""

    def __init__(self, most: int) -> None:
        self._kept = deque[Kept](maxlen=most)
        self.most = most

    def add(self, model: Model, inputs: Inputs, before: Outputs, after: Outputs) -> None:
        """Keep one, in place of the oldest if they are too many."""
        parts = [[each.copy() for each in arrays] for arrays in (inputs, before, after)]
        kept = Kept(time(), model, parts[0], parts[1], parts[2], sum(map(_bytes, parts)))
        held = kept.bytes + sum(each.bytes for each in self._kept)
        while self._kept and held > MOST_KEPT_BYTES:
            held -= self._kept.popleft().bytes
        if held <= MOST_KEPT_BYTES:
            self._kept.append(kept)

    def newest_first(self) -> list[Kept]:
        """Return them."""
        return list(reversed(self._kept.copy()))


class Shadow:
    """Runs what one version answered through another one, in a thread of its own."""

    def __init__(
        self,
        name: str,
        before: Model,
        after: ServedModel,
        share: float,
        metrics: ShadowMetrics,
        disagreements: Disagreements,
        longest_run_s: float,
    ) -> None:
        """Take models of the same form, in the event loop; `start` is next.

        name: of both in the log. longest_run_s: what runs for longer is stopped, and failed.
        """
        self._name = name
        self._before, self._after = before, after
        self._model = after.model
        self._share = share
        self._metrics = metrics
        self._disagreements = disagreements
        self._longest_run_s = longest_run_s
        self.agreement = Agreement(before, after.model)
        self._are_joined = not before.is_open_inside
        self._most_rows = _rows_at_once(after.model)
        self._queue = deque[Answered]()
        # Each is added to in one place alone: where the version runs, and in the thread.
        self._put_rows = self._put_bytes = 0
        self._done_rows = self._done_bytes = 0
        self._lost_rows = self._counted_lost_rows = 0.0
        self._is_full = False
        self._wake = threading.Event()
        self._ending = threading.Event()
        self._stop = Stop()
        self._running_since: float | None = None
        self._running = threading.Lock()  # held while one of the last two changes
        self._is_logged = False
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._is_holding = False
        self.ended = asyncio.Event()  # no thread uses the model any more

    def start(self) -> None:
        """Begin. Raises RuntimeError if the system has no thread for it."""
        threading.Thread(target=self._work, name=f"shadow-{self._name}").start()
        self._after.hold()
        self._is_holding = True
        self._watch()

    def end(self) -> None:
        """Let what runs and waits go; the model is held until that is so."""
        self._ending.set()
        self._wake.set()
        with self._running:
            self._stop.set()
        if self._timer is not None:
            self._timer.cancel()
        self._count_lost()

    def release(self) -> None:
        """Hold the model no longer, though something may still run in it."""
        if self._is_holding:
            self._is_holding = False
            self._after.release()
        self.ended.set()

    # Where the version runs.

    def ran(self, inputs: Inputs, outputs: Outputs) -> None:
        """Take rows that were answered, or a share of them. It raises nothing."""
        rows = rows_of(inputs)
        if self._is_full:
            self._lost_rows += rows * self._share
            return
        try:
            self._take(inputs, outputs, rows)
        except Exception:  # as MemoryError: it is not the caller's
            self._lost_rows += rows * self._share

    def _take(self, inputs: Inputs, outputs: Outputs, rows: int) -> None:
        are_rows = self._before.is_batched and all(
            have_rows(arrays, rows) for arrays in (inputs, outputs)
        )
        chosen = chosen_rows(rows, self._share, are_rows=are_rows)
        if chosen is not None:
            rows = len(chosen)
            inputs, outputs = ([each[chosen] for each in arrays] for arrays in (inputs, outputs))
        if not rows:
            return
        size = _bytes(inputs) + _bytes(outputs)
        waiting_bytes = self._put_bytes - self._done_bytes
        if self._put_rows - self._done_rows >= MOST_ROWS or waiting_bytes + size > MOST_BYTES:
            self._is_full = True
            self._lost_rows += rows
            self._wake.set()
            return
        # A body that is a caller's may be let go; what a run answered is nobody else's to change.
        inputs = [each if each.flags.owndata else each.copy() for each in inputs]
        self._put_rows += rows
        self._put_bytes += size
        self._queue.append(Answered(inputs, outputs, rows, are_rows, size))
        if not self._wake.is_set():
            self._wake.set()

    # In the event loop.

    def _watch(self) -> None:
        """Stop what has run for too long, and count what was lost; look again soon."""
        with self._running:
            since = self._running_since
            if since is not None and perf_counter() - since > self._longest_run_s:
                self._stop.set()
        self._count_lost()
        self._timer = self._loop.call_later(min(WATCH_S, self._longest_run_s / 2), self._watch)

    def _count_lost(self) -> None:
        lost = self._lost_rows
        self._metrics.count("dropped", lost - self._counted_lost_rows)
        self._counted_lost_rows = lost

    # In the thread.

    def _work(self) -> None:
        rest_s = GATHER_S
        try:
            while not self._ending.is_set():
                self._wake.wait()
                self._ending.wait(rest_s)
                self._wake.clear()
                begun = perf_counter()
                while (worked_s := perf_counter() - begun) < WORK_S and self._queue:
                    self._compare_some()
                self._is_full = False
                if self._queue:
                    self._wake.set()
                rest_s = max(GATHER_S, min(REST * worked_s, MOST_REST_S))
        finally:
            self._metrics.count("dropped", sum(each.rows for each in self._queue))
            self._queue.clear()
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self.release)

    def _compare_some(self) -> None:
        """Compare what came first, and what may be run with it, as much as is run at once."""
        taken = [self._queue.popleft()]
        rows, kind = taken[0].rows, self._kind(taken[0])
        while rows < self._most_rows and self._queue and self._kind(self._queue[0]) == kind:
            if kind is None:
                break
            taken.append(self._queue.popleft())
            rows += taken[-1].rows
        whole = _joined(taken)
        step = self._most_rows if whole.are_rows else rows
        for at in range(0, rows, step):
            part = whole if step >= rows else _part(whole, at, at + step)
            try:
                self._compare(part)
            except Exception as error:  # of the comparison: the next rows may be other ones
                self._failed(part.rows, error)
        self._done_rows += rows
        self._done_bytes += sum(each.bytes for each in taken)

    def _kind(self, answered: Answered) -> Kind | None:
        """Return what rows have in common that may be run together, None if they may not."""
        if not answered.are_rows or not self._are_joined:
            return None
        return tuple(each.shape[1:] for each in (*answered.inputs, *answered.outputs))

    def _compare(self, batch: Answered) -> None:
        """Run rows and count what came of them; one by one if they fail together."""
        if self._ending.is_set():
            self._metrics.count("dropped", batch.rows)
            return
        try:
            after = self._run(batch)
        except Exception as error:
            if self._ending.is_set():
                self._metrics.count("dropped", batch.rows)
            elif batch.are_rows and batch.rows > 1 and not self._stop.is_set:
                for row in range(batch.rows):
                    self._compare(_part(batch, row, row + 1))
            else:
                self._failed(batch.rows, error)
            return
        self._count(batch, after)

    def _run(self, batch: Answered) -> Outputs:
        with self._running:
            if not self._ending.is_set():
                self._stop.clear()
            self._running_since = perf_counter()
        try:
            outputs = self._model.run(batch.inputs, self._stop)
        finally:
            with self._running:
                self._running_since = None
        if batch.are_rows:
            check_rows(outputs, batch.rows)
        return outputs

    def _count(self, batch: Answered, after: Outputs) -> None:
        compared = self.agreement(batch.outputs, after, batch.rows)
        weight = batch.rows // len(compared.agrees)  # 1, unless all are compared as one
        failed = int(compared.failed.sum()) * weight
        agreed = int(compared.agrees.sum()) * weight
        self._metrics.count("agree", agreed)
        self._metrics.count("disagree", batch.rows - agreed - failed)
        if failed:
            self._failed(failed, InferenceFailed("it answered NaN or infinity"))
        self._metrics.differ(compared.differences)
        if compared.labels is not None:
            self._metrics.pair(*compared.labels)
        if self._disagreements.most:
            self._keep(batch, after, compared)

    def _keep(self, batch: Answered, after: Outputs, compared: Compared) -> None:
        differing = np.flatnonzero(~compared.agrees & ~compared.failed)
        are_apart = len(compared.agrees) == batch.rows and have_rows(batch.inputs, batch.rows)
        for row in differing[-self._disagreements.most :].tolist():
            parts = [batch.inputs, batch.outputs, after]
            if are_apart:
                parts = [[each[row : row + 1] for each in arrays] for arrays in parts]
            self._disagreements.add(self._before, *parts)

    def _failed(self, rows: int, error: Exception) -> None:
        self._metrics.count("failed", rows)
        if not self._is_logged:
            self._is_logged = True
            reason = error.reason if isinstance(error, InferenceFailed) else ""
            logger.warning(
                "shadow %s: %s%s; more is counted and not logged",
                *(self._name, error, f" ({reason})" if reason else ""),
            )


class Absent:
    """Stands where a version has no shadow now: it counts the rows that it would have had."""

    def __init__(self, share: float, metrics: ShadowMetrics) -> None:
        self._share, self._metrics = share, metrics

    def ran(self, inputs: Inputs, outputs: Outputs) -> None:
        """Count them as dropped."""
        self._metrics.count("dropped", rows_of(inputs) * self._share)


def _rows_at_once(model: Model) -> int:
    """Return how many rows are run together: few where more of them take longer than WORK_S."""
    most, row_s, batch_s = model.largest_batch, model.row_s, model.batch_s
    if row_s is None or batch_s is None or batch_s <= max(WORK_S, 2 * row_s):
        return most
    further_row_s = (batch_s - row_s) / (most - 1)
    return 1 + int((max(WORK_S, 2 * row_s) - row_s) / further_row_s)


def chosen_rows(rows: int, share: float, *, are_rows: bool) -> Any:
    """Return the places of a share of the rows, (chosen,); None: all of them."""
    if share == 1:
        return None
    if rows == 1 or not are_rows:
        return None if random() < share else _NONE
    return np.flatnonzero(np.random.random(rows) < share)


def _bytes(arrays: Inputs) -> int:
    """Return how many bytes arrays hold, with their texts."""
    size = 0
    for each in arrays:
        size += each.nbytes
        if each.dtype.kind == "O":
            size += sum(map(sys.getsizeof, each.flat))
    return size


def _joined(group: list[Answered]) -> Answered:
    if len(group) == 1:
        return group[0]
    inputs, outputs = (
        [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]
        for parts in ([each.inputs for each in group], [each.outputs for each in group])
    )
    rows, size = (sum(getattr(each, of) for each in group) for of in ("rows", "bytes"))
    return Answered(inputs, outputs, rows, True, size)


def _part(whole: Answered, begin: int, end: int) -> Answered:
    """Return the rows from `begin` to before `end`."""
    inputs, outputs = (
        [each[begin:end] for each in arrays] for arrays in (whole.inputs, whole.outputs)
    )
    return Answered(inputs, outputs, min(end, whole.rows) - begin, True, whole.bytes)
