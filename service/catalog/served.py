"""ServedModel: one version of a model as it serves, with its queue and its counters."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import Any, Literal, Self, TypeAlias

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from service.batching import SLOW_S, UNSHARED, Batcher, Inputs, Outputs, Spare
from service.engine.classifier import Classifier
from service.engine.model import Model, Stop, are_finite, check_finite
from service.engine.trial_runner import give_back_free_memory
from service.errors import InferenceFailed, ModelError, OutOfResources, UnknownValue
from service.metrics import ModelMetrics
from service.settings import Settings

logger = logging.getLogger("torchlit.served")

Kind: TypeAlias = tuple[tuple[int, ...], ...]  # the shape of a row of each array

_MOST_KINDS = 4096
_TRIES = 3
_SURELY_SLOW_S = 10 * SLOW_S


class ServedModel:
    """One version of a model: its session, its queue, its counters."""

    def __init__(
        self, name: str, version: int, model: Model, metrics: ModelMetrics, settings: Settings
    ) -> None:
        """Take an opened and tested model. A slow one gets a thread of its own.

        Raises OutOfResources if the system has no thread for it.
        """
        self.name = name
        self.version = version
        self.model = model
        self.card = model.card
        self.metrics = metrics
        self.thread = OwnThread(name, version, model)
        try:
            executor = None if model.is_fast else self.thread.started()
        except RuntimeError as error:
            raise OutOfResources("no thread can be started for it") from error
        metrics.set_queue_limit(settings.max_queue_rows)
        self._run = CountingRun(model, metrics, self.thread.stop)
        self._longest_batch_s = settings.request_timeout_s
        self.batcher = Batcher(
            self._run,
            metrics,
            max_batch_size=model.largest_batch,
            max_queue_rows=settings.max_queue_rows,
            max_queue_delay_s=settings.max_queue_delay_ms / 1000,
            executor=executor,
            max_rows_in_loop=None if model.is_fast else model.max_rows_in_loop,
            spare=Spare(self.thread.started, self.thread.is_slow),
            stop=self.thread.stop,
        )
        # Instances of /predict are rows, also of a model whose run takes one row at a time.
        self.kind_of_rows = None if model.is_batched or model.trial.is_one_by_one else UNSHARED
        self.writer: Any = None  # of predictions, http/rest/dialect.py
        self._leases = 0  # requests that hold it
        self._unused: asyncio.Event | None = None  # once it is to close: no request does

    def __enter__(self) -> Self:
        self.hold()
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def hold(self) -> None:
        """Let it not be closed until `release`, as `with` does."""
        self._leases += 1

    def release(self) -> None:
        """Let it be closed as far as this holder is concerned."""
        self._leases -= 1
        if self._unused is not None and not self._leases:
            self._unused.set()

    def show(self, ran: Callable[[Inputs, Outputs], None] | None) -> None:
        """Call `ran` with the inputs and outputs of each run from now on, where it was run."""
        self._run.ran = ran

    def kind_of(self, inputs: Inputs) -> Hashable:
        """Return the kind of a request of tensors: those of one kind may share a batch."""
        if not self.model.is_batched or len(set(map(len, inputs))) > 1:
            return UNSHARED  # of inputs with other rows one is broadcast
        if not self.model.is_open_inside:
            return None
        kind = _kind(inputs)
        return kind if kind in self._run.known_kinds else UNSHARED

    @property
    def why_not_ready(self) -> str:
        """Say why it answers nobody now, nothing if it does."""
        if self.batcher.running_s <= self._longest_batch_s:
            return ""
        return (
            f"{self.name}/{self.version}: a batch has run for more than "
            f"{self._longest_batch_s:g} s, and cannot be stopped"
        )

    def check_finite(self, outputs: Sequence[NDArray[Any]]) -> None:
        """Raise InferenceFailed if an answer of the batcher is NaN or infinite."""
        if self._run.saw_nonfinite:
            check_finite(outputs)

    async def close(self) -> None:
        """Wait until nobody holds it, then let the thread and the model's memory go."""
        if self._leases:
            self._unused = asyncio.Event()
            await self._unused.wait()
        await self.batcher.close()
        self.thread.end()
        self.model.close()


class Version(Struct):
    """What /models says of one version: served, or why not; or why its newer file is not."""

    version: int | None
    reason: str = ""
    served: ServedModel | None = None

    @property
    def state(self) -> Literal["ready", "failed"]:
        """Whether it answers."""
        return "ready" if self.served else "failed"


class OwnThread:
    """The thread in which a slow model runs. It knows nothing of the ServedModel either."""

    def __init__(self, name: str, version: int, model: Model) -> None:
        self._name, self._version = name, version
        self._model = model
        self._executor: ThreadPoolExecutor | None = None
        self.stop = Stop()  # ends what runs in it

    @property
    def is_started(self) -> bool:
        """Whether something runs in it."""
        return self._executor is not None

    def started(self) -> ThreadPoolExecutor:
        """Return what runs in it. Raises RuntimeError if the system has no thread for it."""
        if self._executor is None:
            executor = ThreadPoolExecutor(1, f"{self._name}-{self._version}")
            executor.submit(_nothing)  # it starts its thread at the first call, not before
            self._executor = executor
        return self._executor

    def is_slow(self, inputs: Inputs, rows: int) -> bool:
        """Whether inputs that held the event loop are slow here too; log it if they are.

        Called in the thread. The machine may be busy now as well, so they run up to _TRIES times.
        """
        for _ in range(_TRIES):
            start = perf_counter()
            with contextlib.suppress(InferenceFailed, UnknownValue):
                self._model.run(inputs, self.stop)
            seconds = perf_counter() - start
            if seconds <= SLOW_S:
                return False
            if seconds > _SURELY_SLOW_S:
                break
        logger.warning(
            "model %s version %d: %d rows held the event loop, and take %.0f ms: from now on it "
            "runs in a thread of its own",
            *(self._name, self._version, rows, seconds * 1000),
        )
        return True

    def end(self) -> None:
        """End it, if it was started, once what runs there is done."""
        if self._executor is not None:
            self._executor.shutdown()


def _nothing() -> None:
    """Take a thread, and be done."""


class CountingRun:
    """Runs rows through a model, and counts labels and values outside the training range.

    It knows nothing of the ServedModel: a cycle would keep what is frozen in memory for ever.
    """

    def __init__(self, model: Model, metrics: ModelMetrics, stop: Stop) -> None:
        self._model = model
        self._metrics = metrics
        self._stop = stop
        self.ran: Callable[[Inputs, Outputs], None] | None = None  # who sees what was run
        self.saw_nonfinite = False  # whether an answer ever was NaN or infinite
        # Of a model whose inner sizes are open: those of which a single row was answered. What
        # cannot be run alone must not be run together: it would be made of several callers' rows.
        self.known_kinds: set[Kind] = set()
        features = model.card.features if model.card else []
        ranges = [each.range for each in features]
        dtype = model.input.dtype if len(model.inputs) == 1 else np.float64
        self._has_ranges = any(each.type == "number" for each in features)
        if self._has_ranges:
            self._minimum, self._maximum = np.array(ranges, dtype).T
        self._has_kinds = model.is_open_inside and model.is_batched
        self._classifier = model.classifier if metrics.labels else None
        labels = self._classifier.labels if self._classifier else []
        self._place_of = {label: place for place, label in enumerate(labels)}

    def __call__(self, inputs: Inputs) -> Outputs:
        """Return the outputs for `inputs`, as Model.run."""
        outputs = self._model.run(inputs, self._stop)
        if self._has_kinds:
            self._note_kind(inputs)
        if not are_finite(outputs):
            self.saw_nonfinite = True
        if self._has_ranges:
            self._count_outside(_numbers(inputs, len(self._minimum)))
        if self._classifier is not None:
            self._count_labels(self._classifier, outputs)
        if (ran := self.ran) is not None:  # it may be taken away while this runs in a thread
            ran(inputs, outputs)
        return outputs

    def _note_kind(self, inputs: Inputs) -> None:
        kind = _kind(inputs)
        if {1}.issuperset(map(len, inputs)) and not any(0 in shape for shape in kind):
            if len(self.known_kinds) >= _MOST_KINDS:
                self.known_kinds.clear()
            self.known_kinds.add(kind)

    def _count_outside(self, rows: NDArray[Any]) -> None:
        outside = (rows < self._minimum) | (rows > self._maximum)  # (n, features)
        if outside.any():
            for feature, count in enumerate(outside.sum(axis=0).tolist()):
                self._metrics.outside[feature] += count

    def _count_labels(self, classifier: Classifier, outputs: Outputs) -> None:
        if classifier.label is not None:
            for label in outputs[classifier.label].ravel().tolist():
                if (place := self._place_of.get(label)) is not None:
                    self._metrics.predictions[place] += 1.0
            return
        scores = outputs[classifier.scores]
        if self.saw_nonfinite:
            scores = scores[np.isfinite(scores).all(axis=1)]
        for place in scores.argmax(axis=1).tolist():
            self._metrics.predictions[place] += 1.0


def _numbers(inputs: Inputs, features: int) -> NDArray[Any]:
    """Return the features of rows, (n, features); NaN for those that are no numbers."""
    if len(inputs) == 1:
        rows = inputs[0]
        return rows if rows.ndim == 2 else rows.reshape(-1, features)
    numbers = np.full((len(inputs[0]), features), np.nan)
    for place, each in enumerate(inputs):
        if each.dtype.kind in "fiu":
            numbers[:, place] = each.reshape(-1)
    return numbers


def _kind(inputs: Inputs) -> Kind:
    return tuple(array.shape[1:] for array in inputs)


def check_replaces(model: Model, old: Model) -> None:
    """Raise ModelError unless callers of `old` can go on with `model` and notice no difference.

    They rely on what a row is and what an answer is; weights, ranges and texts may differ.
    """
    if differing := other_promises(model, old):
        raise ModelError(
            f"expected the same input and outputs as the file that serves, got other "
            f"{differing}; give it a new version number"
        )


def other_promises(model: Model, old: Model) -> str:
    """Name what callers of `old` rely on and `model` has otherwise, nothing if it replaces it."""
    before, after = _promises(old), _promises(model)
    return ", ".join(what for what in before if what in after and before[what] != after[what])


async def let_go(replaced: ServedModel) -> None:
    """Close a model once nobody uses it, and give its memory back to the system."""
    await replaced.close()
    del replaced
    await asyncio.to_thread(give_back_free_memory)


def _promises(model: Model) -> dict[str, object]:
    """Return what callers of a version rely on, by what it is."""
    card, classifier = model.card, model.classifier
    form: object = card and card.task
    if classifier and not card:
        form = "probabilities" if classifier.are_probabilities else "scores"
    promises: dict[str, object] = {
        "inputs": model.inputs,
        "outputs": model.outputs,
        "row shape": model.row_shape,
        "form of answer": form,
    }
    if card is None:
        return promises | ({"labels": classifier.labels} if classifier else {})
    return promises | {
        "features": [(each.name, each.unit) for each in card.features],
        "labels": card.labels,
        "targets": [(each.name, each.unit) for each in card.targets],
        "interval": card.interval is not None,
    }
