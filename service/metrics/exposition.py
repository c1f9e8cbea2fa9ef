"""/metrics: the text that Prometheus reads, added up over the workers.

What is now, not what was counted, is added up over the workers that live. A cell that holds a
process id says something of that process only, whoever has the file by now.
"""

import operator
import os
from collections.abc import Container, Iterable, Iterator, Sequence
from functools import partial

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

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
    RELOAD_OUTCOMES,
    RELOADS,
    ROWS_TOTAL,
    SERVING,
    STALE,
    UNMATCHED,
    UNMATCHED_OUTCOMES,
    WORKERS,
    Instrument,
)
from service.metrics.recording import Metrics

CONTENT_TYPE = "text/plain; version=0.0.4"


def render(metrics: Metrics) -> bytes:
    """Return the text of /metrics, added up over the workers."""
    registry = CollectorRegistry()
    registry.register(_Collector(metrics))
    return generate_latest(registry)


class _Collector(Collector):
    """Makes metric families of what was recorded; prometheus_client calls it."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        """Yield every metric family; called by prometheus_client."""
        self._metrics.note_cpu()
        living = self._living()
        yield from self._collect_models(living)
        yield from self._collect_states(living)
        sums = self._metrics.worker.sums(living)
        for instrument in (UNMATCHED, CONNECTIONS, CONNECTIONS_LIMIT):
            family = _family(instrument)
            _add(family, instrument, [], UNMATCHED_OUTCOMES, sums[instrument])
            yield family
        yield GaugeMetricFamily(WORKERS.name, WORKERS.help, value=len(living))
        (cpu_seconds,) = sums[CPU]
        yield from _process_families(living.values(), cpu_seconds)

    def _living(self) -> dict[int, int]:
        """Return the process id of each worker that lives, by its number."""
        pids = {number: int(pid) for number, pid in self._metrics.worker.each(PID).items()}
        return {number: pid for number, pid in pids.items() if _is_alive(pid)}

    def _collect_models(self, living: Container[int]) -> Iterator[Metric]:
        shown = (each for key, each in self._metrics.models.items() if key in self._metrics.ready)
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
        names = sorted({name for info in self._metrics.info.values() for name in info})
        info_family = GaugeMetricFamily(INFO.name, INFO.help, labels=["model", "version", *names])
        for (model, version), info in self._metrics.info.items():
            info_family.add_metric([model, version, *(info.get(name, "") for name in names)], 1)
        yield info_family
        ready = GaugeMetricFamily(READY.name, READY.help, labels=["model", "version"])
        serving = self._metrics.worker.each(SERVING)
        serving_now = {number: pid for number, pid in living.items() if serving.get(number) == pid}
        for key in self._metrics.ready:
            ready.add_metric([*key], float(self._is_ready_in(key, serving_now)))
        yield ready
        shown = {
            key: self._metrics.states[key].sums(living)
            for key in self._metrics.states
            if key in self._metrics.known
        }
        for instrument in (RELOADS, STALE):
            family = _family(instrument)
            for key, sums in shown.items():
                _add(family, instrument, [*key], RELOAD_OUTCOMES, sums[instrument])
            yield family

    def _is_ready_in(self, key: tuple[str, str], pids: dict[int, int]) -> bool:
        """Whether a version answers in this worker and in all others, by number, of `pids`."""
        if not self._metrics.ready[key]:
            return False
        answering = self._metrics.states[key].each(READY)
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
