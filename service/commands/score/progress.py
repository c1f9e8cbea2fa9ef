"""How far a job is, on a terminal."""

import os
from datetime import timedelta
from time import monotonic

from service.commands.score.output import Mark
from service.commands.terminal import STDERR, show

SHOW_EVERY_S = 0.5


class Progress:
    """How far it is, on a terminal."""

    def __init__(self, size: int, before: Mark) -> None:
        """Take the size of the input in bytes, 0 if it is not known, and where it begins."""
        self._size = size
        self._before = before
        self._rows, self._bytes = before.rows, before.input_bytes
        self._on_terminal = os.isatty(STDERR)
        self._began = self._shown = monotonic()

    def show(self, rows: int, input_bytes: int) -> None:
        """Show it, if it was not shown just now."""
        self._rows, self._bytes = rows, input_bytes
        if not self._on_terminal or monotonic() - self._shown < SHOW_EVERY_S:
            return
        self._shown = monotonic()
        share = f"{input_bytes / self._size:4.0%}, " if self._size else ""
        show(f"\r\033[K{share}{rows} rows{self.pace}{self._left}")

    def clear(self) -> None:
        """Leave the line to others."""
        if self._on_terminal:
            show("\r\033[K")

    @property
    def pace(self) -> str:
        """How fast it was until now; nothing if that is too short to say."""
        seconds = monotonic() - self._began
        rows = self._rows - self._before.rows
        return f", {rows / seconds:.0f} a second" if seconds > 1 else ""

    @property
    def _left(self) -> str:
        """How long it takes from now on; nothing where that is not known."""
        seconds = monotonic() - self._began
        done = self._bytes - self._before.input_bytes
        if not self._size or seconds <= 1 or done <= 0:
            return ""
        left = round(seconds / done * max(0, self._size - self._bytes))
        return f", {timedelta(seconds=left)} left"
