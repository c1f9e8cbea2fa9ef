"""Outputs of a model -> columns, an answer for each row: those of formats/predictions.py.

A classifier has a column for each class, a regression `value`, `lower` and `upper`, another model
one for each output: of single values, or of lists of a fixed size where an answer has more.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from service.engine.classifier import Classifier
from service.engine.model import Model
from service.formats.predictions import clipped, fields, of_all

ERROR = "error"  # the column of what is wrong with a row

_Named: TypeAlias = Iterator[tuple[str, pa.Array]]

# Half floats are rare in files, and no text of CSV has them; a float32 holds each of them.
_TYPES: dict[type[np.generic], pa.DataType] = {
    np.object_: pa.string(),
    np.bool_: pa.bool_(),
    np.float16: pa.float32(),
}


class Columns:
    """Makes columns of the outputs of one model."""

    def __init__(self, model: Model) -> None:
        """Take a model that takes rows."""
        self._model = model
        seen = model.trial.outputs or model.outputs
        self._sizes = [each.shape[1:] if each.has_shape else (-1,) for each in seen]
        classifier = model.classifier
        # A column for each class; one of lists where a class is called as another column is.
        self._are_apart = classifier is not None and _are_names(model, classifier)
        nothing = [
            np.zeros((0, *(max(size, 0) for size in sizes)), each.dtype)
            for each, sizes in zip(model.outputs, self._sizes, strict=True)
        ]
        self.none: pa.RecordBatch = self(nothing)  # the answers to no rows
        self.schema: pa.Schema = self.none.schema

    def __call__(self, outputs: Sequence[NDArray[Any]]) -> pa.RecordBatch:
        """Return outputs (n, ...) as columns of n values."""
        named = list(self._columns(outputs))
        return pa.RecordBatch.from_arrays([each for _, each in named], [name for name, _ in named])

    def _columns(self, outputs: Sequence[NDArray[Any]]) -> _Named:
        model = self._model
        if model.classifier is not None:
            yield from self._classes(model.classifier, outputs)
            yield from self._named(outputs, model.classifier.beside)
        elif model.card is None:
            yield from self._named(outputs, range(len(outputs)))
        else:
            yield from self._values(outputs)

    def _named(self, outputs: Sequence[NDArray[Any]], places: Iterable[int]) -> _Named:
        for place in places:
            yield (
                self._model.outputs[place].name,
                self._lists(outputs[place], place),
            )

    def _lists(self, values: NDArray[Any], place: int) -> pa.Array:
        """Return an output as a column: of lists where a row has several values."""
        type = _type_of(self._model.outputs[place].dtype)
        sizes = self._sizes[place]
        if -1 in sizes:
            for _ in sizes:
                type = pa.list_(type)
            return pa.array(values.tolist(), type)
        if sizes in ((), (1,)):
            return _array(values.reshape(-1), type)
        array = _array(values.reshape(-1), type)
        for size in reversed(sizes):
            array = pa.FixedSizeListArray.from_arrays(array, size)
        return array

    def _classes(self, classifier: Classifier, outputs: Sequence[NDArray[Any]]) -> _Named:
        model, labels = self._model, classifier.labels
        scores = clipped(model, classifier, outputs)
        rows = np.arange(len(scores))
        if classifier.label is None:
            highest = scores.argmax(axis=1) if len(scores) else rows
            label = _labels(labels).take(pa.array(highest))
            of_label = scores[rows, highest]
        else:
            given = outputs[classifier.label].reshape(-1)
            place_of = {each: place for place, each in enumerate(labels)}
            places = np.array([place_of.get(each, -1) for each in given.tolist()], np.int64)
            label = _array(given, _type_of(model.outputs[classifier.label].dtype))
            of_label = np.where(
                places < 0, scores.max(axis=1, initial=-np.inf), scores[rows, places]
            )
        yield "label", label
        if classifier.are_probabilities:
            yield "probability", pa.array(of_label)
        if self._are_apart:
            for place, name in enumerate(classifier.names):
                yield name, pa.array(scores[:, place])
        else:
            yield of_all(classifier), self._lists(scores, classifier.scores)

    def _values(self, outputs: Sequence[NDArray[Any]]) -> _Named:
        card = self._model.card
        targets = [each.name for each in card.targets] if card else []
        values = outputs[0].reshape(-1, len(targets))
        is_one = len(targets) == 1
        for place, target in enumerate(targets):
            before = "" if is_one else f"{target}."
            if card is None or not card.interval:
                yield "value" if is_one else target, pa.array(values[:, place])
                continue
            yield f"{before}value", pa.array(values[:, place])
            yield f"{before}lower", pa.array(outputs[1][:, place, 0])
            yield f"{before}upper", pa.array(outputs[1][:, place, 1])


def _are_names(model: Model, classifier: Classifier) -> bool:
    """Whether each class can have a column of its own."""
    others = [*fields(classifier), *(model.outputs[each].name for each in classifier.beside)]
    names = [*classifier.names, *others, ERROR]
    return bool(classifier.names) and len(set(names)) == len(names)


def _labels(labels: Sequence[str | int]) -> pa.Array:
    return pa.array(labels, pa.string() if labels and isinstance(labels[0], str) else pa.int64())


def _type_of(dtype: type[np.generic]) -> pa.DataType:
    return _TYPES.get(dtype) or pa.from_numpy_dtype(dtype)


def _array(values: NDArray[Any], type: pa.DataType) -> pa.Array:
    return pa.array(values).cast(type) if values.dtype == np.float16 else pa.array(values, type)
