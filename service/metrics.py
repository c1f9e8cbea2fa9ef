"""Every Prometheus instrument of the service, and where its numbers live.

The numbers of a model are float64 cells in one block of memory, which the hot path adds to
directly. With several workers a block is a file that each worker maps, so that any worker can
answer a scrape with the sums of all; a worker that replaces a dead one counts on in its file.
What is now, not what was counted, is added up over the workers that live. A cell that holds a
process id says something of that process only, whoever has the file by now.
prometheus_client writes the exposition format.
"""

import hashlib
import mmap
import operator
import os
from bisect import bisect_left
from collections.abc import Container, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from time import process_time, time
from typing import TypeAlias

from msgspec import Struct
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

Doubles: TypeAlias = "memoryview[float]"  # float64 cells

CONTENT_TYPE = "text/plain; version=0.0.4"  # litestar adds the charset

OUTCOMES = (
    "ok",
    "invalid",
    "not_found",
    "too_large",
    "queue_full",
    "deadline",
    "unavailable",
    "failed",
    "cancelled",
)
UNMATCHED_OUTCOMES = (
    *("invalid", "unauthorized", "not_found", "timeout", "too_large", "deadline"),
    *("unavailable", "too_many_connections", "failed", "cancelled"),
)
REASONS = ("queue_full", "deadline", "cancelled")
RELOAD_OUTCOMES = ("ok", "failed")
SECONDS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)


class Instrument(Struct, frozen=True):
    """One metric: its name without suffix, its help, and its own label or its buckets."""

    name: str
    help: str
    label: str = ""
    buckets: tuple[float, ...] = ()
    is_now: bool = False  # what is, and ends with its worker; else what was counted


REQUESTS = Instrument("torchlit_requests", "Requests to a model, by outcome.", "outcome")
REJECTED = Instrument("torchlit_rejected_rows", "Rows that were never computed.", "reason")
PREDICTIONS = Instrument("torchlit_predictions", "Rows predicted, by label.", "label")
OUTSIDE = Instrument(
    "torchlit_inputs_outside_training_range",
    "Values below the minimum or above the maximum seen in training, by feature.",
    "feature",
)
QUEUE_ROWS = Instrument("torchlit_queue_rows", "Rows that wait for a batch now.", is_now=True)
QUEUE_LIMIT = Instrument(
    "torchlit_queue_limit_rows",
    "Rows that may wait: TORCHLIT_MAX_QUEUE_ROWS of each worker.",
    is_now=True,
)
REQUEST_SECONDS = Instrument(
    "torchlit_request_seconds", "From the request's start to its reply.", buckets=SECONDS
)
QUEUE_SECONDS = Instrument(
    "torchlit_queue_seconds", "From a request's rows waiting to their batch.", buckets=SECONDS
)
COMPUTE_SECONDS = Instrument("torchlit_compute_seconds", "Running one batch.", buckets=SECONDS)
BATCH_ROWS = Instrument("torchlit_batch_rows", "Rows in one batch.", buckets=ROWS)
# Not shown, but told by `statistics`.
FAILED_SECONDS = Instrument("failed_seconds", "That part of request_seconds that failed took.")
LAST = Instrument("last", "When the last batch was run, in seconds since 1970.")
OF_A_MODEL = (
    *(REQUESTS, REJECTED, PREDICTIONS, OUTSIDE, QUEUE_ROWS, QUEUE_LIMIT),
    *(REQUEST_SECONDS, QUEUE_SECONDS, COMPUTE_SECONDS, BATCH_ROWS),
)

UNMATCHED = Instrument(
    "torchlit_unmatched_requests", "Requests refused before a model was known.", "outcome"
)
RELOADS = Instrument(
    "torchlit_reloads", "Openings of a new or changed version while serving.", "outcome"
)
STALE = Instrument(
    "torchlit_model_stale",
    "Workers that serve an older file, as the newer could not be opened.",
    is_now=True,
)
INFO = Instrument(
    "torchlit_model_info", "1 for each model version; how the answering worker serves it."
)
READY = Instrument(
    "torchlit_model_ready", "1 if the model version answers in every worker, else 0."
)
ROWS_TOTAL = Instrument("torchlit_rows", "Rows that went through the model.")
BATCHES_TOTAL = Instrument("torchlit_batches", "Batches that went through the model.")
CONNECTIONS = Instrument("torchlit_connections", "Connections that are open now.", is_now=True)
CONNECTIONS_LIMIT = Instrument(
    "torchlit_connections_limit",
    "Connections that may be open: TORCHLIT_MAX_CONNECTIONS of each worker.",
    is_now=True,
)
WORKERS = Instrument("torchlit_workers", "Worker processes that live now.")
# Not shown as such.
PID = Instrument("pid", "The worker's process id.")
SERVING = Instrument("serving", "The process id of a worker that takes requests.")
CPU = Instrument("cpu", "CPU seconds of the worker, and of those before it.")
OF_A_WORKER = (CONNECTIONS, CONNECTIONS_LIMIT, PID, SERVING, CPU)


class Blocks:
    """Zeroed float64 cells by name: private memory, or files that the workers share."""

    def __init__(self, directory: Path | None = None, worker: int = 0) -> None:
        """Keep blocks in `directory` as worker number `worker`; in private memory if None."""
        self._directory = directory
        self._worker = worker

    def open(self, name: str, size: int) -> Doubles:
        """Return this worker's block; a worker before it with the same number began it."""
        if self._directory is None:
            return memoryview(mmap.mmap(-1, size * 8)).cast("d")[:size]
        self._directory.mkdir(exist_ok=True)  # somebody may have cleaned /tmp
        return _map(self._path(name, self._worker), size)

    def all(self, name: str, size: int, own: Doubles) -> dict[int, Doubles]:
        """Return the block of every worker that has one, by its number; `own` is this worker's."""
        blocks = {self._worker: own}
        if self._directory is not None:
            for path in self._directory.glob(self._path(name, "*").name):
                number = int(path.name.split(".")[-2])
                if number != self._worker:
                    blocks[number] = _map(path, size)
        return blocks

    def _path(self, name: str, worker: int | str) -> Path:
        assert self._directory is not None
        return self._directory / f"{name}.{worker}.cells"


def _map(path: Path, size: int) -> Doubles:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if os.fstat(descriptor).st_size < size * 8:
            os.ftruncate(descriptor, size * 8)
        return memoryview(mmap.mmap(descriptor, size * 8)).cast("d")
    finally:
        os.close(descriptor)


class Histogram:
    """Cells of one histogram: a count per bucket, one above the last, and the sum."""

    __slots__ = ("_bounds", "_cells")

    def __init__(self, bounds: Sequence[float], cells: Doubles) -> None:
        self._bounds = bounds
        self._cells = cells

    def observe(self, value: float) -> None:
        """Count one value."""
        cells = self._cells
        cells[bisect_left(self._bounds, value)] += 1.0
        cells[-1] += value


class Cells:
    """The cells of some instruments under one name, and where each instrument's begin."""

    def __init__(
        self, blocks: Blocks, name: str, instruments: Iterable[tuple[Instrument, Sequence[str]]]
    ) -> None:
        """Lay the instruments out one after the other; each with the values of its label."""
        self._slices: dict[Instrument, slice] = {}
        self.label_values: dict[Instrument, Sequence[str]] = {}
        size = 0
        for instrument, values in instruments:
            count = len(instrument.buckets) + 2 if instrument.buckets else len(values)
            self._slices[instrument] = slice(size, size + count)
            self.label_values[instrument] = values
            size += count
        layout = repr([(each.name, list(v)) for each, v in self.label_values.items()])
        self._name = f"{name}.{hashlib.sha256(layout.encode()).hexdigest()[:12]}"
        self._size = size
        self._blocks = blocks
        self._own = blocks.open(self._name, size)

    def own(self, instrument: Instrument) -> Doubles:
        """Return the cells that this worker adds to."""
        return self._own[self._slices[instrument]]

    def sums(self, living: Container[int] | None = None) -> dict[Instrument, list[float]]:
        """Return every instrument's cells, added up over the workers.

        Of what is now only those of the `living` count, if they are given.
        """
        blocks = self._blocks.all(self._name, self._size, self._own)
        total = _added(blocks.values())
        now = total
        if living is not None:
            now = _added(block for number, block in blocks.items() if number in living)
        return {
            each: (now if each.is_now else total)[place] for each, place in self._slices.items()
        }

    def each(self, instrument: Instrument) -> dict[int, float]:
        """Return an unlabelled instrument's cell of each worker, by its number."""
        blocks = self._blocks.all(self._name, self._size, self._own)
        place = self._slices[instrument].start
        return {number: block[place] for number, block in blocks.items()}


def _added(blocks: Iterable[Doubles]) -> list[float]:
    return [sum(cells) for cells in zip(*blocks, strict=True)]


class Total(Struct, frozen=True):
    """How often something was done, and how long it took in all."""

    count: int
    seconds: float


class Statistics(Struct, frozen=True, kw_only=True):
    """What was counted of a model version. `last` is in seconds since 1970, 0 if never."""

    last: float
    rows: int
    batches: int
    succeeded: Total
    failed: Total
    queued: Total
    computed: Total


class ModelMetrics:
    """The counters of one model version. Label values come from the model, never a caller."""

    def __init__(
        self,
        model: str,
        version: str,
        *,
        labels: Sequence[str] = (),
        features: Sequence[str] = (),
        blocks: Blocks,
    ) -> None:
        self.model = model
        self.version = version
        values = {REQUESTS: OUTCOMES, REJECTED: REASONS, PREDICTIONS: labels, OUTSIDE: features}
        instruments = (*OF_A_MODEL, FAILED_SECONDS, LAST)
        self.cells = Cells(
            blocks, f"{model}@{version}", [(each, values.get(each, ("",))) for each in instruments]
        )
        self.labels, self.features = list(labels), list(features)
        own = self.cells.own
        self._outcomes = dict(zip(OUTCOMES, range(len(OUTCOMES)), strict=True))
        self._requests = own(REQUESTS)
        self._rejected = own(REJECTED)
        self._failed_seconds = own(FAILED_SECONDS)
        self._last = own(LAST)
        self._queue_rows = own(QUEUE_ROWS)
        self._queue_rows[0] = 0.0
        self._queue_limit = own(QUEUE_LIMIT)
        self.predictions = own(PREDICTIONS)
        self.outside = own(OUTSIDE)
        self.request_seconds = Histogram(SECONDS, own(REQUEST_SECONDS))
        self.queue_seconds = Histogram(SECONDS, own(QUEUE_SECONDS))
        self.compute_seconds = Histogram(SECONDS, own(COMPUTE_SECONDS))
        self.batch_rows = Histogram(ROWS, own(BATCH_ROWS))

    def request(self, outcome: str, seconds: float) -> None:
        """Count one request that was answered."""
        self._requests[self._outcomes[outcome]] += 1.0
        self.request_seconds.observe(seconds)
        if outcome != "ok":
            self._failed_seconds[0] += seconds

    def batch(self, rows: int, seconds: float) -> None:
        """Count one batch that was run."""
        self.batch_rows.observe(rows)
        self.compute_seconds.observe(seconds)
        self._last[0] = time()

    def rejected(self, reason: str, rows: int) -> None:
        """Count rows that will never be computed."""
        self._rejected[REASONS.index(reason)] += rows

    def statistics(self) -> Statistics:
        """Return what was counted so far, added up over the workers."""
        sums = self.cells.sums()
        *_, request_seconds = sums[REQUEST_SECONDS]
        *queued, queue_seconds = sums[QUEUE_SECONDS]
        *batches, rows = sums[BATCH_ROWS]
        *_, compute_seconds = sums[COMPUTE_SECONDS]
        (failed_seconds,) = sums[FAILED_SECONDS]
        succeeded, *failed = sums[REQUESTS]
        return Statistics(
            last=max(self.cells.each(LAST).values()),
            rows=int(rows),
            batches=int(sum(batches)),
            succeeded=Total(int(succeeded), request_seconds - failed_seconds),
            failed=Total(int(sum(failed)), failed_seconds),
            queued=Total(int(sum(queued)), queue_seconds),
            computed=Total(int(sum(batches)), compute_seconds),
        )

    def queue_rows(self, rows: int) -> None:
        """Count `rows` more that wait now, or fewer; while a version is swapped, two queues do."""
        self._queue_rows[0] += rows

    def set_queue_limit(self, rows: int) -> None:
        """Say how many rows may wait."""
        self._queue_limit[0] = rows


class Metrics:
    """All that /metrics shows: the counters of each model, and which models there are."""

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks
        self._models: dict[tuple[str, str], ModelMetrics] = {}
        self._info: dict[tuple[str, str], dict[str, str]] = {}
        self._ready: dict[tuple[str, str], bool] = {}
        self._states: dict[tuple[str, str], Cells] = {}
        self._known: set[tuple[str, str]] = set()  # of those in _states, which are shown
        self._worker = Cells(
            blocks,
            "worker",
            [(UNMATCHED, UNMATCHED_OUTCOMES), *((each, ("",)) for each in OF_A_WORKER)],
        )
        own = self._worker.own
        self._unmatched = own(UNMATCHED)
        self._connections = own(CONNECTIONS)
        self._connections_limit = own(CONNECTIONS_LIMIT)
        self._connections[0] = self._connections_limit[0] = 0.0  # of a worker before this one
        self._serving = own(SERVING)
        self._cpu = own(CPU)
        self._cpu_before = self._cpu[0]
        self._pid = os.getpid()
        own(PID)[0] = self._pid

    def look(self, connections: int, limit: int) -> None:
        """Note what else nobody tells; called now and then by a worker that takes requests.

        What has not been noted of its CPU time when it is killed is lost.
        """
        self._connections[0] = connections
        self._connections_limit[0] = limit
        self._serving[0] = self._pid
        self._note_cpu()

    def _note_cpu(self) -> None:
        self._cpu[0] = self._cpu_before + process_time()

    def add(
        self,
        model: str,
        version: str,
        *,
        labels: Sequence[str] = (),
        features: Sequence[str] = (),
        info: dict[str, str],
    ) -> ModelMetrics:
        """Show a model version that answers, and return its counters.

        If it was there before they go on, unless its labels or features are others.
        """
        metrics = self._models.get((model, version))
        if metrics is None or (metrics.labels, metrics.features) != (list(labels), list(features)):
            metrics = ModelMetrics(
                model, version, labels=labels, features=features, blocks=self._blocks
            )
        self._models[model, version] = metrics
        self._info[model, version] = info
        self._show(model, version, is_ready=True)
        return metrics

    def add_failed(self, model: str, version: str) -> None:
        """Show a model version that could not be opened."""
        self._info.pop((model, version), None)
        self._show(model, version, is_ready=False)

    def expect(self, model: str, version: str) -> None:
        """Show a version's reloads, from 0, before the first ends: a rate sees it only then."""
        if (model, version) not in self._states:
            cells = Cells(
                self._blocks,
                f"{model}@{version}.state",
                [(RELOADS, RELOAD_OUTCOMES), (STALE, ("",)), (READY, ("",))],
            )
            cells.own(STALE)[0] = 0.0  # of a worker before this one
            self._states[model, version] = cells
        self._known.add((model, version))

    def retire(self, model: str, version: str) -> None:
        """Show a model version no longer; its counters go on if it comes back."""
        if (model, version) in self._states:
            self._states[model, version].own(READY)[0] = 0.0
        self._known.discard((model, version))
        self._info.pop((model, version), None)
        self._ready.pop((model, version), None)

    def count_reload(self, model: str, version: str, outcome: str) -> None:
        """Count one opening of a version while serving: "ok" or "failed"."""
        cells = self._states[model, version].own(RELOADS)
        cells[RELOAD_OUTCOMES.index(outcome)] += 1.0

    def set_stale(self, model: str, version: str, is_stale: bool) -> None:
        """Say whether a version serves an older file, as the newer could not be opened."""
        self._states[model, version].own(STALE)[0] = float(is_stale)

    def _show(self, model: str, version: str, *, is_ready: bool) -> None:
        self._ready[model, version] = is_ready
        if version:
            self.expect(model, version)
            self._states[model, version].own(READY)[0] = self._pid if is_ready else 0.0

    def unmatched(self, outcome: str) -> None:
        """Count one request refused before its model was known."""
        self._unmatched[UNMATCHED_OUTCOMES.index(outcome)] += 1.0

    def render(self) -> bytes:
        """Return the text of /metrics, added up over the workers."""
        registry = CollectorRegistry()
        registry.register(self)
        return generate_latest(registry)

    def collect(self) -> Iterator[Metric]:
        """Yield every metric family; called by prometheus_client."""
        self._note_cpu()
        living = self._living()
        yield from self._collect_models(living)
        yield from self._collect_states(living)
        sums = self._worker.sums(living)
        for instrument in (UNMATCHED, CONNECTIONS, CONNECTIONS_LIMIT):
            family = _family(instrument)
            _add(family, instrument, [], UNMATCHED_OUTCOMES, sums[instrument])
            yield family
        yield GaugeMetricFamily(WORKERS.name, WORKERS.help, value=len(living))
        (cpu_seconds,) = sums[CPU]
        yield from _process_families(living.values(), cpu_seconds)

    def _living(self) -> dict[int, int]:
        """Return the process id of each worker that lives, by its number."""
        pids = {number: int(pid) for number, pid in self._worker.each(PID).items()}
        return {number: pid for number, pid in pids.items() if _is_alive(pid)}

    def _collect_models(self, living: Container[int]) -> Iterator[Metric]:
        shown = (each for key, each in self._models.items() if key in self._ready)
        sums = [(each, each.cells.sums(living)) for each in shown]
        for instrument in OF_A_MODEL:
            family = _family(instrument)
            for each, cells in sums:
                where, values = [each.model, each.version], each.cells.label_values[instrument]
                _add(family, instrument, where, values, cells[instrument])
            yield family
        rows, batches = _counter(ROWS_TOTAL), _counter(BATCHES_TOTAL)
        for each, cells in sums:
            *counts, total = cells[BATCH_ROWS]
            rows.add_metric([each.model, each.version], total)
            batches.add_metric([each.model, each.version], sum(counts))
        yield rows
        yield batches

    def _collect_states(self, living: dict[int, int]) -> Iterator[Metric]:
        names = sorted({name for info in self._info.values() for name in info})
        info_family = GaugeMetricFamily(INFO.name, INFO.help, labels=["model", "version", *names])
        for (model, version), info in self._info.items():
            info_family.add_metric([model, version, *(info.get(name, "") for name in names)], 1)
        yield info_family
        ready = GaugeMetricFamily(READY.name, READY.help, labels=["model", "version"])
        serving = self._worker.each(SERVING)
        asked = {number: pid for number, pid in living.items() if serving.get(number) == pid}
        for key in self._ready:
            ready.add_metric([*key], float(self._is_ready_in(key, asked)))
        yield ready
        shown = {key: self._states[key].sums(living) for key in self._states if key in self._known}
        for instrument in (RELOADS, STALE):
            family = _family(instrument)
            for key, sums in shown.items():
                _add(family, instrument, [*key], RELOAD_OUTCOMES, sums[instrument])
            yield family

    def _is_ready_in(self, key: tuple[str, str], pids: dict[int, int]) -> bool:
        """Whether a version answers in this worker and in all others, by number, of `pids`."""
        if not self._ready[key]:
            return False
        answering = self._states[key].each(READY)
        return all(answering.get(number) == pid for number, pid in pids.items())


def _family(instrument: Instrument) -> Metric:
    labels = ["model", "version"] if instrument in (*OF_A_MODEL, RELOADS, STALE) else []
    if instrument.buckets:
        return HistogramMetricFamily(instrument.name, instrument.help, labels=labels)
    if instrument.label:
        return CounterMetricFamily(
            instrument.name, instrument.help, labels=[*labels, instrument.label]
        )
    return GaugeMetricFamily(instrument.name, instrument.help, labels=labels)


def _counter(instrument: Instrument) -> CounterMetricFamily:
    return CounterMetricFamily(instrument.name, instrument.help, labels=["model", "version"])


def _add(
    family: Metric,
    instrument: Instrument,
    where: list[str],
    values: Sequence[str],
    cells: list[float],
) -> None:
    if isinstance(family, HistogramMetricFamily):
        *counts, total = cells
        family.add_metric(where, buckets=_cumulative(instrument.buckets, counts), sum_value=total)
    elif isinstance(family, CounterMetricFamily):
        for value, cell in zip(values, cells, strict=True):
            family.add_metric([*where, value], cell)
    elif isinstance(family, GaugeMetricFamily):
        family.add_metric(where, cells[0])


def _cumulative(bounds: Sequence[float], counts: list[float]) -> list[tuple[str, float]]:
    """Return (le, count of values up to le) as the exposition format wants them."""
    total = 0.0
    buckets = []
    for bound, count in zip([*map(str, bounds), "+Inf"], counts, strict=True):
        total += count
        buckets.append((bound, total))
    return buckets


def _is_alive(pid: int) -> bool:
    """Whether there is such a process of ours; 0 is what a file holds that was just made."""
    try:
        os.kill(pid, 0)
    except OSError:  # none, or not ours
        return False
    return pid > 0


def _process_families(pids: Iterable[int], cpu_seconds: float) -> Iterator[Metric]:
    """Yield the process metrics added up over the workers; the start time is the earliest.

    `cpu_seconds` takes the place of the CPU time of those that live, which falls when one dies.
    """
    merged: dict[str, Metric] = {}
    for pid in pids:
        for family in ProcessCollector(pid=partial(int, pid), registry=None).collect():
            first = merged.setdefault(family.name, family)
            if first is not family:
                _merge(first, family)
    if cpu := merged.get("process_cpu_seconds"):
        cpu.samples = [each._replace(value=cpu_seconds) for each in cpu.samples]
    yield from merged.values()


def _merge(into: Metric, family: Metric) -> None:
    combine = min if into.name == "process_start_time_seconds" else operator.add
    into.samples = [
        mine._replace(value=combine(mine.value, other.value))
        for mine, other in zip(into.samples, family.samples, strict=True)
    ]
