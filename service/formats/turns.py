"""Long work in a thread: it lets other threads run, and ends at its deadline."""

from time import perf_counter, sleep

from service.errors import DeadlineExceeded

_EVERY_S = 0.004
_PAUSE_S = 0.0001


def check_deadline(deadline: float) -> None:
    """Raise DeadlineExceeded where it passed, in seconds by `perf_counter`."""
    if perf_counter() > deadline:
        raise DeadlineExceeded("the deadline passed before the body was read")


class Turns:
    """Called now and then by work in a thread, so that nobody waits long for Python's lock.

    Its switch interval is not enough: each time NumPy lets the lock go for an instant, the clock of
    those who wait for it begins anew (CPython 3.11, Python/ceval_gil.h, take_gil).
    """

    def __init__(self) -> None:
        self._due = perf_counter() + _EVERY_S

    def __call__(self) -> None:
        """Pause for an instant, if the last time is long ago."""
        if perf_counter() > self._due:
            sleep(_PAUSE_S)
            self._due = perf_counter() + _EVERY_S
