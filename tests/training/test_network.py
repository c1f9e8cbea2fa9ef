import math

import msgspec
import numpy as np
import pytest
import torch
from torch import nn

from training.hyperparameters import ACTIVATIONS, Hyperparameters
from training.network import (
    BothSides,
    Destandardize,
    Ensemble,
    MemberLinear,
    Standardize,
    activation,
    binary_cross_entropy,
    perceptron,
)

TOY = Hyperparameters(
    hidden=(5, 4), epochs=1, batch_size=1, learning_rate=0.1, weight_decay=0.0, seed=0
)


def chosen(**choices: object) -> Hyperparameters:
    return msgspec.structs.replace(TOY, **choices)


@pytest.fixture
def values() -> torch.Tensor:
    return torch.randn(50, 3, generator=torch.Generator().manual_seed(0)) * 7 + 100


def test_standardized_columns_have_mean_0_and_std_1(values: torch.Tensor) -> None:
    scaled = Standardize.of(values)(values).numpy()
    assert scaled.mean(axis=0) == pytest.approx(np.zeros(3), abs=1e-5)
    assert scaled.std(axis=0, ddof=1) == pytest.approx(np.ones(3), abs=1e-5)


def test_constant_column_stays_finite() -> None:
    values = torch.tensor([[1.0, 5.0], [3.0, 5.0]])
    scaled = Standardize(values.mean(dim=0), values.std(dim=0))(values)
    assert scaled[:, 1].tolist() == [0, 0]


def test_destandardize_undoes_standardize(values: torch.Tensor) -> None:
    mean, std = values.mean(dim=0), values.std(dim=0)
    back = Destandardize(mean, std)(Standardize(mean, std)(values))
    torch.testing.assert_close(back, values)


def test_scale_travels_in_the_state_dict(values: torch.Tensor) -> None:
    saved = Standardize(values.mean(dim=0), values.std(dim=0)).state_dict()
    assert set(saved) == {"mean", "std"}


def test_perceptron_is_the_textbook_formula() -> None:
    layers = perceptron(3, TOY, 2)
    weights = [parameter.detach().numpy() for parameter in layers.parameters()]
    rows = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    expected = rows
    for weight, bias in zip(weights[0:4:2], weights[1:4:2], strict=True):
        expected = np.maximum(expected @ weight.T + bias, 0)
    expected = expected @ weights[4].T + weights[5]  # no ReLU after the last layer
    np.testing.assert_allclose(layers(torch.from_numpy(rows)).detach(), expected, atol=1e-6)


def test_perceptron_without_hidden_layers_is_linear() -> None:
    line = perceptron(3, chosen(hidden=()), 2)
    assert [tuple(p.shape) for p in line.parameters()] == [(2, 3), (2,)]


def test_activations_are_those_of_their_names() -> None:
    x = np.linspace(-3, 3, 13)
    sigmoid = 1 / (1 + np.exp(-x))
    formulas = {
        "relu": np.maximum(x, 0),
        "leaky_relu": np.where(x > 0, x, 0.01 * x),
        "sigmoid": sigmoid,
        "tanh": np.tanh(x),
        "elu": np.where(x > 0, x, np.exp(x) - 1),
        "gelu": x / 2 * (1 + np.array([math.erf(value / math.sqrt(2)) for value in x])),
        "silu": x * sigmoid,
    }
    assert set(formulas) == set(ACTIVATIONS)
    for name, expected in formulas.items():
        got = activation(name)(torch.from_numpy(x))
        np.testing.assert_allclose(got, expected, atol=1e-12, err_msg=name)


def test_hidden_layer_is_normalised_then_bent_then_thinned() -> None:
    layers = perceptron(3, chosen(activation="tanh", batch_normalisation=True, dropout=0.3), 2)
    hidden = [nn.Linear, nn.BatchNorm1d, nn.Tanh, nn.Dropout]
    assert [type(layer) for layer in layers] == [*hidden, *hidden, nn.Linear]
    assert layers[3].p == 0.3


@pytest.mark.parametrize("choices", [{}, {"batch_normalisation": True, "activation": "gelu"}])
def test_members_side_by_side_answer_as_one_by_one(choices: dict[str, object]) -> None:
    torch.manual_seed(0)
    together = perceptron(3, chosen(**choices), 2, members=4)
    rows = torch.randn(4, 9, 3)
    got = together(rows)  # in training mode: batch normalisation uses the rows' own mean
    for member in range(4):
        alone = perceptron(3, chosen(**choices), 2)
        for one, all_of_them in zip(alone, together, strict=True):
            if isinstance(one, nn.Linear) and isinstance(all_of_them, MemberLinear):
                one.weight.data = all_of_them.weight.data[member].T
                one.bias.data = all_of_them.bias.data[member, 0]
        torch.testing.assert_close(got[member], alone(rows[member]))


def test_members_take_the_same_rows_or_each_its_own() -> None:
    together = perceptron(3, TOY, 2, members=4)
    rows = torch.randn(9, 3)
    torch.testing.assert_close(together(rows), together(rows.expand(4, 9, 3)))


def test_ensemble_adds_a_straight_line_to_each_member() -> None:
    ensemble = Ensemble(4, 3, TOY, 2)
    rows = torch.randn(9, 3)
    bent = ensemble(rows)
    line = torch.randn(4, 3, 2)
    ensemble.straight.data = line
    expected = bent + torch.stack([rows @ each for each in line])
    torch.testing.assert_close(ensemble(rows), expected)


def test_both_sides_are_the_sigmoid_and_the_rest() -> None:
    both = BothSides()(torch.tensor([[-2.0], [0.0], [3.0]]))
    p = 1 / (1 + np.exp(-np.array([-2.0, 0, 3])))
    np.testing.assert_allclose(both, np.stack([1 - p, p], axis=1), atol=1e-6)


def test_binary_cross_entropy_is_the_textbook_formula() -> None:
    logits, targets = torch.tensor([[-2.0], [0.5], [3.0]]), torch.tensor([0, 1, 0])
    p = 1 / (1 + np.exp(-np.array([-2.0, 0.5, 3.0])))
    expected = -np.log([1 - p[0], p[1], 1 - p[2]]).mean()
    assert binary_cross_entropy(logits, targets).item() == pytest.approx(expected)
