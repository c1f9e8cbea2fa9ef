"""Worker processes on this machine. Nothing heavy is imported here: while the processes import what
they need, so does the one that starts them.
"""

import contextlib
import pickle
import signal
from collections import deque
from collections.abc import Sequence
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any, Self

from service.commands.interrupts import no_interrupt
from service.errors import CannotScore
from service.settings.machine import available

if TYPE_CHECKING:
    from service.batch.scorer import Scorer
    from service.commands.score.columns.pool import Step

MOST_TASKS = 2  # of a worker: one that it answers, and the next


class Worker:
    """A process, and the steps that it has, in the order in which it answers them."""

    is_ready = True  # to take one

    def __init__(self) -> None:
        """Start it. Ctrl-C is for the parent alone. Raises CannotScore."""
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.steps: deque[Step[Any]] = deque()
        self._process = context.Process(target=_work, args=(theirs,), daemon=True)
        resource_tracker.ensure_running()  # as `start` would, and it unblocks SIGINT
        try:
            with no_interrupt(signal.SIGTERM):  # one that has not got its work says a traceback
                self._process.start()
        except OSError as error:
            raise CannotScore(f"--workers: none can be started: {error.strerror}") from error
        finally:
            theirs.close()

    @property
    def pid(self) -> int | None:
        """The number of the process."""
        return self._process.pid

    @property
    def has_room(self) -> bool:
        """Whether it takes a step."""
        return len(self.steps) < MOST_TASKS

    def open(self, scorer: bytes) -> None:
        """Let it open a model: a Scorer that is pickled."""
        self._send(scorer)

    def take(self, step: "Step[Any]") -> None:
        """Take a step, which it begins with behind those that it has."""
        self.steps.append(step)
        self._send(step.task)

    def _send(self, what: object) -> None:
        with contextlib.suppress(OSError):  # if it has ended, to receive says so
            self.pipe.send(what)

    def answered(self) -> bool:
        """Receive the answer to its first step; return whether the process lives."""
        try:
            self.steps[0].answer = self.pipe.recv()
        except (EOFError, OSError):
            return False
        self.steps.popleft()
        return True

    def ended(self) -> str:
        """Wait for its end; say how that was."""
        self._process.join()
        code = self._process.exitcode or 0
        if code >= 0:
            return f"exit status {code}"
        if -code == signal.SIGKILL:
            return "SIGKILL, as where memory is short"
        named = -code in signal.Signals.__members__.values()  # not those of real time
        return signal.Signals(-code).name if named else f"signal {-code}"

    def stop(self) -> None:
        """End it, whatever it does."""
        self.pipe.close()
        self._process.kill()
        self._process.join()


def _work(pipe: Connection) -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    from service.commands.score.columns.worker import work

    work(pipe)


class Processes:
    """Workers on this machine. `with` ends those that nobody took."""

    def __init__(self, count: int) -> None:
        """Start them, if they are several, but no more than there are cores: rows may be few.

        Raises CannotScore.
        """
        self.count = count
        self._started: list[Worker] = []
        self._scorer = b""
        try:
            for _ in range(min(count, available().workers) if count > 1 else 0):
                self._started.append(Worker())
        except CannotScore:
            self._stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stop()

    def _stop(self) -> None:
        for each in self._started:
            each.stop()

    def open(self, scorer: "Scorer") -> None:
        """Let those that are started from now on open a model."""
        self._scorer = pickle.dumps(scorer)

    def start(self) -> Worker:
        """Return a worker that has nothing to do yet. Raises CannotScore."""
        worker = self._started.pop() if self._started else Worker()
        worker.open(self._scorer)
        return worker

    def wait(self, pipes: Sequence[Any]) -> Sequence[Any]:
        """Wait for an answer, or for the end of a process."""
        return wait(pipes)
