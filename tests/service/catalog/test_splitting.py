"""Weights that hold: of what is ready at the start, and of a file that changes."""

import asyncio
import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.catalog.splitting import HELD, PAUSE_S
from service.entrance.services import Host
from service.errors import InvalidSetting
from service.http.app import create_app
from service.settings import Settings
from service.settings.split import Split
from tests.support.toys import Client, save_toy, serving, toy_card

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for version in (1, 2, 3):
        save_toy(folder, version, card=toy_card())
    (folder / "toy/4").mkdir()
    (folder / "toy/4/model.onnx").write_text("no model")
    return folder


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not is_so():
            await asyncio.sleep(0.005)


def held(client: Client) -> str:
    splits = client.services.catalog.splits
    assert splits is not None
    return str(splits.held)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("mean=1:1", r"'mean': expected one of the models toy"),
        ("toy=2:9,7:1", r"toy=2:9,7:1: expected versions that are ready \(1, 2, 3\), got 7"),
        ("toy=4:1", r"toy=4:1: expected versions that are ready \(1, 2, 3\), got 4"),
    ],
)
async def test_weights_of_what_is_not_ready_are_refused_at_start(
    models: Path, tmp_path: Path, text: str, sentence: str
) -> None:
    file = tmp_path / "split"
    file.write_text(text)
    for settings in (
        Settings(models_dir=models, split=Split(text)),
        Settings(models_dir=models, split_file=file),
    ):
        variable = "TORCHLIT_SPLIT_FILE" if settings.split_file else "TORCHLIT_SPLIT"
        with pytest.raises(BaseExceptionGroup) as caught:
            async with serving(settings):
                pass
        error = caught.value.exceptions[0]
        assert isinstance(error, InvalidSetting)
        assert re.fullmatch(f"{variable}: {sentence}", str(error))


async def test_a_version_without_weight_need_not_be_ready(models: Path) -> None:
    async with serving(Settings(models_dir=models, split=Split("toy=2:1,4:0,9:0"))) as client:
        assert held(client) == "toy=2:1,4:0,9:0"


async def test_a_worker_that_takes_the_place_of_another_starts_with_what_holds(
    models: Path, tmp_path: Path
) -> None:
    """The others go on with them, whatever the file says by now, and whatever is ready."""
    file, folder = tmp_path / "split", tmp_path / "counters"
    folder.mkdir()
    file.write_text("toy=1:1,2:1")
    settings = Settings(models_dir=models, split_file=file, metrics_dir=folder)
    async with serving(settings) as client:
        assert held(client) == "toy=1:1,2:1"
    file.write_text("toy=1:1;2:1")
    with pytest.raises(InvalidSetting, match="line 1"):
        create_app(settings)
    replacing = Host(is_replacing=True)
    async with serving(settings, host=replacing) as client:
        assert held(client) == "toy=1:1,2:1"
    file.write_text("toy=1:1,9:1")
    async with serving(settings, host=replacing) as client:
        assert held(client) == "toy=1:1,9:1"
    assert (folder / HELD).read_text() == "toy=1:1,9:1"
    assert not list(folder.glob(f"{HELD}.*"))


async def test_the_file_holds_and_a_wrong_one_changes_nothing(
    models: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.catalog.splitting.PAUSE_S", 0)
    caplog.set_level(logging.INFO, "torchlit.split")
    file = tmp_path / "split"
    file.write_text("toy=1:90,2:10")
    settings = Settings(models_dir=models, split_file=file, split=Split("toy=3:1"), watch=False)
    async with serving(settings) as client:
        caplog.clear()
        assert held(client) == "toy=1:90,2:10"

        async def after(text: str | None) -> str:
            file.unlink(missing_ok=True)
            if text is not None:
                file.write_text(text)
            await client.services.splitting.reload()
            return held(client)

        assert await after("toy=1:10,2:90  # nearly") == "toy=1:10,2:90"
        assert await after("toy=1:10,2:90\ntoy=3") == "toy=1:10,2:90"
        assert await after("toy=1:10,2:90\n\ttoy=3") == "toy=1:10,2:90"
        assert await after(None) == "toy=1:10,2:90"
        assert await after("toy=1:10,2:90") == "toy=1:10,2:90"
        assert await after("# of nothing") == ""
        assert await after("toy=2:1,9:1") == "toy=2:1,9:1"  # it may be on its way
    wrong = f"TORCHLIT_SPLIT_FILE: {file}: "
    assert [re.sub("expected .* got", "got", each) for each in caplog.messages] == [
        "split: toy=1:10,2:90",
        f"{wrong}line 2: got 'toy=3'; the weights before hold",
        f"{wrong}cannot be read: No such file or directory; the weights before hold",
        "split: toy=1:10,2:90",
        "split: none",
        "split: toy=2:1,9:1",
        "model toy: split 2:1,9:1: not ready: 9; in place of that: 2",
    ]


async def test_what_fails_for_a_reason_that_may_pass_is_tried_again(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.catalog.retry.FIRST_S", 0.01)
    file = tmp_path / "split"
    file.write_text("toy=1:1")
    async with serving(Settings(models_dir=models, split_file=file, watch=False)) as client:
        file.unlink()
        client.services.splitting.request_reload()
        await until(lambda: bool(client.services.splitting._trouble))
        file.write_text("toy=2:1")
        await until(lambda: held(client) == "toy=2:1")


async def test_a_config_map_is_followed(models: Path, tmp_path: Path) -> None:
    """As the kubelet writes one: a link to a link to a folder, of which the second is replaced."""

    def write(name: str, text: str) -> None:
        (tmp_path / name).mkdir()
        (tmp_path / name / "split").write_text(text)
        (tmp_path / "..data_tmp").symlink_to(name)
        (tmp_path / "..data_tmp").rename(tmp_path / "..data")

    write("..1", "toy=1:1")
    (tmp_path / "split").symlink_to("..data/split")
    (tmp_path / "beside/deep").mkdir(parents=True)
    async with serving(Settings(models_dir=models, split_file=tmp_path / "split")) as client:
        for number in (2, 3):
            write(f"..{number}", f"toy=1:1,{number}:1")
            await until(lambda number=number: held(client) == f"toy=1:1,{number}:1")


async def test_what_is_written_in_place_counts_once_it_is_complete(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "torchlit.split")
    file = tmp_path / "split"
    file.write_text("toy=1:1,2:1")
    rest = ["toy=1:90,2:1", "toy=1:90,2:10"]
    sleep = asyncio.sleep

    async def sleep_while_it_is_written(seconds: float) -> None:
        if rest and seconds == PAUSE_S:
            file.write_text(rest.pop(0))
        await sleep(0)

    settings = Settings(models_dir=models, split_file=file, watch=False)
    async with serving(settings) as client:
        monkeypatch.setattr("asyncio.sleep", sleep_while_it_is_written)
        file.write_text("toy=1:9")
        client.services.splitting.request_reload()
        await until(lambda: held(client) == "toy=1:90,2:10")
    assert [each for each in caplog.messages if each.startswith("split")] == [
        "split: toy=1:1,2:1",
        "split: toy=1:90,2:10",
    ]


@pytest.mark.slow
async def test_the_share_of_a_version_that_goes_is_that_of_the_others(tmp_path: Path) -> None:
    for version in (1, 2):
        save_toy(tmp_path, version, card=toy_card())
    settings = Settings(models_dir=tmp_path, split=Split("toy=1:1,2:1"), watch=False)
    async with serving(settings) as client:
        (tmp_path / "toy/2/model.onnx").unlink()
        os.rmdir(tmp_path / "toy/2")
        await client.services.reloader.reload()
        answers = [await answered_by(client) for _ in range(40)]
        assert set(answers) == {1}
        text = (await client.get("/metrics")).text
        fallbacks = re.search(r'split_fallbacks_total{model="toy",version="2"} (\d+)', text)
        assert fallbacks is not None
        assert int(fallbacks[1]) > 0
        assert 'torchlit_requests_total{model="toy",outcome="ok",version="1"} 40.0' in text
        save_toy(tmp_path, 2, card=toy_card())
        await client.services.reloader.reload()
        assert {await answered_by(client) for _ in range(40)} == {1, 2}


async def test_where_none_that_has_a_weight_is_ready_the_highest_answers(tmp_path: Path) -> None:
    for version in (1, 2, 3):
        save_toy(tmp_path, version, card=toy_card())
    settings = Settings(models_dir=tmp_path, split=Split("toy=2:1"), watch=False)
    async with serving(settings) as client:
        assert await answered_by(client) == 2
        (tmp_path / "toy/2/model.onnx").unlink()
        os.rmdir(tmp_path / "toy/2")
        await client.services.reloader.reload()
        assert await answered_by(client) == 3


async def answered_by(client: Client) -> Any:
    reply = await client.post("/predict/toy", json={"instances": [[1, 2, 3, 4]]})
    return reply.json()["version"]
