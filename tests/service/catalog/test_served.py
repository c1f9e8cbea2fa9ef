import asyncio
import threading
import time
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from service.batching import SLOW_S, Inputs, Outputs
from service.catalog.reload import Reloader
from service.catalog.served import OwnThread, ServedModel
from service.engine.model import Model
from service.errors import DeadlineExceeded, InferenceFailed, OutOfResources, Unavailable
from service.metrics import Blocks, ModelMetrics
from service.settings import Settings
from tests.support.catalogs import reloader
from tests.support.classifiers import ANSWERS, NUMBERS, save_classifier
from tests.support.classifiers import ROWS as OF_KINDS
from tests.support.clocks import soon
from tests.support.foreign_models import counting, save
from tests.support.toys import (
    save_graph,
    save_same,
    save_sum,
    save_toy,
    serving,
    tensor,
    toy_answer,
)

pytestmark = pytest.mark.anyio

ROWS: Inputs = [np.ones((2, 4), np.float32)]


def repository(folder: Path, **settings: object) -> Reloader:
    return reloader(Settings(models_dir=folder, **settings))


# Who holds a model.


@pytest.fixture
async def toy(tmp_path: Path) -> ServedModel:
    """A toy that serves, until a test closes it."""
    model = Model.open(save_toy(tmp_path))
    return ServedModel("toy", 1, model, ModelMetrics("toy", "1", blocks=Blocks()), Settings())


async def turns() -> None:
    """Let the event loop do what can be done now."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_closing_waits_for_the_last_who_holds_it(toy: ServedModel) -> None:
    with toy as first:
        with toy as second:
            assert first is second is toy
            closing = asyncio.create_task(toy.close())
            await turns()
            assert not closing.done()
        await turns()
        assert not closing.done()
        (answer,) = await toy.batcher.submit(ROWS, 2, soon())  # it answers those who hold it
        np.testing.assert_allclose(answer, toy_answer(ROWS[0]), atol=1e-6)
    await closing
    with pytest.raises(Unavailable):
        await toy.batcher.submit(ROWS, 2, soon())


async def test_who_fails_holds_it_no_longer(toy: ServedModel) -> None:
    closing: list[asyncio.Task[None]] = []

    async def fail() -> None:
        with toy:
            closing.append(asyncio.create_task(toy.close()))
            await turns()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    await closing[0]


async def test_who_is_cancelled_holds_it_no_longer(toy: ServedModel) -> None:
    async def hold() -> None:
        with toy:
            await asyncio.Event().wait()

    holders = [asyncio.create_task(hold()) for _ in range(2)]
    await turns()
    closing = asyncio.create_task(toy.close())
    holders[0].cancel()
    await turns()
    assert not closing.done()
    holders[1].cancel()
    await closing


async def test_what_nobody_holds_is_closed_at_once(toy: ServedModel) -> None:
    with toy:
        pass
    await asyncio.wait_for(toy.close(), 5)


async def test_what_waits_in_the_queue_is_answered_when_it_closes(toy: ServedModel) -> None:
    waiting = asyncio.create_task(toy.batcher.submit(ROWS, 2, soon()))
    await asyncio.sleep(0)
    await toy.close()
    assert waiting.done()
    np.testing.assert_allclose((await waiting)[0], toy_answer(ROWS[0]), atol=1e-6)


# What is counted, and where it runs.


async def test_labels_and_values_outside_the_training_range_are_counted(models_dir: Path) -> None:
    async with repository(models_dir) as models:
        toy = models.catalog.get("toy")
        rows = np.array([[1, 2, 3, 4], [11, 2, 3, 4], [-1, 2, 3, 12]], np.float32)
        (probabilities,) = await toy.batcher.submit([rows], len(rows), soon())
        labels = np.bincount(probabilities.argmax(axis=1), minlength=3)
        assert list(toy.metrics.predictions) == labels.tolist()
        assert list(toy.metrics.outside) == [2, 0, 0, 1]


@pytest.mark.parametrize("changes", [{}, {"is_zipped": True}, {"is_swapped": True}], ids=str)
async def test_labels_that_a_file_without_a_card_answers_are_counted(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    save_classifier(tmp_path, NUMBERS, **changes)
    async with repository(tmp_path) as models:
        kinds = models.catalog.get("kinds")
        label, _ = await kinds.batcher.submit([OF_KINDS], 3, soon())
        assert kinds.metrics.labels == ["7", "-1", "3"]
        counts = [label.tolist().count(each) for each in NUMBERS]
        assert list(kinds.metrics.predictions) == counts


async def test_labels_that_the_label_output_has_not_are_those_of_the_highest_score(
    tmp_path: Path,
) -> None:
    save_classifier(tmp_path, NUMBERS, is_zipped=True, is_place=True)
    async with repository(tmp_path) as models:
        kinds = models.catalog.get("kinds")
        await kinds.batcher.submit([OF_KINDS], 3, soon())
        counts = np.bincount(ANSWERS.argmax(axis=1), minlength=3)
        assert list(kinds.metrics.predictions) == counts.tolist()


async def test_labels_that_are_not_known_are_not_counted(tmp_path: Path) -> None:
    save_classifier(tmp_path, says_labels=False)
    async with repository(tmp_path) as models:
        kinds = models.catalog.get("kinds")
        await kinds.batcher.submit([OF_KINDS], 3, soon())
        assert (kinds.metrics.labels, list(kinds.metrics.predictions)) == ([], [])


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
        assert models.catalog.get("wide").thread.is_started
        assert not models.catalog.get("toy").thread.is_started
        wide = models.catalog.get("wide")
        answers = await asyncio.gather(
            *(wide.batcher.submit([np.zeros((1, 2000), np.float32)], 1, soon()) for _ in range(5))
        )
        assert [answer[0].shape for answer in answers] == [(1, 2000)] * 5


async def test_the_answers_are_those_of_the_model(models_dir: Path) -> None:
    rows = np.random.default_rng(1).uniform(0, 10, (200, 4)).astype(np.float32)
    async with repository(models_dir, max_batch_size=16) as models:
        toy = models.catalog.get("toy")
        answers = await asyncio.gather(
            *(toy.batcher.submit([row[None]], 1, soon()) for row in rows)
        )
    together = np.concatenate([answer[0] for answer in answers])
    np.testing.assert_allclose(together, toy_answer(rows), atol=1e-6)
    alone = Model.open(models_dir / "toy/1/model.onnx")
    np.testing.assert_allclose(together, [alone.run([row[None]])[0][0] for row in rows], atol=1e-6)


async def test_a_model_of_several_inputs_shares_batches(tmp_path: Path) -> None:
    save_sum(tmp_path)
    rows = np.arange(20, dtype=np.float32).reshape(10, 1, 2)
    async with repository(tmp_path) as models:
        served = models.catalog.get("sum")
        answers = await asyncio.gather(
            *(served.batcher.submit([row, row * 10], 1, soon()) for row in rows)
        )
        assert served.metrics.statistics(served.metrics.blocks.read()).batches == 1
    np.testing.assert_array_equal([answer[0] for answer in answers], rows * 11)


async def test_a_model_that_takes_no_batch_runs_its_requests_one_by_one(tmp_path: Path) -> None:
    save_same(tmp_path, [3, 1])
    async with repository(tmp_path) as models:
        served = models.catalog.get("same")
        inputs = [np.full((3, 1), number, np.float32) for number in range(4)]
        answers = await asyncio.gather(
            *(served.batcher.submit([each], 1, soon()) for each in inputs)
        )
        statistics = served.metrics.statistics(served.metrics.blocks.read())
    np.testing.assert_array_equal([answer[0] for answer in answers], inputs)
    assert (statistics.batches, statistics.rows) == (4, 4)


async def test_labels_of_answers_that_are_not_finite_are_not_counted(models_dir: Path) -> None:
    rows = np.array([[1, 2, 3, 4], [np.inf, 2, 3, 4], [0, 9, 0, 0]], np.float32)
    async with repository(models_dir) as models:
        toy = models.catalog.get("toy")
        (probabilities,) = await toy.batcher.submit([rows], 3, soon())
        assert np.isnan(probabilities[1]).all()
        assert list(toy.metrics.predictions) == [1, 1, 0]
        assert list(toy.metrics.outside) == [1, 0, 0, 0]


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
        known = models.catalog.get("known")
        assert known.thread.is_started  # nobody knows what it costs
        answer = await known.batcher.submit([np.array([[10]])], 1, soon())
        assert answer[0].tolist() == [[1]]
    assert (
        "model known version 1: it could not be tried, and has no examples to be tested by: Gather"
        in caplog.text
    )


# What held the event loop is run again in a thread: was it the model, or the machine.


class Slow:
    """What runs like a model, for so many seconds each time."""

    def __init__(self, *seconds: float, error: Exception | None = None) -> None:
        self._seconds = list(seconds)
        self._error = error
        self.runs = 0

    def run(self, inputs: Inputs, stop: object = None) -> Outputs:
        time.sleep(self._seconds[min(self.runs, len(self._seconds) - 1)])
        self.runs += 1
        if self._error is not None:
            raise self._error
        return inputs


@pytest.mark.parametrize(
    ("seconds", "is_slow", "runs"),
    [
        ([0.0], False, 1),
        ([2 * SLOW_S], True, 3),  # each time
        ([2 * SLOW_S, 2 * SLOW_S, 0.0], False, 3),  # the machine was busy
        ([12 * SLOW_S], True, 1),  # no machine is as busy as that
    ],
)
def test_rows_are_slow_if_they_are_so_each_time(
    seconds: list[float], is_slow: bool, runs: int, caplog: pytest.LogCaptureFixture
) -> None:
    model: Any = Slow(*seconds)
    assert OwnThread("toy", 3, model).is_slow(ROWS, 2) is is_slow
    assert model.runs == runs
    told = "model toy version 3: 2 rows held the event loop, and take "
    assert (told in caplog.text) is is_slow


async def test_a_slow_model_has_its_thread_before_it_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    save_wide(tmp_path)
    model = Model.open(tmp_path / "wide/1/model.onnx")
    parts = "wide", 1, model, ModelMetrics("wide", "1", blocks=Blocks()), Settings()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        with pytest.raises(OutOfResources, match=r"^no thread can be started for it$"):
            ServedModel(*parts)
    before = threading.active_count()
    served = ServedModel(*parts)
    assert threading.active_count() == before + 1
    await served.close()


def test_rows_that_fail_may_be_slow_too() -> None:
    model: Any = Slow(12 * SLOW_S, error=InferenceFailed("no"))
    assert OwnThread("toy", 1, model).is_slow(ROWS, 2)


def test_the_thread_is_started_once_it_is_needed() -> None:
    thread = OwnThread("toy", 1, Slow(0.0))  # type: ignore[arg-type]
    assert not thread.is_started
    thread.end()
    assert thread.started() is thread.started()
    assert thread.is_started
    thread.end()


# Runs that do not end by themselves.


async def test_a_run_without_end_ends_with_its_last_caller_and_the_next_is_answered(
    tmp_path: Path,
) -> None:
    save(tmp_path, "counting", counting())
    async with repository(tmp_path) as models:
        served = models.catalog.get("counting")
        for _ in range(2):
            with pytest.raises(DeadlineExceeded):  # a minute of rounds or more
                await served.batcher.submit([np.array([10**9])], 1, perf_counter() + 0.1)
            (count,) = await served.batcher.submit([np.array([7])], 1, soon())
            assert count.tolist() == [7]
        with pytest.raises(DeadlineExceeded):
            await served.batcher.submit([np.array([10**9])], 1, perf_counter() + 0.1)


class Stuck:
    """Holds each run of a model until it is let go on, whatever stops it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, held: Model) -> None:
        self.go_on = threading.Event()
        run = Model.run

        def hold(model: Model, inputs: Inputs, stop: Any = None) -> Outputs:
            assert model is not held or self.go_on.wait(20)
            return run(model, inputs)

        monkeypatch.setattr(Model, "run", hold)


async def test_a_model_whose_batch_runs_for_longer_than_a_request_may_is_not_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, "counting", counting())
    save_toy(tmp_path)
    settings = Settings(models_dir=tmp_path, watch=False, request_timeout_s=0.05)
    async with serving(settings) as client:
        catalog = client.services.catalog
        stuck = Stuck(monkeypatch, catalog.get("counting").model)
        body = {"inputs": [{"name": "x", "datatype": "INT64", "shape": [1], "data": [7]}]}
        reply = await client.post("/v2/models/counting/infer", json=body)
        assert reply.status_code == 504
        async with asyncio.timeout(20):
            while catalog.is_ready:
                await asyncio.sleep(0.01)
        reason = "counting/1: a batch has run for more than 0.05 s, and cannot be stopped"
        assert catalog.not_ready() == {"counting": reason}
        ready = await client.get("/health/ready")
        assert ready.status_code == 503
        assert ready.json()["models"]["counting"] == {"ready": False, "reason": reason}
        assert ready.json()["models"]["toy"]["ready"]
        of_model = await client.get("/v2/models/counting/ready")
        assert (of_model.status_code, of_model.json()["ready"]) == (503, False)
        assert (await client.get("/v2/models/toy/ready")).status_code == 200
        stuck.go_on.set()
        async with asyncio.timeout(20):
            while not catalog.is_ready:
                await asyncio.sleep(0.01)
        assert (await client.get("/v2/models/counting/ready")).json()["ready"]


@pytest.mark.slow
async def test_reload_load_and_unload_wait_for_no_run_of_another_and_of_none_for_ever(
    models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(models_dir, "counting", counting())
    settings = Settings(models_dir=models_dir, watch=False, request_timeout_s=0.05)
    async with reloader(settings) as models:
        served = models.catalog.get("counting")
        stuck = Stuck(monkeypatch, served.model)
        with pytest.raises(DeadlineExceeded):
            await served.batcher.submit([np.array([7])], 1, perf_counter() + 0.05)
        async with asyncio.timeout(20):
            await models.unload("mean")
            await models.load("mean")
            await models.unload("counting")
            await models.load("counting")
            await models.reload()
        assert models.catalog.get("counting") is not served
        stuck.go_on.set()
        await models.settled()
