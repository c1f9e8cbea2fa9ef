"""Layers the models share. Scaling is a layer, so a model takes and answers raw units."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


class Standardize(nn.Module):
    """Turn raw units into deviations from the mean, in standard deviations.

    mean, std: float32, (features,) or (). A column that never varies keeps its unit.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("std", torch.where(std > 0, std, 1.0))

    def forward(self, values: Tensor) -> Tensor:
        """Scale: float32 (n, features), the shape stays."""
        return (values - self.mean) / self.std


class Destandardize(Standardize):
    """Turn standard deviations from the mean back into raw units."""

    def forward(self, values: Tensor) -> Tensor:
        """Scale back: float32 (n, targets), the shape stays."""
        return values * self.std + self.mean


def perceptron(inputs: int, hidden: Sequence[int], outputs: int) -> nn.Sequential:
    """Build linear layers with a ReLU after each hidden one: (n, inputs) -> (n, outputs)."""
    sizes = [inputs, *hidden, outputs]
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU()]  # (n, before) -> (n, after)
    return nn.Sequential(*layers[:-1])
