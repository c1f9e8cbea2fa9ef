"""The three standard streams as the commands use them, also where one is closed or full.

They are written by their numbers, unbuffered: what cannot be written is known immediately, and
nothing is left for Python to write, and to fail at, when it ends.
"""

import contextlib
import os
import threading

from service.errors import NotWritten
from service.words import plain

STDIN, STDOUT, STDERR = range(3)
LAST_S = 1.0


class Stdout:
    """Standard output."""

    def write(self, data: bytes) -> None:
        """Write all of `data`. Raises NotWritten, and BrokenPipeError when nobody reads."""
        try:
            write_all(STDOUT, data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise NotWritten(f"stdout: cannot be written: {error.strerror}") from error

    def line(self, text: str) -> None:
        """Write a text and the end of the line. Raises what `write` raises."""
        self.write(f"{text}\n".encode(errors="backslashreplace"))


def open_closed() -> None:
    """Open those that are closed, so that no other file gets their numbers and what is written.

    The wrong way round, so that who reads or writes there fails as before.
    """
    for number, mode in ((STDIN, os.O_WRONLY), (STDOUT, os.O_RDONLY), (STDERR, os.O_RDONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, mode)  # the lowest number that is free: this one


def say(sentence: str) -> None:
    """Say a sentence on stderr, if that can be written."""
    show(f"torchlit: {plain(sentence)}\n")


def say_last(sentence: str) -> None:
    """As `say`, for LAST_S at most: who reads stderr may have stopped, and this is to end."""
    thread = threading.Thread(target=say, args=(sentence,), daemon=True)
    try:
        thread.start()
    except RuntimeError:  # there is none to be had: it may be why
        say(sentence)
    else:
        thread.join(LAST_S)


def show(text: str) -> None:
    """Write a text to stderr, if that can be written."""
    with contextlib.suppress(OSError):
        write_all(STDERR, text.encode(errors="backslashreplace"))


def write_all(file: int, data: bytes) -> None:
    """Write all of `data` to a file by its number. Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
