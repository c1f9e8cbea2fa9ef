"""Train models by name, save those that are good enough, and print what came out.

    python -m training all
    python -m training mnist --epochs 5 --seed 1 --models-dir elsewhere
    python -m training evaluate          compares them with classical models: minutes
    python -m training export mnist      builds the files anew from state_dict.pt
    python -m training wine.py           a model of your own: docs/training.md

Exit status: 0, or 1 after an error, 2 for a wrong command line or an unsuitable choice, 130 when
interrupted.
"""

import itertools
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from training import options, recipes
from training.errors import TrainingError, Unsuitable
from training.folder import check_can_save

# The help needs neither PyTorch nor ONNX: what imports them is imported where it is used.
if TYPE_CHECKING:
    from training.export import Candidate
    from training.recipe import Recipe

COLUMNS = "{:<9}  {:<85}  {:>7}  {:>10}  {:>13}  {:>7}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        match given:
            case ["evaluate", *rest]:
                evaluate(rest)
            case ["export", *rest]:
                save_all(rest, "export")
            case _:
                save_all(given)
    except TrainingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, Unsuitable) else 1
    except KeyboardInterrupt:
        print("interrupted: nothing more was saved", file=sys.stderr)
        return 130
    return 0


def save_all(arguments: Sequence[str], command: str = "") -> None:
    """Train models, or for `export` build them anew from their saved weights, and save them.

    Prints a table of those that were saved, also after an error.
    """
    chosen = options.parser(arguments, command).parse_args(arguments)
    lines: list[str] = []
    try:
        for recipe in recipes.find(chosen.names):
            started = time.perf_counter()
            if command == "export":
                from training.saved import load_again

                candidate = load_again(recipe, chosen.models_dir / recipe.place)
            else:
                check_can_save(chosen.models_dir / recipe.place)
                from training.recipe import train

                candidate = train(recipe, options.parameters(recipe.parameters, chosen))
            lines.append(save(candidate, recipe, chosen.models_dir, started))
    finally:
        if lines:
            print_table(lines)


def evaluate(arguments: Sequence[str]) -> None:
    """Print a table of networks beside classical models."""
    chosen = options.parser(arguments, "evaluate").parse_args(arguments)
    found = recipes.find(chosen.names or ["all"])
    from training import comparison

    lines = []
    for _, versions in itertools.groupby(found, key=lambda recipe: (recipe.name, recipe.load)):
        lines += comparison.compare(list(versions), chosen.models_dir)
    print(comparison.table(lines))


def save(candidate: "Candidate", recipe: "Recipe", models_dir: Path, started: float) -> str:
    """Save a model; return its line in the table."""
    from training.export import export

    folder = models_dir / recipe.place
    differ = export(candidate, folder)
    metrics = ", ".join(f"{key} {value:.4f}" for key, value in candidate.card.metrics.items())
    sizes = [f"{(folder / file).stat().st_size:,} B" for file in ("model.onnx", "state_dict.pt")]
    seconds = f"{time.perf_counter() - started:.1f}"
    return COLUMNS.format(recipe.place, metrics, f"{differ:.0e}", *sizes, seconds)


def print_table(lines: Sequence[str]) -> None:
    """Print the lines of models that were saved.

    `differs` is how far ONNX Runtime's answers are from PyTorch's at most.
    """
    header = COLUMNS.format(
        "model", "held out", "differs", "model.onnx", "state_dict.pt", "seconds"
    )
    print("\n".join([header, *lines]))


if __name__ == "__main__":
    sys.exit(main())
