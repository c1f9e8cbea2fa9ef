"""What held the event loop is run again in a thread: was it the model, or the machine."""

import time
from typing import Any

import numpy as np
import pytest

from service.batching import SLOW_S, Inputs, Outputs
from service.catalog.served import OwnThread
from service.errors import InferenceFailed

ROWS: Inputs = [np.ones((2, 4), np.float32)]


class Slow:
    """What runs like a model, for so many seconds each time."""

    def __init__(self, *seconds: float, error: Exception | None = None) -> None:
        self._seconds = list(seconds)
        self._error = error
        self.runs = 0

    def run(self, inputs: Inputs) -> Outputs:
        time.sleep(self._seconds[min(self.runs, len(self._seconds) - 1)])
        self.runs += 1
        if self._error is not None:
            raise self._error
        return inputs


@pytest.mark.parametrize(
    ("seconds", "is_slow", "runs"),
    [
        ([0.0], False, 1),
        ([2 * SLOW_S], True, 3),  # each time
        ([2 * SLOW_S, 2 * SLOW_S, 0.0], False, 3),  # the machine was busy
        ([12 * SLOW_S], True, 1),  # no machine is as busy as that
    ],
)
def test_rows_are_slow_if_they_are_so_each_time(
    seconds: list[float], is_slow: bool, runs: int, caplog: pytest.LogCaptureFixture
) -> None:
    model: Any = Slow(*seconds)
    assert OwnThread("toy", 3, model).is_slow(ROWS, 2) is is_slow
    assert model.runs == runs
    told = "model toy version 3: 2 rows held the event loop, and take "
    assert (told in caplog.text) is is_slow


def test_rows_that_fail_may_be_slow_too() -> None:
    model: Any = Slow(12 * SLOW_S, error=InferenceFailed("no"))
    assert OwnThread("toy", 1, model).is_slow(ROWS, 2)


def test_the_thread_is_started_once_it_is_needed() -> None:
    thread = OwnThread("toy", 1, Slow(0.0))  # type: ignore[arg-type]
    assert not thread.is_started
    thread.end()
    assert thread.started() is thread.started()
    assert thread.is_started
    thread.end()
