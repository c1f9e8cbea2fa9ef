"""How far a training is: a bar on a terminal, a line now and then in a log."""

import sys
import time
from collections.abc import Callable
from typing import Self

from tqdm import tqdm

LOG_EVERY_S = 10.0  # between lines; the last epoch has one in any case
SHOW_EVERY_S = 0.5  # a bar's numbers, where epochs are short

# The number of an epoch, its loss, that of the rows watched, and what measures their metrics.
Epoch = tuple[int, float, float, Callable[[], dict[str, float]]]


class Progress:
    """Shows one training on standard error; one without a title is not shown."""

    def __init__(self, title: str | None, epochs: int, steps_per_epoch: int) -> None:
        self._title, self._epochs = title, epochs
        self._started = self._shown = time.monotonic()
        self._on_terminal = sys.stderr.isatty()
        self._unshown: Epoch | None = None
        self._bar = tqdm(
            desc=title,
            total=epochs * steps_per_epoch,
            unit="step",
            disable=title is None or not self._on_terminal,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and self._unshown is not None:
            self._show(self._unshown, ended=True)  # the last epoch is always shown
        self._bar.close()

    def step(self) -> None:
        """Count one step."""
        self._bar.update()

    def epoch(
        self, number: int, loss: float, held_out: float, measure: Callable[[], dict[str, float]]
    ) -> None:
        """Show an epoch, counted from 1, its two losses and what `measure` finds.

        Not if it comes so soon after the last one shown that nobody could read it: then nothing
        is measured either.
        """
        if self._title is None:
            return
        self._unshown = (number, loss, held_out, measure)
        now = time.monotonic()
        if now - self._shown >= (SHOW_EVERY_S if self._on_terminal else LOG_EVERY_S):
            self._shown = now
            self._show(self._unshown)
            self._unshown = None

    def _show(self, epoch: Epoch, *, ended: bool = False) -> None:
        number, loss, held_out, measure = epoch
        name, value = next(iter(measure().items()))  # the first is the one that matters
        numbers = {"loss": f"{loss:.4f}", "held out": f"{held_out:.4f}", name: f"{value:.4f}"}
        head = f"{self._title}: epoch {number} of {self._epochs}"
        if self._on_terminal:
            self._bar.set_description(head)
            self._bar.set_postfix(numbers)
            return
        passed = time.monotonic() - self._started
        left = f"{_duration(passed / number * (self._epochs - number))} left"
        line = ", ".join(f"{key} {text}" for key, text in numbers.items())
        when = f"after {_duration(passed)}" if ended else left
        print(f"{head}: {line}, {when}", file=sys.stderr)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
