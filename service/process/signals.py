"""The signals that mean something here, and the terminal whose end SIGHUP may mean."""

import os
import signal

STOPPING = frozenset({signal.SIGTERM, signal.SIGINT})
HANDLED = STOPPING | {signal.SIGHUP, signal.SIGCHLD}  # blocked until there is who handles them
STDIN = 0


class Terminal:
    """The terminal that the service was started in, if it was."""

    def __init__(self) -> None:
        self._was_there = os.isatty(STDIN)

    def is_gone(self) -> bool:
        """Whether it was closed since: then SIGHUP is the end, and no wish to reload."""
        return self._was_there and not os.isatty(STDIN)
