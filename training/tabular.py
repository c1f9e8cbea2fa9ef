"""A model of your own from a CSV file: a table, what to predict of it, and a perceptron.

docs/training.md has an example. A file with a recipe of its own can do more: see moons.py.
"""

import hashlib
from functools import partial

from msgspec import Struct
from torch import Tensor, nn

from service.card import Dataset, Target
from training.data import read_unverified
from training.describe import Column
from training.errors import InvalidData, Unsuitable
from training.export import Floor
from training.hyperparameters import Hyperparameters
from training.loop import History, Watch, fit
from training.network import Destandardize, Standardize, perceptron, sequence
from training.recipe import Recipe, learn_logits
from training.rows import Rows, parse_csv, parse_labels, split

SPLIT_SEED = 0  # not --seed, which must not change what is held out


class Table(Struct, frozen=True, kw_only=True):
    """A CSV file with a header, and what is to be learnt from it.

    path: below the data folder. features: (name, unit, description) of each column to predict
    from. target: the column to predict; its values are `labels`, or numbers in `unit` where there
    are no labels. held_out: share of the rows that the model is measured on.
    """

    path: str
    description: str
    features: list[Column]
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
        softmax_loss = partial(learn_logits, loss=nn.functional.cross_entropy)
        target = Target(name=self.target, unit=self.unit, description=self.description)
        return Recipe(
            name=name,
            version=version,
            description=self.description,
            features=self.features,
            labels=self.labels,
            targets=[] if self.labels else [target],
            dataset=self.dataset,
            parameters=parameters,
            floor=floor,
            load=self.load,
            build=self.build,
            learn=softmax_loss if self.labels else learn_numbers,
            typical=self.medians,
        )

    def dataset(self) -> Dataset:
        """Return the table as the card lists it, with its digest as it is now."""
        content = read_unverified(self.path)
        return Dataset(
            name=self.path,
            source=self.source,
            sha256=hashlib.sha256(content).hexdigest(),
            licence=self.licence,
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
        return sequence(
            scale=Standardize.of(train.inputs),
            layers=perceptron(len(self.features), parameters, len(self.labels) or 1),
            answer=nn.Softmax(dim=1) if self.labels else Destandardize.of(train.targets),
        )

    def medians(self, train: Rows) -> dict[str, Tensor]:
        """Return the median row of each label, or of all: float32 (features,)."""
        if not self.labels:
            return {"median": train.inputs.quantile(0.5, dim=0)}
        return {
            f"median {label}": train.inputs[train.targets == index].quantile(0.5, dim=0)
            for index, label in enumerate(self.labels)
        }


def learn_numbers(
    network: nn.Sequential, parameters: Hyperparameters, train: Rows, watch: Watch | None
) -> History:
    """Train all layers but the last, which gives the standardized targets their unit."""
    standardize = Standardize.of(train.targets)

    def scaled(rows: Rows) -> Rows:
        return Rows(inputs=rows.inputs, targets=standardize(rows.targets))

    watch = watch and watch.on(scaled(watch.rows))
    return fit(network[:-1], scaled(train), nn.functional.mse_loss, parameters, watch)
