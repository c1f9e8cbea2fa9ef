"""How a model is made: the functions of its file, in the order they are called."""

import math
import pickle
from collections.abc import Callable
from pathlib import Path

import msgspec
import torch
from msgspec import Struct, ValidationError
from torch import nn

from training import describe, report
from training.data import Rows
from training.errors import Unloadable
from training.export import Candidate, read_card
from training.hyperparameters import Hyperparameters
from training.loop import History, Watch, make_deterministic

HISTORY_FILE = "history.json"
# What torch.load and load_state_dict raise for a file that is no state_dict, or of another network.
UNREADABLE = (
    *(OSError, RuntimeError, ValueError, EOFError, TypeError, AttributeError),
    pickle.UnpicklingError,
)


class Recipe(Struct, frozen=True, kw_only=True):
    """A model's own choices, and the functions that use them.

    load: return the rows to train on and those held out.
    build: build a network that has learnt nothing, scaled to the rows to train on; its last
        layer turns what the loss takes into answers.
    learn: train that network in place, looking at what `fit` is to watch, if anything.
    present: measure it on the rows held out and describe it.
    """

    name: str
    version: int = 1
    parameters: Hyperparameters
    load: Callable[[], tuple[Rows, Rows]]
    build: Callable[[Hyperparameters, Rows], nn.Sequential]
    learn: Callable[[nn.Sequential, Hyperparameters, Rows, Watch | None], History]
    present: Callable[[nn.Sequential, Hyperparameters, Rows, Rows], Candidate]

    @property
    def place(self) -> str:
        """The folder of its files below models/, which names it on the command line too."""
        return f"{self.name}/{self.version}"


def train(recipe: Recipe, parameters: Hyperparameters) -> Candidate:
    """Follow the recipe, repeatably: equal parameters give an equal candidate."""
    train_rows, held_out = recipe.load()
    network, history = learnt(recipe, parameters, train_rows, held_out)
    candidate = recipe.present(network, parameters, train_rows, held_out)
    return illustrated(candidate, train_rows, held_out, history)


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


def illustrated(
    candidate: Candidate, train_rows: Rows, held_out: Rows, history: History | None
) -> Candidate:
    """Add the pictures of the training and of its result, and the history itself as a file."""
    drawings = report.draw(candidate.network, candidate.card, train_rows, held_out, history)
    files = {drawing.picture.file: drawing.content for drawing in drawings}
    if history is not None:
        files[HISTORY_FILE] = msgspec.json.encode(history)
    pictures = [drawing.picture for drawing in drawings]
    card = msgspec.structs.replace(candidate.card, pictures=pictures)
    return msgspec.structs.replace(candidate, card=card, files=files)


def load_again(recipe: Recipe, folder: Path) -> Candidate:
    """Return the network saved in models/<name>/<version>, described anew, without training.

    The parameters it was built with are those of the card in model.onnx, or the recipe's where
    there is no such file; without history.json there is no picture of the losses. Raises
    Unloadable.
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
    except UNREADABLE as error:
        reason = " ".join(map(str.strip, str(error).splitlines()[:2])) or type(error).__name__
        raise Unloadable(
            f"{weights}: expected the weights of this network, got: {reason}"
        ) from error
    candidate = recipe.present(network, parameters, train_rows, held_out)
    history = read_history(folder / HISTORY_FILE, parameters.epochs)
    return illustrated(candidate, train_rows, held_out, history)


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
