"""How far a job is, on a terminal."""

import os
from time import monotonic

from service.commands.score.output import Mark
from service.commands.terminal import STDERR, show

SHOW_EVERY_S = 0.5


class Progress:
    """How far it is, on a terminal."""

    def __init__(self, size: int, before: int) -> None:
        """Take the size of the input in bytes, 0 if it is not known, and rows of another run."""
        self._size = size
        self._before = self._rows = before
        self._on_terminal = os.isatty(STDERR)
        self._began = self._shown = monotonic()

    def show(self, mark: Mark) -> None:
        """Show it, if it was not shown just now."""
        self._rows = mark.rows
        if not self._on_terminal or monotonic() - self._shown < SHOW_EVERY_S:
            return
        self._shown = monotonic()
        share = f"{mark.input_bytes / self._size:4.0%}, " if self._size else ""
        show(f"\r\033[K{share}{mark.rows} rows{self.pace}")

    def clear(self) -> None:
        """Leave the line to others."""
        if self._on_terminal:
            show("\r\033[K")

    @property
    def pace(self) -> str:
        """How fast it was until now; nothing if that is too short to say."""
        seconds = monotonic() - self._began
        return f", {(self._rows - self._before) / seconds:.0f} a second" if seconds > 1 else ""
