"""Layers the models share. Scaling is a layer, so a model takes and answers raw units."""

import math
from collections import OrderedDict
from itertools import pairwise
from typing import Self

import torch
from torch import Tensor, nn

from training.hyperparameters import ACTIVATIONS, Hyperparameters


def activation(name: str) -> nn.Module:
    """Build the activation of a name in ACTIVATIONS; the shape of what it takes stays."""
    layer: nn.Module = getattr(nn, ACTIVATIONS[name])()
    return layer


def sequence(**layers: nn.Module) -> nn.Sequential:
    """Put layers one after the other, under the names that they have in a state_dict."""
    return nn.Sequential(OrderedDict(layers))


class Standardize(nn.Module):
    """Turn raw units into deviations from the mean, in standard deviations.

    mean, std: float32, (features,) or (). A column that hardly varies, by less than float32
    can resolve beside its mean, keeps its unit.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("std", torch.where(std > 1e-6 * mean.abs(), std, 1.0))

    @classmethod
    def of(cls, rows: Tensor) -> Self:
        """Return the layer for these rows, float32 (n, features): each column has its own scale."""
        return cls(rows.mean(dim=0), rows.std(dim=0))

    def forward(self, values: Tensor) -> Tensor:
        """Scale: float32 (n, features), the shape stays."""
        return (values - self.mean) / self.std


class Destandardize(Standardize):
    """Turn standard deviations from the mean back into raw units."""

    def forward(self, values: Tensor) -> Tensor:
        """Scale back: float32 (n, targets), the shape stays."""
        return values * self.std + self.mean


def perceptron(
    inputs: int, parameters: Hyperparameters, outputs: int, members: int = 0
) -> nn.Sequential:
    """Build linear layers with an activation after each hidden one: (n, inputs) -> (n, outputs).

    With `members`, so many of them side by side, each with weights of its own:
    (n, inputs) or (members, n, inputs) -> (members, n, outputs).
    """
    sizes = [inputs, *parameters.hidden]
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers.append(_linear(before, after, members))  # (n, before) -> (n, after)
        if parameters.batch_normalisation:
            layers.append(MemberNorm(members, after) if members else nn.BatchNorm1d(after))
        layers.append(activation(parameters.activation))
        if parameters.dropout:
            layers.append(nn.Dropout(parameters.dropout))
    return nn.Sequential(*layers, _linear(sizes[-1], outputs, members))


def _linear(inputs: int, outputs: int, members: int) -> nn.Module:
    return MemberLinear(members, inputs, outputs) if members else nn.Linear(inputs, outputs)


class MemberLinear(nn.Module):
    """Linear layers side by side: (n, inputs) or (members, n, inputs) -> (members, n, outputs).

    They begin as He et al. draw them (https://arxiv.org/abs/1502.01852).
    """

    def __init__(self, members: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(members, inputs, outputs) * math.sqrt(2 / inputs))
        self.bias = nn.Parameter(torch.randn(members, 1, outputs) * 0.1)

    def forward(self, rows: Tensor) -> Tensor:
        """Multiply and add."""
        return torch.matmul(rows, self.weight) + self.bias  # (n, i) @ (m, i, o) -> (m, n, o)


class MemberNorm(nn.BatchNorm1d):
    """Batch normalisation of layers side by side: (members, n, features), the shape stays."""

    def __init__(self, members: int, features: int) -> None:
        super().__init__(members * features)

    def forward(self, rows: Tensor) -> Tensor:
        """Scale each feature of each member over the n rows."""
        members, _, features = rows.shape
        flat = rows.transpose(0, 1).flatten(1)  # (m, n, f) -> (n, m * f)
        scaled: Tensor = super().forward(flat)
        return scaled.reshape(-1, members, features).transpose(0, 1)  # -> (m, n, f)


class Ensemble(nn.Module):
    """Perceptrons side by side, each beside a straight line from inputs to outputs.

    (n, inputs) or (members, n, inputs) -> (members, n, outputs). The line begins at zero, and
    the perceptron near it: what a line can say is learnt by the line.
    """

    def __init__(
        self, members: int, inputs: int, parameters: Hyperparameters, outputs: int
    ) -> None:
        super().__init__()
        self.bent = perceptron(inputs, parameters, outputs, members)
        self.straight = nn.Parameter(torch.zeros(members, inputs, outputs))
        with torch.no_grad():
            for parameter in self.bent[-1].parameters():
                parameter.mul_(0.3)

    def forward(self, rows: Tensor) -> Tensor:
        """Add the curve and the line of each member."""
        bent: Tensor = self.bent(rows)
        return bent + torch.matmul(rows, self.straight)  # -> (members, n, outputs)


class BothSides(nn.Module):
    """Turn the logit of label 1 into the probabilities of both labels: (n, 1) -> (n, 2)."""

    def forward(self, logits: Tensor) -> Tensor:
        """Pair 1 - p with p."""
        p = torch.sigmoid(logits)
        return torch.cat([1 - p, p], dim=1)  # (n, 1) -> (n, 2)


def binary_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean loss of the logits of label 1, (n, 1), given the labels, int64 (n,)."""
    return nn.functional.binary_cross_entropy_with_logits(logits[:, 0], targets.float())
