"""The command line of training: which models, and the choices that are not their own."""

import argparse
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import get_args, get_origin, get_type_hints

import msgspec

from training import recipes
from training.hyperparameters import Hyperparameters

DESCRIPTIONS = {  # by command
    "": "Train small networks, prove their exports and save those that are good enough.",
    "export": "Build all other files of a model anew from its state_dict.pt, without training.",
    "evaluate": "Compare the networks with classical models on rows that none has seen: iris and "
    "housing trained anew on many splits, the others as they are saved.",
}
WORDS = {"`int`": "an integer", "`float`": "a number", "`array`": "a list"}  # for those of msgspec


def parser(arguments: Sequence[str], command: str = "") -> argparse.ArgumentParser:
    """Build the parser of `python -m training [COMMAND] NAME ...`.

    Without a command the help, if that is requested, shows the defaults of the model that the
    arguments name, if they name just one. Raises Unsuitable for a file that is no recipe.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m training {command}".rstrip(),
        description=DESCRIPTIONS[command],
        epilog=None
        if command
        else "Also: python -m training evaluate --help, python -m training export --help.",
    )
    parser.add_argument(
        "names",
        nargs="*" if command == "evaluate" else "+",
        metavar="NAME",
        help=f"{', '.join(recipes.names())}, one version such as mnist/2, all, or a Python file "
        "that has a RECIPE" + ("; all if there is none" if command == "evaluate" else ""),
    )
    parser.add_argument(
        "--models-dir", type=Path, default=Path("models"), help="their folder (default: models)"
    )
    if not command:
        own = recipes.parameters(arguments) if {"-h", "--help"}.intersection(arguments) else None
        about = "each model has its own defaults: python -m training NAME --help shows them"
        _add_choices(parser.add_argument_group("choices", about), own)
    return parser


def _add_choices(group: "argparse._ArgumentGroup", own: Hyperparameters | None) -> None:
    for name, kind in get_type_hints(Hyperparameters, include_extras=True).items():
        choice = kind.__metadata__[-1]
        explanation = choice.text.replace("%", "%%")
        if choice.names:
            explanation += f": {', '.join(choice.names)}"
        default = "the model's" if own is None else _written(getattr(own, name))
        group.add_argument(
            "--" + name.replace("_", "-"),
            type=partial(_read, kind, choice.names),
            metavar=name.split("_")[-1].upper(),
            help=f"{explanation} (default: {default})",
        )


def parameters(own: Hyperparameters, options: argparse.Namespace) -> Hyperparameters:
    """Return a model's own choices, except for those made on the command line."""
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


def _read(kind: object, names: Sequence[str], text: str) -> object:
    """Read a value of this annotated type, one of `names` if there are any."""
    if names and text not in names:
        raise argparse.ArgumentTypeError(f"expected one of {', '.join(names)}, got {text}")
    named: dict[str, object] = {"yes": True, "no": False, "none": ()}
    value = named.get(text, text.split(",") if get_origin(get_args(kind)[0]) is tuple else text)
    try:
        return msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError as error:
        reason = re.split(", got | - at ", str(error))[0].removeprefix("Expected ")
        for name, words in {
            "`int`": "an integer",
            "`float`": "a number",
            "`array`": "a list",
        }.items():
            reason = reason.replace(name, words)
        raise argparse.ArgumentTypeError(f"expected {reason}, got {text}") from error
