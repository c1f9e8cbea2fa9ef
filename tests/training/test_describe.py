from importlib.metadata import version

import numpy as np
import pytest
import torch
from torch import nn

from training import describe
from training.data import Rows
from training.loop import Hyperparameters

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


def test_configuration_names_all_that_decides_the_result(
    clouds: Rows, toy_parameters: Hyperparameters
) -> None:
    configuration = describe.configuration(toy_parameters, clouds, clouds)
    fields = set(toy_parameters.__struct_fields__)
    assert {name: configuration[name] for name in fields - {"hidden"}} == {
        name: getattr(toy_parameters, name) for name in fields - {"hidden"}
    }
    assert configuration["hidden"] == [8]
    assert (configuration["train_rows"], configuration["held_out_rows"]) == (120, 120)


def test_versions_are_those_installed() -> None:
    assert describe.versions() == {"torch": version("torch"), "onnx": version("onnx")}
    assert torch.__version__.startswith(describe.versions()["torch"].split("+")[0])
