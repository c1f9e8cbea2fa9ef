"""The folder in which several workers share their counters."""

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from service.errors import StartupError
from service.settings import Settings, machine

PREFIX = "torchlit-"  # of temporary ones
LOCK = "lock"  # a file in those, locked while a process uses them
YOUNG_S = 60.0  # a folder younger than this may not be locked yet


@contextlib.contextmanager
def metrics_folder(settings: Settings) -> Iterator[Path]:
    """Yield the folder, empty; without a setting one that goes at the end.

    One that was left by a process that was killed goes now. Raises StartupError when it cannot be
    written.
    """
    with contextlib.ExitStack() as stack:
        folder = settings.metrics_dir
        try:
            if folder is None:
                parent = machine.temporary_folder()
                _remove_abandoned(Path(parent))
                temporary = tempfile.TemporaryDirectory(prefix=PREFIX, dir=parent)
                folder = Path(stack.enter_context(temporary))
                stack.enter_context(_locked(folder / LOCK))
            folder.mkdir(parents=True, exist_ok=True)
            for path in folder.glob("*.cells"):
                path.unlink()
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            where = folder or "unset, and the temporary folder"
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
    """Remove the temporary folders of ours whose processes were killed."""
    for lock in parent.glob(f"{PREFIX}*/{LOCK}"):
        with contextlib.suppress(OSError):  # it is another user's, is used, or has just gone
            if time.time() - os.stat(lock).st_mtime > YOUNG_S:
                with _locked(lock):
                    shutil.rmtree(lock.parent)
