"""stderr, for lines that must hold nobody up: who reads it may be slow, or have stopped reading."""

import logging
import os
import select
import signal
import threading
import time
from queue import SimpleQueue

STDERR = 2
MOST_BYTES = 2**22  # that wait to be written
# Lines that come within this are written together: to wake for each costs a request 10 us.
TOGETHER_S = 0.005
FLUSH_S = 1.0  # at the end, for those that wait then


class Stderr(logging.Handler):
    """Writes lines in a thread, in order. What comes while too many wait is lost, and counted.

    A process that was forked writes its own lines, in a thread of its own.
    """

    def __init__(self, descriptor: int = STDERR, most_bytes: int = MOST_BYTES) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._most_bytes = most_bytes
        self._begin()
        os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        self._lines: SimpleQueue[bytes | None] = SimpleQueue()
        self._thread: threading.Thread | None = None  # from the first line on
        # Each is changed by one side only.
        self._taken_bytes = self._lost = 0
        self._written_bytes = self._told = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Let a record be written."""
        try:
            line = f"{self.format(record)}\n".encode("utf-8", "backslashreplace")
        except Exception:
            self.handleError(record)
            return
        if self._taken_bytes - self._written_bytes + len(line) > self._most_bytes:
            self._lost += 1
            return
        self._taken_bytes += len(line)
        self._lines.put(line)
        if self._thread is None:
            self._thread = self._started()

    def close(self) -> None:
        """Write what waits, for as long as FLUSH_S."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._lines.put(None)
            thread.join(FLUSH_S)
        super().close()

    def _started(self) -> threading.Thread:
        """Return the thread, which takes no signals: they are for those who wait for them."""
        thread = threading.Thread(target=self._write_all, name="log", daemon=True)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            thread.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return thread

    def _write_all(self) -> None:
        is_last = False
        while not is_last:
            waiting = [self._lines.get()]
            time.sleep(TOGETHER_S)
            while not self._lines.empty():
                waiting.append(self._lines.get())
            is_last = waiting[-1] is None
            text = b"".join([line for line in waiting if line is not None])
            _write(self._descriptor, text)
            self._written_bytes += len(text)
            self._tell_lost()

    def _tell_lost(self) -> None:
        count = self._lost - self._told
        if not count:
            return
        self._told += count
        sentence = "%d lines were lost, as nobody read those before them"
        level = logging.WARNING
        record = logging.LogRecord("torchlit.logs", level, "", 0, sentence, (count,), None)
        _write(self._descriptor, f"{self.format(record)}\n".encode())


def _write(descriptor: int, text: bytes) -> None:
    """Write all of a text, whenever that is possible; nothing if nobody can read it."""
    while text:
        try:
            text = text[os.write(descriptor, text) :]
        except BlockingIOError:  # somebody set it so, for all who share it
            select.select([], [descriptor], [])
        except OSError:
            return
