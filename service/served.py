"""ServedModel: one version of a model as it serves, with its queue and its counters."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from service.batcher import Batcher, Inputs, Outputs
from service.errors import ModelError
from service.metrics import ModelMetrics
from service.model import Model
from service.settings import Settings


class ServedModel:
    """One version of a model: its session, its queue, its counters."""

    def __init__(
        self, name: str, version: int, model: Model, metrics: ModelMetrics, settings: Settings
    ) -> None:
        """Take an opened and tested model. A dear one gets a thread of its own."""
        self.name = name
        self.version = version
        self.model = model
        self.card = model.card
        self.metrics = metrics
        metrics.set_queue_limit(settings.max_queue_rows)
        self._executor = None if model.is_cheap else ThreadPoolExecutor(1, f"{name}-{version}")
        self.batcher = Batcher(
            CountingRun(model, metrics),
            metrics,
            max_batch_size=settings.max_batch_size if model.is_batched else 1,
            max_queue_rows=settings.max_queue_rows,
            max_queue_delay_s=settings.max_queue_delay_ms / 1000,
            executor=self._executor,
            max_rows_in_loop=None if model.is_cheap else model.max_rows_in_loop,
        )

    async def close(self) -> None:
        """Answer what waits, then let the thread and the model's memory go."""
        await self.batcher.close()
        if self._executor is not None:
            self._executor.shutdown()
        self.model.close()


class Version(Struct, kw_only=True, omit_defaults=True):
    """What /models says of one version: served, or why not; or why its newer file is not."""

    version: int | None
    state: str  # "ready" or "failed"
    reason: str = ""
    served: ServedModel | None = None


class CountingRun:
    """Runs rows through a model, and counts labels and values outside the training range.

    It knows nothing of the ServedModel: a cycle would keep what is frozen in memory for ever.
    """

    def __init__(self, model: Model, metrics: ModelMetrics) -> None:
        self._model = model
        self._metrics = metrics
        features = model.card.features if model.card else []
        dtype = model.inputs[0].dtype
        self._minimum = np.array([feature.minimum for feature in features], dtype)
        self._maximum = np.array([feature.maximum for feature in features], dtype)
        self._has_labels = bool(model.card and model.card.labels)

    def __call__(self, inputs: Inputs) -> Outputs:
        """Return the outputs for `inputs`, as Model.run."""
        outputs = self._model.run(inputs)
        if len(self._minimum):
            self._count_outside(inputs[0].reshape(-1, len(self._minimum)))
        if self._has_labels:
            self._count_labels(outputs[0])
        return outputs

    def _count_outside(self, rows: NDArray[Any]) -> None:
        outside = (rows < self._minimum) | (rows > self._maximum)  # (n, features)
        if outside.any():
            for feature, count in enumerate(outside.sum(axis=0).tolist()):
                self._metrics.outside[feature] += count

    def _count_labels(self, probabilities: NDArray[Any]) -> None:
        if self._model.saw_nonfinite:
            probabilities = probabilities[np.isfinite(probabilities).all(axis=1)]
        for label in probabilities.argmax(axis=1).tolist():
            self._metrics.predictions[label] += 1.0


def check_replaces(model: Model, old: Model) -> None:
    """Raise ModelError unless callers of `old` can go on with `model` and notice no difference.

    They rely on what a row is and what an answer is; weights, ranges and texts may differ.
    """
    before, after = _promises(old), _promises(model)
    differing = [what for what in before if what in after and before[what] != after[what]]
    if differing:
        raise ModelError(
            f"expected the same input and outputs as the file that serves, got other "
            f"{', '.join(differing)}; give it a new version number"
        )


def _promises(model: Model) -> dict[str, object]:
    """Return what callers of a version rely on, by what it is."""
    card = model.card
    promises: dict[str, object] = {
        "inputs": model.inputs,
        "outputs": model.outputs,
        "row shape": model.row_shape,
        "form of answer": card.task if card else None,
    }
    if card is None:
        return promises
    return promises | {
        "features": [(each.name, each.unit) for each in card.features],
        "labels": card.labels,
        "targets": [(each.name, each.unit) for each in card.targets],
        "interval": card.interval is not None,
    }
