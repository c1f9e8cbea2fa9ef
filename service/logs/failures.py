"""Why requests fail, in the log: each kind once a second, and how many more there were."""

import asyncio
import logging
import traceback
from collections.abc import Callable, Hashable
from contextvars import Context
from typing import Any

logger = logging.getLogger("torchlit.failures")

EVERY_S = 1.0


def _later(function: Callable[..., None], *arguments: Any) -> None:
    """Call a function in EVERY_S, outside of any request."""
    asyncio.get_running_loop().call_later(EVERY_S, function, *arguments, context=Context())


class Failures:
    """Logs failures, called in the event loop.

    The first of a kind is logged immediately, with the id of its request; those of the second
    after it are counted.
    """

    def __init__(self, later: Callable[..., None] = _later) -> None:
        """`later` calls a function with arguments after EVERY_S."""
        self._later = later
        self._more: dict[Hashable, int] = {}  # of each kind, since its last line

    def log(self, sentence: str) -> None:
        """Log why a request failed."""
        if self._is_first(sentence):
            logger.error("%s", sentence)
            self._wait(sentence, sentence)

    def log_bug(self, where: str, error: Exception) -> None:
        """Log what was never meant to be raised: where it was, and no values of the request."""
        kind = type(error), *(line for _, line in traceback.walk_tb(error.__traceback__))
        if self._is_first(kind):
            sentence = f"{where}: this is a bug"
            logger.error("%s\n%s", sentence, _traceback(error))
            self._wait(kind, sentence)

    def _is_first(self, kind: Hashable) -> bool:
        if kind in self._more:
            self._more[kind] += 1
            return False
        return True

    def _wait(self, kind: Hashable, sentence: str) -> None:
        self._more[kind] = 0
        self._later(self._tell, kind, sentence)

    def _tell(self, kind: Hashable, sentence: str) -> None:
        more = self._more.pop(kind)
        if more:
            logger.error("%s (%d more in %.0f s)", sentence, more, EVERY_S)
            self._wait(kind, sentence)


def _traceback(error: BaseException) -> str:
    """Return the traceback of an error and its causes, without their texts."""
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    before = f"{_traceback(cause)}\n\nthen\n\n" if cause else ""
    frames = "".join(traceback.format_tb(error.__traceback__))
    return f"{before}Traceback (most recent call last):\n{frames}{type(error).__name__}"
