"""What workers hold that a file said, written into their folder: a worker that takes the place of
another begins with that.
"""

import contextlib
import os
from pathlib import Path


def hold(folder: Path | None, name: str, content: bytes) -> None:
    """Write down what is held. None: there is one worker, and nobody to read it."""
    if folder is None:
        return
    written = folder / f"{name}.{os.getpid()}"
    with contextlib.suppress(OSError):  # the disk is full: then it is of no use
        written.write_bytes(content)
        written.replace(folder / name)


def held(folder: Path | None, name: str) -> bytes | None:
    """Return what others wrote, None if nothing is there."""
    if folder is None:
        return None
    try:
        return (folder / name).read_bytes()
    except OSError:
        return None
