"""Ctrl-C that waits: where it would become another error, or be lost."""

import contextlib
import signal
from collections.abc import Iterator


@contextlib.contextmanager
def no_interrupt(*others: signal.Signals) -> Iterator[None]:
    """Let Ctrl-C wait, and other signals: what is written in C makes other errors of it while it
    is imported. A process that is started meanwhile inherits that.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, *others})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
