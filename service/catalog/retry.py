"""Retry: when to try again what failed for a reason that may pass."""

import asyncio
from collections.abc import Callable

FIRST_S = 1.0  # until the first further try
MOST_S = 60.0  # between two tries


class Retry:
    """Calls for another try of what failed: after a second, then after twice as long each time."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._call = call
        self._delay_s = FIRST_S
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_due(self) -> bool:
        """Whether something failed in this try."""
        return self._timer is not None

    @property
    def due_at(self) -> float:
        """When it calls, by the event loop's time; 0 if nothing failed."""
        return self._timer.when() if self._timer is not None else 0.0

    def begin(self) -> None:
        """Note that a try begins, called for or not."""
        if self._timer is None:
            self._delay_s = FIRST_S
        elif self.due_at <= asyncio.get_running_loop().time():
            self._delay_s = min(2 * self._delay_s, MOST_S)
        self.end()

    def later(self) -> None:
        """Call for another try; once, however often it is said in this one."""
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._delay_s, self._call)

    def end(self) -> None:
        """Call no more for what failed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
