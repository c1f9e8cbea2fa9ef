import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.metrics import Blocks, Metrics, ModelMetrics, Statistics, Total, recording
from service.metrics.cells import Histogram
from service.metrics.exposition import render

NEVER = Total(0, 0.0)


def samples(text: bytes) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Parse the exposition with prometheus_client's own reader."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return samples(render(metrics))[name, frozenset(labels.items())]


def add(metrics: Metrics, version: str = "1") -> ModelMetrics:
    return metrics.add(
        "toy", version, labels=["red", "blue"], features=["a"], info={"provider": "CPU"}
    )


def run_as_a_worker(folder: Path, number: int, code: str) -> None:
    """Let a process be worker `number`, with `metrics`, and end."""
    begin = f"""
import time
from pathlib import Path
from service.metrics import Blocks, Metrics
metrics = Metrics(Blocks(Path({str(folder)!r}), {number}))
"""
    subprocess.run([sys.executable, "-c", begin + code], check=True)


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


def test_statistics_are_those_of_all_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, idle = (add(Metrics(Blocks(tmp_path, number))) for number in range(3))
    first.request("ok", 1.0)
    second.request("failed", 2.0)
    for each, seconds, now in ((second, 0.25, 200.0), (first, 0.5, 100.0)):
        monkeypatch.setattr(recording, "time", lambda now=now: now)
        each.batch(3, seconds)
    for each in (first, second, idle):
        statistics = each.statistics()
        assert (statistics.succeeded, statistics.failed) == (Total(1, 1.0), Total(1, 2.0))
        assert (statistics.rows, statistics.computed) == (6, Total(2, 0.75))
        assert statistics.last == 200  # the latest, no sum


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


SPEND = """
while time.process_time() < 1:
    pass
metrics.sample(0, 4096)
"""


@pytest.mark.slow
def test_cpu_time_does_not_fall_when_a_worker_is_replaced(tmp_path: Path) -> None:
    name = "process_cpu_seconds_total"
    worker = Metrics(Blocks(tmp_path, 0))
    own = value(worker, name)
    assert time.process_time() - 1 < own <= time.process_time()
    run_as_a_worker(tmp_path, 1, SPEND)
    with_the_dead = value(worker, name)
    assert with_the_dead > own + 0.9
    run_as_a_worker(tmp_path, 1, SPEND)  # in its place
    assert value(worker, name) > with_the_dead + 0.9


def test_a_version_is_ready_once_every_worker_answers(tmp_path: Path) -> None:
    def ready(version: str) -> list[float]:
        shown = [samples(render(worker)) for worker in workers]
        labels = frozenset({"model": "toy", "version": version}.items())
        key = "torchlit_model_ready", labels
        return [each[key] for each in shown if key in each]

    workers = [Metrics(Blocks(tmp_path, number)) for number in range(2)]
    for worker in workers:
        add(worker)
        worker.sample(0, 4096)
    assert ready("1") == [1, 1]
    workers[1].add_failed("toy", "1")
    assert ready("1") == [0, 0]  # whichever worker answers
    add(workers[1])
    assert ready("1") == [1, 1]
    add(workers[0], "2")
    assert ready("2") == [0]  # the other does not know it yet
    add(workers[1], "2")
    assert ready("2") == [1, 1]
    workers[1].retire("toy", "1")
    assert ready("1") == [0]
    workers[0].add_failed("toy", "")  # what concerns a model as a whole
    assert ready("") == [0]


def test_neither_a_dead_worker_nor_one_that_begins_holds_a_version_back(tmp_path: Path) -> None:
    where = {"model": "toy", "version": "1"}
    worker = Metrics(Blocks(tmp_path, 0))
    add(worker)
    run_as_a_worker(tmp_path, 1, "metrics.add_failed('toy', '1'); metrics.sample(0, 4096)")
    assert value(worker, "torchlit_model_ready", **where) == 1
    assert value(worker, "torchlit_workers") == 1
    second = Metrics(Blocks(tmp_path, 1))  # in its place
    assert value(worker, "torchlit_model_ready", **where) == 1
    assert value(worker, "torchlit_workers") == 2
    second.sample(0, 4096)  # it serves, and has not opened the version
    assert value(worker, "torchlit_model_ready", **where) == 0
    add(second)
    assert value(worker, "torchlit_model_ready", **where) == 1


def test_a_version_says_that_it_answers_for_one_process_only(tmp_path: Path) -> None:
    worker = Metrics(Blocks(tmp_path, 0))
    add(worker)
    run_as_a_worker(tmp_path, 1, "metrics.add('toy', '1', info={}); metrics.sample(0, 4096)")
    Metrics(Blocks(tmp_path, 1)).sample(0, 4096)  # in its place, without the version
    assert value(worker, "torchlit_model_ready", model="toy", version="1") == 0


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


def test_limits_add_up_over_the_workers_that_live(tmp_path: Path) -> None:
    where = {"model": "toy", "version": "1"}
    dead = "toy = metrics.add('toy', '1', labels=['red', 'blue'], features=['a'], info={})"
    dead += "; toy.set_queue_limit(100); toy.queue_rows(5); metrics.sample(9, 50)"
    run_as_a_worker(tmp_path, 2, f"{dead}; metrics.set_stale('toy', '1', True)")
    workers = [Metrics(Blocks(tmp_path, number)) for number in range(2)]
    for number, worker in enumerate(workers):
        toy = add(worker)
        toy.set_queue_limit(100)
        toy.queue_rows(number)
        worker.sample(number + 3, 50)
    for worker in workers:
        assert value(worker, "torchlit_queue_limit_rows", **where) == 200
        assert value(worker, "torchlit_queue_rows", **where) == 1
        assert value(worker, "torchlit_model_stale", **where) == 0
        assert value(worker, "torchlit_connections") == 7
        assert value(worker, "torchlit_connections_limit") == 100
        assert value(worker, "torchlit_workers") == 2
    Metrics(Blocks(tmp_path, 1))  # in the place of one that died
    assert value(workers[0], "torchlit_connections") == 3
    assert value(workers[0], "torchlit_connections_limit") == 50


def test_a_file_that_a_worker_has_just_made_is_no_worker(tmp_path: Path) -> None:
    worker = Metrics(Blocks(tmp_path, 0))
    (cells,) = tmp_path.glob("worker.*.0.cells")
    cells.with_name(cells.name.replace(".0.cells", ".1.cells")).touch()
    assert value(worker, "torchlit_workers") == 1
