"""What is counted of models and workers while requests are answered."""

import os
from collections.abc import Iterable, Mapping, Sequence
from time import process_time, time

from msgspec import Struct

from service.metrics.cells import Blocks, Cells, Doubles, Histogram, Reading
from service.metrics.instruments import (
    BATCH_ROWS,
    COMPUTE_SECONDS,
    CONNECTIONS,
    CONNECTIONS_LIMIT,
    CPU,
    FAILED_SECONDS,
    LAST,
    OF_A_MODEL,
    OF_A_WORKER,
    OUTCOMES,
    OUTSIDE,
    PID,
    PREDICTIONS,
    QUEUE_LIMIT,
    QUEUE_ROWS,
    QUEUE_SECONDS,
    READY,
    REASONS,
    REJECTED,
    RELOAD_OUTCOMES,
    RELOADS,
    REQUEST_SECONDS,
    REQUESTS,
    ROWS,
    SECONDS,
    SERVING,
    SPLIT_FALLBACKS,
    STALE,
    UNAPPROVED,
    UNMATCHED,
    UNMATCHED_OUTCOMES,
    Instrument,
)
from service.metrics.shadows import ShadowMetrics

NO_LABEL = ("",)  # the values of an instrument without a label of its own


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
        self.blocks = blocks
        values = {REQUESTS: OUTCOMES, REJECTED: REASONS, PREDICTIONS: labels, OUTSIDE: features}
        instruments = (*OF_A_MODEL, FAILED_SECONDS, LAST)
        described = [(each, values.get(each, NO_LABEL)) for each in instruments]
        self.cells = Cells(blocks, f"{model}@{version}", described)
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

    def ran(self, rows: int, seconds: float, waits: Sequence[float]) -> None:
        """Count one batch that was run, and how long each request in it waited."""
        self.queue_seconds.observe(*waits)
        self.batch_rows.observe(rows)
        self.compute_seconds.observe(seconds)
        self._last[0] = time()

    def dropped(self, reason: str, rows: int) -> None:
        """Count rows that will never be computed."""
        self._rejected[REASONS.index(reason)] += rows

    def statistics(self, reading: Reading) -> Statistics:
        """Return what was counted up to a reading, added up over the workers."""
        sums = self.cells.sums(reading)
        *_, request_seconds = sums[REQUEST_SECONDS]
        *queued, queue_seconds = sums[QUEUE_SECONDS]
        *batches, rows = sums[BATCH_ROWS]
        *_, compute_seconds = sums[COMPUTE_SECONDS]
        (failed_seconds,) = sums[FAILED_SECONDS]
        succeeded, *failed = sums[REQUESTS]
        return Statistics(
            last=max(self.cells.each(LAST, reading).values()),
            rows=int(rows),
            batches=int(sum(batches)),
            succeeded=Total(int(succeeded), request_seconds - failed_seconds),
            failed=Total(int(sum(failed)), failed_seconds),
            queued=Total(int(sum(queued)), queue_seconds),
            computed=Total(int(sum(batches)), compute_seconds),
        )

    def queued(self, rows: int) -> None:
        """Count `rows` more that wait now, or fewer; while a version is swapped, two queues do."""
        self._queue_rows[0] += rows

    def set_queue_limit(self, rows: int) -> None:
        """Say how many rows may wait."""
        self._queue_limit[0] = rows


class Metrics:
    """The counters of each model, and which models there are; exposition.py shows them."""

    def __init__(self, blocks: Blocks) -> None:
        self.blocks = blocks
        self.models: dict[tuple[str, str], ModelMetrics] = {}  # by name and version
        self.info: dict[tuple[str, str], dict[str, str]] = {}
        self.nodes: dict[tuple[str, str], Mapping[str, int]] = {}  # by provider, of those in info
        self.ready: dict[tuple[str, str], bool] = {}  # of those that are shown
        self.shadows: dict[tuple[str, str, str], ShadowMetrics] = {}  # name, version, shadow
        self.states: dict[tuple[str, str], Cells] = {}
        self.known: set[tuple[str, str]] = set()  # of those in states, which are shown
        self.splits: dict[tuple[str, str], Cells] = {}  # of versions that have a weight
        described = [(UNMATCHED, UNMATCHED_OUTCOMES), *((each, NO_LABEL) for each in OF_A_WORKER)]
        self.worker = Cells(blocks, "worker", described)
        own = self.worker.own
        self._unmatched = own(UNMATCHED)
        self._connections = own(CONNECTIONS)
        self._connections_limit = own(CONNECTIONS_LIMIT)
        self._connections[0] = self._connections_limit[0] = 0.0  # of a worker before this one
        self._serving = own(SERVING)
        self._cpu = own(CPU)
        self._cpu_before = self._cpu[0]
        self._pid = os.getpid()
        own(PID)[0] = self._pid

    def sample(self, connections: int, limit: int) -> None:
        """Note what nobody else reports; called now and then by a worker that takes requests.

        What has not been noted of its CPU time when it is killed is lost.
        """
        self._connections[0] = connections
        self._connections_limit[0] = limit
        self._serving[0] = self._pid
        self.note_cpu()

    def note_cpu(self) -> None:
        """Note how much CPU time the process has used."""
        self._cpu[0] = self._cpu_before + process_time()

    def add(
        self,
        model: str,
        version: str,
        *,
        labels: Sequence[str] = (),
        features: Sequence[str] = (),
        info: dict[str, str],
        nodes: Mapping[str, int] | None = None,
    ) -> ModelMetrics:
        """Show a model version that answers, and return its counters.

        nodes: how many run on each execution provider, if that is known.
        If it was there before they go on, unless its labels or features are others.
        """
        metrics = self.models.get((model, version))
        if metrics is None or (metrics.labels, metrics.features) != (list(labels), list(features)):
            metrics = ModelMetrics(
                model, version, labels=labels, features=features, blocks=self.blocks
            )
        self.models[model, version] = metrics
        self.info[model, version], self.nodes[model, version] = info, nodes or {}
        self._show(model, version, is_ready=True)
        return metrics

    def add_shadow(
        self,
        model: str,
        version: str,
        shadow: str,
        *,
        labels: Sequence[str] = (),
        differences: Sequence[Instrument] = (),
    ) -> ShadowMetrics:
        """Show a version and its shadow, and return their counters; they go on, as those of `add`.

        differences: the instruments of how far apart two answers are.
        """
        metrics = self.shadows.get((model, version, shadow))
        asked = list(labels), list(differences)
        if metrics is None or (metrics.labels, metrics.differences) != asked:
            metrics = ShadowMetrics(
                *(model, version, shadow),
                labels=labels,
                differences=differences,
                blocks=self.blocks,
            )
        self.shadows[model, version, shadow] = metrics
        return metrics

    def add_failed(self, model: str, version: str) -> None:
        """Show a model version that could not be opened."""
        self.info.pop((model, version), None)
        self.nodes.pop((model, version), None)
        self._show(model, version, is_ready=False)

    def expect(self, model: str, version: str) -> None:
        """Show a version's reloads, from 0, before the first ends: a rate sees it only then."""
        if (model, version) not in self.states:
            unlabelled = [(each, NO_LABEL) for each in (STALE, UNAPPROVED, READY)]
            described = [(RELOADS, RELOAD_OUTCOMES), *unlabelled]
            cells = Cells(self.blocks, f"{model}@{version}.state", described)
            cells.own(STALE)[0] = cells.own(UNAPPROVED)[0] = 0.0  # of a worker before this one
            self.states[model, version] = cells
        self.known.add((model, version))

    def retire(self, model: str, version: str) -> None:
        """Show a model version no longer; its counters go on if it comes back."""
        if (cells := self.states.get((model, version))) is not None:
            for each in (STALE, UNAPPROVED, READY):
                cells.own(each)[0] = 0.0
        self.known.discard((model, version))
        self.info.pop((model, version), None)
        self.nodes.pop((model, version), None)
        self.ready.pop((model, version), None)

    def count_reload(self, model: str, version: str, outcome: str) -> None:
        """Count one opening of a version while serving: "ok" or "failed"."""
        cells = self.states[model, version].own(RELOADS)
        cells[RELOAD_OUTCOMES.index(outcome)] += 1.0

    def set_stale(self, model: str, version: str, is_stale: bool) -> None:
        """Say whether a version serves an older file, as the newer could not be opened."""
        self.states[model, version].own(STALE)[0] = float(is_stale)

    def set_unapproved(self, model: str, version: str, is_unapproved: bool) -> None:
        """Say whether files of a version were found that are not those that were approved."""
        self.states[model, version].own(UNAPPROVED)[0] = float(is_unapproved)

    def _show(self, model: str, version: str, *, is_ready: bool) -> None:
        self.ready[model, version] = is_ready
        if version:
            self.expect(model, version)
            self.states[model, version].own(READY)[0] = self._pid if is_ready else 0.0

    def show_splits(self, versions: Iterable[tuple[str, str]]) -> None:
        """Show of these versions, and no others, what `split_fallbacks` counts, from 0."""
        described = [(SPLIT_FALLBACKS, NO_LABEL)]
        self.splits = {
            key: self.splits.get(key) or Cells(self.blocks, f"{key[0]}@{key[1]}.split", described)
            for key in versions
        }

    def split_fallbacks(self, model: str, version: str) -> Doubles:
        """Return the cell of a version that is shown: requests that another one answered."""
        return self.splits[model, version].own(SPLIT_FALLBACKS)

    def unmatched(self, outcome: str) -> None:
        """Count one request refused before its model was known."""
        self._unmatched[UNMATCHED_OUTCOMES.index(outcome)] += 1.0
