"""Whether a graph takes and answers what the card in its file says."""

import math
from typing import TypeAlias

import numpy as np

from service.card import Card, Feature
from service.engine.columns import why_no_columns
from service.engine.spec import Spec, Tensor
from service.engine.trial import Trial
from service.errors import ModelError

_Shapes: TypeAlias = list[tuple[int, ...]]


def check_inputs(card: Card, spec: Spec) -> None:
    """Raise ModelError if the graph does not take what the card describes."""
    if len(spec.inputs) > 1:
        _check_columns(card, spec)
        return
    tensor = spec.inputs[0]
    if why := _why_no_rows(card, spec):
        raise ModelError(f"expected a batch of rows of numbers as the card says: {why}")
    if math.prod(tensor.shape[1:]) != card.input_size:
        raise ModelError(
            f"input {tensor.name}: expected {card.input_size} numbers a row as the card "
            f"says, got shape {tensor.shape}"
        )
    for feature in card.features:
        _check_type(feature, tensor)


def check_outputs(card: Card, spec: Spec, trial: Trial) -> None:
    """Raise ModelError if the graph does not answer what the card describes."""
    expected: _Shapes = [(-1, card.output_size)]
    if card.interval:
        expected.append((-1, card.output_size, 2))
    if [output.shape for output in spec.outputs] == expected:
        return
    seen = trial.outputs or spec.outputs
    if trial.classifier and card.labels:
        shapes = [seen[trial.classifier.scores].shape]
    else:  # a target may have no dimension of its own
        shapes = [each.shape if len(each.shape) > 1 else (*each.shape, 1) for each in seen]
    if [(-1, *shape[1:]) for shape in shapes] != expected:
        got = ", ".join(f"{output.name} {output.shape}" for output in spec.outputs)
        raise ModelError(f"expected outputs of shapes {expected} as the card says, got {got}")


def _check_columns(card: Card, spec: Spec) -> None:
    if why := why_no_columns(spec.inputs) or spec.why_no_batch:
        raise ModelError(f"expected an input for each feature of the card, but {why}")
    names, features = [each.name for each in spec.inputs], [each.name for each in card.features]
    if names != features:
        raise ModelError(
            f"expected inputs {', '.join(features)} as the card says, got {', '.join(names)}"
        )
    for feature, tensor in zip(card.features, spec.inputs, strict=True):
        _check_type(feature, tensor)


def _check_type(feature: Feature, tensor: Tensor) -> None:
    kind = np.dtype(tensor.dtype).kind
    if kind not in {"number": "fiu", "string": "O", "boolean": "b"}[feature.type]:
        raise ModelError(
            f"input {tensor.name}: expected a {feature.type} for feature {feature.name} as the "
            f"card says, got {np.dtype(tensor.dtype)}"
        )


def _why_no_rows(card: Card, spec: Spec) -> str:
    """Say why the graph takes no rows of values, nothing if it does."""
    if spec.why_no_batch and not spec.is_fixed_at_one:
        return spec.why_no_batch
    if spec.is_open_inside:
        return "the shape of its rows is open"
    is_text = any(each.type != "number" for each in card.features)
    is_number = np.dtype(spec.inputs[0].dtype).kind in "fiu"
    return "" if is_text or is_number else "its input is not numbers"
