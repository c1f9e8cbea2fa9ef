"""Networks beside classical models, on rows that none of them has seen.

    python -m training evaluate
    python -m training evaluate iris housing

One split decides too much where rows are few: iris and housing are trained anew on the rows of
many splits, and so is every classical model beside them. Of the others the committed model is
measured on the rows held out from it.
"""

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np
import torch
from msgspec import Struct
from numpy.typing import NDArray
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import GradientBoostingRegressor, RandomForestRegressor
from sklearn.linear_model import LinearRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from tqdm import tqdm

from training import housing, iris
from training.data import Rows, split
from training.loop import evaluate
from training.recipe import learnt, load_again
from training.recipes import RECIPES

IRIS_SPLITS = 30
HOUSING_SPLITS = 20
COLUMNS = "{:<8}  {:<28}  {:>6}  {:<8}  {:>7}  {:>6}  {:>7}  {:>7}"


class Line(Struct, frozen=True):
    """How well one model does: its metric on each split."""

    name: str
    model: str
    metric: str
    results: list[float]


class Classical(Protocol):
    """What scikit-learn calls an estimator; it has no types of its own."""

    def fit(self, inputs: NDArray[np.float32], targets: NDArray[np.generic]) -> object: ...

    def predict(self, inputs: NDArray[np.float32]) -> NDArray[np.generic]: ...


IRIS_BASELINES: dict[str, Callable[[int], Classical]] = {
    "linear discriminants": lambda seed: LinearDiscriminantAnalysis(),
    "SVM, radial": lambda seed: make_pipeline(StandardScaler(), SVC()),
    "SVM, linear": lambda seed: make_pipeline(StandardScaler(), SVC(kernel="linear")),
    "scikit-learn's MLPClassifier": lambda seed: make_pipeline(
        StandardScaler(), MLPClassifier(max_iter=2000, random_state=seed)
    ),
}
HOUSING_BASELINES: dict[str, Callable[[int], Classical]] = {
    "linear regression": lambda seed: LinearRegression(),
    "random forest": lambda seed: RandomForestRegressor(300, random_state=seed),
    "gradient boosting": lambda seed: GradientBoostingRegressor(random_state=seed),
    "gradient boosting, tuned": lambda seed: GradientBoostingRegressor(
        n_estimators=600,
        learning_rate=0.03,
        max_depth=5,
        subsample=0.6,
        max_features=0.25,
        min_samples_leaf=3,
        random_state=seed,
    ),
}


def iris_splits() -> list[tuple[Rows, Rows]]:
    """Return 30 stratified splits of the flowers, 70 to train on and 80 held out."""
    flowers = iris.flowers()
    return [split(flowers, iris.TRAIN_ROWS, seed, stratify=True) for seed in range(IRIS_SPLITS)]


def housing_splits() -> list[tuple[Rows, Rows]]:
    """Return 20 random splits of the tracts, 400 to train on and 106 held out."""
    tracts = housing.tracts()
    splits = []
    for seed in range(HOUSING_SPLITS):
        order = torch.from_numpy(np.random.RandomState(seed).permutation(len(tracts.inputs)))
        parts = (order[: housing.TRAIN_ROWS], order[housing.TRAIN_ROWS :])
        train, held_out = (Rows(inputs=tracts.inputs[i], targets=tracts.targets[i]) for i in parts)
        splits.append((train, held_out))
    return splits


def classical(model: Classical, train: Rows, held_out: Rows) -> float:
    """Fit a classical model and return its accuracy, or its RMSE, on the rows held out."""
    model.fit(train.inputs.numpy(), train.targets.squeeze().numpy())
    answers = model.predict(held_out.inputs.numpy())
    targets = held_out.targets.squeeze().numpy()
    if held_out.targets.is_floating_point():
        return float(np.sqrt(np.mean((answers - targets) ** 2)))
    return float(np.mean(answers == targets))


def over_splits(
    name: str, splits: Sequence[tuple[Rows, Rows]], baselines: dict[str, Callable[[int], Classical]]
) -> list[Line]:
    """Train the network and each classical model on every split; seeds are the split's number."""
    measured = []
    recipe = RECIPES[name]
    for seed, (train, held_out) in enumerate(tqdm(splits, desc=name, disable=None, leave=False)):
        parameters = msgspec.structs.replace(recipe.parameters, seed=seed)
        measured.append(evaluate(learnt(recipe, parameters, train), held_out))
    lines = [
        Line(name, "network", metric, [each[metric] for each in measured])
        for metric in ("accuracy", "rmse", "interval_coverage")
        if metric in measured[0]
    ]
    for model, build in baselines.items():
        results = [classical(build(seed), *parts) for seed, parts in enumerate(splits)]
        lines.append(Line(name, model, lines[0].metric, results))
    return lines


def committed(name: str, models_dir: Path) -> list[Line]:
    """Measure a saved model on the rows held out from it. Raises Unloadable."""
    candidate = load_again(RECIPES[name], models_dir / name / str(RECIPES[name].version))
    metric = candidate.floor.metric
    return [Line(name, "network", metric, [candidate.card.metrics[metric]])]


def compare(name: str, models_dir: Path) -> list[Line]:
    """Return the lines of one model's table. Raises TrainingError."""
    if name == "iris":
        return over_splits(name, iris_splits(), IRIS_BASELINES)
    if name == "housing":
        return over_splits(name, housing_splits(), HOUSING_BASELINES)
    return committed(name, models_dir)


def table(lines: Sequence[Line]) -> str:
    """Write lines with the mean, the spread (standard deviation), the least and the most."""
    written = [
        COLUMNS.format("data", "model", "splits", "metric", "mean", "spread", "least", "most")
    ]
    for line in lines:
        results, share = line.results, line.metric != "rmse"

        def number(value: float, share: bool = share) -> str:
            return f"{100 * value:.2f} %" if share else f"{value:.3f}"

        spread = f"{(100 if share else 1) * statistics.stdev(results):.2f}" if results[1:] else ""
        written.append(
            COLUMNS.format(
                line.name,
                line.model,
                len(results),
                line.metric.removeprefix("interval_"),
                number(statistics.mean(results)),
                spread,
                number(min(results)),
                number(max(results)),
            ).rstrip()
        )
    return "\n".join(written)
