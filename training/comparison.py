"""Networks beside classical models, on rows that none of them has seen.

    python -m training evaluate
    python -m training evaluate iris housing

One split decides too much where rows are few: a network whose recipe has `splits` is trained anew
on the rows of each, and so is every classical model beside it. Other networks are measured
as they are saved, on the rows held out from them, and the classical models on the same rows.
"""

import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
from msgspec import Struct
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from training.loop import evaluate
from training.recipe import Classical, Recipe, learnt
from training.rows import Rows
from training.saved import read_network, read_parameters

COLUMNS = "{:<7}  {:<28}  {:>6}  {:<8}  {:>8}  {:>7}  {:>8}  {:>8}"
SHOWN = ("accuracy", "rmse", "interval_coverage")  # of what `evaluate` measures


class Line(Struct, frozen=True):
    """How well one model does: its metric on each split."""

    name: str
    model: str
    metric: str
    results: list[float]


def defaults(labels: bool, seed: int) -> dict[str, Classical]:
    """Return the classical models where a recipe names none: for labels, or for numbers."""
    if labels:
        return {
            "logistic regression": make_pipeline(StandardScaler(), LogisticRegression()),
            "random forest": RandomForestClassifier(300, random_state=seed),
        }
    return {
        "linear regression": LinearRegression(),
        "random forest": RandomForestRegressor(300, random_state=seed),
    }


def classical(model: Classical, train: Rows, held_out: Rows) -> float:
    """Fit a classical model and return its accuracy, or its RMSE, on the rows held out."""
    model.fit(train.inputs.numpy(), train.targets.squeeze().numpy())
    answers = model.predict(held_out.inputs.numpy())
    targets = held_out.targets.squeeze().numpy()
    if held_out.targets.is_floating_point():
        return float(np.sqrt(np.mean((answers - targets) ** 2)))
    return float(np.mean(answers == targets))


def over_splits(recipe: Recipe, splits: Sequence[tuple[Rows, Rows]]) -> list[Line]:
    """Train a network on the rows of every split; its seed is the split's number."""
    measured = []
    progress = tqdm(splits, desc=recipe.place, disable=None, leave=False)
    for seed, (train, held_out) in enumerate(progress):
        parameters = msgspec.structs.replace(recipe.parameters, seed=seed)
        network, _ = learnt(recipe, parameters, train)
        measured.append(evaluate(network, held_out))
    return _lines(recipe, measured)


def saved(recipe: Recipe, models_dir: Path, split: tuple[Rows, Rows]) -> list[Line]:
    """Measure a saved model on the rows held out from it. Raises Unloadable."""
    folder, (train, held_out) = models_dir / recipe.place, split
    network = read_network(recipe, read_parameters(recipe, folder), train, folder)
    return _lines(recipe, [evaluate(network, held_out)])[:1]


def _lines(recipe: Recipe, measured: Sequence[Mapping[str, float]]) -> list[Line]:
    model = f"network {recipe.version}"
    return [
        Line(recipe.name, model, metric, [each[metric] for each in measured])
        for metric in SHOWN
        if metric in measured[0]
    ]


def compare(recipes: Sequence[Recipe], models_dir: Path) -> list[Line]:
    """Return the lines of networks that share their rows, and of their baselines.

    Raises TrainingError.
    """
    first = recipes[0]
    if first.splits is not None:
        splits = first.splits()
        networks = [over_splits(recipe, splits) for recipe in recipes]
    else:
        splits = [first.load()]
        networks = [saved(recipe, models_dir, splits[0]) for recipe in recipes]
    lines = [line for each in networks for line in each]
    baselines = first.baselines or partial(defaults, bool(first.labels))
    results: dict[str, list[float]] = {}
    for seed, split in enumerate(splits):
        for model, untrained in baselines(seed).items():
            results.setdefault(model, []).append(classical(untrained, *split))
    metric = lines[0].metric
    return lines + [Line(first.name, model, metric, each) for model, each in results.items()]


def table(lines: Sequence[Line]) -> str:
    """Write lines with the mean, the spread (standard deviation), the least and the most."""
    header = ("data", "model", "splits", "metric", "mean", "spread", "least", "most")
    return "\n".join([COLUMNS.format(*header), *map(_written, lines)])


def _written(line: Line) -> str:
    results = line.results
    figures = [statistics.mean(results)]
    if len(results) > 1:
        figures += [statistics.stdev(results), min(results), max(results)]
    share = line.metric != "rmse"
    texts = [f"{100 * each:.2f} %" if share else f"{each:.3f}" for each in figures]
    metric = line.metric.removeprefix("interval_")
    columns = (line.name, line.model, len(results), metric, *texts, "", "", "")
    return COLUMNS.format(*columns).rstrip()
