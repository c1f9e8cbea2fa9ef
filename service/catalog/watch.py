"""Notice that something changes in a folder, as the operating system reports."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

STEP_MS = (
    200  # between reads of what the system reported; the default, 50, costs four times as much
)


@asynccontextmanager
async def watching(
    folder: Path, on_change: Callable[[], None], on_failure: Callable[[BaseException], None]
) -> AsyncIterator[None]:
    """Call `on_change` in the event loop at the first change in `folder` or below it.

    Once entered no change is missed; `on_failure` is called if it cannot be watched.
    """
    changes, change = await _begin(folder)
    if change.done() and isinstance(change.exception(), PermissionError):
        # The rest can be watched. Not from the first: then no limit that is reached is reported.
        changes, change = await _begin(folder, ignore_permission_denied=True)

    def report(_: asyncio.Task[object]) -> None:
        if change.cancelled():
            return
        error = change.exception()
        if error is None:
            on_change()
        else:
            on_failure(error)

    change.add_done_callback(report)
    try:
        yield
    finally:
        change.cancel()  # the thread that waits for the system ends within STEP_MS, alone
        await asyncio.wait([change])
        await changes.aclose()


async def _begin(
    folder: Path, **options: bool
) -> tuple[AsyncGenerator[Any, None], asyncio.Task[Any]]:
    """Return the changes and a task that waits for the first; it watches, or has failed."""
    from watchfiles import awatch  # here, as only those who watch need it

    changes = awatch(folder, watch_filter=None, step=STEP_MS, **options)
    change = asyncio.create_task(anext(changes))
    await asyncio.sleep(0)  # the task runs up to its first wait
    return changes, change
