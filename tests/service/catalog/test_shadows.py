"""Versions that are compared on live rows, and callers who notice nothing of it."""

import asyncio
import random
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.batching import Inputs, Outputs
from service.card import Example
from service.catalog import shadow, shadows
from service.catalog.place import find
from service.catalog.reload import Reloader
from service.engine.model import Model, Stop
from service.errors import InferenceFailed, InvalidSetting
from service.metrics import Blocks, Metrics
from service.settings import Settings, machine
from service.settings.shadows import ShadowVersions
from tests.support.catalogs import reloader
from tests.support.clocks import soon
from tests.support.counters import value
from tests.support.foreign_models import counting, save, scaled_by_all
from tests.support.toys import save_bounded, save_same, save_toy, toy_answer, toy_card

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def without_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let shadows go on immediately."""
    monkeypatch.setattr(shadow, "REST", 0)


OUTCOMES = ("agree", "disagree", "failed", "dropped")
ROWS = np.array([[1, 2, 3, 4], [0, 9, 0, 0], [9, 0, 0, 1]], np.float32)


def put(folder: Path, version: int, scale: float = 1, **changes: Any) -> Path:
    """Write a toy with a card, whose logits are `scale` times as large."""
    output = toy_answer(ROWS[:1] * scale)[0].tolist()
    examples = [Example(name="one", input=ROWS[0].tolist(), output=output)]
    return save_toy(folder, version, card=toy_card(examples=examples, **changes), scale=scale)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A models folder with a toy, and as version 2 one that has another label for each of ROWS."""
    folder = tmp_path / "models"
    put(folder, 1)
    put(folder, 2, -1)
    return folder


async def no_pause() -> None:
    """Let no time pass between two scans."""


def make(folder: Path, said: str = "toy/1=2", **settings: Any) -> Reloader:
    settings = {"models_dir": folder, "watch": False, "shadow": ShadowVersions(said)} | settings
    return reloader(Settings(**settings), no_pause)


async def answer(models: Reloader, rows: Any = ROWS, version: int | None = None) -> Any:
    """Let the toy answer rows, and hold it against NumPy if it is version 1."""
    served = models.catalog.get("toy", version)
    inputs = [np.asarray(rows, np.float32)]
    (outputs,) = await served.batcher.submit(inputs, len(rows), soon(), alone=len(rows) == 1)
    if served.version == 1:
        np.testing.assert_allclose(outputs, toy_answer(rows), atol=1e-6)
    return outputs


def counted(models: Reloader, name: str = "toy") -> list[int]:
    """Return how many rows agree, disagree, failed and were dropped."""
    where = {"model": name, "version": "1", "shadow": "2"}
    shown = "torchlit_shadow_rows_total"
    return [int(value(models.metrics, shown, **where, outcome=each)) for each in OUTCOMES]


async def until(is_so: Callable[[], bool]) -> None:
    """Let the loop and the threads go on until something is so."""
    async with asyncio.timeout(20):
        while not is_so():
            await asyncio.sleep(0.005)


async def until_counted(models: Reloader, rows: int, name: str = "toy") -> list[int]:
    await until(lambda: sum(counted(models, name)) >= rows)
    return counted(models, name)


class Held:
    """Holds the runs of a model, in place of its own, until it is let go on."""

    def __init__(self, model: Any, *, heeds_stop: bool = False) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.runs = list[int]()
        run = model.run

        def hold(inputs: Inputs, stop: Stop) -> Outputs:
            self.runs.append(len(inputs[0]))
            self.begun.set()
            while not self.go_on.wait(0.01):
                if heeds_stop and stop.is_set:
                    raise InferenceFailed("stopped")
            return run(inputs, stop)

        model.run = hold


async def test_rows_are_compared_and_only_who_names_the_shadow_gets_its_answer(
    folder: Path,
) -> None:
    async with make(folder) as models:
        assert models.catalog.get("toy").version == 1
        assert models.catalog.get("toy", 2).version == 2
        await answer(models)
        await answer(models, ROWS[:1])
        assert await until_counted(models, 4) == [0, 4, 0, 0]
        np.testing.assert_allclose(
            await answer(models, version=2), toy_answer(-ROWS), atol=1e-6
        )  # and nobody compares those
        assert value(models.metrics, "torchlit_rows_total", model="toy", version="2") == 3
        assert counted(models) == [0, 4, 0, 0]


async def test_a_version_with_the_same_labels_agrees(folder: Path) -> None:
    put(folder, 2, description="The same.")
    async with make(folder) as models:
        await asyncio.gather(*(answer(models, ROWS[:2]) for _ in range(20)))
        assert await until_counted(models, 40) == [40, 0, 0, 0]
        where = {"model": "toy", "version": "1", "shadow": "2"}
        pair = {"label": "green", "shadow_label": "green"}
        pairs = value(models.metrics, "torchlit_shadow_labels_total", **where, **pair)
        assert pairs == (toy_answer(ROWS[:2]).argmax(axis=1) == 1).sum() * 20 > 0
        name = "torchlit_shadow_probability_difference"
        assert value(models.metrics, f"{name}_bucket", **where, le="0.0001") == 40
        assert value(models.metrics, f"{name}_sum", **where) < 1e-4


async def test_a_share_of_the_rows_is_compared_whoever_sends_them(folder: Path) -> None:
    random.seed(1)
    np.random.seed(1)
    async with make(folder, "toy/1=2:0.25") as models:
        await answer(models, np.tile(ROWS, (1000, 1)))
        for _ in range(300):
            await answer(models, ROWS[:1])
        await asyncio.sleep(0.1)
        chosen = await until_counted(models, 700)
        assert 700 < chosen[1] < 950  # of 3,300
        assert chosen == [0, chosen[1], 0, 0]


async def test_what_raises_failed_and_its_batch_mates_did_not(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with make(folder) as models:
        model: Any = models.catalog.get("toy", 2).model
        run = model.run

        def raises(inputs: Inputs, stop: Stop) -> Outputs:
            if (inputs[0][:, 1] == 9).any():
                raise InferenceFailed("the model failed on this input", "no nine")
            return run(inputs, stop)

        model.run = raises
        for _ in range(2):
            await answer(models)
        assert await until_counted(models, 6) == [0, 4, 2, 0]
    failed = [each.getMessage() for each in caplog.records if "failed" in each.getMessage()]
    assert failed == [
        "shadow toy/1=2: the model failed on this input (no nine); more is counted and not logged"
    ]


async def test_what_is_not_finite_failed(folder: Path) -> None:
    save_toy(folder, 1)
    save_toy(folder, 2, scale=float("nan"))
    async with make(folder) as models:
        await answer(models)
        assert await until_counted(models, 3) == [0, 0, 3, 0]


async def test_a_run_without_end_is_stopped_and_the_next_is_compared(tmp_path: Path) -> None:
    for version in (1, 2):
        save(tmp_path, "counting", counting(), version)
    async with make(tmp_path, "counting/1=2", request_timeout_s=0.1) as models:
        served = models.catalog.get("counting")
        model: Any = served.model
        assert model.threads == machine.available().threads(1)
        assert models.catalog.get("counting", 2).model.threads == 1  # a shadow has one core
        model.run = lambda inputs, stop: [np.array([7], np.float32)]
        await served.batcher.submit([np.array([10**9])], 1, soon())  # a minute of rounds or more
        assert await until_counted(models, 1, "counting") == [0, 0, 1, 0]
        await served.batcher.submit([np.array([7])], 1, soon())
        assert await until_counted(models, 2, "counting") == [1, 0, 1, 0]
        await served.batcher.submit([np.array([10**9])], 1, soon())
        await until(lambda: models.shadows.pairs[0].shadow._running_since is not None)
    assert counted(models, "counting") == [1, 0, 1, 1]  # the end waits for no run


@pytest.mark.slow
async def test_a_slow_shadow_drops_and_callers_wait_for_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shadow, "MOST_ROWS", 5)
    async with make(folder) as models:
        held = Held(models.catalog.get("toy", 2).model)
        await answer(models)
        await until(held.begun.is_set)
        for _ in range(4):
            await answer(models)  # one more fits, as there is room for a part of it
        held.go_on.set()
        assert await until_counted(models, 15) == [0, 6, 0, 9]
        await until(lambda: models.shadows.pairs[0].shadow._done_rows == 6)
        await answer(models)
        assert await until_counted(models, 18) == [0, 9, 0, 9]


@pytest.mark.slow
async def test_rows_that_are_too_large_together_are_dropped(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shadow, "MOST_BYTES", 100)  # a row and its answer are 28
    async with make(folder) as models:
        await answer(models, ROWS[[0, 1, 2, 0]])
        await answer(models)  # it would fit, but others did not
        assert await until_counted(models, 7) == [0, 0, 0, 7]
        await answer(models)
        assert await until_counted(models, 10) == [0, 3, 0, 7]


async def test_what_a_caller_lends_is_copied(folder: Path) -> None:
    async with make(folder) as models:
        body = bytearray(ROWS.tobytes())
        served = models.catalog.get("toy")
        lent = np.frombuffer(body, np.float32).reshape(3, 4)
        await served.batcher.submit([lent], 3, soon())
        body[:] = (-ROWS).tobytes()
        assert await until_counted(models, 3) == [0, 3, 0, 0]  # else the labels were the same


async def test_both_versions_may_be_replaced_while_they_are_compared(folder: Path) -> None:
    async with make(folder) as models:
        held = Held(models.catalog.get("toy", 2).model)
        await answer(models)
        await until(held.begun.is_set)
        old = models.catalog.get("toy", 2)
        put(folder, 2, 2)
        await models.reload()
        await answer(models)
        assert await until_counted(models, 3) == [3, 0, 0, 0]
        assert old.model._session is not None  # something runs in it
        held.go_on.set()
        await until(lambda: old.model._session is None)
        assert counted(models) in ([3, 0, 0, 3], [3, 3, 0, 0])
        before, rows = models.catalog.get("toy"), sum(counted(models))
        put(folder, 1, description="The same.")
        await models.reload()
        assert models.catalog.get("toy") is not before
        await until(lambda: before.model._session is None)
        await answer(models)
        agree, *_ = await until_counted(models, rows + 3)
        assert agree == 6


async def test_without_its_shadow_rows_are_dropped_until_it_is_back(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "torchlit.shadow")
    async with make(folder) as models:
        shutil.move(folder / "toy/2", folder.parent / "2")
        await models.reload()
        await answer(models)
        assert counted(models) == [0, 0, 0, 3]
        shutil.move(folder.parent / "2", folder / "toy/2")
        await models.reload()
        await answer(models)
        assert await until_counted(models, 6) == [0, 3, 0, 3]
        await models.unload("toy")
        await models.load("toy")
        await answer(models)
        assert await until_counted(models, 9) == [0, 6, 0, 3]
    begins, ends = "compares all rows", "nothing is compared: toy/2 does not answer"
    said = [each.getMessage() for each in caplog.records if each.name == "torchlit.shadow"]
    assert said[:3] == [f"shadow toy/1=2: {each}" for each in (begins, ends, begins)]


async def test_a_shadow_of_another_form_is_refused_at_the_start_and_dropped_later(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with make(folder) as models:
        await answer(models)
        assert await until_counted(models, 3) == [0, 3, 0, 0]
        shutil.rmtree(folder / "toy/2")
        await models.reload()
        put(folder, 2, labels=["a", "b", "c"])
        await models.reload()
        await answer(models)
        assert counted(models) == [0, 3, 0, 3]
        assert models.shadows.pairs[0].why_not == "toy/2 has other labels"
    assert "shadow toy/1=2: nothing is compared: toy/2 has other labels" in caplog.text
    with pytest.raises(InvalidSetting) as refused:
        await make(folder).__aenter__()
    assert str(refused.value) == (
        "TORCHLIT_SHADOW: toy/1=2: expected versions with the same input and outputs, got other "
        "labels"
    )


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("toy/1=3", "expected versions of toy that are opened (1, 2), got 3"),
        ("toy/4=2", "expected versions of toy that are opened (1, 2), got 4"),
        ("no/1=2", "expected versions of no that are opened (there are none), got 1"),
    ],
)
async def test_a_version_that_is_not_there_is_refused(
    folder: Path, said: str, expected: str
) -> None:
    with pytest.raises(InvalidSetting, match="TORCHLIT_SHADOW") as refused:
        await make(folder, said).__aenter__()
    assert str(refused.value) == f"TORCHLIT_SHADOW: {said}: {expected}"


async def test_a_shadow_that_cannot_be_opened_is_waited_for(folder: Path) -> None:
    path = folder / "toy/2/model.onnx"
    good = path.read_bytes()
    path.write_bytes(b"no model")
    async with make(folder) as models:
        await answer(models)
        assert counted(models) == [0, 0, 0, 3]
        path.write_bytes(good)
        await models.reload()
        await answer(models)
        assert await until_counted(models, 6) == [0, 3, 0, 3]


async def test_a_shadow_alone_answers_nobody_who_does_not_name_it(folder: Path) -> None:
    (folder / "toy/1/model.onnx").write_bytes(b"no model")
    async with make(folder) as models:
        assert models.catalog.default("toy") is None
        assert not models.catalog.is_ready
        assert models.catalog.get("toy", 2).version == 2
    settings = Settings(models_dir=folder, shadow=ShadowVersions("toy/1=2"))
    assert find("toy", settings).name == "toy/1"  # nor a file of rows


async def test_two_may_be_compared_both_ways_and_the_highest_is_the_default(folder: Path) -> None:
    async with make(folder, "toy/1=2 toy/2=1") as models:
        assert models.catalog.get("toy").version == 2
        await answer(models, version=1)
        await answer(models, version=2)
        where = {"model": "toy", "outcome": "disagree"}
        shown = "torchlit_shadow_rows_total"
        for version, other in (("1", "2"), ("2", "1")):
            of = where | {"version": version, "shadow": other}
            await until(lambda of=of: value(models.metrics, shown, **of) == 3)


async def test_the_end_waits_for_no_shadow(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadows, "CLOSE_S", 0.01)
    async with make(folder) as models:
        held = Held(models.catalog.get("toy", 2).model)
        await answer(models)
        await until(held.begun.is_set)
        async with asyncio.timeout(10):
            await models.__aexit__()
        assert not held.go_on.is_set()
        held.go_on.set()


async def test_requests_that_are_not_rows_are_run_as_they_were_sent(tmp_path: Path) -> None:
    foreign = scaled_by_all()
    for version in (1, 2):
        save(tmp_path, "scaled", foreign.model, version)
    async with make(tmp_path, "scaled/1=2") as models:
        served = models.catalog.get("scaled")
        assert not served.model.is_batched
        inputs = foreign.inputs(np.random.default_rng(0), 5)
        arrays = [inputs[each.name] for each in served.model.inputs]
        runs = Held(models.catalog.get("scaled", 2).model)
        runs.go_on.set()
        for _ in range(2):
            await served.batcher.submit([*arrays], 5, soon(), kind=served.kind_of(arrays))
        assert await until_counted(models, 10, "scaled") == [10, 0, 0, 0]
        assert runs.runs == [5, 5]


async def test_rows_of_open_sizes_are_run_as_they_were_run_before(tmp_path: Path) -> None:
    path = save_same(tmp_path, ["n", "k"])
    shutil.copytree(path.parent, tmp_path / "same/2")
    async with make(tmp_path, "same/1=2") as models:
        served = models.catalog.get("same")
        assert served.model.is_open_inside
        runs = Held(models.catalog.get("same", 2).model)
        runs.go_on.set()
        inputs = [np.ones((2, 3), np.float32)]
        for _ in range(2):
            await served.batcher.submit(inputs, 2, soon(), kind=served.kind_of(inputs))
        assert await until_counted(models, 4, "same") == [4, 0, 0, 0]
        assert runs.runs == [2, 2]


def test_what_is_kept_is_bounded_in_number_and_in_bytes(tmp_path: Path) -> None:
    model = Model.open(save_toy(tmp_path))
    kept = shadow.Disagreements(3)
    for number in range(5):
        kept.add(model, [np.full(1, number)], [], [])
    assert [int(each.inputs[0][0]) for each in kept.newest_first()] == [4, 3, 2]
    for number in range(5):
        kept.add(model, [np.full(50_000, number)], [], [])  # 400 kB
    assert [int(each.inputs[0][0]) for each in kept.newest_first()] == [4, 3]
    kept.add(model, [np.zeros(200_000)], [], [])  # too large alone
    assert kept.newest_first() == []


async def test_a_regression_is_compared_by_the_interval_of_the_version(tmp_path: Path) -> None:
    for version in (2, 1):  # the same file twice
        path = save_bounded(tmp_path)
        if version == 2:
            (tmp_path / "bounded/2").mkdir()
            shutil.copy(path, tmp_path / "bounded/2/model.onnx")
    async with make(tmp_path, "bounded/1=2") as models:
        served = models.catalog.get("bounded")
        await served.batcher.submit([np.ones((3, 1), np.float32)], 3, soon())
        assert await until_counted(models, 3, "bounded") == [3, 0, 0, 0]
        where = {"model": "bounded", "version": "1", "shadow": "2"}
        for name in ("absolute", "relative"):
            shown = f"torchlit_shadow_{name}_difference_count"
            assert value(models.metrics, shown, **where) == 3


def test_workers_add_up(tmp_path: Path) -> None:
    workers = [Metrics(Blocks(tmp_path, number)) for number in range(2)]
    for each in workers:
        metrics = each.add_shadow("toy", "1", "2", labels=["red", "blue"])
        metrics.count("agree", 3)
        metrics.pair(np.array([0, 1, -1]), np.array([1, 1, 1]))
    where = {"model": "toy", "version": "1", "shadow": "2"}
    assert value(workers[0], "torchlit_shadow_rows_total", **where, outcome="agree") == 6
    compared = metrics.compared(workers[1].blocks.read())
    assert compared.rows == {"agree": 6, "disagree": 0, "failed": 0, "dropped": 0}
    assert compared.pairs.tolist() == [[0, 2], [0, 2]]


def test_pairs_of_many_labels_are_no_series() -> None:
    metrics = Metrics(Blocks())
    labels = [str(each) for each in range(17)]
    metrics.add_shadow("toy", "1", "2", labels=labels).pair(np.array([3]), np.array([16]))
    where = {"model": "toy", "version": "1", "shadow": "2"}
    with pytest.raises(KeyError):
        value(metrics, "torchlit_shadow_labels_total", **where, label="3", shadow_label="16")
    counted = metrics.shadows["toy", "1", "2"].compared(metrics.blocks.read())
    assert counted.pairs[3, 16] == counted.pairs.sum() == 1
