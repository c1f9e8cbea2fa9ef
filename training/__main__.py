"""Train models by name, save those that are good enough, and print what came out.

    python -m training all
    python -m training mnist --epochs 5 --seed 1 --models-dir elsewhere
    python -m training evaluate          compares them with classical models: minutes
    python -m training export mnist      builds the files anew from state_dict.pt
    python -m training wine.py           a model of your own: README.md

Exit status: 0, or 1 after an error, 2 for a wrong command line or an unsuitable choice, 130 when
interrupted.
"""

import itertools
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from training import comparison, options, recipes
from training.errors import TrainingError, Unsuitable
from training.export import Candidate, export
from training.recipe import Recipe, load_again
from training.recipe import train as train_one

COLUMNS = "{:<9}  {:<85}  {:>7}  {:>10}  {:>13}  {:>7}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    given = sys.argv[1:] if arguments is None else arguments
    command, rest = (given[0], given[1:]) if given[:1] and given[0] in COMMANDS else ("", given)
    try:
        return COMMANDS[command](rest) if command else train(rest)
    except TrainingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, Unsuitable) else 1
    except KeyboardInterrupt:
        print("interrupted: nothing more was saved", file=sys.stderr)
        return 130


def train(arguments: Sequence[str]) -> int:
    """Train and save models; print a table of those that were saved, also after an error."""
    chosen = options.parser(arguments).parse_args(arguments)
    results: list[str] = []
    try:
        for recipe in recipes.find(chosen.names):
            started = time.perf_counter()
            parameters = options.parameters(recipe.parameters, chosen)
            candidate = train_one(recipe, parameters)
            results.append(save(candidate, recipe, chosen.models_dir, started))
    finally:
        if results:
            print_table(results)
    return 0


def export_again(arguments: Sequence[str]) -> int:
    """Write the files of models anew from their saved weights; print a table."""
    chosen = options.export_parser().parse_args(arguments)
    results = []
    for recipe in recipes.find(chosen.names):
        started = time.perf_counter()
        candidate = load_again(recipe, chosen.models_dir / recipe.place)
        results.append(save(candidate, recipe, chosen.models_dir, started))
    print_table(results)
    return 0


def evaluate(arguments: Sequence[str]) -> int:
    """Print a table of networks beside classical models."""
    chosen = options.evaluate_parser().parse_args(arguments)
    found = recipes.find(chosen.names or ["all"])
    lines = []
    for _, versions in itertools.groupby(found, key=lambda recipe: (recipe.name, recipe.load)):
        lines += comparison.compare(list(versions), chosen.models_dir)
    print(comparison.table(lines))
    return 0


def save(candidate: Candidate, recipe: Recipe, models_dir: Path, started: float) -> str:
    """Save a model; return its line in the table."""
    folder = models_dir / recipe.place
    differ = export(candidate, folder)
    metrics = ", ".join(f"{key} {value:.4f}" for key, value in candidate.card.metrics.items())
    sizes = [f"{(folder / file).stat().st_size:,} B" for file in ("model.onnx", "state_dict.pt")]
    seconds = f"{time.perf_counter() - started:.1f}"
    return COLUMNS.format(recipe.place, metrics, f"{differ:.0e}", *sizes, seconds)


def print_table(lines: Sequence[str]) -> None:
    """Print the lines of models that were saved.

    What differs is how far ONNX Runtime's answers are from PyTorch's.
    """
    header = COLUMNS.format(
        "model", "held out", "differs", "model.onnx", "state_dict.pt", "seconds"
    )
    print("\n".join([header, *lines]))


COMMANDS = {"evaluate": evaluate, "export": export_again}

if __name__ == "__main__":
    sys.exit(main())
