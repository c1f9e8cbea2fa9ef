"""Iris: which of three irises a flower is, from four lengths.

    python -m training iris

97.5 % of the 80 held-out flowers are named rightly; 3 s on one core.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable

import torch
from sklearn.datasets import load_iris
from torch import Tensor, nn

from service.card import Card, Dataset
from training import describe
from training.data import Rows, split
from training.errors import InvalidData
from training.export import Candidate, Floor
from training.loop import Hyperparameters, evaluate, fit
from training.network import Standardize, perceptron

TRAIN_ROWS = 70  # of 150; the other 80 are held out
SPLIT_SEED = 0  # which rows those are; not --seed, which must not change what is held out
FLOOR = Floor("accuracy", at_least=0.95)

# Chosen by 5-fold cross-validation, repeated four times, within the 70 training rows (97.5 %).
PARAMETERS = Hyperparameters(
    hidden=(16,),  # 32 gave the same; 8 gave 97.9 % and less certain probabilities
    epochs=300,  # 100 gave 96.4 %, 600 gave 97.1 %
    batch_size=70,  # all rows in one step
    learning_rate=0.02,  # 0.01 gave 97.1 %, 0.05 gave 97.5 %
    weight_decay=0.01,  # 0.1 gave 97.1 %
    seed=0,
)
# In every epoch each flower is moved at random, by 1.5 times the scatter that flowers of one kind
# show around their mean. So few rows leave a network much freedom; this takes it to the smooth
# borders that linear discriminant analysis draws. Without it 96.8 %, with 1.0 97.1 %.
SCATTER = 1.5

FEATURES = [
    ("sepal_length", "cm", "length of a sepal, an outer leaf of the flower"),
    ("sepal_width", "cm", "width of the same sepal at its widest"),
    ("petal_length", "cm", "length of a petal, an inner, coloured leaf of the flower"),
    ("petal_width", "cm", "width of the same petal at its widest"),
]
LABELS = ["setosa", "versicolor", "virginica"]
DATASET = Dataset(
    name="Iris",
    source="scikit-learn, sklearn.datasets.load_iris; R. A. Fisher, 'The use of multiple "
    "measurements in taxonomic problems', Annals of Eugenics 7 (1936)",
    sha256="aa06b8008ceba42efc654be0f83fdafc786239c9e8f13146044d078f5aab8f23",
    licence="CC BY 4.0 (UCI Machine Learning Repository); the copy in scikit-learn: BSD-3-Clause",
    caveats=[
        "The SHA-256 is that of the 150 x 4 lengths as little-endian float64, row by row, "
        "followed by the 150 labels as little-endian int64.",
        "150 flowers, two of the three kinds picked on one day in one pasture in Quebec. Every "
        "flower of the world is given one of the three names.",
        "Rows 35 and 38 are Fisher's; the copy at UCI has errors in them.",
    ],
)


def load() -> tuple[Rows, Rows]:
    """Return 70 flowers to train on and 80 held out, each kind in equal shares.

    inputs: float32 (n, 4), centimetres. targets: int64 (n,), the index in LABELS.
    """
    flowers = load_iris()
    content = flowers.data.astype("<f8").tobytes() + flowers.target.astype("<i8").tobytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != DATASET.sha256:
        raise InvalidData(
            f"iris: expected lengths and labels with SHA-256 {DATASET.sha256}, got {digest}: "
            "is this another version of scikit-learn?"
        )
    rows = Rows(
        inputs=torch.tensor(flowers.data, dtype=torch.float32),
        targets=torch.tensor(flowers.target, dtype=torch.int64),
    )
    return split(rows, TRAIN_ROWS, SPLIT_SEED, stratify=True)


def build(hidden: tuple[int, ...], train: Rows) -> nn.Sequential:
    """Build the network: centimetres (n, 4) -> probabilities (n, 3)."""
    layers: dict[str, nn.Module] = {
        "scale": Standardize(train.inputs.mean(dim=0), train.inputs.std(dim=0)),
        "layers": perceptron(4, hidden, 3),  # (n, 4) -> (n, 3)
        "answer": nn.Softmax(dim=1),
    }
    return nn.Sequential(OrderedDict(layers))


def scatter(train: Rows) -> Callable[[Tensor], Tensor]:
    """Return the augmentation that moves each flower: float32 (n, 4), centimetres, stays (n, 4)."""
    means = torch.stack([train.inputs[train.targets == kind].mean(dim=0) for kind in range(3)])
    around = train.inputs - means[train.targets]  # (n, 4) - (3, 4)[(n,)] -> (n, 4)
    covariance = around.T @ around / (len(around) - len(means))  # (4, n) @ (n, 4) -> (4, 4)
    root: Tensor = torch.linalg.cholesky(covariance)

    def move(inputs: Tensor) -> Tensor:
        return inputs + SCATTER * torch.randn_like(inputs) @ root.T

    return move


def train(parameters: Hyperparameters) -> Candidate:
    """Train on 70 flowers and describe the result on the other 80."""
    train_rows, held_out = load()
    network = build(parameters.hidden, train_rows)
    logits = network[:-1]  # all but the softmax, which the loss contains
    fit(logits, train_rows, nn.functional.cross_entropy, parameters, augment=scatter(train_rows))
    means = {
        f"average {label}": train_rows.inputs[train_rows.targets == index].double().mean(dim=0)
        for index, label in enumerate(LABELS)
    }
    card = Card(
        task="classification",
        description="Which of three irises a flower is, from the size of its sepals and petals.",
        features=describe.features(FEATURES, train_rows.inputs),
        labels=LABELS,
        metrics=evaluate(network, held_out),
        dataset=DATASET,
        training=describe.configuration(parameters, train_rows, held_out) | {"scatter": SCATTER},
        versions=describe.versions(),
        examples=describe.examples(network, means, digits=1),  # as measured: to a millimetre
    )
    return Candidate(
        name="iris",
        version=1,
        network=network,
        card=card,
        rows=held_out.inputs,
        floor=FLOOR,
        request_example="average setosa",
    )
