import hashlib
import math

import msgspec
import pytest
import torch
from torch import nn

from training import xor
from training.loop import answers, evaluate
from training.network import perceptron
from training.recipe import learnt, train


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.slow
def test_four_of_four_are_right_from_every_seed(seed: int) -> None:
    rows, _ = xor.load()
    network, _ = learnt(xor.RECIPE, msgspec.structs.replace(xor.PARAMETERS, seed=seed), rows)
    (probabilities,) = answers(network, rows.inputs)
    assert evaluate(network, rows) == {"accuracy": 1.0}
    assert (probabilities[range(4), rows.targets] > 0.92).all()
    assert [tuple(p.shape) for p in network.parameters()] == [(3, 2), (3,), (1, 3), (1,)]


def test_rows_are_the_truth_table() -> None:
    rows, _ = xor.load()
    assert [int(a) ^ int(b) for a, b in rows.inputs.tolist()] == rows.targets.tolist()
    table = [[*row, xor.TARGETS[i]] for i, row in enumerate(xor.INPUTS)]
    content = bytes(int(n) for row in table for n in row)
    assert hashlib.sha256(content).hexdigest() == xor.DATASET.sha256


def test_hidden_units_have_three_directions_120_degrees_apart() -> None:
    for seed in range(5):
        torch.manual_seed(seed)
        layers = perceptron(2, xor.PARAMETERS, 1)
        xor.spread(layers)
        first, last = layers[0], layers[-1]
        assert isinstance(first, nn.Linear)
        assert isinstance(last, nn.Linear)
        cosines = (first.weight @ first.weight.T).flatten().tolist()
        between = math.cos(2 * math.pi / 3)
        expected = [1, between, between, between, 1, between, between, between, 1]
        assert cosines == pytest.approx(expected, abs=1e-6)
        assert first.bias.tolist() == [0, 0, 0]
        assert last.weight.abs().max() <= xor.OUTPUT_WEIGHT


def test_examples_are_the_four_rows_with_their_answers() -> None:
    card = train(xor.RECIPE, xor.PARAMETERS).card
    names = ["0 xor 0 is 0", "0 xor 1 is 1", "1 xor 0 is 1", "1 xor 1 is 0"]
    assert [example.name for example in card.examples] == names
    assert [example.input for example in card.examples] == xor.INPUTS
