import time
import timeit
from pathlib import Path

import pytest

from service.metrics import Blocks, Metrics
from service.metrics.exposition import render
from tests.support.counters import add, run_as_a_worker, samples, value


def test_process_metrics_are_those_of_this_process() -> None:
    assert value(Metrics(Blocks()), "process_resident_memory_bytes") > 1e6


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


def test_limits_add_up_over_the_workers_that_live(tmp_path: Path) -> None:
    where = {"model": "toy", "version": "1"}
    dead = "toy = metrics.add('toy', '1', labels=['red', 'blue'], features=['a'], info={})"
    dead += "; toy.set_queue_limit(100); toy.queued(5); metrics.sample(9, 50)"
    run_as_a_worker(tmp_path, 2, f"{dead}; metrics.set_stale('toy', '1', True)")
    workers = [Metrics(Blocks(tmp_path, number)) for number in range(2)]
    for number, worker in enumerate(workers):
        toy = add(worker)
        toy.set_queue_limit(100)
        toy.queued(number)
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
    (cells,) = tmp_path.glob("*0.cells")
    made = cells.with_name(cells.name.replace("0.cells", "1.cells"))
    for size in (0, 8 * 2**10):
        made.write_bytes(bytes(size))
        assert value(worker, "torchlit_workers") == 1


def test_reloads_add_up_over_the_workers(tmp_path: Path) -> None:
    workers = [Metrics(Blocks(tmp_path, number)) for number in range(2)]
    for worker in workers:
        worker.add("toy", "1", info={})
        worker.count_reload("toy", "1", "failed")
        worker.set_stale("toy", "1", True)
    where = {"model": "toy", "version": "1"}
    assert value(workers[0], "torchlit_reloads_total", **where, outcome="failed") == 2
    assert value(workers[0], "torchlit_model_stale", **where) == 2
    Metrics(Blocks(tmp_path, 1)).add("toy", "1", info={})  # in the place of one that died
    assert value(workers[0], "torchlit_reloads_total", **where, outcome="failed") == 2
    assert value(workers[0], "torchlit_model_stale", **where) == 1


def test_any_name_is_one_value_of_a_label() -> None:
    names = ['a"b', "a\\b", "a\nb", 'a\\"b', "a\\nb", "{a}, %s\u00e9"]
    metrics = Metrics(Blocks())
    toy = metrics.add("toy", "1", labels=names, info={"provider": 'a"\\b'})
    for place in range(len(names)):
        toy.predictions[place] = place
    where = {"model": "toy", "version": "1"}
    for place, name in enumerate(names):
        assert value(metrics, "torchlit_predictions_total", **where, label=name) == place
    assert value(metrics, "torchlit_model_info", **where, provider='a"\\b') == 1


def test_nodes_are_shown_by_provider_while_the_version_serves() -> None:
    metrics = Metrics(Blocks())
    for version in ("1", "2"):
        metrics.add("toy", version, info={}, nodes={"GPU": 97, "CPU": 3})
    where = {"model": "toy", "version": "1"}
    assert value(metrics, "torchlit_model_nodes", **where, provider="GPU") == 97
    assert value(metrics, "torchlit_model_nodes", **where, provider="CPU") == 3
    metrics.retire("toy", "1")
    metrics.add_failed("toy", "2")
    assert not [name for name, _ in samples(render(metrics)) if name == "torchlit_model_nodes"]


def test_a_histogram_counts_all_up_to_a_bound() -> None:
    metrics = Metrics(Blocks())
    add(metrics).batch_rows.observe(1, 3, 3, 2000)
    shown = {
        dict(labels)["le"]: number
        for (name, labels), number in samples(render(metrics)).items()
        if name == "torchlit_batch_rows_bucket"
    }
    assert (shown["1.0"], shown["2.0"], shown["4.0"], shown["1024.0"]) == (1, 1, 3, 3)
    assert shown["+Inf"] == 4
    where = {"model": "toy", "version": "1"}
    assert value(metrics, "torchlit_batch_rows_count", **where) == 4
    assert value(metrics, "torchlit_batch_rows_sum", **where) == 2007


# An audit hook stays for good, so it needs a process of its own.
COUNT_FILES = """
import sys
from service.metrics.exposition import render
opened = []
sys.addaudithook(lambda event, _: event in ("open", "os.scandir") and opened.append(event))
counts = []
for models in (1, 100):
    for model in range(models):
        metrics.add(f"model-{model}", "1", info={})
    opened.clear()
    render(metrics)
    counts.append(len(opened))
assert counts[0] == counts[1] > 2, counts
"""


def test_a_scrape_reads_as_many_files_for_many_models_as_for_one(tmp_path: Path) -> None:
    Metrics(Blocks(tmp_path, 0))
    run_as_a_worker(tmp_path, 1, COUNT_FILES)


@pytest.mark.slow
def test_a_thousand_models_of_eight_workers_are_shown_soon(tmp_path: Path) -> None:
    for number in range(8):
        metrics = Metrics(Blocks(tmp_path, number))
        for model in range(1000):
            metrics.add(f"model-{model}", "1", labels=["red", "blue"], info={"provider": "CPU"})
    seconds = min(timeit.repeat(lambda: render(metrics), number=1, repeat=5))
    print(f"\n1,000 models, 8 workers: {seconds:.3f} s")
    assert seconds < 1  # 0.16 s where nobody else is at work
