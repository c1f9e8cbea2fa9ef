import numpy as np
import pytest
import torch

from training.network import Destandardize, Standardize, perceptron


@pytest.fixture
def values() -> torch.Tensor:
    return torch.randn(50, 3, generator=torch.Generator().manual_seed(0)) * 7 + 100


def test_standardized_columns_have_mean_0_and_std_1(values: torch.Tensor) -> None:
    scaled = Standardize(values.mean(dim=0), values.std(dim=0))(values).numpy()
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
    layers = perceptron(3, (5, 4), 2)
    weights = [parameter.detach().numpy() for parameter in layers.parameters()]
    rows = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    expected = rows
    for weight, bias in zip(weights[0:4:2], weights[1:4:2], strict=True):
        expected = np.maximum(expected @ weight.T + bias, 0)
    expected = expected @ weights[4].T + weights[5]  # no ReLU after the last layer
    np.testing.assert_allclose(layers(torch.from_numpy(rows)).detach(), expected, atol=1e-6)


def test_perceptron_without_hidden_layers_is_linear() -> None:
    assert [tuple(p.shape) for p in perceptron(3, (), 2).parameters()] == [(2, 3), (2,)]
