"""Moons: which of two crescents, each reaching into the other, a point of the plane belongs to.

    python -m training moons

All of the 90 held-out points are named rightly; 1 s on one core.
"""

from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from service.card import Dataset
from training.data import verify
from training.export import Floor
from training.hyperparameters import Hyperparameters
from training.network import BothSides, Standardize, binary_cross_entropy, perceptron, sequence
from training.recipe import Classical, Recipe, learn_logits
from training.rows import Rows, split

POINTS = 300
NOISE = 0.1  # standard deviation, where a crescent is half a circle of radius 1
DATA_SEED = 0  # of the points; not --seed, which must not change what is to be learnt
DIGITS = 4  # after the point: the digits beyond differ from processor to processor
TRAIN_ROWS = 210  # the other 90 are held out
SPLIT_SEED = 0  # which rows those are

PARAMETERS = Hyperparameters(
    hidden=(32, 32),  # one hidden layer fell to 92.2 % on one of 20 sets of points
    epochs=400,
    batch_size=210,  # all rows in one step
    learning_rate=0.02,
    weight_decay=0.1,  # for a smooth border; the border is no longer with it
    seed=0,
    activation="tanh",  # ReLU draws the border with corners
)

FEATURES = [
    ("x", "radius", "to the right; the crescents are half circles of radius 1"),
    ("y", "radius", "upwards"),
]
LABELS = ["upper moon", "lower moon"]
DATASET = Dataset(
    name="Two moons",
    source=f"made by scikit-learn: sklearn.datasets.make_moons({POINTS}, noise={NOISE}, "
    f"random_state={DATA_SEED}), rounded to {DIGITS} digits after the point",
    sha256="67072852ad0b51a0f51c026498f80a86134d69aad8c41772b189be0f6b895ade",
    licence="none needed: made by a formula",
    caveats=[
        f"The SHA-256 is that of the {POINTS} x 2 rounded coordinates times 10,000 as "
        "little-endian int32, row by row, followed by the labels as little-endian int32.",
        "A picture-book problem: every point of the plane is given one of the two moons.",
    ],
)


def load() -> tuple[Rows, Rows]:
    """Return 210 points to train on and 90 held out, each moon in equal shares.

    inputs: float32 (n, 2), radii. targets: int64 (n,), the index in LABELS. Raises InvalidData.
    """
    from sklearn.datasets import make_moons

    points, labels = make_moons(POINTS, noise=NOISE, random_state=DATA_SEED)
    rounded = np.rint(points * 10**DIGITS).astype("<i4")
    content = rounded.tobytes() + labels.astype("<i4").tobytes()
    verify(content, DATASET.sha256, "moons of this version of scikit-learn")
    rows = Rows(
        inputs=torch.tensor(rounded / 10**DIGITS, dtype=torch.float32),
        targets=torch.tensor(labels, dtype=torch.int64),
    )
    return split(rows, TRAIN_ROWS, SPLIT_SEED, stratify=True)


def build(parameters: Hyperparameters, train: Rows) -> nn.Sequential:
    """Build the network: radii (n, 2) -> probabilities (n, 2)."""
    return sequence(
        scale=Standardize.of(train.inputs),
        layers=perceptron(2, parameters, 1),  # (n, 2) -> (n, 1)
        answer=BothSides(),  # -> (n, 2)
    )


def middles(train: Rows) -> dict[str, Tensor]:
    """Return the middle of each crescent, without noise: float32 (2,)."""
    return {
        "middle of the upper moon": torch.tensor([0.0, 1.0]),
        "middle of the lower moon": torch.tensor([1.0, -0.5]),
    }


def baselines(seed: int) -> dict[str, Classical]:
    """Return the classical models that `evaluate` trains too."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import SVC

    return {"logistic regression": LogisticRegression(), "SVM, radial": SVC()}


RECIPE = Recipe(
    name="moons",
    description="Which of two crescents a point belongs to.",
    features=FEATURES,
    labels=LABELS,
    dataset=DATASET,
    parameters=PARAMETERS,
    floor=Floor("accuracy", at_least=0.97),
    load=load,
    build=build,
    learn=partial(learn_logits, loss=binary_cross_entropy),
    typical=middles,
    digits=DIGITS,
    baselines=baselines,
)
