"""Moons: which of two crescents, each reaching into the other, a point of the plane belongs to.

    python -m training moons

All of the 90 held-out points are named rightly; 1 s on one core.
"""

import hashlib
from collections import OrderedDict

import numpy as np
import torch
from sklearn.datasets import make_moons
from torch import nn

from service.card import Card, Dataset
from training import describe
from training.data import Rows, split
from training.errors import InvalidData
from training.export import Candidate, Floor
from training.hyperparameters import Hyperparameters
from training.loop import History, Watch, evaluate, fit
from training.network import BothSides, Standardize, binary_cross_entropy, perceptron
from training.recipe import Recipe

POINTS = 300
NOISE = 0.1  # standard deviation, where a crescent is half a circle of radius 1
DATA_SEED = 0  # of the points; not --seed, which must not change what is to be learnt
DIGITS = 4  # after the point: the digits beyond differ from processor to processor
TRAIN_ROWS = 210  # the other 90 are held out
SPLIT_SEED = 0  # which rows those are
FLOOR = Floor("accuracy", at_least=0.97)

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
# The middle of each crescent, without noise.
MIDDLES = {"middle of the upper moon": [0.0, 1.0], "middle of the lower moon": [1.0, -0.5]}
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

    inputs: float32 (n, 2), radii. targets: int64 (n,), the index in LABELS.
    """
    points, labels = make_moons(POINTS, noise=NOISE, random_state=DATA_SEED)
    whole = np.rint(points * 10**DIGITS).astype("<i4")
    digest = hashlib.sha256(whole.tobytes() + labels.astype("<i4").tobytes()).hexdigest()
    if digest != DATASET.sha256:
        raise InvalidData(
            f"moons: expected points and labels with SHA-256 {DATASET.sha256}, got {digest}: "
            "is this another version of scikit-learn?"
        )
    rows = Rows(
        inputs=torch.tensor(whole / 10**DIGITS, dtype=torch.float32),
        targets=torch.tensor(labels, dtype=torch.int64),
    )
    return split(rows, TRAIN_ROWS, SPLIT_SEED, stratify=True)


def build(parameters: Hyperparameters, train: Rows) -> nn.Sequential:
    """Build the network: radii (n, 2) -> probabilities (n, 2)."""
    layers: dict[str, nn.Module] = {
        "scale": Standardize(train.inputs.mean(dim=0), train.inputs.std(dim=0)),
        "layers": perceptron(2, parameters, 1),  # (n, 2) -> (n, 1)
        "answer": BothSides(),
    }
    return nn.Sequential(OrderedDict(layers))


def learn(
    network: nn.Sequential, parameters: Hyperparameters, train: Rows, watch: Watch | None
) -> History:
    """Train the network on the points as they are."""
    logits = network[:-1]  # all but the sigmoid, which the loss contains
    return fit(logits, train, binary_cross_entropy, parameters, watch)


def present(
    network: nn.Sequential, parameters: Hyperparameters, train: Rows, held_out: Rows
) -> Candidate:
    """Describe the network by its answers to the points held out."""
    middles = {name: torch.tensor(point) for name, point in MIDDLES.items()}
    card = Card(
        task="classification",
        description="Which of two crescents a point belongs to.",
        features=describe.features(FEATURES, train.inputs),
        labels=LABELS,
        metrics=evaluate(network, held_out),
        dataset=DATASET,
        training=describe.configuration(parameters, train, held_out),
        versions=describe.versions(),
        examples=describe.examples(network, middles, digits=DIGITS),
    )
    return Candidate(
        network=network,
        card=card,
        rows=torch.cat([held_out.inputs, train.inputs]),
        floor=FLOOR,
        request_example="middle of the upper moon",
    )


RECIPE = Recipe(
    name="moons",
    parameters=PARAMETERS,
    load=load,
    build=build,
    learn=learn,
    present=present,
)
