"""Train models by name, save those that are good enough, and print what came out.

    python -m training all
    python -m training mnist --epochs 5 --seed 1 --models-dir elsewhere

Exit status: 0, or 1 after an error, 2 for a wrong command line, 130 when interrupted.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from training import housing, iris, mnist
from training.errors import TrainingError
from training.export import Candidate, export
from training.loop import Hyperparameters, make_deterministic


class Recipe(Struct, frozen=True):
    """How a model is trained: its own hyper-parameters, and the function that uses them."""

    parameters: Hyperparameters
    train: Callable[[Hyperparameters], Candidate]


RECIPES = {
    "iris": Recipe(iris.PARAMETERS, iris.train),
    "housing": Recipe(housing.PARAMETERS, housing.train),
    "mnist": Recipe(mnist.PARAMETERS, mnist.train),
}
COLUMNS = "{:<8}  {:>7}  {:<40}  {:>10}  {:>13}  {:>7}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    options = parse(arguments)
    results: list[str] = []
    try:
        for name in options.names:
            results.append(train(name, options))
    except TrainingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: the model in training was not saved", file=sys.stderr)
        return 130
    finally:
        if results:
            header = COLUMNS.format(
                "model", "version", "held out", "model.onnx", "state_dict.pt", "seconds"
            )
            print("\n".join([header, *results]))
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; `names` are those of RECIPES, each once."""
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__.split("\n")[0])
    parser.add_argument(
        "names",
        nargs="+",
        metavar="NAME",
        choices=[*RECIPES, "all"],
        help=f"what to train: {', '.join(RECIPES)}, or all of them",
    )
    parser.add_argument(
        "--seed", type=int, help="of the weights and the order of the rows (default: the model's)"
    )
    parser.add_argument(
        "--epochs", type=_positive, help="how often every row is seen (default: the model's)"
    )
    parser.add_argument(
        "--models-dir", type=Path, default=Path("models"), help="where to save (default: models)"
    )
    options = parser.parse_args(arguments)
    options.names = list(RECIPES) if "all" in options.names else list(dict.fromkeys(options.names))
    return options


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1 on, got {number}")
    return number


def train(name: str, options: argparse.Namespace) -> str:
    """Train and save one model; return its line in the table."""
    recipe = RECIPES[name]
    given = {
        field: value
        for field in ("seed", "epochs")
        if (value := getattr(options, field)) is not None
    }
    parameters = msgspec.structs.replace(recipe.parameters, **given)
    started = time.perf_counter()
    make_deterministic(parameters.seed)
    candidate = recipe.train(parameters)
    folder = export(candidate, options.models_dir)
    seconds = time.perf_counter() - started
    sizes = [f"{(folder / file).stat().st_size:,} B" for file in ("model.onnx", "state_dict.pt")]
    metrics = ", ".join(f"{key} {value:.4f}" for key, value in candidate.card.metrics.items())
    return COLUMNS.format(name, candidate.version, metrics, *sizes, f"{seconds:.1f}")


if __name__ == "__main__":
    sys.exit(main())
