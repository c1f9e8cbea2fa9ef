"""How answers become bytes: a line of CSV or JSON for each row."""

from collections import Counter
from collections.abc import Sequence
from itertools import product
from typing import Any

from service.engine.model import Model
from service.engine.spec import Tensor
from service.errors import CannotScore
from service.formats.lines import Row
from service.formats.predictions import csv_of, encode, fields
from service.formats.registry import CSV, Format


class Layout:
    """How answers become bytes."""

    def __init__(self, format: Format, model: Model, kept: list[str] | None) -> None:
        """Take the names of the columns that are kept, None if nothing is.

        Raises CannotScore where two columns, or two fields of JSON, would have the same name.
        """
        self._is_csv = format is CSV
        self._kept = kept
        self._names = ["line", *(kept or ()), *columns_of(model)] if self._is_csv else []
        if self._is_csv:
            check_names("column", self._names, "rename one, or write JSON Lines (.jsonl)")
        else:
            check_names("column", kept or (), "rename one in INPUT")
            own = ["line"] if kept is None else ["line", "kept"]
            check_names("field", own + _fields(model), "rename that output of the model")

    def head(self) -> bytes:
        """Return what stands before all answers."""
        return csv_of([{"names": self._names}]) if self._is_csv else b""

    def lines(self, rows: Sequence[Row], answers: Sequence[dict[str, Any]]) -> bytes:
        """Return a line for each row and its answer."""
        if not self._is_csv:
            return b"".join(
                encode({"line": row.line, **self._kept_of(row), **answer}) + b"\n"
                for row, answer in zip(rows, answers, strict=True)
            )
        return csv_of(
            [
                {"line": row.line, "kept": [] if self._kept is None else row.kept, "is": answer}
                for row, answer in zip(rows, answers, strict=True)
            ]
        )

    def _kept_of(self, row: Row) -> dict[str, Any]:
        if self._kept is None:
            return {}
        if isinstance(row.kept, list):
            return {"kept": dict(zip(self._kept, row.kept, strict=True))}
        return {"kept": row.kept}


def check_names(what: str, names: Sequence[str], advice: str) -> None:
    """Raise CannotScore if a name comes twice."""
    for name, count in Counter(names).items():
        if count > 1:
            raise CannotScore(
                f"OUTPUT: {what} {name!r}: expected one of that name, got {count}: {advice}"
            )


def _fields(model: Model) -> list[str]:
    """Return the names of a prediction's fields that are the model's to choose."""
    card, outputs = model.card, model.outputs
    if model.classifier:
        return [outputs[place].name for place in model.classifier.beside]
    if card is None:
        return [output.name for output in outputs]
    return [target.name for target in card.targets] if len(card.targets) > 1 else []


def columns_of(model: Model) -> list[str]:
    """Return the names of what `csv_of` makes of a prediction. Raises CannotScore."""
    card, outputs = model.card, model.trial.outputs
    if classifier := model.classifier:
        *one_each, of_all = fields(classifier)
        classes = classifier.names or _places(of_all, outputs[classifier.scores].shape[1:])
        beside = [outputs[place] for place in classifier.beside]
        return [*one_each, *classes, *(name for each in beside for name in _numbers(each))]
    if card is None:
        return [name for each in outputs for name in _numbers(each)]
    of_one = ["value", "lower", "upper"] if card.interval else ["value"]
    if len(card.targets) == 1:
        return of_one
    targets = [target.name for target in card.targets]
    if not card.interval:
        return targets
    return [f"{target}.{name}" for target in targets for name in of_one]


def _numbers(output: Tensor) -> list[str]:
    """Return a name for each number of an output."""
    return _places(output.name, output.shape[1:])


def _places(name: str, shape: tuple[int, ...]) -> list[str]:
    """Return a name for each number of a shape: `y`, or `y[0][0]` and so on."""
    if -1 in shape:
        raise CannotScore(f"output {name}: expected a shape for CSV, got an open one: use .jsonl")
    places = product(*map(range, shape))
    return [name + "".join(f"[{index}]" for index in place) for place in places]
