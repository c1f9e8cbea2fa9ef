import asyncio
import logging
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from service.catalog.catalog import ModelRepository
from service.engine.model import Model
from service.errors import InvalidInput, NotFound, StartupError, Unavailable
from service.metrics import Blocks, Metrics
from service.settings import Settings
from tests.support.toys import (
    save_graph,
    save_same,
    save_sum,
    save_toy,
    save_zipped,
    serving,
    tensor,
    toy_answer,
    toy_card,
)

pytestmark = pytest.mark.anyio


def repository(folder: Path, **settings: object) -> ModelRepository:
    return ModelRepository(Settings(models_dir=folder, **settings), Metrics(Blocks()))


async def test_the_highest_version_answers_unless_one_is_named(tmp_path: Path) -> None:
    for version in (1, 2, 10):
        save_toy(tmp_path, version, card=toy_card())
    async with repository(tmp_path) as models:
        assert models.get("toy").version == 10
        assert models.get("toy", 2).version == 2
        assert [each.version for each in models.versions["toy"]] == [1, 2, 10]


async def test_a_name_or_version_that_is_not_there_is_not_found(models_dir: Path) -> None:
    async with repository(models_dir) as models:
        with pytest.raises(NotFound, match="model: expected one of mean, toy; got 'tyo'"):
            models.get("tyo")
        with pytest.raises(NotFound, match="model toy: version: expected one of 1; got 3"):
            models.get("toy", 3)


async def test_a_broken_version_is_reported_and_the_others_serve(
    models_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_toy(models_dir, 2, card=toy_card(), scale=1.5)  # answers not as its card says
    (models_dir / "toy/3").mkdir()
    broken = save_toy(models_dir, 4, card=toy_card())
    broken.write_bytes(broken.read_bytes()[:100])
    with caplog.at_level(logging.ERROR):
        async with repository(models_dir) as models:
            assert models.get("toy").version == 1
            states = {each.version: (each.state, each.reason) for each in models.versions["toy"]}
            with pytest.raises(Unavailable, match="model toy: version 2 could not be opened"):
                models.get("toy", 2)
            assert models.not_ready() == {}
    assert states[1] == ("ready", "")
    assert states[2][0] == "failed"
    assert states[2][1].startswith("toy/2: example 'one': expected [0.92")
    assert states[3][1] == "toy/3: model.onnx: cannot be read: No such file or directory"
    assert states[4][1] == (
        "toy/4: model.onnx: not a model that ONNX Runtime can open: it is cut off, or no ONNX file "
        "(100 bytes)"
    )
    assert len(caplog.records) == 3


async def test_a_model_of_which_no_version_opens_is_not_ready(models_dir: Path) -> None:
    (models_dir / "empty").mkdir()
    (models_dir / "bad name").mkdir()
    (models_dir / "words" / "latest").mkdir(parents=True)
    async with repository(models_dir) as models:
        reasons = models.not_ready()
        assert set(reasons) == {"empty", "bad name", "words"}
        assert (
            reasons["empty"]
            == "empty: expected a version folder such as empty/1/model.onnx, got none"
        )
        assert reasons["bad name"] == "'bad name': expected a name of letters, digits, . _ -"
        with pytest.raises(Unavailable, match="model empty: no version of it could be opened"):
            models.get("empty")
        assert models.get("toy").version == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
async def test_an_unreadable_file_is_reported(models_dir: Path) -> None:
    (models_dir / "toy/1/model.onnx").chmod(0)
    async with repository(models_dir) as models:
        assert models.not_ready() == {"toy": "toy/1: model.onnx: cannot be read: Permission denied"}


async def test_a_file_that_leads_nowhere_is_reported(models_dir: Path) -> None:
    path = models_dir / "toy/1/model.onnx"
    path.unlink()
    path.symlink_to(path)
    async with repository(models_dir) as models:
        (reason,) = models.not_ready().values()
    assert reason == "toy/1: model.onnx: cannot be read: Too many levels of symbolic links"


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
async def test_what_is_no_file_is_reported(models_dir: Path, make: Any) -> None:
    (models_dir / "odd/1").mkdir(parents=True)
    make(models_dir / "odd/1/model.onnx")
    async with repository(models_dir) as models:
        assert models.not_ready() == {"odd": "odd/1: model.onnx: cannot be read: not a file"}


async def test_a_name_that_is_not_utf8_is_reported_and_can_be_shown(models_dir: Path) -> None:
    os.mkdir(os.fsencode(models_dir) + b"/b\xffd")
    async with serving(Settings(models_dir=models_dir)) as client:
        ready = await client.get("/health/ready")
        assert (await client.get("/models")).status_code == 200
        assert (await client.get("/metrics")).status_code == 200
        assert (await client.post("/predict/none", content=b"{}")).status_code == 404
    assert ready.status_code == 503
    assert "b\\xffd" in ready.json()["models"]


async def test_a_folder_that_is_no_version_is_told_in_the_log(
    models_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (models_dir / "toy/01").mkdir()
    async with repository(models_dir) as models:
        assert models.get("toy").version == 1
    assert "model toy: '01' is no version: not a whole number from 1" in caplog.text


async def test_the_reason_of_onnx_runtime_is_in_the_log_only(
    models_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nodes = [helper.make_node("Add", ["input", "nowhere"], ["output"])]
    inputs, outputs = [tensor("input", ["batch", 4])], [tensor("output", ["batch", 4])]
    save_graph(models_dir / "toy/1/model.onnx", nodes, inputs, outputs, [], None)
    async with repository(models_dir) as models:
        (reason,) = models.not_ready().values()
    assert re.fullmatch(r"toy/1: model\.onnx: ONNX Runtime \S+ cannot open it", reason)
    assert "nowhere" not in reason
    assert "Node input 'nowhere' is not a graph input" in caplog.text


async def test_hidden_folders_and_files_are_not_models(models_dir: Path) -> None:
    (models_dir / ".git").mkdir()
    (models_dir / "README.md").write_text("about")
    async with repository(models_dir) as models:
        assert models.names == ["mean", "toy"]


async def test_no_folder_or_an_empty_one_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"^TORCHLIT_MODELS_DIR: .*No such file"):
        async with repository(tmp_path / "absent"):
            pass
    with pytest.raises(StartupError, match="DIR: expected folders <name>/<version>"):
        async with repository(tmp_path):
            pass
    (tmp_path / "file").write_text("")
    with pytest.raises(StartupError, match=r"^TORCHLIT_MODELS_DIR: .*Not a directory"):
        async with repository(tmp_path / "file"):
            pass


async def test_labels_and_values_outside_the_training_range_are_counted(models_dir: Path) -> None:
    async with repository(models_dir) as models:
        toy = models.get("toy")
        rows = np.array([[1, 2, 3, 4], [11, 2, 3, 4], [-1, 2, 3, 12]], np.float32)
        (probabilities,) = await toy.batcher.submit([rows], len(rows), 10)
        labels = np.bincount(probabilities.argmax(axis=1), minlength=3)
        assert list(toy.metrics.predictions) == labels.tolist()
        assert list(toy.metrics.outside) == [2, 0, 0, 1]


def save_wide(folder: Path) -> None:
    """Write `folder`/wide: a product so large that 64 rows cost more than a millisecond."""
    weights = np.zeros((2000, 2000), np.float32)
    save_graph(
        folder / "wide/1/model.onnx",
        [
            helper.make_node("MatMul", ["input", "weights"], ["hidden"]),
            helper.make_node("MatMul", ["hidden", "weights"], ["output"]),
        ],
        [tensor("input", ["batch", 2000])],
        [tensor("output", ["batch", 2000])],
        [numpy_helper.from_array(weights, "weights")],
        None,
    )


async def test_a_dear_model_runs_in_a_thread_and_a_cheap_one_in_the_loop(models_dir: Path) -> None:
    save_wide(models_dir)
    async with repository(models_dir) as models:
        assert models.get("wide").thread.is_started
        assert not models.get("toy").thread.is_started
        wide = models.get("wide")
        answers = await asyncio.gather(
            *(wide.batcher.submit([np.zeros((1, 2000), np.float32)], 1, 10) for _ in range(5))
        )
        assert [answer[0].shape for answer in answers] == [(1, 2000)] * 5


async def test_the_answers_are_those_of_the_model(models_dir: Path) -> None:
    rows = np.random.default_rng(1).uniform(0, 10, (200, 4)).astype(np.float32)
    async with repository(models_dir, max_batch_size=16) as models:
        toy = models.get("toy")
        answers = await asyncio.gather(*(toy.batcher.submit([row[None]], 1, 10) for row in rows))
    together = np.concatenate([answer[0] for answer in answers])
    np.testing.assert_allclose(together, toy_answer(rows), atol=1e-6)
    alone = Model.open(models_dir / "toy/1/model.onnx")
    np.testing.assert_allclose(together, [alone.run([row[None]])[0][0] for row in rows], atol=1e-6)


async def test_a_model_of_several_inputs_shares_batches(tmp_path: Path) -> None:
    save_sum(tmp_path)
    rows = np.arange(20, dtype=np.float32).reshape(10, 1, 2)
    async with repository(tmp_path) as models:
        served = models.get("sum")
        answers = await asyncio.gather(
            *(served.batcher.submit([row, row * 10], 1, 10) for row in rows)
        )
        assert served.metrics.statistics().batches == 1
    np.testing.assert_array_equal([answer[0] for answer in answers], rows * 11)


async def test_a_model_that_takes_no_batch_runs_its_requests_one_by_one(tmp_path: Path) -> None:
    save_same(tmp_path, [3, 1])
    async with repository(tmp_path) as models:
        served = models.get("same")
        inputs = [np.full((3, 1), number, np.float32) for number in range(4)]
        answers = await asyncio.gather(*(served.batcher.submit([each], 1, 10) for each in inputs))
        statistics = served.metrics.statistics()
    np.testing.assert_array_equal([answer[0] for answer in answers], inputs)
    assert (statistics.batches, statistics.rows) == (4, 4)


async def test_labels_of_answers_that_are_not_finite_are_not_counted(models_dir: Path) -> None:
    rows = np.array([[1, 2, 3, 4], [np.inf, 2, 3, 4], [0, 9, 0, 0]], np.float32)
    async with repository(models_dir) as models:
        toy = models.get("toy")
        (probabilities,) = await toy.batcher.submit([rows], 3, 10)
        assert np.isnan(probabilities[1]).all()
        assert list(toy.metrics.predictions) == [1, 1, 0]
        assert list(toy.metrics.outside) == [1, 0, 0, 0]


async def test_outputs_that_are_left_out_are_told_in_the_log(
    models_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_zipped(models_dir)
    async with repository(models_dir) as models:
        assert [each.name for each in models.get("zipped").model.outputs] == ["highest"]
    (warning,) = (each for each in caplog.records if each.levelno == logging.WARNING)
    assert warning.getMessage() == (
        "model zipped version 1: output zipped is left out: "
        "no protocol carries seq(map(string,tensor(float)))"
    )


async def test_a_model_with_only_such_outputs_is_reported_and_the_others_serve(
    models_dir: Path,
) -> None:
    save_zipped(models_dir, only_maps=True)
    async with repository(models_dir) as models:
        (reason,) = models.not_ready().values()
        assert models.get("toy").version == 1
    assert reason.startswith("zipped/1: expected an output that is a tensor of numbers, booleans")
    assert "'zipped': 'seq(map(" in reason


async def test_a_model_that_cannot_be_tried_is_told_in_the_log_and_serves(
    models_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = models_dir / "known/1/model.onnx"
    save_graph(  # a trial asks for 0 and 1; there is something from 6 on
        path,
        [
            helper.make_node("Sub", ["input", "beyond"], ["place"]),
            helper.make_node("Gather", ["entries", "place"], ["output"]),
        ],
        [tensor("input", ["batch", 1], TensorProto.INT64)],
        [tensor("output", ["batch", 1])],
        [
            numpy_helper.from_array(np.int64(9), "beyond"),
            numpy_helper.from_array(np.arange(3, dtype=np.float32), "entries"),
        ],
        None,
    )
    async with repository(models_dir) as models:
        known = models.get("known")
        assert known.thread.is_started  # nobody knows what it costs
        answer = await known.batcher.submit([np.array([[10]])], 1, 10)
        assert answer[0].tolist() == [[1]]
    assert (
        "model known version 1: it could not be tried, and has no examples to be tested by: Gather"
        in caplog.text
    )


async def test_a_model_is_named_by_the_words_of_a_path(models_dir: Path) -> None:
    save_toy(models_dir, 12, card=toy_card())
    async with repository(models_dir) as models:
        assert models.named("toy", None) is models.named("toy", "12") is models.get("toy")
        assert models.named("toy", "1") is models.get("toy", 1)
        for word in ("0", "01", "-1", "x", "", "1 ", "\u0661", "9" * 10):
            with pytest.raises(NotFound, match=r"^version: expected a whole number from 1 to 9"):
                models.named("toy", word)
        with pytest.raises(NotFound, match="model toy: version: expected one of 1, 12; got 2"):
            models.named("toy", "2")


async def no_pause() -> None:
    """Let no time pass between two looks."""


@pytest.fixture
async def controlled(models_dir: Path) -> AsyncIterator[ModelRepository]:
    """The models of the folder, which nobody watches."""
    settings = Settings(models_dir=models_dir, watch=False)
    async with ModelRepository(settings, Metrics(Blocks()), no_pause) as models:
        yield models


async def test_an_unloaded_model_is_gone_until_it_is_loaded(controlled: ModelRepository) -> None:
    await controlled.unload("toy")
    assert (controlled.names, controlled.unloaded) == (["mean"], {"toy": [1]})
    assert controlled.is_ready  # that is what was asked for
    with pytest.raises(NotFound, match="model: expected one of mean; got 'toy'"):
        controlled.get("toy")
    await controlled.reload()  # as a change in the folder does
    assert controlled.names == ["mean"]
    await controlled.unload("toy")
    assert controlled.unloaded == {"toy": [1]}
    await controlled.load("toy")
    assert (controlled.get("toy").version, controlled.unloaded) == (1, {})


async def test_unloading_waits_for_what_was_accepted(models_dir: Path) -> None:
    settings = Settings(models_dir=models_dir, watch=False, max_queue_delay_ms=60_000)
    rows = np.array([[1, 2, 3, 4]], np.float32)
    async with ModelRepository(settings, Metrics(Blocks()), no_pause) as models:
        toy = models.get("toy")
        asked = asyncio.create_task(toy.batcher.submit([rows], 1, 30))
        await asyncio.sleep(0)
        unloading = asyncio.create_task(models.unload("toy"))
        async with asyncio.timeout(5):
            while "toy" in models.names:
                await asyncio.sleep(0)
        was_done = unloading.done()
        toy.batcher._run_next()  # its time has come
        np.testing.assert_allclose((await asked)[0], toy_answer(rows), atol=1e-6)
        await unloading
    assert not was_done


async def test_loading_tries_again_what_could_not_be_opened(
    models_dir: Path, controlled: ModelRepository, caplog: pytest.LogCaptureFixture
) -> None:
    served = controlled.get("toy")
    await controlled.load("toy")
    assert controlled.get("toy") is served  # nothing changed
    save_toy(models_dir, 2, card=toy_card(), scale=2)  # answers not as its card says
    for tries in (1, 2):
        with pytest.raises(InvalidInput, match=r"^model toy: could not be loaded: toy/2: exam"):
            await controlled.load("toy")
        assert controlled.get("toy") is served
        assert caplog.text.count("ERROR") == tries
    save_toy(models_dir, 2, card=toy_card())
    await controlled.load("toy")
    assert controlled.get("toy").version == 2


async def test_what_is_not_there_is_neither_loaded_nor_unloaded(
    controlled: ModelRepository,
) -> None:
    for control in (controlled.load, controlled.unload):
        with pytest.raises(NotFound, match="model: expected one of mean, toy; got 'tyo'"):
            await control("tyo")
    assert controlled.unloaded == {}
    assert controlled.names == ["mean", "toy"]


async def test_a_load_whose_caller_leaves_goes_on(models_dir: Path) -> None:
    looking, go_on = asyncio.Event(), asyncio.Event()

    async def pause() -> None:
        looking.set()
        await go_on.wait()

    settings = Settings(models_dir=models_dir, watch=False)
    async with ModelRepository(settings, Metrics(Blocks()), pause) as models:
        await models.unload("toy")
        load = asyncio.create_task(models.load("toy"))
        await looking.wait()
        load.cancel()
        await asyncio.wait([load])
        assert load.cancelled()
        go_on.set()
        async with asyncio.timeout(10):
            while "toy" not in models.names:  # nobody asks again
                await asyncio.sleep(0)
        assert models.get("toy").version == 1
        assert models.unloaded == {}


async def test_a_model_is_unloaded_whatever_state_its_file_is_in(models_dir: Path) -> None:
    settings = Settings(models_dir=models_dir, watch=False)
    async with ModelRepository(settings, Metrics(Blocks()), no_pause) as models:
        path = models_dir / "toy/1/model.onnx"
        path.write_bytes(b"rubbish")
        with pytest.raises(InvalidInput, match="could not be loaded"):
            await models.load("toy")
        assert models.get("toy").version == 1  # the old one
        loading = asyncio.create_task(models.load("toy"))
        for _ in range(3):  # it has begun
            await asyncio.sleep(0)
        await models.unload("toy")
        with pytest.raises((InvalidInput, NotFound)):
            await loading
        await models.reload()
        assert models.names == ["mean"]
        assert models.unloaded == {"toy": [1]}


async def test_the_last_model_can_be_unloaded_too(controlled: ModelRepository) -> None:
    for name in ("toy", "mean"):
        await controlled.unload(name)
    await controlled.reload()
    assert controlled.names == []
    await controlled.load("mean")
    assert controlled.names == ["mean"]
