"""The command line of training: which models, and what is chosen otherwise than they choose."""

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from training import recipes
from training.hyperparameters import Hyperparameters
from training.loop import DEVICES, OPTIMIZERS
from training.network import ACTIVATIONS

WIDEST = 10_000  # units in a hidden layer
DEEPEST = 20  # hidden layers


def parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """Build the parser of `python -m training NAME ...`.

    Its help shows the defaults of the model that the arguments name, if they name just one.
    Raises Unsuitable for a file that is no recipe.
    """
    named = recipes.find(filter(recipes.is_name, arguments))
    own = named[0].parameters if len(named) == 1 else None
    parser = argparse.ArgumentParser(
        prog="python -m training",
        description="Train small networks, prove their exports and save those that are good "
        "enough.",
        epilog="Also: python -m training evaluate --help, python -m training export --help.",
    )
    _add_names(parser, "what to train", "+")
    choices = parser.add_argument_group(
        "choices", "each model has its own defaults: python -m training NAME --help shows them"
    )
    _add_choices(choices, own)
    return parser


def export_parser() -> argparse.ArgumentParser:
    """Build the parser of `python -m training export NAME ...`."""
    parser = argparse.ArgumentParser(
        prog="python -m training export",
        description="Build all other files of a model anew from its state_dict.pt, without "
        "training.",
    )
    _add_names(parser, "what to build", "+")
    return parser


def evaluate_parser() -> argparse.ArgumentParser:
    """Build the parser of `python -m training evaluate [NAME ...]`."""
    parser = argparse.ArgumentParser(
        prog="python -m training evaluate",
        description="Compare the networks with classical models on rows that none has seen: iris "
        "and housing trained anew on many splits, the others as they are saved.",
    )
    _add_names(parser, "what to evaluate; all if there is none", "*")
    return parser


def _add_names(parser: argparse.ArgumentParser, explanation: str, count: str) -> None:
    names = dict.fromkeys(recipe.name for recipe in recipes.RECIPES.values())
    parser.add_argument(
        "names",
        nargs=count,
        metavar="NAME",
        help=f"{explanation}: {', '.join(names)}, one version such as mnist/2, all, or a Python "
        "file that has a RECIPE",
    )
    parser.add_argument(
        "--models-dir", type=Path, default=Path("models"), help="their folder (default: models)"
    )


def _add_choices(group: "argparse._ArgumentGroup", own: Hyperparameters | None) -> None:
    def add(
        name: str, explanation: str, read: Callable[[str], object], metavar: str | None = None
    ) -> None:
        default = "the model's" if own is None else _written(getattr(own, name))
        group.add_argument(
            "--" + name.replace("_", "-"),
            type=read,
            metavar=metavar or name.split("_")[-1].upper(),
            help=f"{explanation} (default: {default})",
        )

    add("hidden", "widths of the hidden layers, such as 64,32, or none", _widths, "WIDTHS")
    add("activation", f"after each hidden layer: {', '.join(ACTIVATIONS)}", _one_of(ACTIVATIONS))
    add("optimizer", f"{', '.join(OPTIMIZERS)}", _one_of(OPTIMIZERS))
    add("learning_rate", "the highest; it rises, then falls to zero", _number(0, open_at=0))
    add("batch_size", "rows per step", _whole(1), "ROWS")
    add("epochs", "how often every row is seen, at most", _whole(1))
    add("weight_decay", "how strongly the weights are pulled to zero", _number(0))
    add("batch_normalisation", "in each hidden layer: yes or no", _yes_or_no, "YES")
    add(
        "ema_decay",
        "keep the exponential moving average of the weights, with this decay per step; 0: the "
        "last weights",
        _number(0, 1, open_at=1),
    )
    add("dropout", "share of each hidden layer dropped in a step", _number(0, 1, open_at=1))
    add("stop_loss", "stop when the watched loss is below this; 0: never", _number(0))
    add("patience", "stop after so many epochs without a lower loss; 0: never", _whole(0), "EPOCHS")
    add(
        "validation",
        "share of the training rows that is not trained on, so that its loss can be watched; "
        "0: the training loss is",
        _number(0, 1, open_at=1),
        "SHARE",
    )
    add("seed", "of the first weights and the order of the rows", _whole(0))
    add("device", "auto, cpu or cuda; auto takes CUDA where there is one", _one_of(DEVICES))


def parameters(own: Hyperparameters, options: argparse.Namespace) -> Hyperparameters:
    """Return a model's own choices, but for those made on the command line."""
    made = {
        name: value
        for name in own.__struct_fields__
        if (value := getattr(options, name)) is not None
    }
    return msgspec.structs.replace(own, **made)


def _written(value: object) -> str:
    """Write a value as it can be given on the command line."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _whole(least: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least or number >= 2**63:  # no more fits into a seed
            raise argparse.ArgumentTypeError(f"expected a whole number from {least} on, got {text}")
        return number

    return read


def _number(
    least: float, most: float = math.inf, open_at: float | None = None
) -> Callable[[str], float]:
    """Read a number from `least` to `most`, of which `open_at` is left out."""
    above = "above" if open_at == least else "from"
    below = "" if most == math.inf else f" to {'below ' if open_at == most else ''}{most:g}"
    wanted = f"expected a number {above} {least:g}{below or (' on' if above == 'from' else '')}"

    def read(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not least <= number <= most or not math.isfinite(number) or number == open_at:
            raise argparse.ArgumentTypeError(f"{wanted}, got {text}")
        return number

    return read


def _one_of(names: Sequence[str] | Mapping[str, object]) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in names:
            raise argparse.ArgumentTypeError(f"expected one of {', '.join(names)}, got {text}")
        return text

    return read


def _yes_or_no(text: str) -> bool:
    return _one_of(("yes", "no"))(text) == "yes"


def _widths(text: str) -> tuple[int, ...]:
    if text == "none":
        return ()
    try:
        widths = tuple(map(int, text.split(",")))
    except ValueError:
        widths = (0,)
    if not all(1 <= width <= WIDEST for width in widths) or len(widths) > DEEPEST:
        raise argparse.ArgumentTypeError(
            f"expected at most {DEEPEST} widths from 1 to {WIDEST}, such as 64,32, or none, "
            f"got {text}"
        )
    return widths
