"""Outputs of a model -> predictions, one for each row, as JSON, JSON Lines or CSV has them."""

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from service.card import Card
from service.engine.classifier import Classifier
from service.engine.model import Model
from service.formats.reply_size import (
    MOST_NUMBERS_IN_LOOP,
    UNKNOWN,
    WIDTH,
    joined,
    slices,
    times,
    values_of,
)

encode = msgspec.json.Encoder().encode


def each_prediction(model: Model, outputs: Sequence[NDArray[Any]]) -> Iterator[dict[str, Any]]:
    """Yield one prediction per row; few of them are in memory at a time."""
    for part in slices(outputs):
        yield from predictions(model, part)


def predictions(model: Model, outputs: Sequence[NDArray[Any]]) -> list[dict[str, Any]]:
    """Return one prediction per row: a label, a value, or what an ONNX without a card gives."""
    card, classifier = model.card, model.classifier
    if classifier is not None:
        classes = _classes(model, classifier, outputs)
        if classifier.beside:
            classes = map(dict.__or__, classes, _named(model, outputs, classifier.beside))
        return list(classes)
    if card is None:
        return _named(model, outputs, range(len(outputs)))
    first = outputs[0] if outputs[0].ndim > 1 else outputs[0].reshape(-1, 1)
    rows = first.tolist()
    if card.interval:
        bounds = outputs[1].tolist()
        return [_valued(card, *answer) for answer in zip(rows, bounds, strict=True)]
    return [_valued(card, row) for row in rows]


def of_all(classifier: Classifier) -> Literal["probabilities", "scores"]:
    """Return the name of what a prediction says of all classes."""
    return "probabilities" if classifier.are_probabilities else "scores"


def fields(classifier: Classifier) -> list[str]:
    """Return the names of what the prediction of a classifier says of the class."""
    of_label = ["label", "probability"] if classifier.are_probabilities else ["label"]
    return [*of_label, of_all(classifier)]


def _named(
    model: Model, outputs: Sequence[NDArray[Any]], places: Sequence[int]
) -> list[dict[str, Any]]:
    """Return some outputs of each row by their names."""
    names = [model.outputs[place].name for place in places]
    rows_of_each = zip(*(outputs[place].tolist() for place in places), strict=True)
    return [dict(zip(names, row, strict=True)) for row in rows_of_each]


def _classes(
    model: Model, classifier: Classifier, outputs: Sequence[NDArray[Any]]
) -> Iterator[dict[str, Any]]:
    """Yield what is said of the class of each row."""
    names, has_probabilities = classifier.names, classifier.are_probabilities
    for label, probability, scores in _told(model, classifier, outputs):
        by_name = dict(zip(names, scores, strict=True)) if names else scores
        if has_probabilities:
            yield {"label": label, "probability": probability, "probabilities": by_name}
        else:
            yield {"label": label, "scores": by_name}


def _told(
    model: Model, classifier: Classifier, outputs: Sequence[NDArray[Any]]
) -> Iterator[tuple[str | int, float, list[float]]]:
    """Yield the label of each row, its score, and all scores.

    The score is the highest one where the label is none of those that are known.
    """
    labels = classifier.labels
    rows = clipped(model, classifier, outputs).tolist()
    if classifier.label is None:
        for row in rows:
            highest = max(row)
            yield labels[row.index(highest)], highest, row
        return
    place_of = {label: place for place, label in enumerate(labels)}
    given = outputs[classifier.label].reshape(-1).tolist()  # (n,) or (n, 1)
    for label, row in zip(given, rows, strict=True):
        place = place_of.get(label)
        yield label, max(row) if place is None else row[place], row


def clipped(model: Model, classifier: Classifier, outputs: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Return the scores (n, classes) of a classifier; probabilities within 0 and 1."""
    scores = outputs[classifier.scores]
    if classifier.are_probabilities and not _is_alone(model):
        scores = np.clip(scores, 0, 1)  # what is added up from many trees is a little more
    return scores


def _is_alone(model: Model) -> bool:
    """Whether the scores are its only output, as of our own classifiers."""
    return model.card is not None and len(model.outputs) == 1


class Writer(Struct, frozen=True):
    """Writes the predictions of a model as a list in JSON."""

    begin: bytes  # of the JSON of /predict
    bytes_of_row: int  # at most; UNKNOWN where only the outputs tell
    rows_at_once: int  # that surely do not take long to write
    _write: Callable[[Sequence[NDArray[Any]]], bytes]

    def __call__(self, outputs: Sequence[NDArray[Any]]) -> bytes:
        """Return the JSON of outputs (n, ...), written in parts if they are many."""
        if len(outputs[0]) <= self.rows_at_once:
            return self._write(outputs)
        parts = slices(outputs)
        return self._write(outputs) if len(parts) == 1 else joined(map(self._write, parts))


def writer(model: Model, name: str, version: int) -> Writer:
    """Return what writes the predictions of a model of that name."""
    begin = encode({"model": name, "version": version})[:-1] + b',"predictions":'
    size = _bytes_of_row(model)
    at_once = 0 if size == UNKNOWN else MOST_NUMBERS_IN_LOOP // size  # a number has a byte or more
    return Writer(begin, size, at_once, _write_of(model))


def _bytes_of_row(model: Model) -> int:
    """Return how many bytes of JSON the prediction of a row has at most."""
    names = [each.name for each in model.outputs]
    if model.classifier:
        names += model.classifier.names
    if model.card:
        names += [each.name for each in model.card.targets]
    size = 2 * len(encode(names)) + 100  # with the words of a card's answer
    for place, each in enumerate(model.outputs):
        size += times(values_of(model, place, 1), WIDTH[each.dtype])
    return min(size, UNKNOWN)


def _write_of(model: Model) -> Callable[[Sequence[NDArray[Any]]], bytes]:
    classifier = model.classifier
    names = classifier.names if classifier and not classifier.beside else []
    fields_of = {f"label_{n}": label for n, label in enumerate(names)}
    try:  # types of our own: no name is looked up for each row, which costs half of dicts
        scores = msgspec.defstruct(
            "Scores", [(each, float) for each in fields_of], rename=fields_of, gc=False
        )
    except ValueError:  # of a label that has quotation marks, or the like
        names = []
    if classifier is None or not names:
        return lambda outputs: encode(predictions(model, outputs))
    types = {"label": str | int, "probability": float}
    said = [(each, types.get(each, scores)) for each in fields(classifier)]
    classified: Any = msgspec.defstruct("Classified", said, gc=False)
    labels, has_probabilities = classifier.labels, classifier.are_probabilities

    def write(outputs: Sequence[NDArray[Any]]) -> bytes:
        answers = []
        for label, probability, row in _told(model, classifier, outputs):
            about = (label, probability) if has_probabilities else (label,)
            answers.append(classified(*about, scores(*row)))
        return encode(answers)

    def write_highest(outputs: Sequence[NDArray[Any]]) -> bytes:
        answers = []
        for row in outputs[0].tolist():
            highest = max(row)
            answers.append(classified(labels[row.index(highest)], highest, scores(*row)))
        return encode(answers)

    return write_highest if _is_alone(model) else write


def _valued(
    card: Card, values: list[float], bounds: list[list[float]] | None = None
) -> dict[str, Any]:
    """Return {"value"}, with "lower" and "upper" if bounded; by target if several."""
    answers: list[dict[str, float]] = [{"value": value} for value in values]
    for answer, (lower, upper) in zip(answers, bounds or (), strict=bool(bounds)):
        answer |= {"lower": lower, "upper": upper}
    if len(answers) == 1:
        return answers[0]
    names = [target.name for target in card.targets]
    return dict(zip(names, answers if bounds else values, strict=True))


def json_lines_of(predictions: Iterable[dict[str, Any]]) -> bytes:
    """Return predictions as JSON Lines, one in each."""
    return b"".join([encode(each) + b"\n" for each in predictions])


def csv_of(predictions: Iterable[dict[str, Any]]) -> bytes:
    """Return predictions as CSV: a line for each, its fields in order, what they hold laid flat."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(list(_flat(each)) for each in predictions)
    return text.getvalue().encode()


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _flat(each)
    else:
        yield value
