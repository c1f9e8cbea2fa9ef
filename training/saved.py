"""Read what training has saved: a network, its card and its losses."""

import math
import pickle
from pathlib import Path

import msgspec
import onnx
import torch
from google.protobuf.message import DecodeError
from msgspec import ValidationError
from torch import nn

from service.card import METADATA_KEY, Card
from service.errors import InvalidCard
from training import describe
from training.errors import Unloadable
from training.export import Candidate
from training.hyperparameters import Hyperparameters
from training.loop import History, make_deterministic
from training.recipe import HISTORY_FILE, Recipe, present
from training.rows import Rows

# What torch.load and load_state_dict raise for a file that is no state_dict, or of another network.
UNREADABLE = (
    *(OSError, RuntimeError, ValueError, EOFError, TypeError, AttributeError),
    pickle.UnpicklingError,
)


def load_again(recipe: Recipe, folder: Path) -> Candidate:
    """Return the network saved in models/<name>/<version>, described anew, without training.

    Without history.json there is no plot of the losses. Raises Unloadable.
    """
    parameters = read_parameters(recipe, folder)
    train_rows, held_out = recipe.load()
    network = read_network(recipe, parameters, train_rows, folder)
    history = read_history(folder / HISTORY_FILE, parameters.epochs)
    return present(recipe, network, parameters, train_rows, held_out, history)


def read_parameters(recipe: Recipe, folder: Path) -> Hyperparameters:
    """Return what a network was built with, as the card in model.onnx says.

    Where there is no such file it is the recipe's. Raises Unloadable.
    """
    model = folder / "model.onnx"
    if not model.exists():
        return recipe.parameters
    try:
        return describe.hyperparameters(read_card(model).training)
    except ValidationError as error:
        raise Unloadable(f"{model}: its card does not say how to build it: {error}") from error


def read_network(
    recipe: Recipe, parameters: Hyperparameters, train_rows: Rows, folder: Path
) -> nn.Sequential:
    """Build the network and give it the weights of state_dict.pt. Raises Unloadable."""
    weights = folder / "state_dict.pt"
    make_deterministic(parameters.seed)
    network = recipe.build(parameters, train_rows)
    try:
        network.load_state_dict(torch.load(weights, weights_only=True, map_location="cpu"))
    except FileNotFoundError as error:
        raise Unloadable(f"{weights} is missing: train the model first") from error
    except UNREADABLE as error:
        reason = " ".join(map(str.strip, str(error).splitlines()[:2])) or type(error).__name__
        raise Unloadable(
            f"{weights}: expected the weights of this network, got: {reason}"
        ) from error
    return network


def read_card(path: Path) -> Card:
    """Read the card in a model.onnx. Raises Unloadable."""
    try:
        properties = onnx.load(path).metadata_props
        (text,) = [entry.value for entry in properties if entry.key == METADATA_KEY]
        return Card.from_json(text)
    except (OSError, ValueError, DecodeError, InvalidCard) as error:
        raise Unloadable(f"{path}: expected an ONNX file with a card, got: {error}") from error


def read_history(path: Path, epochs: int) -> History | None:
    """Read the losses that training wrote; None if there is no such file.

    Raises Unloadable, also for losses that cannot be those of a training of so many epochs.
    """
    try:
        read = msgspec.json.decode(path.read_bytes(), type=dict[str, list[float | None]])
        # JSON has no NaN and no infinity: they were written as null.
        losses = {
            name: [math.nan if loss is None else loss for loss in each]
            for name, each in read.items()
        }
        history = History(**losses)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError, TypeError) as error:
        raise Unloadable(f"{path}: expected the losses of a training, got: {error}") from error
    if not 1 <= len(history.loss) <= epochs or len(history.held_out) not in (0, len(history.loss)):
        raise Unloadable(
            f"{path}: expected the losses of 1 to {epochs} epochs, got {len(history.loss)} of "
            f"training and {len(history.held_out)} held out"
        )
    return history
