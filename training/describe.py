"""What a network's card says, derived from its training rows."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version

import msgspec
import torch
from torch import Tensor, nn

from service.card import Example, Feature
from training.hyperparameters import Hyperparameters
from training.loop import answers
from training.rows import Rows

Column = tuple[str, str, str]  # name, unit, description
Notes = dict[str, str | int | float | bool | list[int]]


def features(columns: Sequence[Column], inputs: Tensor) -> list[Feature]:
    """Describe the columns of inputs: float32 (n, columns)."""
    return [
        Feature(
            name=name,
            unit=unit,
            description=description,
            minimum=_decimal(values.min()),
            maximum=_decimal(values.max()),
            mean=_decimal(values.mean()),
            std=_decimal(values.std()),
            default=_decimal(values.quantile(0.5)),
        )
        for (name, unit, description), values in zip(columns, inputs.unbind(dim=1), strict=True)
    ]


def _decimal(value: Tensor) -> float:
    """Six digits, so that a float32 of 4.3 reads 4.3 and not 4.300000190734863."""
    return float(f"{value.item():.6g}")


def examples(
    network: nn.Module, inputs: Mapping[str, Tensor], digits: int | None = None
) -> list[Example]:
    """Pair each named input, float32 (features,), with the answer PyTorch gives.

    The inputs are rounded to `digits` after the point first, or to six digits in all.
    """
    pairs = []
    for name, values in inputs.items():
        row = [
            _decimal(value) if digits is None else round(value.item(), digits) for value in values
        ]
        # (1, outputs) -> (outputs,), and (1, targets, 2) -> (2 * targets,) where there are any
        output, *intervals = [each[0].flatten() for each in answers(network, torch.tensor([row]))]
        interval = torch.cat(intervals).tolist() if intervals else []
        pairs.append(Example(name=name, input=row, output=output.tolist(), interval=interval))
    return pairs


def configuration(parameters: Hyperparameters, train: Rows, held_out: Rows) -> Notes:
    """List what was chosen for this training, so that it can be built again.

    What can be left out of training, such as dropout, is listed only where it was not.
    """
    chosen = msgspec.structs.asdict(parameters) | {"hidden": list(parameters.hidden)}
    left_out = {
        field.name
        for field in msgspec.structs.fields(Hyperparameters)
        if chosen[field.name] == field.default
    } - {"activation", "optimizer"}
    return {
        **{name: value for name, value in chosen.items() if name not in left_out},
        "schedule": "one cycle",
        "train_rows": len(train.inputs),
        "held_out_rows": len(held_out.inputs),
    }


def hyperparameters(configuration: Notes) -> Hyperparameters:
    """Read back what `configuration` wrote. Raises msgspec.ValidationError."""
    return msgspec.convert(configuration, Hyperparameters)  # it ignores all other names


def versions() -> dict[str, str]:
    """Return the versions of what made the file."""
    return {name: version(name) for name in ("torch", "onnx")}
