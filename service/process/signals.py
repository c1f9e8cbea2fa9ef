"""The signals that mean something here, how long a stop takes, and what SIGHUP may mean."""

import os
import signal

from service.settings import Settings

STOPPING = frozenset({signal.SIGTERM, signal.SIGINT})
HANDLED = STOPPING | {signal.SIGHUP, signal.SIGCHLD}  # blocked until there is who handles them
STDIN = 0
GRACE_S = 5  # beyond the request timeout, for requests that were accepted before the stop


def longest_stop_s(settings: Settings) -> float:
    """Return how long a stop may take, in seconds: then a process ends whatever it does."""
    longest = max(settings.request_timeout_s, settings.receive_timeout_s)
    return settings.drain_s + GRACE_S + longest


class Terminal:
    """The terminal that the service was started in, if it was."""

    def __init__(self) -> None:
        self._was_there = os.isatty(STDIN)

    def is_gone(self) -> bool:
        """Whether it was closed since: then SIGHUP is the end, and no wish to reload."""
        return self._was_there and not os.isatty(STDIN)
