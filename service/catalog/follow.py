"""Follower: reloads when told to, when the folder changes, and after trouble that may pass."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path

from service.catalog.retry import Retry
from service.catalog.watch import watching

logger = logging.getLogger("torchlit.repository")  # that of the Reloader


class Follower:
    """Decides when to reload."""

    def __init__(
        self,
        folder: Path,
        *,
        is_file: bool = False,
        is_watched: bool,
        reload: Callable[[], Awaitable[None]],
        files: Callable[[], set[str]],
    ) -> None:
        """`files` says which paths are followed now, for links that lead out of the folder.

        is_file: of a file; then only those paths are watched.
        """
        self._folder = folder
        self._is_file = is_file
        self._is_watched = is_watched
        self._reload = reload
        self._files = files
        self._requested = asyncio.Event()  # to reload
        self._loop: asyncio.AbstractEventLoop | None = None
        self._trouble = ""  # with watching, that the log has named
        self.retry = Retry(self._requested.set)  # `later` for trouble of a reload

    def request(self) -> None:
        """Reload soon. Any thread may call this, at any time."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._requested.set)

    async def follow(self) -> None:
        """Reload, and again whenever that is to be done, until cancelled."""
        self._loop = asyncio.get_running_loop()
        try:
            while True:  # watched anew each time: links may lead elsewhere than before
                self._requested.clear()
                self.retry.begin()
                try:
                    await self._follow_once()
                except Exception:
                    logger.exception("reload: this is a bug")
                    self.retry.later()
                    await self._requested.wait()
        finally:
            self.retry.end()

    async def _follow_once(self) -> None:
        """Reload, and return when that is to be done again."""
        files = self._files()
        async with self._watching(files):
            await self._reload()  # what changed before it watched
            if self._trouble and not self.retry.is_due:
                logger.info("%s is watched again", self._folder)
                self._trouble = ""
            if self._files() == files:
                await self._requested.wait()

    def _watching(self, files: set[str]) -> AbstractAsyncContextManager[None]:
        if not self._is_watched:
            return nullcontext()
        folder = None if self._is_file else str(self._folder)
        return watching(folder, files, self._requested.set, self._cannot_watch)

    def _cannot_watch(self, error: BaseException) -> None:
        trouble = f"{self._folder} cannot be watched, reload with SIGHUP or wait: {error}"
        if trouble != self._trouble:
            logger.warning("%s", trouble)
        self._trouble = trouble
        self.retry.later()
