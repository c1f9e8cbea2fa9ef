"""Outputs of a model -> predictions, one for each row, as JSON, JSON Lines or CSV has them."""

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import msgspec
from msgspec import Struct
from numpy.typing import NDArray

from service.card import Card
from service.engine.model import Model
from service.formats.reply_size import UNKNOWN, WIDTH, joined, slices, times, values_of

encode = msgspec.json.Encoder().encode


def each_prediction(model: Model, outputs: Sequence[NDArray[Any]]) -> Iterator[dict[str, Any]]:
    """Yield one prediction per row; few of them are in memory at a time."""
    for part in slices(outputs):
        yield from predictions(model, part)


def predictions(model: Model, outputs: Sequence[NDArray[Any]]) -> list[dict[str, Any]]:
    """Return one prediction per row: a label, a value, or what an ONNX without a card gives."""
    card = model.card
    if card is None:
        names = [output.name for output in model.outputs]
        rows_of_each = zip(*(array.tolist() for array in outputs), strict=True)
        return [dict(zip(names, row, strict=True)) for row in rows_of_each]
    rows = outputs[0].tolist()
    if card.labels:
        return [_classified(card.labels, row) for row in rows]
    if card.interval:
        bounds = outputs[1].tolist()
        return [_valued(card, *answer) for answer in zip(rows, bounds, strict=True)]
    return [_valued(card, row) for row in rows]


class Writer(Struct, frozen=True):
    """Writes the predictions of a model as a list in JSON."""

    begin: bytes  # of the JSON of /predict
    bytes_of_row: int  # at most; UNKNOWN where only the outputs tell
    _write: Callable[[Sequence[NDArray[Any]]], bytes]

    def __call__(self, outputs: Sequence[NDArray[Any]]) -> bytes:
        """Return the JSON of outputs (n, ...), written in parts if they are many."""
        parts = slices(outputs)
        return self._write(outputs) if len(parts) == 1 else joined(map(self._write, parts))


def writer(model: Model, name: str, version: int) -> Writer:
    """Return what writes the predictions of a model of that name."""
    begin = encode({"model": name, "version": version})[:-1] + b',"predictions":'
    return Writer(begin, _bytes_of_row(model), _write_of(model))


def _bytes_of_row(model: Model) -> int:
    """Return how many bytes of JSON the prediction of a row has at most."""
    names = [each.name for each in model.outputs]
    if model.card:
        names += [*model.card.labels, *(each.name for each in model.card.targets)]
    size = 2 * len(encode(names)) + 100  # with the words of a card's answer
    for place, each in enumerate(model.outputs):
        size += times(values_of(model, place, 1), WIDTH[each.dtype])
    return min(size, UNKNOWN)


def _write_of(model: Model) -> Callable[[Sequence[NDArray[Any]]], bytes]:
    labels = model.card.labels if model.card else []
    fields = {f"label_{n}": label for n, label in enumerate(labels)}
    try:  # types of our own: no name is looked up for each row, which costs half of dicts
        probabilities = msgspec.defstruct(
            "Probabilities", [(each, float) for each in fields], rename=fields, gc=False
        )
    except ValueError:  # of a label that has quotation marks, or the like
        labels = []
    if not labels:
        return lambda outputs: encode(predictions(model, outputs))
    one = [("label", str), ("probability", float), ("probabilities", probabilities)]
    classified: Any = msgspec.defstruct("Classified", one, gc=False)

    def write(outputs: Sequence[NDArray[Any]]) -> bytes:
        answers = []
        for row in outputs[0].tolist():
            highest = max(row)
            label = labels[row.index(highest)]
            answers.append(classified(label, highest, probabilities(*row)))
        return encode(answers)

    return write


def _classified(labels: list[str], probabilities: list[float]) -> dict[str, Any]:
    highest = max(probabilities)
    return {
        "label": labels[probabilities.index(highest)],
        "probability": highest,
        "probabilities": dict(zip(labels, probabilities, strict=True)),
    }


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
