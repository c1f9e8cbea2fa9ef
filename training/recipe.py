"""How a model is made: the functions of its file, in the order they are called."""

import pickle
from collections.abc import Callable
from pathlib import Path

import torch
from msgspec import Struct, ValidationError
from torch import nn

from training import describe
from training.data import Rows
from training.errors import Unloadable
from training.export import Candidate, read_card
from training.hyperparameters import Hyperparameters
from training.loop import make_deterministic


class Recipe(Struct, frozen=True, kw_only=True):
    """A model's own choices, and the functions that use them.

    load: return the rows to train on and those held out.
    build: build a network that has learnt nothing, scaled to the rows to train on.
    learn: train that network in place.
    present: measure it on the rows held out and describe it.
    """

    version: int = 1
    parameters: Hyperparameters
    load: Callable[[], tuple[Rows, Rows]]
    build: Callable[[Hyperparameters, Rows], nn.Sequential]
    learn: Callable[[nn.Sequential, Hyperparameters, Rows], None]
    present: Callable[[nn.Sequential, Hyperparameters, Rows, Rows], Candidate]


def train(recipe: Recipe, parameters: Hyperparameters) -> Candidate:
    """Follow the recipe, repeatably: equal parameters give an equal candidate."""
    train_rows, held_out = recipe.load()
    network = learnt(recipe, parameters, train_rows)
    return recipe.present(network, parameters, train_rows, held_out)


def learnt(recipe: Recipe, parameters: Hyperparameters, train_rows: Rows) -> nn.Sequential:
    """Build the network and train it on these rows, repeatably."""
    make_deterministic(parameters.seed)
    network = recipe.build(parameters, train_rows)
    recipe.learn(network, parameters, train_rows)
    return network


def load_again(recipe: Recipe, folder: Path) -> Candidate:
    """Return the network saved in models/<name>/<version>, described anew, without training.

    The parameters it was built with are those of the card in model.onnx, or the recipe's where
    there is no such file. Raises Unloadable.
    """
    model, weights = folder / "model.onnx", folder / "state_dict.pt"
    parameters = recipe.parameters
    if model.exists():
        try:
            parameters = describe.hyperparameters(read_card(model).training)
        except ValidationError as error:
            raise Unloadable(f"{model}: its card does not say how to build it: {error}") from error
    make_deterministic(parameters.seed)
    train_rows, held_out = recipe.load()
    network = recipe.build(parameters, train_rows)
    try:
        network.load_state_dict(torch.load(weights, weights_only=True, map_location="cpu"))
    except FileNotFoundError as error:
        raise Unloadable(f"{weights} is missing: train the model first") from error
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise Unloadable(
            f"{weights}: expected the weights of this network, got: {reason}"
        ) from error
    return recipe.present(network, parameters, train_rows, held_out)
