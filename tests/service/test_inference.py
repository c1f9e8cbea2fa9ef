"""The one door to the models, without HTTP."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pytest

from service.batching import Timing
from service.catalog.reload import Reloader
from service.engine.model import Model
from service.errors import DeadlineExceeded, InferenceFailed, InvalidInput, NotFound
from service.inference import Call, Inference, run_rows, work_of_rows, work_of_tensors
from service.metrics.exposition import render
from service.settings import Settings
from tests.support.catalogs import reloader
from tests.support.clients import counted
from tests.support.toys import (
    save_fussy,
    save_mean,
    save_picky,
    save_same,
    save_sum,
    save_toy,
    toy_answer,
    toy_card,
)

pytestmark = pytest.mark.anyio

ROWS = np.array([[1, 2, 3, 4], [0, 9, 0, 0]], np.float32)


@pytest.fixture
async def models(tmp_path: Path) -> AsyncIterator[Reloader]:
    save_toy(tmp_path, card=toy_card())
    save_toy(tmp_path, 2, card=toy_card())
    save_mean(tmp_path)
    save_sum(tmp_path)
    save_fussy(tmp_path)
    save_picky(tmp_path, least=-1e9)
    save_same(tmp_path, [3, 1])  # takes no batch
    async with reloader(Settings(models_dir=tmp_path, watch=False)) as models:
        yield models


@pytest.fixture
def inference(models: Reloader) -> Inference:
    return Inference(models.catalog, models.metrics)


def call(*, is_alone: bool = False, timeout_s: float = 10, timing: Timing | None = None) -> Call:
    now = perf_counter()
    return Call(now, now + timeout_s, lambda: is_alone, timing)


async def test_a_model_of_rows_is_named_by_what_a_body_says(inference: Inference) -> None:
    for name, version, expected in (("toy", None, 2), ("toy", 1, 1), ("mean", None, 1)):
        asked = call()
        with inference.model_of_rows(asked, name, version) as served:
            assert (served.name, served.version) == (name, expected)
            assert asked.served is served


@pytest.mark.parametrize(
    ("name", "version", "sentence"),
    [
        (None, None, "(fussy, mean, picky, same, sum, toy), got no such field"),
        (7, None, "model: expected the name of a model (fussy, mean, picky, same, sum, toy), got"),
        (b"toy", None, "toy), got 3 bytes"),
        ("toy", 0, "version: expected a whole number from 1, got 0"),
        ("toy", True, "version: expected a whole number from 1, got true"),
        ("toy", 1.0, "version: expected a whole number from 1, got 1.0"),
        ("toy", "1", 'version: expected a whole number from 1, got "1"'),
        (
            "sum",
            None,
            "model sum: expected one that takes rows, but it has 2 inputs, and left holds more "
            "than one value of a row: use /v2/models/sum/infer",
        ),
    ],
)
async def test_what_names_no_model_of_rows_is_refused(
    inference: Inference, name: Any, version: Any, sentence: str
) -> None:
    asked = call()
    with pytest.raises(InvalidInput) as raised:
        inference.model_of_rows(asked, name, version)
    assert sentence in str(raised.value)
    assert asked.served is None


async def test_a_model_that_is_not_there_is_not_found(inference: Inference) -> None:
    with pytest.raises(NotFound, match="got 'tyo'"):
        inference.model_of_rows(call(), "tyo", None)
    with pytest.raises(NotFound, match="expected one of 1, 2; got 3"):
        inference.model_of_rows(call(), "toy", 3)
    with pytest.raises(NotFound, match="got 'tyo'"):
        inference.model(call(), "tyo", None)


async def test_the_only_or_the_default_model_needs_no_name(tmp_path: Path) -> None:
    save_toy(tmp_path, card=toy_card())
    async with reloader(Settings(models_dir=tmp_path, watch=False)) as only:
        asked = Inference(only.catalog, only.metrics)
        assert asked.model_of_rows(call(), None, None).name == "toy"
    save_mean(tmp_path)
    settings = Settings(models_dir=tmp_path, watch=False, default_model="mean")
    async with reloader(settings) as both:
        asked = Inference(both.catalog, both.metrics)
        assert asked.model_of_rows(call(), None, None).name == "mean"
        assert asked.model_of_rows(call(), "toy", None).name == "toy"


@pytest.mark.parametrize("is_alone", [True, False])
async def test_rows_are_answered_one_for_each(inference: Inference, is_alone: bool) -> None:
    asked = call(is_alone=is_alone, timing=Timing())
    with inference.model_of_rows(asked, "toy", None) as served:
        (probabilities,) = await inference.run(asked, work_of_rows(served, ROWS))
    np.testing.assert_allclose(probabilities, toy_answer(ROWS), atol=1e-6)
    assert asked.timing is not None
    assert asked.timing.compute_s > 0
    assert (asked.timing.queue_s == 0) == is_alone


async def test_work_that_was_started_is_its_waiters_unless_it_is_done_already(
    inference: Inference,
) -> None:
    for is_alone in (True, False):
        asked = call(is_alone=is_alone)
        with inference.model_of_rows(asked, "toy", None) as served:
            waiter: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            outputs = inference.start(asked, work_of_rows(served, ROWS), waiter)
            assert (outputs is None) == (not is_alone)
            (probabilities,) = await waiter if outputs is None else outputs
        np.testing.assert_allclose(probabilities, toy_answer(ROWS), atol=1e-6)


async def test_what_is_not_finite_is_no_answer_to_rows_but_one_to_tensors(
    inference: Inference,
) -> None:
    seven = np.array([[7], [8]], np.float32)
    asked = call()
    with inference.model_of_rows(asked, "fussy", None) as served:
        with pytest.raises(InferenceFailed, match="NaN or infinity"):
            await inference.run(asked, work_of_rows(served, seven))
        (answer,) = await inference.run(asked, work_of_tensors(served, [seven], 2))
    assert answer.tolist() == [[np.inf], [1]]


async def test_rows_without_an_answer_each_are_refused(inference: Inference) -> None:
    asked = call()
    with inference.model_of_rows(asked, "picky", None) as served:
        with pytest.raises(InferenceFailed, match="one row for each row"):
            await inference.run(
                asked, work_of_rows(served, np.array([[1, 2, 3, 4], [-2e9, 2, 3, 4]], np.float32))
            )
        assert len((await inference.run(asked, work_of_rows(served, ROWS)))[0]) == 2


async def test_tensors_are_for_any_model_and_each_of_its_inputs(inference: Inference) -> None:
    asked = call()
    with inference.model(asked, "sum", "1") as served:
        (total,) = await inference.run(
            asked, work_of_tensors(served, [ROWS[:, :2], ROWS[:, 2:]], 2)
        )
    np.testing.assert_array_equal(total, ROWS[:, :2] + ROWS[:, 2:])
    asked = call()
    with inference.model(asked, "same", None) as served:
        sent = np.arange(3, dtype=np.float32).reshape(3, 1)
        (same,) = await inference.run(asked, work_of_tensors(served, [sent], 1))
    np.testing.assert_array_equal(same, sent)


async def test_a_deadline_that_passed_is_told(inference: Inference) -> None:
    asked = call(timeout_s=-1)
    with inference.model_of_rows(asked, "toy", None) as served, pytest.raises(DeadlineExceeded):
        await inference.run(asked, work_of_rows(served, ROWS))


async def test_a_call_is_counted_for_its_model_or_for_none(
    inference: Inference, models: Reloader
) -> None:
    known, unknown = call(), call()
    known.start -= 1
    inference.model_of_rows(known, "toy", 1)
    inference.count(known, "ok")
    inference.count(unknown, "not_found")
    text = render(models.metrics).decode()
    assert counted(text, "torchlit_requests_total", 'model="toy",outcome="ok",version="1"') == 1
    assert counted(text, "torchlit_requests_total") == 1
    assert counted(text, 'torchlit_unmatched_requests_total{outcome="not_found"}') == 1
    assert 1 <= counted(text, "torchlit_request_seconds_sum") < 2


def test_a_model_that_nobody_else_uses_runs_rows_at_once(tmp_path: Path) -> None:
    toy, fussy, picky = (
        Model.open(path)
        for path in (save_toy(tmp_path), save_fussy(tmp_path), save_picky(tmp_path, least=-1e9))
    )
    np.testing.assert_allclose(run_rows(toy, ROWS)[0], toy_answer(ROWS), atol=1e-6)
    with pytest.raises(InferenceFailed, match="NaN or infinity"):
        run_rows(fussy, np.array([[7]], np.float32))
    with pytest.raises(InferenceFailed, match="one row for each row"):
        run_rows(picky, ROWS * np.float32(-1e9))


async def test_rows_that_differ_in_shape_are_run_one_by_one(tmp_path: Path) -> None:
    save_same(tmp_path, ["batch", "length"], name="series")
    save_same(tmp_path, [1, "length"], name="single")
    async with reloader(Settings(models_dir=tmp_path, watch=False)) as models:
        inference = Inference(models.catalog, models.metrics)
        for name in ("series", "single"):
            asked = call()
            with inference.model_of_rows(asked, name, None) as served:
                for rows in ([[1, 2], [3]], [[1], [3]], [[1, 2]]):
                    work = work_of_rows(served, served.model.rows_of(rows))
                    assert (len(work.parts) > 0) == (len({*map(len, rows)}) > 1)
                    (answer,) = await inference.run(asked, work)
                    assert answer.tolist() == rows
                    if name == "series" or work.parts:
                        (answer,) = run_rows(served.model, served.model.rows_of(rows))
                        assert answer.tolist() == rows
                nan = work_of_rows(served, served.model.rows_of([[1, 2], [np.nan]]))
                with pytest.raises(InferenceFailed, match="NaN or infinity"):
                    await inference.run(asked, nan)
