"""Rows as a graph takes them -> its outputs, and why some rows have none.

A run has always as many rows, also the last of a block: no answer depends, in its last bit, on
where the rows of a file are cut.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from service.batching import Inputs, Outputs, check_rows
from service.engine.model import NOT_FINITE, Model
from service.errors import InferenceFailed, UnknownValue


class Run(Struct):
    """What rows became: `outputs` of those at `places`, the others are `bad`, and why."""

    outputs: Outputs
    places: NDArray[np.int64]
    bad: list[tuple[int, str]]


def rows_of_run(model: Model, sizes: Sequence[int]) -> int:
    """Return the first of some sizes of a run that a model was tried with; 1 if it was with none.

    What a trial had time for depends on the machine, and answers in their last bit on the size.
    """
    most = model.largest_batch if model.is_batched else 1
    return next((size for size in sizes if size <= most), 1)


class Runs:
    """Runs rows with one model."""

    def __init__(self, model: Model, rows: int) -> None:
        """Take a model that takes rows, and how many are run together."""
        self._model = model
        self._rows = rows

    def __call__(self, inputs: Inputs, places: NDArray[np.int64]) -> Run:
        """Run rows, which are called by their places in sentences."""
        found = _Found(self._model, self._rows)
        for start in range(0, len(places), self._rows):
            rows = slice(start, start + self._rows)
            found.run([each[rows] for each in inputs], places[rows])
        return found.finite()

    def alone(self, rows: Sequence[Inputs], places: NDArray[np.int64]) -> Run:
        """Run rows, each of which may have a shape of its own."""
        found = _Found(self._model, 1)
        for inputs, place in zip(rows, places, strict=True):
            found.run(inputs, np.array([place]))
        return found.finite()


class _Found:
    """What was found of some rows until now."""

    def __init__(self, model: Model, rows: int) -> None:
        self._model = model
        self._rows = rows  # of a run
        self._parts: list[Outputs] = []
        self._places = [np.empty(0, np.int64)]
        self._bad: list[tuple[int, str]] = []

    def run(self, inputs: Inputs, places: NDArray[np.int64]) -> None:
        """Run rows together, or in halves where one of them makes the run fail."""
        count = len(places)
        try:
            outputs = self._model.run(self._filled(inputs, count))
            check_rows(outputs, self._rows)
        except (InferenceFailed, UnknownValue):
            if count == 1:
                self._run_alone(inputs, places)
                return
            for half in (slice(0, count // 2), slice(count // 2, count)):
                self.run([each[half] for each in inputs], places[half])
            return
        self._add([each[:count] for each in outputs], places)

    def _run_alone(self, inputs: Inputs, places: NDArray[np.int64]) -> None:
        """Run a row as it is: what fails says of how many rows."""
        try:
            outputs = self._model.run(inputs)
            check_rows(outputs, 1)
        except (InferenceFailed, UnknownValue) as error:
            self._bad.append((int(places[0]), f": {error}"))
        else:
            self._add(outputs, places)

    def _add(self, outputs: Outputs, places: NDArray[np.int64]) -> None:
        self._parts.append(outputs)
        self._places.append(places)

    def _filled(self, inputs: Inputs, count: int) -> Inputs:
        """Return inputs of a whole run: the last row again and again."""
        missing = self._rows - count
        if not missing:
            return inputs
        return [np.concatenate([each, np.repeat(each[-1:], missing, axis=0)]) for each in inputs]

    def finite(self) -> Run:
        """Return the outputs of all runs, without the rows whose answer is NaN or infinite."""
        places, outputs = np.concatenate(self._places), Outputs()
        finite = np.ones(len(places), np.bool_)
        for arrays in zip(*self._parts, strict=True):
            is_even = len({each.shape[1:] for each in arrays}) == 1
            joined = [np.concatenate(arrays)] if is_even else arrays
            if arrays[0].dtype.kind == "f":
                finite &= np.concatenate([_are_finite(each) for each in joined])
            outputs.append(joined[0] if is_even else _lists(joined))
        if finite.all():
            return Run(outputs, places, self._bad)
        bad = [(place, f": {NOT_FINITE}") for place in places[~finite].tolist()]
        return Run([each[finite] for each in outputs], places[finite], self._bad + bad)


def _are_finite(output: NDArray[Any]) -> NDArray[np.bool_]:
    finite: NDArray[np.bool_] = np.isfinite(output).reshape(len(output), -1).all(axis=1)
    return finite


def _lists(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Return answers that differ in shape as an array (n,) of lists."""
    rows = [row.tolist() for each in arrays for row in each]
    together = np.empty(len(rows), np.object_)
    together[:] = rows
    return together
