import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import watchfiles

from service.catalog.watch import watching

pytestmark = pytest.mark.anyio


async def until(is_so: Callable[[], bool]) -> None:
    """Let the event loop, and the threads it waits for, go on until something is so."""
    async with asyncio.timeout(20):
        while not is_so():
            await asyncio.sleep(0.005)


async def test_nothing_that_changes_once_it_watches_is_missed(tmp_path: Path) -> None:
    changed = asyncio.Event()
    failures: list[BaseException] = []
    for number in range(3):
        changed.clear()
        async with watching(tmp_path, changed.set, failures.append):
            (tmp_path / str(number)).mkdir()
            await asyncio.wait_for(changed.wait(), 20)
    async with watching(tmp_path / "absent", changed.set, failures.append):
        await until(lambda: bool(failures))
    assert isinstance(failures[0], FileNotFoundError)


async def test_what_may_not_be_read_does_not_keep_the_rest_from_being_watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    awatch = watchfiles.awatch

    async def strict_awatch(*paths: Path, **options: Any) -> Any:
        if not options.get("ignore_permission_denied"):
            raise PermissionError("lost+found")  # which root never sees
        async for change in awatch(*paths, **options):
            yield change

    monkeypatch.setattr("watchfiles.awatch", strict_awatch)
    changed = asyncio.Event()
    failures: list[BaseException] = []
    async with watching(tmp_path, changed.set, failures.append):
        (tmp_path / "new").mkdir()
        await asyncio.wait_for(changed.wait(), 20)
    assert failures == []
