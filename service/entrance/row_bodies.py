"""Bodies that hold rows: in the event loop if that is quick, else in a thread. Only here.

What is small, or fits a fast way, is read where it stands. Of everything else the format raises
Slow (formats/message.py), and it is read in a thread. Images are read one at a time, so that
memory is bounded.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from math import inf
from time import perf_counter
from typing import Any, TypeVar

from msgspec.structs import replace
from numpy.typing import NDArray

from service.engine.model import Model
from service.errors import DeadlineExceeded
from service.formats.images.decode import (
    AT_FULL_SIZE,
    ignore_warnings,
    image_of,
)
from service.formats.message import Limits, Message, Slow
from service.settings import Settings

T = TypeVar("T")


class RowBodies:
    """Reads the rows of messages."""

    def __init__(self, settings: Settings) -> None:
        pixels = settings.max_image_pixels
        self._limits = Limits(settings.max_request_rows, pixels, pixels * AT_FULL_SIZE, inf)
        self._quick = replace(self._limits, in_loop=True)
        self._images = ThreadPoolExecutor(1, "images")  # it starts when it is needed
        ignore_warnings()

    def quick_rows(self, message: Message, model: Model, prepare: bool) -> NDArray[Any] | None:
        """Return the rows (n, ...) of a message for a model, None if that would take long.

        Raises what `Message.rows` raises.
        """
        limits = self._quick if prepare else replace(self._quick, prepare=False)
        try:
            return message.rows(model, limits)
        except Slow:
            return None

    async def slow_rows(
        self, message: Message, model: Model, prepare: bool, deadline: float
    ) -> NDArray[Any]:
        """Return them, read in a thread.

        Raises what `Message.rows` raises; cancelled when the caller leaves.
        """
        limits = replace(self._limits, prepare=prepare, deadline=deadline)
        executor = None if image_of(model) is None else self._images
        return await self.in_thread(partial(message.rows, model, limits), deadline, executor)

    async def in_thread(
        self, work: Callable[[], T], deadline: float, executor: Executor | None = None
    ) -> T:
        """Return what `work` does in a thread; left out if its caller left or was late.

        Raises DeadlineExceeded, and whatever `work` raises.
        """
        try:
            async with asyncio.timeout(deadline - perf_counter()):
                return await asyncio.get_running_loop().run_in_executor(executor, work)
        except TimeoutError as error:
            raise DeadlineExceeded("the deadline passed before the body was read") from error

    def close(self) -> None:
        """Let nobody wait any more; what is being read goes on to its end."""
        self._images.shutdown(wait=False, cancel_futures=True)
