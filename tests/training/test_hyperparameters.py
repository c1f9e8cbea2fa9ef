from typing import get_type_hints

import msgspec
import pytest
from torch import nn

from training.hyperparameters import ACTIVATIONS, Help, Hyperparameters


def test_activations_are_classes_of_torch() -> None:
    for name in ACTIVATIONS.values():
        assert issubclass(getattr(nn, name), nn.Module)


def test_every_choice_has_its_help_and_its_default_is_one_of_its_names() -> None:
    hints = get_type_hints(Hyperparameters, include_extras=True)
    for field in msgspec.structs.fields(Hyperparameters):
        choice = hints[field.name].__metadata__[-1]
        assert isinstance(choice, Help)
        if choice.names and isinstance(field.default, str):
            assert field.default in choice.names


@pytest.mark.parametrize(
    ("name", "value"),
    [("hidden", [0]), ("hidden", [1] * 21), ("dropout", 1.0), ("learning_rate", 0.0), ("seed", -1)],
)
def test_value_outside_its_range_is_refused(name: str, value: object) -> None:
    chosen = {"hidden": [1], "epochs": 1, "batch_size": 1, "learning_rate": 1.0, "weight_decay": 0}
    suitable = {**chosen, "seed": 0}
    assert msgspec.convert(suitable, Hyperparameters).hidden == (1,)
    with pytest.raises(msgspec.ValidationError, match=name):
        msgspec.convert({**suitable, name: value}, Hyperparameters)
