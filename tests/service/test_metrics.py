import shutil
import time
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.metrics import Blocks, Histogram, Metrics, ModelMetrics, Statistics, Total

NEVER = Total(0, 0.0)


def samples(text: bytes) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Parse the exposition with prometheus_client's own reader."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return samples(metrics.render())[name, frozenset(labels.items())]


def add(metrics: Metrics, version: str = "1") -> ModelMetrics:
    return metrics.add(
        "toy", version, labels=["red", "blue"], features=["a"], info={"provider": "CPU"}
    )


def test_a_histogram_counts_each_value_in_its_bucket_and_above() -> None:
    cells = memoryview(bytearray(8 * 4)).cast("d")
    histogram = Histogram([1.0, 2.0], cells)
    for number in (0.5, 1.0, 1.5, 2.0, 9.0):
        histogram.observe(number)
    assert list(cells) == [2, 2, 1, 14.0]  # up to 1, up to 2, above, and the sum


def test_what_is_counted_is_shown() -> None:
    metrics = Metrics(Blocks())
    toy = add(metrics)
    toy.request("ok", 0.003)
    toy.request("invalid", 0.0001)
    toy.rejected("deadline", 5)
    toy.queue_rows(7)
    toy.batch(3, 0.5)
    toy.predictions[1] += 2
    toy.outside[0] += 4
    where = {"model": "toy", "version": "1"}
    assert value(metrics, "torchlit_requests_total", **where, outcome="ok") == 1
    assert value(metrics, "torchlit_requests_total", **where, outcome="invalid") == 1
    assert value(metrics, "torchlit_rejected_rows_total", **where, reason="deadline") == 5
    assert value(metrics, "torchlit_queue_rows", **where) == 7
    assert value(metrics, "torchlit_rows_total", **where) == 3
    assert value(metrics, "torchlit_batches_total", **where) == 1
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


def test_statistics_tell_how_often_and_how_long_in_all() -> None:
    before = time.time()
    toy = add(Metrics(Blocks()))
    assert toy.statistics() == Statistics(
        last=0, rows=0, batches=0, succeeded=NEVER, failed=NEVER, queued=NEVER, computed=NEVER
    )
    toy.request("ok", 0.25)
    toy.request("invalid", 0.5)
    toy.request("ok", 2.0)
    toy.request("cancelled", 4.0)
    assert toy.statistics().last == 0  # nothing was run
    for seconds in (0.125, 0.5, 1.0):
        toy.queue_seconds.observe(seconds)
    for rows, seconds in ((3, 1.0), (64, 8.0)):
        toy.batch(rows, seconds)
    statistics = toy.statistics()
    assert before <= statistics.last <= time.time()
    assert (statistics.rows, statistics.batches) == (67, 2)
    assert statistics.succeeded == Total(2, 2.25)
    assert statistics.failed == Total(2, 4.5)
    assert statistics.queued == Total(3, 1.625)
    assert statistics.computed == Total(2, 9.0)


def test_statistics_are_those_of_all_workers(tmp_path: Path) -> None:
    first, second, idle = (add(Metrics(Blocks(tmp_path, number))) for number in range(3))
    first.request("ok", 1.0)
    second.request("failed", 2.0)
    for each, seconds in ((first, 0.5), (second, 0.25)):
        each.batch(3, seconds)
    second._last[0] = first._last[0] + 100
    for each in (first, second, idle):
        statistics = each.statistics()
        assert (statistics.succeeded, statistics.failed) == (Total(1, 1.0), Total(1, 2.0))
        assert (statistics.rows, statistics.computed) == (6, Total(2, 0.75))
        assert statistics.last == second._last[0]  # the latest, no sum


def test_a_failed_model_is_shown_as_not_ready() -> None:
    metrics = Metrics(Blocks())
    metrics.add_failed("toy", "2")
    assert value(metrics, "torchlit_model_ready", model="toy", version="2") == 0


def test_process_metrics_are_those_of_this_process() -> None:
    assert value(Metrics(Blocks()), "process_resident_memory_bytes") > 1e6


def test_every_worker_shows_the_sums_of_all(tmp_path: Path) -> None:
    workers = [Metrics(Blocks(tmp_path, number)) for number in range(3)]
    for number, worker in enumerate(workers):
        toy = add(worker)
        toy.request("ok", 0.01 * number)
        toy.queue_rows(number)
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
    first.queue_rows(5)
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
