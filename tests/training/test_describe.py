from importlib.metadata import version

import msgspec
import numpy as np
import pytest
import torch
from torch import nn

from training import describe
from training.hyperparameters import Hyperparameters
from training.rows import Rows

COLUMNS = [("x", "cm", "a length"), ("y", "kg", "a mass")]


def test_features_carry_the_statistics_of_their_column() -> None:
    inputs = torch.rand(31, 2, generator=torch.Generator().manual_seed(0)) * 50
    for feature, column, values in zip(
        describe.features(COLUMNS, inputs), COLUMNS, inputs.numpy().T, strict=True
    ):
        assert (feature.name, feature.unit, feature.description) == column
        assert [
            feature.minimum,
            feature.maximum,
            feature.mean,
            feature.std,
            feature.default,
        ] == pytest.approx(
            [values.min(), values.max(), values.mean(), values.std(ddof=1), np.median(values)],
            rel=1e-5,
        )


def test_features_read_as_they_were_measured() -> None:
    (feature, _) = describe.features(COLUMNS, torch.tensor([[4.3, 1], [0.00632, 1], [396.9, 1]]))
    assert (feature.minimum, feature.default, feature.maximum) == (0.00632, 4.3, 396.9)


def test_example_is_rounded_before_it_is_answered() -> None:
    double = nn.Linear(2, 2, bias=False)
    double.weight.data = torch.eye(2) * 2
    (example,) = describe.examples(double, {"mean": torch.tensor([1.26, 0.04])}, digits=1)
    assert example.name == "mean"
    assert example.input == [1.3, 0.0]
    assert example.output == pytest.approx([2.6, 0])


def test_example_has_the_bounds_of_each_target_one_after_the_other() -> None:
    class TwoTargets(nn.Module):
        def forward(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return rows, torch.stack([rows - 1, rows + 1], dim=2)

    (example,) = describe.examples(TwoTargets(), {"a": torch.tensor([5.0, 9.0])}, digits=1)
    assert example.output == [5, 9]
    assert example.interval == [4, 6, 8, 10]


def test_configuration_names_all_that_decides_the_result(
    clouds: Rows, toy_parameters: Hyperparameters
) -> None:
    assert describe.configuration(toy_parameters, clouds, clouds) == {
        "hidden": [8],
        "epochs": 10,
        "batch_size": 16,
        "learning_rate": 0.05,
        "weight_decay": 0.01,
        "seed": 3,
        "activation": "relu",
        "optimizer": "adamw",
        "schedule": "one cycle",
        "train_rows": 120,
        "held_out_rows": 120,
    }


def test_configuration_is_read_back(clouds: Rows, toy_parameters: Hyperparameters) -> None:
    unusual = msgspec.structs.replace(
        toy_parameters,
        activation="gelu",
        optimizer="sgd",
        batch_normalisation=True,
        dropout=0.25,
        stop_loss=0.1,
        patience=3,
        validation=0.2,
        device="auto",
    )
    for parameters in (toy_parameters, unusual):
        configuration = describe.configuration(parameters, clouds, clouds)
        again = msgspec.json.decode(msgspec.json.encode(configuration))
        assert describe.hyperparameters(again) == parameters


def test_versions_are_those_installed() -> None:
    assert describe.versions() == {"torch": version("torch"), "onnx": version("onnx")}
    assert torch.__version__.startswith(describe.versions()["torch"].split("+")[0])
