"""The folder in which the workers of a service share their counters.

Each service has its own: another may start while it drains, or have the same settings.
"""

import contextlib
import errno
import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from service.errors import StartupError
from service.settings import Settings, machine

PREFIX = "torchlit-"  # of the folders of services
LOCK = "lock"  # a file in those, locked while a process uses them
YOUNG_S = 60.0  # a folder younger than this may not be locked yet
FULL = (errno.ENOSPC, errno.EDQUOT)


@contextlib.contextmanager
def metrics_folder(settings: Settings) -> Iterator[Path]:
    """Yield a folder of this service alone, which goes at the end, in that of the settings.

    Those that were left by processes that were killed go now. Raises StartupError when none can be
    written. Where the disk is full there is none yet: the workers make it when there is a place.
    """
    parent = settings.metrics_dir or Path(machine.temporary_folder())
    folder = parent / f"{PREFIX}{os.urandom(8).hex()}"
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        try:
            parent.mkdir(parents=True, exist_ok=True)
            _remove_abandoned(parent)
            folder.mkdir(0o700)
            stack.enter_context(_locked(folder / LOCK))
        except OSError as error:
            if error.errno not in FULL:
                where = settings.metrics_dir or "unset, and the temporary folder"
                raise StartupError(
                    f"TORCHLIT_METRICS_DIR: {where}: cannot be written: {error.strerror}"
                ) from error
        yield folder


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file; forked workers hold it too, as long as one of them runs."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def _remove_abandoned(parent: Path) -> None:
    """Remove the folders of services whose processes were killed."""
    for lock in parent.glob(f"{PREFIX}*/{LOCK}"):
        with contextlib.suppress(OSError):  # it is another user's, is used, or has just gone
            if time.time() - os.stat(lock).st_mtime > YOUNG_S:
                with _locked(lock):
                    shutil.rmtree(lock.parent)
