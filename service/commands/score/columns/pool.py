"""Worker processes: blocks are handed out, their answers come back, in order.

A process that ends before it has answered, as the kernel kills one where memory is short, is
replaced, and its block goes to another.
"""

import contextlib
import pickle
import signal
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from multiprocessing import get_context
from multiprocessing.connection import wait
from typing import Any, Generic, Protocol, Self, TypeVar

from msgspec import Struct

from service.batch.scorer import Scorer
from service.commands.score.columns.worker import Result, Task, work
from service.errors import CannotScore

MOST_AHEAD = 2  # blocks for each worker that are answered, or being answered, before their turn
ATTEMPTS = 3  # at a block: processes that end before it is answered

T = TypeVar("T")


class Step(Struct, Generic[T]):
    """A task, if there is one, and what its owner wants to know when its turn comes."""

    task: Task | None
    what: T
    answer: Result | Exception | None = None
    attempts: int = 0

    @property
    def is_done(self) -> bool:
        """Whether nobody has to answer it."""
        return self.task is None or self.answer is not None


class Worker:
    """A process, and the step that it has."""

    is_ready = True  # to take one

    def __init__(self, pickled: bytes) -> None:
        """Start it. Ctrl-C is for the parent alone. Raises CannotScore."""
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.step: Step[Any] | None = None
        self._process = context.Process(target=work, args=(theirs, pickled), daemon=True)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._process.start()
        except OSError as error:
            raise CannotScore(f"--workers: none can be started: {error.strerror}") from error
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()

    @property
    def pid(self) -> int | None:
        """The number of the process."""
        return self._process.pid

    def take(self, step: Step[Any]) -> None:
        """Begin with a step."""
        self.step = step
        with contextlib.suppress(OSError):  # if it has ended, to receive says so
            self.pipe.send(step.task)

    def answered(self) -> bool:
        """Receive the answer to its step; return whether the process lives."""
        step = self.step
        if step is None:
            raise RuntimeError("a worker answered without a task. This is a bug.")
        try:
            step.answer = self.pipe.recv()
        except (EOFError, OSError):
            return False
        self.step = None
        return True

    def ended(self) -> str:
        """Wait for its end; say how that was."""
        self._process.join()
        code = self._process.exitcode or 0
        if code >= 0:
            return f"exit status {code}"
        number = signal.Signals(-code)
        is_memory = number == signal.SIGKILL
        return number.name + ", as where memory is short" * is_memory

    def stop(self) -> None:
        """End it, whatever it does."""
        self.pipe.close()
        self._process.kill()
        self._process.join()


class Place(Protocol):
    """Where workers are: this machine, or a cluster, whose actors are as a Worker."""

    def start(self) -> Any:
        """Start a worker."""

    def wait(self, pipes: Sequence[Any]) -> Sequence[Any]:
        """Wait for what workers say, or for their end; return those that can be received from."""


class Processes:
    """Workers on this machine."""

    def __init__(self, scorer: Scorer) -> None:
        """Take what answers."""
        self._pickled = pickle.dumps(scorer)

    def start(self) -> Worker:
        """Start a process."""
        return Worker(self._pickled)

    def wait(self, pipes: Sequence[Any]) -> Sequence[Any]:
        """Wait for an answer, or for the end of a process."""
        return wait(pipes)


class Pool:
    """Answers steps in their order: in this process, or in workers. `with` ends these."""

    def __init__(self, scorer: Scorer, count: int, place: Place | None = None) -> None:
        """Take what answers, how many workers do, and where; 1 on this machine is this process."""
        self._scorer = scorer
        self._place: Place | None = place or (Processes(scorer) if count > 1 else None)
        self._count = count
        self._never_ready = 0
        self.workers: list[Any] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for each in self.workers:
            each.stop()

    def answer(self, steps: Iterable[Step[T]]) -> Iterator[tuple[T, Result | None]]:
        """Yield what each step is for, and the answer to its task. Raises ServiceError.

        No more than MOST_AHEAD steps for each worker are held in memory.
        """
        if self._place is None:
            for each in steps:
                yield each.what, None if each.task is None else each.task.run(self._scorer)
            return
        rest, ahead = iter(steps), deque[Step[T]]()
        while True:
            while len(ahead) < MOST_AHEAD * self._count and (step := next(rest, None)):
                ahead.append(step)
                self._hand_out(ahead)
            if not ahead:
                return
            while not ahead[0].is_done:
                self._receive()
                self._hand_out(ahead)
            done = ahead.popleft()
            if isinstance(done.answer, Exception):
                raise done.answer
            yield done.what, done.answer

    def _hand_out(self, steps: Iterable[Step[Any]]) -> None:
        """Give the first steps that nobody has to workers that have none."""
        taken = {id(each.step) for each in self.workers}
        for step in steps:
            if step.is_done or id(step) in taken:
                continue
            idle = self._idle()
            if idle is None:
                return
            idle.take(step)

    def _idle(self) -> Any:
        """Return a worker that can take a step; start one where none can, and there is room."""
        for each in self.workers:
            if each.is_ready and each.step is None:
                return each
        while len(self.workers) < self._count:
            self.workers.append(self._at.start())
            if self.workers[-1].is_ready:
                return self.workers[-1]
        return None

    @property
    def _at(self) -> Place:
        if self._place is None:
            raise RuntimeError("steps were handed out that this process answers. This is a bug.")
        return self._place

    def _receive(self) -> None:
        """Wait for an answer, or for the beginning or end of a worker."""
        busy = {each.pipe: each for each in self.workers if each.step or not each.is_ready}
        for pipe in self._at.wait(list(busy)):
            worker = busy[pipe]
            if not worker.answered():
                self._replace(worker)

    def _replace(self, worker: Any) -> None:
        """Let another take the step of a worker that has ended. Raises CannotScore."""
        self.workers.remove(worker)
        step, how = worker.step, worker.ended()
        worker.stop()
        if step is None:
            self._never_ready += 1
            if self._never_ready == ATTEMPTS * self._count:
                raise CannotScore(
                    f"{self._never_ready} workers ended before they could begin, the last: {how}"
                )
            return
        if step.task is None:
            raise RuntimeError("a worker without a task was waited for. This is a bug.")
        step.attempts += 1
        if step.attempts == ATTEMPTS:
            raise CannotScore(
                f"{step.task.where}: each of {ATTEMPTS} processes ended before it had answered, "
                f"the last with {how}"
            )
