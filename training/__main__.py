"""Train models by name, save those that are good enough, and print what came out.

    python -m training all
    python -m training mnist --epochs 5 --seed 1 --models-dir elsewhere
    python -m training evaluate          compares them with classical models: minutes
    python -m training export mnist      builds the files anew from state_dict.pt

Exit status: 0, or 1 after an error, 2 for a wrong command line or an unsuitable choice, 130 when
interrupted.
"""

import argparse
import sys
import time
from collections.abc import Sequence

from training import comparison, options, recipe
from training.errors import TrainingError, Unsuitable
from training.export import Candidate, export
from training.recipes import RECIPES

COLUMNS = "{:<8}  {:>7}  {:<70}  {:>10}  {:>13}  {:>7}"


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
    chosen = options.parser(RECIPES, arguments).parse_args(arguments)
    names = list(RECIPES) if "all" in chosen.names else list(dict.fromkeys(chosen.names))
    results: list[str] = []
    try:
        for name in names:
            results.append(train_one(name, chosen))
    finally:
        if results:
            print_table(results)
    return 0


def train_one(name: str, chosen: argparse.Namespace) -> str:
    """Train and save one model; return its line in the table."""
    started = time.perf_counter()
    parameters = options.parameters(RECIPES[name].parameters, chosen)
    candidate = recipe.train(RECIPES[name], parameters)
    return saved(candidate, chosen, started)


def export_again(arguments: Sequence[str]) -> int:
    """Write the files of models anew from their saved weights; print a table."""
    chosen = options.export_parser(RECIPES).parse_args(arguments)
    results = []
    for name in dict.fromkeys(chosen.names):
        started = time.perf_counter()
        folder = chosen.models_dir / name / str(RECIPES[name].version)
        results.append(saved(recipe.load_again(RECIPES[name], folder), chosen, started))
    print_table(results)
    return 0


def evaluate(arguments: Sequence[str]) -> int:
    """Print a table of networks beside classical models."""
    parser = options.evaluate_parser(RECIPES)
    chosen = parser.parse_args(arguments)
    for name in chosen.names:
        if name not in RECIPES:
            parser.error(f"expected NAME to be one of {', '.join(RECIPES)}, got {name}")
    names = dict.fromkeys(chosen.names or RECIPES)
    print(
        comparison.table(
            [line for name in names for line in comparison.compare(name, chosen.models_dir)]
        )
    )
    return 0


def saved(candidate: Candidate, chosen: argparse.Namespace, started: float) -> str:
    """Save a model; return its line in the table."""
    folder = export(candidate, chosen.models_dir)
    seconds = time.perf_counter() - started
    sizes = [f"{(folder / file).stat().st_size:,} B" for file in ("model.onnx", "state_dict.pt")]
    metrics = ", ".join(f"{key} {value:.4f}" for key, value in candidate.card.metrics.items())
    return COLUMNS.format(candidate.name, candidate.version, metrics, *sizes, f"{seconds:.1f}")


def print_table(lines: Sequence[str]) -> None:
    """Print the lines of models that were saved."""
    header = COLUMNS.format(
        "model", "version", "held out", "model.onnx", "state_dict.pt", "seconds"
    )
    print("\n".join([header, *lines]))


COMMANDS = {"evaluate": evaluate, "export": export_again}

if __name__ == "__main__":
    sys.exit(main())
