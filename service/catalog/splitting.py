"""Splitting: lets the weights of the settings hold, and follows the file of such weights.

Each worker reads the file. One that takes the place of another may not refuse to start, as the
others serve: where the file cannot be read it holds what they do, which they write down.
"""

import asyncio
import logging
from pathlib import Path
from typing import Self

from service.catalog.catalog import Catalog
from service.catalog.follow import Follower
from service.catalog.held import held, hold
from service.catalog.split import Splits
from service.errors import InvalidSetting
from service.settings import Settings, variable_name
from service.settings.split import Split
from service.settings.split_file import not_ready, split_in, split_of

logger = logging.getLogger("torchlit.split")

HELD = "split"  # a file in the folder of the workers: the weights that hold
PAUSE_S = 0.1  # between two reads of the file; what is equal in both is complete


def split_at_start(settings: Settings, *, is_replacing: bool) -> Split:
    """Return the weights that a worker begins with.

    Raises InvalidSetting, unless it takes the place of another.
    """
    try:
        return split_of(settings)
    except InvalidSetting as error:
        if not is_replacing or settings.metrics_dir is None:
            raise
        logger.error("%s; the weights before hold", error)
        before = held(settings.metrics_dir, HELD)
        return settings.split if before is None else Split(before.decode())


class Splitting:
    """Holds the weights while it is entered, once the models are open."""

    def __init__(
        self,
        settings: Settings,
        catalog: Catalog,
        first: Split,
        *,
        is_replacing: bool = False,
    ) -> None:
        """first: the weights to begin with; is_replacing: whatever is ready."""
        self._catalog = catalog
        self._first = first
        self._is_replacing = is_replacing
        self._file = file = settings.split_file
        self._folder = settings.metrics_dir  # of several workers
        self._variable = variable_name("split" if self._file is None else "split_file")
        self._reloading = asyncio.Lock()
        self._trouble = ""  # with the file, that the log has named
        self._follower: Follower | None = None
        if file is not None:
            self._follower = Follower(
                file,
                is_file=True,
                is_watched=settings.watch,
                reload=self.reload,
                files=lambda: {str(file)},
            )
        self._following: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Let the first weights hold, then follow the file.

        Raises InvalidSetting for weights of what is not ready.
        """
        splits = self._catalog.splits
        if splits is not None:
            if not self._is_replacing:
                self._check(self._first)
            self._hold(splits, self._first)
        if self._follower is not None:
            self._following = asyncio.create_task(self._follower.follow())
        return self

    async def __aexit__(self, *error: object) -> None:
        """Follow no longer."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait([self._following])

    def _check(self, split: Split) -> None:
        """Raise InvalidSetting for weights of what is not ready."""
        versions = self._catalog.versions
        ready = {
            name: [each.version for each in found if each.served and each.version is not None]
            for name, found in versions.items()
        }
        for sentence in not_ready(split, ready):
            raise InvalidSetting(f"{self._variable}: {sentence}", self._variable)

    def request_reload(self) -> None:
        """Read the file again soon. Any thread may call this, at any time."""
        if self._follower is not None:
            self._follower.request()

    async def reload(self) -> None:
        """Let hold what the file says; what is there for a moment only does not count."""
        async with self._reloading:
            await self._reload()

    async def _reload(self) -> None:
        splits, file, follower = self._catalog.splits, self._file, self._follower
        if splits is None or file is None or follower is None:
            raise RuntimeError("weights of a file that is not set. This is a bug.")
        found = split, trouble, may_pass = await asyncio.to_thread(_read, file)
        if may_pass:
            follower.retry.later()
        if trouble == self._trouble and split in (None, splits.held):
            return
        await asyncio.sleep(PAUSE_S)
        if found != await asyncio.to_thread(_read, file):
            follower.request()
            return
        self._trouble = trouble
        if split is None:
            logger.error("%s; the weights before hold", trouble)
        else:
            self._hold(splits, split)

    def _hold(self, splits: Splits, split: Split) -> None:
        logger.info("split: %s", split if split.names else "none")
        splits.hold(split)
        hold(self._folder, HELD, str(split).encode())


def _read(file: Path) -> tuple[Split | None, str, bool]:
    """Return the weights of a file; else why there are none, and whether that may pass."""
    try:
        return split_in(file), "", False
    except InvalidSetting as error:
        return None, str(error), isinstance(error.__cause__, OSError)
