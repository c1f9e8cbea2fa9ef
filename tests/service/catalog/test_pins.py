"""A model is opened only if its files are those that were approved."""

import os
from collections.abc import Awaitable, Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.catalog.opening import open_tested
from service.catalog.pins import approved
from service.catalog.reload import Reloader, pause
from service.engine.model import Model
from service.entrance.services import Host
from service.errors import InvalidInput, InvalidPins, NotApproved, StartupError
from service.metrics.exposition import render
from service.settings import Settings
from tests.support.catalogs import reloader
from tests.support.clocks import soon
from tests.support.foreign_models import linear, outside, save
from tests.support.toys import serving

pytestmark = pytest.mark.anyio

FILES = ("linear/1/model.onnx", "linear/1/w.bin")
ROW = np.ones((1, 4), np.float32)
SERVES_ON = "; what was opened before serves on"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A models folder with a model and its weights, both approved."""
    folder = tmp_path / "models"
    save(folder, "linear", outside(linear(), folder / "linear/1", w="w.bin"))
    approve(folder)
    return folder


def digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


def approve(folder: Path, *names: str, to: Path | None = None) -> None:
    """Write the digests of files as they are now; of all of them if none is named."""
    lines = [f"{digest(folder / name)}  {name}\n" for name in names or FILES]
    (to or folder / "SHA256SUMS").write_text("".join(lines))


def change(path: Path) -> None:
    """Change a byte: one of the weights, or of a name in the model that nothing depends on."""
    content = path.read_bytes()
    changed = content.replace(b"graph", b"grapH") if path.suffix == ".onnx" else None
    path.write_bytes(changed or bytes([content[0] ^ 1]) + content[1:])
    assert path.read_bytes() != content


async def no_pause() -> None:
    """Let no time pass between two readings."""


def make(
    folder: Path, pause: Callable[[], Awaitable[None]] = no_pause, **settings: Any
) -> Reloader:
    return reloader(Settings(**({"models_dir": folder, "watch": False} | settings)), pause)


def state(models: Reloader) -> tuple[str, str]:
    (version,) = models.catalog.versions["linear"]
    return version.state, version.reason


def metric(models: Reloader, name: str) -> float:
    lines = render(models.metrics).decode().splitlines()
    (line,) = (each for each in lines if each.startswith(f"torchlit_model_{name}{{"))
    return float(line.split()[-1])


async def answer(models: Reloader) -> Any:
    (found,) = await models.catalog.get("linear").batcher.submit([ROW], 1, soon())
    return found


@pytest.mark.parametrize("name", FILES)
async def test_a_changed_byte_is_refused_at_start_reload_and_load(
    folder: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    expected = digest(folder / name)
    async with make(folder) as models:
        before = await answer(models)
        change(folder / name)
        await models.reload()
        text = f"expected sha256 {expected[:16]}... as SHA256SUMS says, got "
        text += f"{digest(folder / name)[:16]}...: put the file back that was approved, or "
        text += "approve this one with `python -m service pin linear/1`"
        assert state(models)[0] == "ready"
        reason = state(models)[1]
        assert reason.endswith(text + SERVES_ON)
        assert reason in caplog.text
        assert (metric(models, "unapproved"), metric(models, "stale")) == (1, 1)
        with pytest.raises(InvalidInput, match=r"could not be loaded: linear/1: model\.onnx: .*s"):
            await models.load("linear")
        np.testing.assert_array_equal(await answer(models), before)
    async with make(folder) as models:
        assert state(models)[0] == "failed"
        assert state(models)[1].endswith(text)
        assert state(models)[1] == models.catalog.not_ready()["linear"]
        assert (metric(models, "unapproved"), metric(models, "ready")) == (1, 0)


async def test_what_was_unloaded_and_fails_is_stale_no_longer(folder: Path) -> None:
    async with make(folder) as models:
        change(folder / FILES[1])
        await models.reload()
        assert metric(models, "stale") == 1
        await models.unload("linear")
        with pytest.raises(InvalidInput, match="could not be loaded"):
            await models.load("linear")
        assert (metric(models, "stale"), metric(models, "unapproved")) == (0, 1)


async def test_a_file_that_is_approved_afterwards_is_opened(folder: Path) -> None:
    change(folder / FILES[1])
    async with make(folder) as models:
        assert state(models)[0] == "failed"
        approve(folder)
        await models.reload()
        assert state(models) == ("ready", "")
        assert metric(models, "unapproved") == 0
        assert len(await answer(models)) == 1


async def test_what_serves_and_is_approved_no_longer_serves_on_and_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with make(folder) as models:
        served = models.catalog.get("linear")
        approve(folder, FILES[0])
        with (folder / "SHA256SUMS").open("a") as file:
            file.write(f"{'0' * 64}  {FILES[1]}\n")
        with monkeypatch.context() as patch:
            patch.setattr(Model, "open", None)  # it is not opened again for that
            await models.reload()
        assert "its weights in 'w.bin': expected sha256 0000" in state(models)[1]
        assert state(models)[1].endswith(SERVES_ON)
        assert models.catalog.get("linear") is served
        assert metric(models, "unapproved") == 1
        approve(folder)
        await models.reload()
        assert state(models) == ("ready", "")
        assert metric(models, "unapproved") == 0


async def test_approving_what_serves_opens_nothing_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "SHA256SUMS").unlink()
    async with make(folder) as models:
        served = models.catalog.get("linear")
        approve(folder)
        monkeypatch.setattr(Model, "open", None)
        await models.reload()
        assert state(models) == ("ready", "")
        assert models.catalog.get("linear") is served
        change(folder / FILES[0])
        monkeypatch.undo()
        await models.reload()
        assert "expected sha256" in state(models)[1]


async def test_what_is_not_listed_is_opened_unless_it_must_be(folder: Path) -> None:
    approve(folder, FILES[0])
    async with make(folder) as models:
        assert state(models) == ("ready", "")
    async with make(folder, pins="required") as models:
        assert state(models)[0] == "failed"
        assert "weights in 'w.bin': expected a file that SHA256SUMS lists, as" in state(models)[1]
        assert metric(models, "unapproved") == 1
    (folder / "SHA256SUMS").unlink()
    with pytest.raises(InvalidPins, match=r"SHA256SUMS: expected a file of digests, as TORCHLIT_P"):
        await make(folder, pins="required").__aenter__()


async def test_pins_elsewhere_hold_and_those_of_the_folder_do_not(
    folder: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "approved"
    approve(folder, to=elsewhere)
    change(folder / FILES[1])
    approve(folder)
    async with make(folder, pins_file=elsewhere) as models:
        assert state(models)[0] == "failed"
        assert "as TORCHLIT_PINS_FILE says, got" in state(models)[1]
        assert str(tmp_path) not in state(models)[1]
    with pytest.raises(InvalidPins, match=r"^TORCHLIT_PINS_FILE: .*/absent: expected a file of"):
        await make(folder, pins_file=tmp_path / "absent").__aenter__()


async def test_a_malformed_file_refuses_the_start_and_changes_nothing_later(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sums = folder / "SHA256SUMS"
    good = sums.read_text()
    async with make(folder) as models:
        for wrong, why in (
            (good + "half a li", "SHA256SUMS: line 3: expected 64 hexadecimal digits"),
            (None, "SHA256SUMS: is gone"),
        ):
            sums.unlink()
            if wrong:
                sums.write_text(wrong)
            change(folder / FILES[1])  # which the old pins refuse
            for _ in range(2):
                await models.reload()
            assert caplog.text.count(why) == 1
            assert "what was approved before stays so" in caplog.text
            assert "expected sha256" in state(models)[1]
            sums.write_text(good)
            change(folder / FILES[1])
            await models.reload()
            assert state(models) == ("ready", "")
    sums.write_text("no digest at all")
    with pytest.raises(StartupError, match=r"^.*/models/SHA256SUMS: line 1: expected 64 hex"):
        await make(folder).__aenter__()


@pytest.mark.slow
@pytest.mark.parametrize("text", [None, "half a li"])
async def test_a_worker_that_takes_the_place_of_another_begins_with_what_the_others_hold(
    folder: Path, tmp_path: Path, text: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    counters = tmp_path / "counters"
    counters.mkdir()
    settings = Settings(models_dir=folder, metrics_dir=counters, watch=False)
    sums, replacing = folder / "SHA256SUMS", Host(is_replacing=True)
    async with serving(settings, host=replacing):
        pass
    sums.unlink()
    if text is not None:
        sums.write_text(text)
    change(folder / FILES[1])
    caplog.clear()
    async with serving(settings, host=replacing) as client:
        await client.services.reloader.reload()
        ready = await client.get("/health/ready")
    assert "expected sha256" in ready.json()["models"]["linear"]["reason"]
    assert caplog.text.count("what was approved before stays so") == 1
    approve(folder)  # the list counts again, as it may be read
    async with serving(settings, host=replacing) as client:
        assert (await client.get("/health/ready")).status_code == 200


async def test_a_file_of_digests_is_taken_when_it_is_complete(folder: Path) -> None:
    """Half of it lists less, and what is not listed is opened."""
    sums, whole = folder / "SHA256SUMS", (folder / "SHA256SUMS").read_bytes()

    async def write_on() -> None:
        sums.write_bytes(whole)

    change(folder / FILES[1])
    async with make(folder, write_on) as models:
        assert state(models)[0] == "failed"
        sums.write_bytes(whole[: whole.index(b"\n") + 1])
        await models.reload()
        assert state(models)[0] == "failed"


async def test_a_list_of_nothing_that_is_here_is_told_once(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sums = folder / "SHA256SUMS"
    right = sums.read_text()
    sums.write_text(right.replace("  ", "  models/"))
    async with make(folder) as models:
        for _ in range(2):
            await models.reload()
        assert caplog.text.count("SHA256SUMS: no file is listed of any model that is here") == 1
        assert "got 'models/linear/1/model.onnx'" in caplog.text
        caplog.clear()
        for text in (right, "", right):
            sums.write_text(text)
            await models.reload()
        await models.unload("linear")
        await models.reload()
        assert "no file is listed" not in caplog.text


async def test_digests_that_are_no_file_are_not_waited_for(folder: Path) -> None:
    (folder / "SHA256SUMS").unlink()
    os.mkfifo(folder / "SHA256SUMS")
    with pytest.raises(InvalidPins, match="SHA256SUMS: cannot be read: not a file"):
        approved(Settings(models_dir=folder))


@pytest.mark.parametrize("is_outside", [pytest.param(False, marks=pytest.mark.slow), True])
async def test_a_change_of_the_digests_alone_is_noticed(
    folder: Path, tmp_path: Path, is_outside: bool
) -> None:
    """Also where they are elsewhere, or behind a link as those of a ConfigMap."""
    place = folder / "SHA256SUMS"
    if is_outside:
        place = tmp_path / "map/SHA256SUMS"
        place.parent.mkdir()
        (folder / "SHA256SUMS").rename(place)
        (folder / "SHA256SUMS").symlink_to(place)
    change(folder / FILES[1])
    async with serving(Settings(models_dir=folder)) as client:
        ready = await client.get("/health/ready")
        assert ready.status_code == 503
        assert "expected sha256" in ready.json()["models"]["linear"]["reason"]
        assert "expected sha256" in (await client.get("/models")).text
        approve(folder, to=place.with_name("new"))
        os.replace(place.with_name("new"), place)
        while (await client.get("/health/ready")).status_code != 200:
            await pause()


def links_to(path: Path, beside: Path) -> Iterator[Path]:
    """Yield the same file by links to each of its folders, also where it is itself elsewhere."""
    for depth, folder in enumerate(path.parents[:3]):
        link = beside / f"link{depth}"
        link.symlink_to(folder)
        yield link / path.relative_to(folder)
    path.parent.rename(beside / "store")
    path.parent.symlink_to(beside / "store")
    yield from (beside / "link1/1" / path.name, beside / "link2/linear/1" / path.name, path)
    path.parent.unlink()
    (beside / "store").rename(path.parent)


def test_commands_check_pins_too_but_not_outside_of_the_folder(
    folder: Path, tmp_path: Path
) -> None:
    settings = Settings(models_dir=folder, pins="required")
    path = folder / FILES[0]
    assert open_tested(path, "linear", settings, 1).files[1].name == "w.bin"
    change(folder / FILES[1])
    for place in (path, Path(os.path.relpath(path))):
        with pytest.raises(NotApproved):
            open_tested(place, "", settings, 1)
    for place in links_to(path, tmp_path):
        with pytest.raises(NotApproved, match="pin linear/1`"):
            open_tested(place, "", settings, 1)
    copy = tmp_path / "copy"
    (folder / "linear/1").rename(copy)
    open_tested(copy / "model.onnx", "", settings, 1)


@pytest.mark.parametrize(
    "name", ["top.onnx", "linear/old.onnx", "linear/1/old.onnx", "a/b/1/model.onnx"]
)
def test_a_listed_file_that_is_of_no_version_is_checked_too(folder: Path, name: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(linear().SerializeToString())
    settings = Settings(models_dir=folder, pins="required")
    with pytest.raises(NotApproved, match=r"\.\.\.: write the digest of this one into SHA256SUMS$"):
        open_tested(path, "", settings, 1)
    approve(folder, *FILES, name)
    open_tested(path, "", settings, 1).close()
    change(path)
    with pytest.raises(NotApproved, match=r"or write the digest of this one into SHA256SUMS$"):
        open_tested(path, "", settings, 1)
