"""/metrics: the text that Prometheus reads, added up over the workers.

What is now, not what was counted, is added up over the workers that live. A cell that holds a
process id says something of that process only, whoever has the file by now.

The text of the models is written here: prometheus_client takes 10 us for a line, and a thousand
models have a hundred thousand lines.
"""

import operator
import os
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import accumulate
from typing import Literal, TypeAlias

from prometheus_client import ProcessCollector, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from service.metrics.cells import Cells, Reading
from service.metrics.instruments import (
    BATCH_ROWS,
    BATCHES_TOTAL,
    CONNECTIONS,
    CONNECTIONS_LIMIT,
    CPU,
    INFO,
    MOST_PAIRED_LABELS,
    NODES,
    OF_A_MODEL,
    OF_A_SHADOW,
    PID,
    READY,
    RELOADS,
    ROWS_TOTAL,
    SERVING,
    SHADOW_LABELS,
    SPLIT_FALLBACKS,
    STALE,
    UNAPPROVED,
    UNMATCHED,
    WORKERS,
    Instrument,
)
from service.metrics.recording import Metrics

CONTENT_TYPE = "text/plain; version=0.0.4"

# Labels as they stand in a line, in order; the cells that they are of; the sums of these.
Summed: TypeAlias = tuple[list[str], Cells, dict[Instrument, list[float]]]
Samples: TypeAlias = Iterable[tuple[list[str], float]]  # labels, a value


def render(metrics: Metrics) -> bytes:
    """Return the text of /metrics, added up over the workers."""
    return Page(metrics).text()


class Page:
    """What /metrics is to show now; `text` writes it, in any thread."""

    def __init__(self, metrics: Metrics) -> None:
        metrics.note_cpu()
        self._blocks = metrics.blocks
        self._worker = metrics.worker
        self._models = {
            key: each.cells for key, each in metrics.models.items() if key in metrics.ready
        }
        self._shadows = {**metrics.shadows}
        self._info, self._nodes = {**metrics.info}, {**metrics.nodes}
        self._ready = {**metrics.ready}
        self._splits = {**metrics.splits}
        self._states = {key: metrics.states[key] for key in metrics.states if key in metrics.known}

    def text(self) -> bytes:
        """Return the text. It takes as long as there are models and workers."""
        reading = self._blocks.read()
        pids = self._worker.each(PID, reading)
        living = {number: int(pid) for number, pid in pids.items() if _is_alive(int(pid))}

        def summed(cells: Iterable[tuple[list[str], Cells]]) -> list[Summed]:
            return [(labels, each, each.sums(reading, living)) for labels, each in cells]

        models = summed((_labels_of(key), each) for key, each in self._models.items())
        states = summed((_labels_of(key), each) for key, each in self._states.items())
        worker = summed([([], self._worker)])
        lines = [line for each in OF_A_MODEL for line in _family(each, models)]
        rows = ((where, sums[BATCH_ROWS][-1]) for where, _, sums in models)
        lines += _lines(ROWS_TOTAL, "counter", rows)
        batches = ((where, sum(sums[BATCH_ROWS][:-1])) for where, _, sums in models)
        lines += _lines(BATCHES_TOTAL, "counter", batches)
        lines += _lines(INFO, "gauge", self._info_samples())
        lines += _lines(NODES, "gauge", self._node_samples())
        lines += _lines(READY, "gauge", self._ready_samples(reading, living))
        for each in (RELOADS, STALE, UNAPPROVED):
            lines += _family(each, states)
        splits = summed((_labels_of(key), each) for key, each in self._splits.items())
        fallbacks = [(where, sums[SPLIT_FALLBACKS][0]) for where, _, sums in splits]
        lines += _lines(SPLIT_FALLBACKS, "counter", fallbacks) if fallbacks else ()
        if self._shadows:
            keys = ((_of_shadow(key), each.cells) for key, each in self._shadows.items())
            lines += self._shadow_lines(summed(keys))
        for each in (UNMATCHED, CONNECTIONS, CONNECTIONS_LIMIT):
            lines += _family(each, worker)
        lines += _lines(WORKERS, "gauge", [([], float(len(living)))])
        cpu = sum(self._worker.each(CPU, reading).values())
        return "".join(lines).encode() + generate_latest(_Processes(living.values(), cpu))

    def _shadow_lines(self, summed: list[Summed]) -> Iterator[str]:
        for instrument in OF_A_SHADOW:
            if those := [each for each in summed if instrument in each[2]]:
                yield from _family(instrument, those)
        labels = [each.labels for each in self._shadows.values()]
        if pairs := list(_pairs(summed, labels)):
            yield from _lines(SHADOW_LABELS, "counter", pairs)

    def _info_samples(self) -> Samples:
        names = sorted({name for info in self._info.values() for name in info})
        for key, info in self._info.items():
            labels = [_label(name, info.get(name, "")) for name in names]
            yield sorted([*_labels_of(key), *labels]), 1.0

    def _node_samples(self) -> Samples:
        for key, nodes in self._nodes.items():
            for provider, count in nodes.items():
                yield sorted([*_labels_of(key), _label("provider", provider)]), float(count)

    def _ready_samples(self, reading: Reading, living: dict[int, int]) -> Samples:
        """Say of each version whether it answers in this worker and in all others that serve."""
        serving = self._worker.each(SERVING, reading).items() & living.items()
        for key, is_ready in self._ready.items():
            is_ready = is_ready and serving <= self._states[key].each(READY, reading).items()
            yield _labels_of(key), float(is_ready)


def _labels_of(key: tuple[str, str]) -> list[str]:
    model, version = key
    return [_label("model", model), _label("version", version)]


def _of_shadow(key: tuple[str, str, str]) -> list[str]:
    model, version, shadow = key
    return [_label("model", model), _label("shadow", shadow), _label("version", version)]


def _label(name: str, value: str) -> str:
    escaped = value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
    return f'{name}="{escaped}"'


def _family(instrument: Instrument, summed: list[Summed]) -> Iterator[str]:
    """Yield the lines of an instrument."""
    if instrument.buckets:
        return _histograms(instrument, summed)
    if not instrument.label:
        return _lines(
            instrument, "gauge", ((where, sums[instrument][0]) for where, _, sums in summed)
        )
    return _lines(instrument, "counter", _labelled(instrument, summed))


def _labelled(instrument: Instrument, summed: list[Summed]) -> Samples:
    for where, cells, sums in summed:
        for value, total in zip(cells.label_values[instrument], sums[instrument], strict=True):
            yield sorted([*where, _label(instrument.label, value)]), total


def _pairs(summed: list[Summed], labels: list[list[str]]) -> Samples:
    """Yield a sample of each pair of labels, where they are few."""
    for (where, _, sums), names in zip(summed, labels, strict=True):
        if len(names) > MOST_PAIRED_LABELS:
            continue
        pairs = ((one, other) for one in names for other in names)
        for (one, other), total in zip(pairs, sums[SHADOW_LABELS], strict=True):
            yield sorted([*where, _label("label", one), _label("shadow_label", other)]), total


def _lines(
    instrument: Instrument, kind: Literal["counter", "gauge"], samples: Samples
) -> Iterator[str]:
    name = f"{instrument.name}_total" if kind == "counter" else instrument.name
    yield _head(name, kind, instrument)
    for labels, value in samples:
        shown = f"{{{','.join(labels)}}}" if labels else ""
        yield f"{name}{shown} {value!r}\n"


def _histograms(instrument: Instrument, summed: list[Summed]) -> Iterator[str]:
    name = instrument.name
    bounds = [*map(str, instrument.buckets), "+Inf"]
    yield _head(name, "histogram", instrument)
    for where, _, sums in summed:
        *counts, total = sums[instrument]
        labels = ",".join(where)
        for bound, count in zip(bounds, accumulate(counts), strict=True):
            yield f'{name}_bucket{{le="{bound}",{labels}}} {count!r}\n'
        yield f"{name}_count{{{labels}}} {count!r}\n{name}_sum{{{labels}}} {total!r}\n"


def _head(name: str, kind: str, instrument: Instrument) -> str:
    return f"# HELP {name} {instrument.help}\n# TYPE {name} {kind}\n"


class _Processes(Collector):
    """Makes the process metrics of workers; prometheus_client calls it."""

    def __init__(self, pids: Iterable[int], cpu_seconds: float) -> None:
        self._pids = pids
        self._cpu_seconds = cpu_seconds

    def collect(self) -> Iterator[Metric]:
        """Yield every metric family; called by prometheus_client."""
        return _process_families(self._pids, self._cpu_seconds)


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
