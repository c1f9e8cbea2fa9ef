"""Notice that something changes in a folder, as the operating system reports."""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

STEP_MS = (
    200  # between reads of what the system reported; the default, 50, costs four times as much
)
_MOST_LINKS = 40  # on the way to a file, as Linux has it (path_resolution(7))


@asynccontextmanager
async def watching(
    folder: str | None,
    files: Iterable[str],
    on_change: Callable[[], None],
    on_failure: Callable[[BaseException], None],
) -> AsyncIterator[None]:
    """Call `on_change` in the event loop at the first change in `folder` or below it.

    Or at one of the links, wherever they lie, by which a path of `files` leads out of the folder,
    or of the file that it leads to; without a folder at these alone. Once entered no change is
    missed; `on_failure` is called if something cannot be watched.
    """

    def report(change: asyncio.Task[object]) -> None:
        if change.cancelled():
            return
        error = change.exception()
        if error is None:
            on_change()
        else:
            on_failure(error)

    async with AsyncExitStack() as stack:
        if folder is not None:
            await stack.enter_async_context(_first_change({folder}, report, watch_filter=None))
        places = await asyncio.to_thread(places_outside, folder, files)
        if places:
            beside = _first_change(
                {os.path.dirname(place) for place in places},
                report,
                watch_filter=lambda _, path: path in places,
                recursive=False,
            )
            await stack.enter_async_context(beside)
        yield


def places_outside(folder: str | None, files: Iterable[str]) -> set[str]:
    """Return the paths that decide what is behind `files`, and that do not lie in `folder`.

    Of one that is not there it is the part that is missing. Without a folder all of them count.
    """
    links, root = (set[str](), None) if folder is None else _way_to(folder)
    for path in files:
        on_the_way, end = _way_to(path)
        links |= on_the_way | {end}
    outside = {place for place in links if root is None or not f"{place}/".startswith(f"{root}/")}
    return {_first_missing(place) for place in outside}


def _way_to(path: str) -> tuple[set[str], str]:
    """Return the links on the way that the system takes to a path, and where it ends."""
    links: set[str] = set()
    hops = 0
    rest = os.path.abspath(path).split("/")[1:]
    place = ""  # without any link in it
    while rest:
        part = rest.pop(0)
        if part in ("", "."):
            continue
        if part == "..":
            place = os.path.dirname(place)
            continue
        try:
            target = os.readlink(f"{place}/{part}")
        except OSError:  # it is no link
            place = f"{place}/{part}"
            continue
        hops += 1
        if hops > _MOST_LINKS:  # they go round in a circle
            break
        links.add(f"{place}/{part}")
        if target.startswith("/"):
            place = ""
        rest = [*target.split("/"), *rest]
    return links, place


def _first_missing(path: str) -> str:
    """Return the part of a path whose folder is there."""
    while not os.path.isdir(os.path.dirname(path)):
        path = os.path.dirname(path)
    return path


@asynccontextmanager
async def _first_change(
    folders: set[str], report: Callable[[asyncio.Task[object]], None], **options: Any
) -> AsyncIterator[None]:
    """Watch folders, and let `report` have the task that ends with their first change."""
    changes, change = await _begin(folders, **options)
    if change.done() and isinstance(change.exception(), PermissionError):
        # The rest can be watched. Not from the first: then no limit that is reached is reported.
        changes, change = await _begin(folders, ignore_permission_denied=True, **options)
    change.add_done_callback(report)
    try:
        yield
    finally:
        change.cancel()  # the thread that waits for the system ends within STEP_MS, alone
        await asyncio.wait([change])
        await changes.aclose()


async def _begin(
    folders: set[str], **options: Any
) -> tuple[AsyncGenerator[Any, None], asyncio.Task[Any]]:
    """Return the changes and a task that waits for the first; it watches, or has failed."""
    from watchfiles import awatch  # here, as only those who watch need it

    changes = awatch(*folders, step=STEP_MS, **options)
    change = asyncio.create_task(anext(changes))
    await asyncio.sleep(0)  # the task runs up to its first wait
    return changes, change
