"""The committed models, served by the real process, against PyTorch on real held-out rows."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.support.processes import Process, running
from training import housing, iris, mnist, mnist_cnn

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def service() -> Iterator[Process]:
    with running(models_dir=ROOT / "models") as process:
        yield process


def loaded(place: str, network: nn.Module) -> nn.Module:
    """Return the network with the committed weights."""
    path = ROOT / "models" / place / "state_dict.pt"
    network.load_state_dict(torch.load(path, weights_only=True))
    return network.eval()


def answers(network: nn.Module, rows: Tensor) -> Any:
    with torch.inference_mode():
        return network(rows).numpy()


def predictions(
    service: Process, model: str, instances: list[Any], version: int = 1
) -> list[dict[str, Any]]:
    body = json.dumps({"model": model, "version": version, "instances": instances})
    reply = service.post("/predict", content=body)
    assert reply.status_code == 200, reply.text
    return reply.json()["predictions"]


def probabilities(predicted: list[dict[str, Any]]) -> list[list[float]]:
    return [list(each["probabilities"].values()) for each in predicted]


def test_iris_is_served_as_pytorch_answers(service: Process) -> None:
    train, held_out = iris.load()
    network = loaded("iris/1", iris.build(iris.PARAMETERS, train))
    names = [name for name, _, _ in iris.FEATURES]
    named = [dict(zip(names, row, strict=True)) for row in held_out.inputs.tolist()]
    served = predictions(service, "iris", named)
    expected = answers(network, held_out.inputs)
    np.testing.assert_allclose(probabilities(served), expected, rtol=0, atol=1e-5)
    right = [each["label"] for each in served] == np.array(iris.LABELS)[held_out.targets]
    assert right.mean() >= 0.95


@pytest.mark.usefixtures("real_data")
def test_housing_is_served_as_pytorch_answers(service: Process) -> None:
    train, held_out = housing.load()
    network = loaded("housing/1", housing.build(housing.PARAMETERS, train))
    served = predictions(service, "housing", held_out.inputs.tolist())
    values = np.array([[each["value"]] for each in served])
    bounds = np.array([[[each["lower"], each["upper"]]] for each in served])
    with torch.inference_mode():
        expected_values, expected_bounds = network(held_out.inputs)
    np.testing.assert_allclose(values, expected_values, rtol=1e-4)
    np.testing.assert_allclose(bounds, expected_bounds, rtol=1e-4)
    rmse = np.sqrt(((values - held_out.targets.numpy()) ** 2).mean())
    assert rmse < 3.0


@pytest.mark.usefixtures("real_data")
@pytest.mark.parametrize(
    ("version", "module"),
    [pytest.param(1, mnist, marks=pytest.mark.slow), (2, mnist_cnn)],
)
def test_mnist_images_are_served_as_pytorch_answers(
    service: Process, version: int, module: ModuleType
) -> None:
    train, held_out = mnist.load()
    network = loaded(f"mnist/{version}", module.build(module.PARAMETERS, train))
    images, labels = held_out.inputs[:500], held_out.targets[:500]
    flat = predictions(service, "mnist", images[:250].int().tolist(), version)
    nested = predictions(service, "mnist", images[250:].reshape(-1, 28, 28).int().tolist(), version)
    served = probabilities(flat + nested)
    np.testing.assert_allclose(served, answers(network, images), rtol=0, atol=1e-5)
    assert (np.argmax(served, axis=1) == labels.numpy()).mean() >= 0.98
