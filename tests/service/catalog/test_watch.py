import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import watchfiles

from service.catalog.watch import places_outside, watching

pytestmark = pytest.mark.anyio


async def until(is_so: Callable[[], bool]) -> None:
    """Let the event loop, and the threads it waits for, go on until something is so."""
    async with asyncio.timeout(20):
        while not is_so():
            await asyncio.sleep(0.005)


@pytest.mark.slow
async def test_nothing_that_changes_once_it_watches_is_missed(tmp_path: Path) -> None:
    changed = asyncio.Event()
    failures: list[BaseException] = []
    for number in range(3):
        changed.clear()
        async with watching(str(tmp_path), [], changed.set, failures.append):
            (tmp_path / str(number)).mkdir()
            await asyncio.wait_for(changed.wait(), 20)
    async with watching(str(tmp_path / "absent"), [], changed.set, failures.append):
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
    async with watching(str(tmp_path), [], changed.set, failures.append):
        (tmp_path / "new").mkdir()
        await asyncio.wait_for(changed.wait(), 20)
    assert failures == []


def linked(tmp_path: Path) -> tuple[Path, str]:
    """Return a folder whose file is a link to a link to a file, both of them elsewhere."""
    for name in ("models/toy/1", "store", "blobs"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "blobs/one").write_text("one")
    (tmp_path / "store/current").symlink_to("../blobs/one")
    link = tmp_path / "models/toy/1/model.onnx"
    link.symlink_to(tmp_path / "store/current")
    return tmp_path / "models", str(link)


def test_the_places_outside_are_the_links_on_the_way_and_its_end(tmp_path: Path) -> None:
    folder, file = linked(tmp_path)
    store, blob = str(tmp_path / "store/current"), str(tmp_path / "blobs/one")
    assert places_outside(str(folder), [file]) == {store, blob}
    (folder / "toy/1/plain").write_text("")
    assert places_outside(str(folder), [str(folder / "toy/1/plain")]) == set()
    (tmp_path / "link").symlink_to("models")  # the folder itself is one
    assert places_outside(str(tmp_path / "link"), []) == {str(tmp_path / "link")}
    (folder / "round").symlink_to("round")
    assert places_outside(str(folder), [str(folder / "round")]) == set()


def test_of_what_is_not_there_it_is_the_part_that_is_missing(tmp_path: Path) -> None:
    folder, file = linked(tmp_path)
    (tmp_path / "store/current").unlink()
    (tmp_path / "store/current").symlink_to(tmp_path / "absent/deep/file")
    expected = {str(tmp_path / "store/current"), str(tmp_path / "absent")}
    assert places_outside(str(folder), [file]) == expected


@pytest.mark.slow
@pytest.mark.parametrize("place", ["blobs/one", "store/current"])
async def test_changes_behind_links_are_noticed_and_no_others_beside_them(
    tmp_path: Path, place: str
) -> None:
    folder, file = linked(tmp_path)
    changed = asyncio.Event()
    failures: list[BaseException] = []
    async with watching(str(folder), [file], changed.set, failures.append):
        (tmp_path / place).with_name("other").write_text("beside it")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(changed.wait(), 0.5)
        (tmp_path / "new").write_text("two")
        (tmp_path / "new").rename(tmp_path / place)
        await asyncio.wait_for(changed.wait(), 20)
    assert failures == []
