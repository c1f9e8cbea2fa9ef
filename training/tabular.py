"""A model of your own from a CSV file: a table, what to predict of it, and a perceptron.

README.md has an example. A file with a recipe of its own can do more: see moons.py.
"""

import hashlib
from collections import OrderedDict

import torch
from msgspec import Struct
from torch import Tensor, nn

from service.card import Card, Dataset, Target
from training import describe
from training.data import Rows, parse_csv, parse_labels, read_unverified, split
from training.errors import InvalidData, Unsuitable
from training.export import Candidate, Floor
from training.hyperparameters import Hyperparameters
from training.loop import History, Watch, evaluate, fit
from training.network import Destandardize, Standardize, perceptron
from training.recipe import Recipe

SPLIT_SEED = 0  # not --seed, which must not change what is held out


class Table(Struct, frozen=True, kw_only=True):
    """A CSV file with a header, and what is to be learnt from it.

    path: below the data folder. features: (name, unit, description) of each column to predict
    from. target: the column to predict; its values are `labels`, or numbers in `unit` where no
    labels are given. held_out: share of the rows that the model is measured on.
    """

    path: str
    description: str
    features: list[tuple[str, str, str]]
    target: str
    labels: list[str] = []
    unit: str = ""
    source: str
    licence: str
    held_out: float = 0.3

    def __post_init__(self) -> None:
        """Raise Unsuitable where the fields cannot be those of a table."""
        names = [each[0] for each in self.features if len(each) == 3 and not isinstance(each, str)]
        if not names or len(names) < len(self.features) or len(set(names)) < len(names):
            raise Unsuitable(
                f"{self.path}: features: expected one or more (column, unit, description), each "
                f"column once, got {self.features!r}"
            )
        labels = self.labels
        if (
            not isinstance(labels, list)
            or not all(isinstance(label, str) for label in labels)
            or len(set(labels)) < len(labels)
            or len(labels) == 1
        ):
            raise Unsuitable(
                f"{self.path}: labels: expected a list of two or more different texts, or none, "
                f"got {labels!r}"
            )
        if not isinstance(self.held_out, float) or not 0 < self.held_out < 1:
            raise Unsuitable(
                f"{self.path}: held_out: expected a share between 0 and 1, got {self.held_out!r}"
            )

    def recipe(
        self, name: str, parameters: Hyperparameters, floor: Floor, version: int = 1
    ) -> Recipe:
        """Return the recipe of a perceptron that predicts the target from the features."""

        def present(
            network: nn.Sequential, parameters: Hyperparameters, train: Rows, held_out: Rows
        ) -> Candidate:
            return Candidate(
                network=network,
                card=self._card(network, parameters, train, held_out),
                rows=torch.cat([held_out.inputs, train.inputs]),
                floor=floor,
                request_example=next(iter(self._typical(train))),
            )

        return Recipe(
            name=name,
            version=version,
            parameters=parameters,
            load=self.load,
            build=self.build,
            learn=self.learn,
            present=present,
        )

    def load(self) -> tuple[Rows, Rows]:
        """Return the rows to train on and those held out, each label in equal shares.

        inputs: float32 (n, features). targets: int64 (n,), the index in `labels`, or float32
        (n, 1). Raises DataError.
        """
        content = read_unverified(self.path)
        targets = (
            parse_labels(content, self.target, self.labels, self.path)
            if self.labels
            else parse_csv(content, [self.target], self.path)
        )
        names = [name for name, _, _ in self.features]
        rows = Rows(inputs=parse_csv(content, names, self.path), targets=targets)
        absent = [label for i, label in enumerate(self.labels) if not (targets == i).any()]
        if absent:
            raise InvalidData(
                f"{self.path}: {self.target}: expected rows of every label, got none of "
                f"{', '.join(absent)}"
            )
        try:
            train_rows = round(len(targets) * (1 - self.held_out))
            return split(rows, train_rows, SPLIT_SEED, stratify=bool(self.labels))
        except ValueError as error:  # too few rows in all, or of one label
            raise InvalidData(f"{self.path}: expected more rows, to split them: {error}") from error

    def build(self, parameters: Hyperparameters, train: Rows) -> nn.Sequential:
        """Build the network: raw units (n, features) -> probabilities (n, labels) or (n, 1)."""
        return nn.Sequential(
            OrderedDict(
                scale=Standardize(train.inputs.mean(dim=0), train.inputs.std(dim=0)),
                layers=perceptron(len(self.features), parameters, len(self.labels) or 1),
                answer=nn.Softmax(dim=1)
                if self.labels
                else Destandardize(train.targets.mean(dim=0), train.targets.std(dim=0)),
            )
        )

    def learn(
        self,
        network: nn.Sequential,
        parameters: Hyperparameters,
        train: Rows,
        watch: Watch | None,
    ) -> History:
        """Train all layers but the answer: a softmax is part of the loss, as is a unit."""
        layers = network[:-1]
        if self.labels:
            return fit(layers, train, nn.functional.cross_entropy, parameters, watch)
        scale = Standardize(train.targets.mean(dim=0), train.targets.std(dim=0))
        scaled = Rows(inputs=train.inputs, targets=scale(train.targets))
        watch = watch and watch.on(
            Rows(inputs=watch.rows.inputs, targets=scale(watch.rows.targets))
        )
        return fit(layers, scaled, nn.functional.mse_loss, parameters, watch)

    def _typical(self, train: Rows) -> dict[str, Tensor]:
        """Return the median row of each label, or of all: float32 (features,)."""
        if not self.labels:
            return {"median": train.inputs.quantile(0.5, dim=0)}
        return {
            f"median {label}": train.inputs[train.targets == index].quantile(0.5, dim=0)
            for index, label in enumerate(self.labels)
        }

    def _card(
        self, network: nn.Sequential, parameters: Hyperparameters, train: Rows, held_out: Rows
    ) -> Card:
        target = Target(name=self.target, unit=self.unit, description=self.description)
        return Card(
            task="classification" if self.labels else "regression",
            description=self.description,
            features=describe.features(self.features, train.inputs),
            labels=self.labels,
            targets=[] if self.labels else [target],
            metrics=evaluate(network, held_out),
            dataset=Dataset(
                name=self.path,
                source=self.source,
                sha256=hashlib.sha256(read_unverified(self.path)).hexdigest(),
                licence=self.licence,
            ),
            training=describe.configuration(parameters, train, held_out),
            versions=describe.versions(),
            examples=describe.examples(network, self._typical(train)),
        )
