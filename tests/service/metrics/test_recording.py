import asyncio
import shutil
import time
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest

from service.batching import Batcher, Observer
from service.errors import DeadlineExceeded, QueueFull
from service.metrics import Blocks, Metrics, ModelMetrics, Statistics, Total
from service.metrics.exposition import render
from service.metrics.instruments import REASONS
from tests.support.counters import add, samples, value

pytestmark = pytest.mark.anyio

NEVER = Total(0, 0.0)


def test_what_is_counted_is_shown() -> None:
    metrics = Metrics(Blocks())
    toy = add(metrics)
    toy.request("ok", 0.003)
    toy.request("invalid", 0.0001)
    toy.dropped("deadline", 5)
    toy.queued(7)
    toy.ran(3, 0.5, [0.25])
    toy.predictions[1] += 2
    toy.outside[0] += 4
    where = {"model": "toy", "version": "1"}
    assert value(metrics, "torchlit_requests_total", **where, outcome="ok") == 1
    assert value(metrics, "torchlit_requests_total", **where, outcome="invalid") == 1
    assert value(metrics, "torchlit_rejected_rows_total", **where, reason="deadline") == 5
    assert value(metrics, "torchlit_queue_rows", **where) == 7
    assert value(metrics, "torchlit_rows_total", **where) == 3
    assert value(metrics, "torchlit_batches_total", **where) == 1
    assert value(metrics, "torchlit_queue_seconds_sum", **where) == 0.25
    assert value(metrics, "torchlit_compute_seconds_sum", **where) == 0.5
    assert value(metrics, "torchlit_batch_rows_bucket", **where, le="2.0") == 0
    assert value(metrics, "torchlit_batch_rows_bucket", **where, le="4.0") == 1
    assert value(metrics, "torchlit_batch_rows_bucket", **where, le="+Inf") == 1
    assert value(metrics, "torchlit_predictions_total", **where, label="blue") == 2
    outside = "torchlit_inputs_outside_training_range_total"
    assert value(metrics, outside, **where, feature="a") == 4
    assert value(metrics, "torchlit_request_seconds_count", **where) == 2
    assert value(metrics, "torchlit_request_seconds_sum", **where) == pytest.approx(0.0031)
    assert value(metrics, "torchlit_model_info", **where, provider="CPU") == 1
    assert value(metrics, "torchlit_model_ready", **where) == 1


async def test_a_batcher_tells_the_counters_what_happens_in_its_queue() -> None:
    metrics = Metrics(Blocks())
    observer: Observer = add(metrics)
    batcher = Batcher(lambda inputs: inputs, observer, max_batch_size=4, max_queue_rows=5)
    rows, soon = np.zeros((3, 1)), perf_counter() + 10
    waiting = [asyncio.create_task(batcher.submit([rows], 3, soon)) for _ in range(2)]
    left = asyncio.create_task(batcher.submit([rows[:1]], 1, soon))
    await asyncio.sleep(0)
    where = {"model": "toy", "version": "1"}
    assert value(metrics, "torchlit_queue_rows", **where) == 4
    left.cancel()
    with pytest.raises(QueueFull):
        await waiting[1]
    with pytest.raises(DeadlineExceeded):
        await batcher.submit([rows[:2]], 2, 0)
    await asyncio.wait([waiting[0], left])
    await batcher.close()
    assert value(metrics, "torchlit_queue_rows", **where) == 0
    assert value(metrics, "torchlit_batches_total", **where) == 1
    assert value(metrics, "torchlit_rows_total", **where) == 3
    assert value(metrics, "torchlit_queue_seconds_count", **where) == 1
    lost = {
        reason: value(metrics, "torchlit_rejected_rows_total", **where, reason=reason)
        for reason in REASONS
    }
    assert lost == {"queue_full": 3, "deadline": 2, "cancelled": 1}


def test_statistics_tell_how_often_and_how_long_in_all() -> None:
    before = time.time()
    toy = add(Metrics(Blocks()))
    assert toy.statistics(toy.blocks.read()) == Statistics(
        last=0, rows=0, batches=0, succeeded=NEVER, failed=NEVER, queued=NEVER, computed=NEVER
    )
    toy.request("ok", 0.25)
    toy.request("invalid", 0.5)
    toy.request("ok", 2.0)
    toy.request("cancelled", 4.0)
    assert toy.statistics(toy.blocks.read()).last == 0  # nothing was run
    toy.ran(3, 1.0, [0.125, 0.5])
    toy.ran(64, 8.0, [1.0])
    statistics = toy.statistics(toy.blocks.read())
    assert before <= statistics.last <= time.time()
    assert (statistics.rows, statistics.batches) == (67, 2)
    assert statistics.succeeded == Total(2, 2.25)
    assert statistics.failed == Total(2, 4.5)
    assert statistics.queued == Total(3, 1.625)
    assert statistics.computed == Total(2, 9.0)


def test_statistics_are_those_of_all_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, idle = (add(Metrics(Blocks(tmp_path, number))) for number in range(3))
    first.request("ok", 1.0)
    second.request("failed", 2.0)
    for each, seconds, now in ((second, 0.25, 2000.0), (first, 0.5, 1000.0)):
        monkeypatch.setattr("service.metrics.recording.time", lambda now=now: now)
        each.ran(3, seconds, [])
    for each in (first, second, idle):
        statistics = each.statistics(each.blocks.read())
        assert (statistics.succeeded, statistics.failed) == (Total(1, 1.0), Total(1, 2.0))
        assert (statistics.rows, statistics.computed) == (6, Total(2, 0.75))
        assert statistics.last == 2000  # the latest, no sum


def test_a_failed_model_is_shown_as_not_ready() -> None:
    metrics = Metrics(Blocks())
    metrics.add_failed("toy", "2")
    assert value(metrics, "torchlit_model_ready", model="toy", version="2") == 0


def test_every_worker_shows_the_sums_of_all(tmp_path: Path) -> None:
    workers = [Metrics(Blocks(tmp_path, number)) for number in range(3)]
    for number, worker in enumerate(workers):
        toy = add(worker)
        toy.request("ok", 0.01 * number)
        toy.queued(number)
        worker.unmatched("invalid")
    for worker in workers:
        where = {"model": "toy", "version": "1"}
        assert value(worker, "torchlit_requests_total", **where, outcome="ok") == 3
        assert value(worker, "torchlit_request_seconds_sum", **where) == pytest.approx(0.03)
        assert value(worker, "torchlit_queue_rows", **where) == 3
        assert value(worker, "torchlit_unmatched_requests_total", outcome="invalid") == 3


def test_a_worker_that_replaces_a_dead_one_counts_on(tmp_path: Path) -> None:
    first = add(Metrics(Blocks(tmp_path, 0)))
    first.request("ok", 0.1)
    first.queued(5)
    second = Metrics(Blocks(tmp_path, 0))
    add(second).request("ok", 0.1)
    where = {"model": "toy", "version": "1"}
    assert value(second, "torchlit_requests_total", **where, outcome="ok") == 2
    assert value(second, "torchlit_queue_rows", **where) == 0  # its queue died with it


def test_a_model_with_other_labels_does_not_read_the_old_cells(tmp_path: Path) -> None:
    metrics = Metrics(Blocks(tmp_path, 0))
    add(metrics).request("ok", 0.1)
    metrics.add("toy", "1", labels=["only"], info={})
    where = {"model": "toy", "version": "1"}
    assert value(metrics, "torchlit_requests_total", **where, outcome="ok") == 0


def test_a_worker_outlives_the_folder_it_shares(tmp_path: Path) -> None:
    folder = tmp_path / "cells"
    metrics = Metrics(Blocks(folder, 0))
    toy = add(metrics)
    toy.request("ok", 0.1)
    shutil.rmtree(folder)
    toy.request("ok", 0.1)
    where = {"model": "toy", "version": "1"}
    assert value(metrics, "torchlit_requests_total", **where, outcome="ok") == 2
    add(Metrics(Blocks(folder, 1)))  # a worker that starts now makes it anew


def test_reloads_are_shown_before_the_first_ends() -> None:
    where = {"model": "toy", "version": "2"}
    metrics = Metrics(Blocks())
    metrics.expect("toy", "2")
    shown = samples(render(metrics))
    for outcome in ("ok", "failed"):
        labels = frozenset({**where, "outcome": outcome}.items())
        assert shown["torchlit_reloads_total", labels] == 0
    assert ("torchlit_model_ready", frozenset(where.items())) not in shown
    add(metrics, "2")
    metrics.count_reload("toy", "2", "ok")
    assert value(metrics, "torchlit_reloads_total", **where, outcome="ok") == 1
    metrics.retire("toy", "2")
    assert b"torchlit_reloads_total{" not in render(metrics)


def test_counters_of_other_labels_begin_anew() -> None:
    metrics = Metrics(Blocks())
    first = metrics.add("toy", "1", labels=["a"], info={})
    first.request("ok", 0.1)
    assert metrics.add("toy", "1", labels=("a",), info={}) is first
    assert isinstance(metrics.add("toy", "1", labels=["b"], info={}), ModelMetrics)
    assert metrics.add("toy", "1", labels=["b"], info={}) is not first
