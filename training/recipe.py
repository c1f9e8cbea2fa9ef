"""How a model is made: its description, and the functions that make it."""

from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec
import numpy as np
import torch
from msgspec import Struct
from numpy.typing import NDArray
from torch import Tensor, nn

from service.card import Card, Dataset, Image, Interval, Target
from training import describe
from training.describe import Column, Notes
from training.export import Candidate, Floor
from training.hyperparameters import Hyperparameters
from training.loop import Augment, History, Loss, Watch, evaluate, fit, make_deterministic
from training.rows import Rows

HISTORY_FILE = "history.json"


class Classical(Protocol):
    """What scikit-learn calls an estimator; it has no types of its own."""

    def fit(self, inputs: NDArray[np.float32], targets: NDArray[np.generic]) -> object: ...

    def predict(self, inputs: NDArray[np.float32]) -> NDArray[np.generic]: ...


class Recipe(Struct, frozen=True, kw_only=True):
    """One model: its description, its choices, and the functions that make it.

    The card has one of `features` and `image`, and one of `labels` and `targets`.
    load: return the rows to train on and those held out.
    build: build a network that has learnt nothing, scaled to the rows to train on; its last
        layer turns what the loss takes into answers.
    learn: train that network in place, and measure what `fit` is to watch, if anything.
    typical: return the card's examples by name, float32 (inputs,) each, made from the rows to
        train on; `digits` after the point are kept, or six digits in all.
    """

    name: str
    version: int = 1
    description: str
    features: list[Column] = []
    image: Image | None = None
    labels: list[str] = []
    targets: list[Target] = []
    interval: Interval | None = None
    dataset: Dataset | Callable[[], Dataset]  # a function where the digest is not known before
    parameters: Hyperparameters
    notes: Notes = {}  # what else was chosen, for the card
    floor: Floor
    load: Callable[[], tuple[Rows, Rows]]
    build: Callable[[Hyperparameters, Rows], nn.Sequential]
    learn: Callable[[nn.Sequential, Hyperparameters, Rows, Watch | None], History]
    measure: Callable[[nn.Module, Rows], dict[str, float]] = evaluate  # on the rows held out
    typical: Callable[[Rows], dict[str, Tensor]]
    digits: int | None = None
    request: str = ""  # the example that request.json sends; the first where none is named
    # For `python -m training evaluate`: the splits to train on anew, each with a seed; without
    # them the saved model is measured. And by name the classical models for a seed.
    splits: Callable[[], list[tuple[Rows, Rows]]] | None = None
    baselines: Callable[[int], Mapping[str, Classical]] | None = None

    @property
    def place(self) -> str:
        """The folder of its files below models/, which names it on the command line too."""
        return f"{self.name}/{self.version}"


def learn_logits(
    network: nn.Sequential,
    parameters: Hyperparameters,
    train: Rows,
    watch: Watch | None,
    *,
    loss: Loss,
    augment: Augment | None = None,
) -> History:
    """Train all layers but the last, a sigmoid or softmax that the loss contains."""
    return fit(network[:-1], train, loss, parameters, watch, augment)


def train(recipe: Recipe, parameters: Hyperparameters) -> Candidate:
    """Follow the recipe, repeatably: equal parameters give an equal candidate."""
    train_rows, held_out = recipe.load()
    network, history = learnt(recipe, parameters, train_rows, held_out)
    return present(recipe, network, parameters, train_rows, held_out, history)


def learnt(
    recipe: Recipe, parameters: Hyperparameters, train_rows: Rows, held_out: Rows | None = None
) -> tuple[nn.Sequential, History]:
    """Build the network and train it on these rows, repeatably; those held out are watched."""
    make_deterministic(parameters.seed)
    network = recipe.build(parameters, train_rows)
    watch = None
    if held_out is not None:
        watch = Watch(recipe.place, held_out, answer=network[-1], targets=held_out.targets)
    return network, recipe.learn(network, parameters, train_rows, watch)


def present(
    recipe: Recipe,
    network: nn.Module,
    parameters: Hyperparameters,
    train_rows: Rows,
    held_out: Rows,
    history: History | None,
) -> Candidate:
    """Describe a trained network by its answers to the rows held out, in words and plots.

    Without a history there is neither its file nor a plot of the losses.
    """
    from training import plots  # only here, as it imports Matplotlib

    card = Card(
        task="classification" if recipe.labels else "regression",
        description=recipe.description,
        features=describe.features(recipe.features, train_rows.inputs) if recipe.features else [],
        image=recipe.image,
        labels=recipe.labels,
        targets=recipe.targets,
        interval=recipe.interval,
        metrics=recipe.measure(network, held_out),
        dataset=recipe.dataset if isinstance(recipe.dataset, Dataset) else recipe.dataset(),
        training=describe.configuration(parameters, train_rows, held_out) | recipe.notes,
        versions=describe.versions(),
        examples=describe.examples(network, recipe.typical(train_rows), recipe.digits),
    )
    drawn = plots.draw(network, card, train_rows, held_out, history)
    files = {plot.picture.file: plot.content for plot in drawn}
    if history is not None:
        files[HISTORY_FILE] = msgspec.json.encode(history)
    return Candidate(
        network=network,
        card=msgspec.structs.replace(card, pictures=[plot.picture for plot in drawn]),
        rows=torch.cat([held_out.inputs, train_rows.inputs]),
        floor=recipe.floor,
        request_example=recipe.request or card.examples[0].name,
        files=files,
    )
