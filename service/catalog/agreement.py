"""What two versions answered to the same rows: whether they agree, and how far apart they are.

A classifier agrees that answers the same label. A value agrees that lies in the interval which the
version answered with its own: it says itself that the truth is somewhere in it. Where a version
answers none, and of a model without a card, all numbers must be within TOLERANCE of each other, and
whole numbers, booleans and texts the same.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from service.batching import Outputs
from service.batching.arrays import have_rows
from service.engine.classifier import Classifier
from service.engine.model import Model
from service.metrics.instruments import (
    SHADOW_ABSOLUTE,
    SHADOW_PROBABILITY,
    SHADOW_RELATIVE,
    Instrument,
)

TOLERANCE = 0.01  # of the larger of two numbers
_OF_ZERO = 1e-6  # up to which two numbers are as good as none

Flags = NDArray[np.bool_]


class Compared(Struct, frozen=True):
    """What came of each row; of all as one where the answers are not one for each."""

    agrees: Flags  # (n,)
    failed: Flags  # (n,): NaN or infinite where the version answered numbers
    differences: dict[Instrument, NDArray[Any]]  # of those rows for which there is one
    labels: tuple[NDArray[np.intp], NDArray[np.intp]] | None = None  # the places of both


class Agreement:
    """Compares the answers of a version with those of its shadow."""

    def __init__(self, before: Model, after: Model) -> None:
        """Take two models of the same form; see `other_promises` in served.py."""
        self._before, self._after = before.classifier, after.classifier
        self._has_interval = bool(before.card and before.card.interval)
        self._is_of_card = before.card is not None

    @property
    def labels(self) -> list[str]:
        """The labels of which pairs are counted."""
        return self._before.counted if self._before else []

    @property
    def differences(self) -> list[Instrument]:
        """What is measured of how far apart two answers are."""
        if self._before and self._before.are_probabilities:
            return [SHADOW_PROBABILITY]
        return [SHADOW_ABSOLUTE, SHADOW_RELATIVE]

    @property
    def meaning(self) -> str:
        """Say what it is to agree."""
        if self._before:
            return "the same label"
        if self._has_interval:
            return "a value in the interval that the version answered"
        return f"numbers within {TOLERANCE:.0%} of each other, and all else the same"

    def __call__(self, before: Outputs, after: Outputs, rows: int) -> Compared:
        """Compare the outputs for some rows."""
        are_rows = have_rows(before, rows) and have_rows(after, rows)
        if not are_rows:
            before, after = ([each[np.newaxis] for each in one] for one in (before, after))
        were_finite, are_finite = _finite_rows(before), _finite_rows(after)
        failed = were_finite & ~are_finite
        with np.errstate(all="ignore"):
            if self._before and self._after and are_rows:
                both = self._before, self._after
                return self._of_classes(both, before, after, failed)
            return self._of_values(before, after, failed)

    def _of_classes(
        self,
        classifiers: tuple[Classifier, Classifier],
        before: Outputs,
        after: Outputs,
        failed: Flags,
    ) -> Compared:
        labels, places = _labels(classifiers[0], before)
        others, other_places = _labels(classifiers[1], after)
        agrees = (labels == others) & ~failed
        scores = [each[classifiers[0].scores] for each in (before, after)]
        differences: dict[Instrument, NDArray[Any]] = {}
        if all(each.ndim == 2 and each.shape == scores[0].shape for each in scores):
            at = np.where(places >= 0, places, scores[0].argmax(axis=1))[:, np.newaxis]
            one, other = (
                np.take_along_axis(each, at, 1)[:, 0].astype(np.float64) for each in scores
            )
            differences = self._measured(one[:, np.newaxis], other[:, np.newaxis])
        return Compared(agrees, failed, differences, (places, other_places))

    def _of_values(self, before: Outputs, after: Outputs, failed: Flags) -> Compared:
        agrees = ~failed
        ones, others = list[NDArray[Any]](), list[NDArray[Any]]()
        is_bounded = self._has_interval and len(before) > 1
        for place, (one, other) in enumerate(zip(before, after, strict=True)):
            if self._is_of_card and place > 0:  # bounds
                break
            if one.shape != other.shape:
                agrees = np.zeros_like(failed)
            elif one.dtype.kind == "f":
                flat = [each.reshape(len(each), -1).astype(np.float64) for each in (one, other)]
                agrees &= _in_bounds(before[1], flat[1]) if is_bounded else _are_near(*flat)
                ones.append(flat[0])
                others.append(flat[1])
            else:
                agrees &= np.asarray(one == other).reshape(len(one), -1).all(axis=1)
        if not ones:
            return Compared(agrees, failed, {})
        return Compared(agrees, failed, self._measured(np.hstack(ones), np.hstack(others)))

    def _measured(
        self, one: NDArray[np.float64], other: NDArray[np.float64]
    ) -> dict[Instrument, NDArray[Any]]:
        """Return the largest difference of each row, (n, values), where all are finite."""
        if not one.shape[1]:
            return {}
        kept = np.isfinite(one).all(axis=1) & np.isfinite(other).all(axis=1)
        one, other = one[kept], other[kept]
        gaps = np.abs(one - other)
        sizes = np.maximum(np.abs(one), np.abs(other))
        shares = np.divide(gaps, sizes, out=np.zeros_like(gaps), where=sizes > 0)
        by = {SHADOW_RELATIVE: shares}
        largest = {each: by.get(each, gaps).max(axis=1) for each in self.differences}
        # Of two numbers near the largest there are, the difference is none.
        return {each: values[np.isfinite(values)] for each, values in largest.items()}


def rows_of(inputs: Sequence[NDArray[Any]]) -> int:
    """Return how many rows a request has."""
    return len(inputs[0]) if inputs[0].ndim else 1


def _labels(classifier: Classifier, outputs: Outputs) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Return the label of each row, and its place among those that are known, else -1."""
    if classifier.label is None:
        places = outputs[classifier.scores].argmax(axis=1)
        return np.array(classifier.labels, np.object_)[places], places
    given = outputs[classifier.label].reshape(-1)
    place_of = {label: place for place, label in enumerate(classifier.labels)}
    places = np.array([place_of.get(label, -1) for label in given.tolist()], np.intp)
    return given.astype(np.object_), places


def _finite_rows(outputs: Outputs) -> Flags:
    """Return whether all numbers of a row are finite, (n,)."""
    finite = np.ones(len(outputs[0]), np.bool_)
    for each in outputs:
        if each.dtype.kind == "f":
            finite &= np.isfinite(each).reshape(len(each), -1).all(axis=1)
    return finite


def _are_near(one: NDArray[np.float64], other: NDArray[np.float64]) -> Flags:
    sizes = np.maximum(np.abs(one), np.abs(other))
    near = np.abs(one - other) <= np.maximum(TOLERANCE * sizes, _OF_ZERO)
    same = (one == other) | (np.isnan(one) & np.isnan(other))  # as infinity is
    flags: Flags = (near & np.isfinite(sizes) | same).all(axis=1)
    return flags


def _in_bounds(bounds: NDArray[Any], values: NDArray[np.float64]) -> Flags:
    """Whether values (n, targets) lie within bounds (n, targets, 2)."""
    low, high = np.moveaxis(bounds.reshape(*values.shape, 2), -1, 0)
    flags: Flags = ((low <= values) & (values <= high)).all(axis=1)
    return flags
