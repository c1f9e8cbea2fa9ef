"""What waits in the queue, and where its time goes."""

import asyncio
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Executor
from typing import Final, Protocol

from msgspec import Struct

from service.batching.arrays import Inputs, Outputs

UNSHARED: Final = object()  # the kind of entries that share no batch, and are run as they were sent


class Observer(Protocol):
    """Who observes what happens in a queue."""

    def queued(self, rows: int) -> None:
        """Note that so many rows more wait now, or fewer."""

    def dropped(self, reason: str, rows: int) -> None:
        """Note rows that will never be computed: "queue_full", "deadline" or "cancelled"."""

    def ran(self, rows: int, seconds: float, waits: Sequence[float]) -> None:
        """Note a batch of so many rows, and how long each of its entries waited, in seconds."""


class Stop(Protocol):
    """What ends the run in the executor: threading.Event is one, for a run that heeds it."""

    def set(self) -> None:
        """Let the run end."""

    def clear(self) -> None:
        """Let those that follow go on."""


class Waiter(Protocol):
    """Who waits for outputs: asyncio.Future is one."""

    def done(self) -> bool:
        """Whether it waits no more."""

    def cancelled(self) -> bool:
        """Whether its caller left."""

    def set_result(self, outputs: Outputs, /) -> None:
        """Take the outputs."""

    def set_exception(self, error: Exception, /) -> None:
        """Take what went wrong."""


class Timing:
    """Where the time of a request went, in seconds; `submit` notes it for those who want to know.

    `queue_s` is until the batch of its first rows began, `compute_s` the time of all batches that
    held rows of it.
    """

    __slots__ = ("compute_s", "queue_s")

    def __init__(self) -> None:
        self.queue_s = self.compute_s = 0.0

    def note(self, since: float, start: float, seconds: float, batch: Sequence["Entry"]) -> None:
        """Add a batch that began at `start` and took `seconds`, of rows that waited since then.

        batch: the entries in it; none of rows that were run where their caller stood.
        """
        if not self.compute_s:
            self.queue_s = start - since
        self.compute_s += seconds

    def dropped(self, since: float) -> None:
        """Note that rows which waited since then will never be run; nobody is told of them."""


class Spare(Struct, frozen=True):
    """Where batches go that are too slow for the loop."""

    executor: Callable[[], Executor]  # called when it is needed; RuntimeError if there is none
    is_slow: Callable[[Inputs, int], bool]  # called there: whether these rows really are slow


class Entry(Struct, eq=False):
    """Rows that wait, and who waits for their outputs."""

    inputs: Inputs
    size: int
    kind: Hashable
    waiter: Waiter
    deadline: float  # by the clock of the batcher
    timing: Timing | None = None
    since: float = 0.0  # by the same clock
    timer: asyncio.TimerHandle | None = None
