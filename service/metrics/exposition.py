"""/metrics: the text that Prometheus reads, added up over the workers.

What is now, not what was counted, is added up over the workers that live. A cell that holds a
process id says something of that process only, whoever has the file by now.
"""

import operator
import os
from collections.abc import Container, Iterable, Iterator, Sequence
from functools import partial
from itertools import accumulate
from typing import TypeAlias

from prometheus_client import ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from service.metrics.cells import Cells
from service.metrics.instruments import (
    BATCH_ROWS,
    BATCHES_TOTAL,
    CONNECTIONS,
    CONNECTIONS_LIMIT,
    CPU,
    INFO,
    OF_A_MODEL,
    PID,
    READY,
    RELOADS,
    ROWS_TOTAL,
    SERVING,
    STALE,
    UNMATCHED,
    WORKERS,
    Instrument,
)
from service.metrics.recording import Metrics

CONTENT_TYPE = "text/plain; version=0.0.4"
VERSION_LABELS = ["model", "version"]

# What the labels of cells are; the values of each instrument's own label; the sums of the cells.
Summed: TypeAlias = tuple[list[str], dict[Instrument, Sequence[str]], dict[Instrument, list[float]]]


def render(metrics: Metrics) -> bytes:
    """Return the text of /metrics, added up over the workers."""
    return generate_latest(_Collector(metrics))


class _Collector(Collector):
    """Makes metric families of what was recorded; prometheus_client calls it."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        """Yield every metric family; called by prometheus_client."""
        metrics = self._metrics
        metrics.note_cpu()
        living = self._living()
        models = [(key, each.cells) for key, each in metrics.models.items() if key in metrics.ready]
        of_models = _families(OF_A_MODEL, VERSION_LABELS, models, living)
        yield from of_models
        batches = of_models[OF_A_MODEL.index(BATCH_ROWS)]
        yield _part(batches, "_sum", ROWS_TOTAL)
        yield _part(batches, "_count", BATCHES_TOTAL)
        yield self._info()
        yield self._ready(living)
        states = [(key, each) for key, each in metrics.states.items() if key in metrics.known]
        yield from _families((RELOADS, STALE), VERSION_LABELS, states, living)
        of_all = (UNMATCHED, CONNECTIONS, CONNECTIONS_LIMIT)
        yield from _families(of_all, [], [((), metrics.worker)], living)
        yield GaugeMetricFamily(WORKERS.name, WORKERS.help, value=len(living))
        yield from _process_families(living.values(), sum(metrics.worker.each(CPU).values()))

    def _living(self) -> dict[int, int]:
        """Return the process id of each worker that lives, by its number."""
        pids = self._metrics.worker.each(PID)
        return {number: int(pid) for number, pid in pids.items() if _is_alive(int(pid))}

    def _info(self) -> Metric:
        names = sorted({name for info in self._metrics.info.values() for name in info})
        family = GaugeMetricFamily(INFO.name, INFO.help, labels=[*VERSION_LABELS, *names])
        for key, info in self._metrics.info.items():
            family.add_metric([*key, *(info.get(name, "") for name in names)], 1)
        return family

    def _ready(self, living: dict[int, int]) -> Metric:
        """Say of each version whether it answers in this worker and in all others that serve."""
        family = GaugeMetricFamily(READY.name, READY.help, labels=VERSION_LABELS)
        serving = self._metrics.worker.each(SERVING).items() & living.items()
        for key, is_ready in self._metrics.ready.items():
            answering = self._metrics.states[key].each(READY).items() if is_ready else set()
            family.add_metric([*key], float(is_ready and serving <= answering))
        return family


def _families(
    instruments: Iterable[Instrument],
    labels: list[str],
    cells: Iterable[tuple[tuple[str, ...], Cells]],
    living: Container[int],
) -> list[Metric]:
    """Return a family for each instrument; cells come with what the labels are of them."""
    summed = [([*where], each.label_values, each.sums(living)) for where, each in cells]
    return [_family(each, labels, summed) for each in instruments]


def _family(instrument: Instrument, labels: list[str], summed: list[Summed]) -> Metric:
    about = instrument.name, instrument.help
    if instrument.buckets:
        bounds = [*map(str, instrument.buckets), "+Inf"]
        histograms = HistogramMetricFamily(*about, labels=labels)
        for where, _, sums in summed:
            *counts, total = sums[instrument]
            buckets = list(zip(bounds, accumulate(counts), strict=True))
            histograms.add_metric(where, buckets, total)
        return histograms
    if instrument.label:
        counters = CounterMetricFamily(*about, labels=[*labels, instrument.label])
        for where, values, sums in summed:
            for value, total in zip(values[instrument], sums[instrument], strict=True):
                counters.add_metric([*where, value], total)
        return counters
    gauges = GaugeMetricFamily(*about, labels=labels)
    for where, _, sums in summed:
        gauges.add_metric(where, sums[instrument][0])
    return gauges


def _part(histograms: Metric, end: str, instrument: Instrument) -> Metric:
    """Return one number of each histogram, the sum or the count, as a counter of its own."""
    family = CounterMetricFamily(instrument.name, instrument.help, labels=VERSION_LABELS)
    for sample in histograms.samples:
        if sample.name == histograms.name + end:
            family.add_metric([*sample.labels.values()], sample.value)
    return family


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
