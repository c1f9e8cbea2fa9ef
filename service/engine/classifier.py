"""What makes a model a classifier: an output that is a label, and one that has scores.

A card says it. Of a file without one the names of its outputs do, as the converters of
scikit-learn, LightGBM, XGBoost and CatBoost write them; what the scores are is seen in the trial.
"""

import math
from collections.abc import Iterator

import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

from service.card import Card
from service.engine.attributes import Labels
from service.engine.file import ModelFile
from service.engine.spec import Spec
from service.engine.trial_rows import Arrays
from service.words import shown

MOST_COUNTED_LABELS = 100  # a metric has a time series for each

_LABELS = {"label", "output_label", "class", "class_label", "classlabel", "predicted_label"}
_SCORES = {
    *("probabilities", "output_probability", "probability", "output_probabilities"),
    *("class_probability", "class_probabilities", "classprobability", "scores"),
}
_FIELDS = {"label", "probability", "probabilities", "scores"}  # of an answer
_COPYING = {"Identity", "Cast", "Reshape", "Squeeze", "Unsqueeze", "Flatten"}
_CHOOSING = {"ArrayFeatureExtractor", "Gather"}
_TIE = 1e-6  # of a score: of two that are as high either may be the label's
_ROUNDING = 1e-3  # of float32: the sum of a thousand trees, or classes


class Classifier(Struct, frozen=True):
    """Which outputs say the class of a row."""

    labels: Labels  # of the columns of the scores; none if they are not known
    label: int | None  # the place of the output that is the label; None: that of the highest score
    scores: int  # the place of the output that has a number for each class
    are_probabilities: bool = True  # from 0 to 1, and 1 together
    beside: list[int] = []  # the places of outputs that have nothing to do with it

    @property
    def names(self) -> list[str]:
        """The labels as texts."""
        texts = [each for each in self.labels if isinstance(each, str)]
        return texts or [str(each) for each in self.labels]

    @property
    def counted(self) -> list[str]:
        """The labels that a metric counts: none if they are not known, or too many."""
        return self.names if len(self.labels) <= MOST_COUNTED_LABELS else []


def of_card(card: Card, seen: Classifier | None) -> Classifier | None:
    """Return what a card says of outputs, and the trial saw of a file with several of them.

    Where the card names the labels anew the label is that of the highest score.
    """
    if not card.labels:
        return None
    if seen is None:
        return Classifier(card.labels, None, 0)
    is_same = seen.names == card.labels
    return replace(seen, labels=card.labels, label=seen.label if is_same else None)


class Watch:
    """Looks at the answers of a trial, and says what classifier a file without a card is."""

    def __init__(self, spec: Spec, file: ModelFile) -> None:
        self._outputs = spec.outputs
        self._places = _places(spec)
        self._labels: Labels = []
        if self._places:
            label, scores = (spec.outputs[place].name for place in self._places)
            labels = file.labels.get(scores) or _labels_of(file, label)
            are_names = len(set(labels)) == len(labels) and all(map(_is_text, labels))
            self._labels = labels if are_names else []
        self._place_of = {label: place for place, label in enumerate(self._labels)}
        self._is_other = False  # whether the answers have not the shapes of a classifier's
        self._widths = set[int]()  # how many scores a row has
        self._strangers = set[str | int]()  # answered labels that are none of those
        self._knows_any = False  # whether a label was one of those
        self._rows = self._differing = 0  # whose label is not that of the highest score
        self._range = self._sums = (math.inf, -math.inf)  # of the scores; of a row's together

    def __call__(self, outputs: Arrays) -> None:
        """Look at the answer to some rows."""
        if not self._places or self._is_other:
            return
        label, scores = (outputs[place] for place in self._places)
        if scores.ndim != 2 or label.shape not in ((len(scores),), (len(scores), 1)):
            self._is_other = True
            return
        self._widths.add(scores.shape[1])
        # What is no number says nothing, nor what is 0 for each class: a division by 0, or none.
        tells = ~np.isnan(scores).any(axis=1) & scores.any(axis=1)
        if tells.any():
            self._look(label.ravel()[tells].tolist(), scores[tells].astype(np.float64))

    def _look(self, labels: Labels, scores: NDArray[np.float64]) -> None:
        self._range = _wider(self._range, scores)
        with np.errstate(invalid="ignore"):  # of two infinities
            self._sums = _wider(self._sums, scores.sum(axis=1))
        strangers = {label for label in labels if label not in self._place_of}
        self._strangers |= strangers
        self._knows_any = self._knows_any or not strangers.issuperset(labels)
        if not strangers and scores.shape[1] == len(self._labels):
            most = scores.max(axis=1)
            own = scores[np.arange(len(scores)), [self._place_of[label] for label in labels]]
            self._rows += len(scores)
            self._differing += int((own < most - _TIE * np.abs(most)).sum())

    @property
    def classifier(self) -> Classifier | None:
        """What was found, None if the file is none."""
        if not self._places or self._is_other:
            return None
        label, scores = self._places
        shape = self._outputs[scores].shape
        widths = self._widths or set(shape[1:2])
        if len(widths) != 1 or -1 in widths:
            return None
        are_known = bool(self._labels) and widths == {len(self._labels)}
        return Classifier(
            labels=self._labels if are_known else [],
            label=None if are_known and self._is_label_wrong else label,
            scores=scores,
            are_probabilities=self._are_probabilities,
            beside=[place for place in range(len(self._outputs)) if place not in self._places],
        )

    @property
    def _is_label_wrong(self) -> bool:
        """Whether the label is none of the labels; another beside them may mean that none fits.

        ONNX Runtime 1.31 answers 0 and 1 for two classes of trees, whatever their labels are
        (findings/ort-two-class-trees-answer-0-and-1.sh).
        """
        if self._knows_any and len(self._labels) == 2:
            return bool(self._strangers) and self._strangers <= {0, 1}
        return bool(self._strangers) and not self._knows_any

    @property
    def _are_in_range(self) -> bool:
        return -_ROUNDING <= self._range[0] <= self._range[1] <= 1 + _ROUNDING

    @property
    def _are_probabilities(self) -> bool:
        return self._are_in_range and all(abs(each - 1) <= _ROUNDING for each in self._sums)

    @property
    def doubts(self) -> Iterator[str]:
        """Say what is odd: the file may not answer what the library did that it is made of."""
        found = self.classifier
        if found is None or not self._places:
            return
        label, scores = (self._outputs[place].name for place in self._places)
        if found.label is None:
            stranger = shown(min(self._strangers, key=str))
            yield (
                f"output {label} answers {stranger}, which is none of the labels of {scores}: "
                "/predict answers the label of the highest score"
            )
        elif self._differing:
            yield (
                f"output {label} is not the label of the highest score in {self._differing} of "
                f"{self._rows} rows of a trial: one of {label} and {scores} may be wrong"
            )
        if "prob" in scores.lower() and self._widths and not found.are_probabilities:
            low, high = self._sums if self._are_in_range else self._range
            what = "rows that add up to" if self._are_in_range else "numbers from"
            yield (
                f"output {scores} has no probabilities: a trial saw {what} {low:.3g} to "
                f"{high:.3g}; /predict calls them scores"
            )


def _wider(limits: tuple[float, float], numbers: NDArray[np.float64]) -> tuple[float, float]:
    return min(limits[0], float(numbers.min())), max(limits[1], float(numbers.max()))


def _places(spec: Spec) -> tuple[int, int] | None:
    """Return which outputs are named and made as a label and as scores are, if one of each is."""
    labels, scores = list[int](), list[int]()
    for place, each in enumerate(spec.outputs):
        name, kind = each.name.lower(), np.dtype(each.dtype).kind
        if name in _LABELS and kind in "iO":
            labels.append(place)
        elif name in _SCORES and kind == "f":
            scores.append(place)
        elif name in _FIELDS:  # it would stand in the answer under the same name
            return None
    return (labels[0], scores[0]) if len(labels) == len(scores) == 1 else None


def _labels_of(file: ModelFile, name: str) -> Labels:
    """Return the labels of which an output has one, nothing if the graph does not say them.

    It is made by a classifier that has them, or one of them is chosen by its place.
    """
    makers = {output: node for node in file.graph.nodes for output in node.outputs}
    while node := makers.pop(name, None):
        if node.labels:
            return node.labels
        if node.op in _CHOOSING and node.inputs:
            return file.graph.lists.get(node.inputs[0], [])
        if node.op not in _COPYING or not node.inputs:
            return []
        name = node.inputs[0]
    return []


def _is_text(label: str | int) -> bool:
    """Whether a label can be written."""
    try:
        str(label).encode()
    except UnicodeEncodeError:
        return False
    return True
