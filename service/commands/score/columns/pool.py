"""Worker processes: blocks are handed out, their answers come back, in order.

Each process has the next block while it answers one, so that it waits for nobody. One that ends
before it has answered, as the kernel kills one where memory is short, is replaced, and its blocks
go to others.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Generic, Protocol, Self, TypeVar

from msgspec import Struct

from service.batch.scorer import Scorer
from service.commands.score.columns.worker import Result, Task
from service.errors import CannotScore

MOST_AHEAD = 3  # blocks for each worker that are answered, or being answered, before their turn
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


class Place(Protocol):
    """Where workers are: this machine, or a cluster, whose actors are as a Worker."""

    def start(self) -> Any:
        """Start a worker."""

    def wait(self, pipes: Sequence[Any]) -> Sequence[Any]:
        """Wait for what workers say, or for their end; return those that can be received from."""


class Pool:
    """Answers steps in their order: in this process, or in workers. `with` ends these."""

    def __init__(self, scorer: Scorer, count: int, place: Place | None = None) -> None:
        """Take what answers, and how many workers do, and where; if nowhere, this process does."""
        self._scorer = scorer
        self._place = place
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
        """Give the first steps that nobody has to workers that have room."""
        taken = {id(step) for each in self.workers for step in each.steps}
        for step in steps:
            if step.is_done or id(step) in taken:
                continue
            worker = self._with_room()
            if worker is None:
                return
            worker.take(step)

    def _with_room(self) -> Any:
        """Return a worker that can take a step; start one where all are busy, and few."""
        ready = [each for each in self.workers if each.is_ready and each.has_room]
        least = min(ready, key=lambda each: len(each.steps), default=None)
        if least is not None and not least.steps:
            return least
        while len(self.workers) < self._count:
            self.workers.append(self._at.start())
            if self.workers[-1].is_ready:
                return self.workers[-1]
        return least

    @property
    def _at(self) -> Place:
        if self._place is None:
            raise RuntimeError("steps were handed out that this process answers. This is a bug.")
        return self._place

    def _receive(self) -> None:
        """Wait for an answer, or for the beginning or end of a worker."""
        busy = {each.pipe: each for each in self.workers if each.steps or not each.is_ready}
        for pipe in self._at.wait(list(busy)):
            worker = busy[pipe]
            if not worker.answered():
                self._replace(worker)

    def _replace(self, worker: Any) -> None:
        """Let others take the steps of a worker that has ended. Raises CannotScore."""
        self.workers.remove(worker)
        how = worker.ended()
        worker.stop()
        if not worker.steps:
            self._never_ready += 1
            if self._never_ready == ATTEMPTS * self._count:
                raise CannotScore(
                    f"{self._never_ready} workers ended before they could begin, the last: {how}"
                )
            return
        step = worker.steps[0]
        if step.task is None:
            raise RuntimeError("a worker without a task was waited for. This is a bug.")
        step.attempts += 1
        if step.attempts == ATTEMPTS:
            raise CannotScore(
                f"{step.task.where}: each of {ATTEMPTS} processes ended before it had answered, "
                f"the last with {how}"
            )
