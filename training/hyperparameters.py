"""What is chosen before training, the same choices for every model."""

from typing import Annotated

from msgspec import Meta, Struct

ACTIVATIONS = {  # each with its class in torch.nn
    "relu": "ReLU",
    "leaky_relu": "LeakyReLU",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "elu": "ELU",
    "gelu": "GELU",
    "silu": "SiLU",
}
OPTIMIZERS = ("sgd", "momentum", "adam", "adamw", "rmsprop", "adagrad")
DEVICES = ("auto", "cpu", "cuda")

Widths = Annotated[tuple[Annotated[int, Meta(ge=1, le=10_000)], ...], Meta(max_length=20)]
Count = Annotated[int, Meta(ge=1)]
Number = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Rate = Annotated[float, Meta(gt=0, le=1e9)]
Amount = Annotated[float, Meta(ge=0, le=1e9)]  # with a limit, as it must be finite
Share = Annotated[float, Meta(ge=0, lt=1)]


class Help(Struct, frozen=True):
    """The help of a choice, and the names it may have."""

    text: str
    names: tuple[str, ...] = ()


class Hyperparameters(Struct, frozen=True, kw_only=True):
    """What is chosen before training. Each model's file says why it chose so.

    Each field is an option of the command line, which has its help, range and names from here.
    """

    hidden: Annotated[Widths, Help("widths of the hidden layers, such as 64,32, or none")]
    epochs: Annotated[Count, Help("how often every training row is seen, at most")]
    batch_size: Annotated[Count, Help("rows per step")]
    learning_rate: Annotated[Rate, Help("the highest; it rises for 30 % of the steps, then falls")]
    weight_decay: Annotated[Amount, Help("how strongly the weights are pulled to zero")]
    seed: Annotated[Number, Help("of the first weights, the order of the rows, the augmentation")]
    activation: Annotated[str, Help("after each hidden layer", tuple(ACTIVATIONS))] = "relu"
    optimizer: Annotated[str, Help("what changes the weights", OPTIMIZERS)] = "adamw"
    batch_normalisation: Annotated[bool, Help("in each hidden layer", ("yes", "no"))] = False
    ema_decay: Annotated[Share, Help("of the moving average of the weights, kept if above 0")] = 0.0
    dropout: Annotated[Share, Help("share of each hidden layer's outputs dropped in a step")] = 0.0
    stop_loss: Annotated[Amount, Help("stop when the watched loss is below; 0: never")] = 0.0
    patience: Annotated[Number, Help("epochs without a lower watched loss; 0: no limit")] = 0
    validation: Annotated[Share, Help("of the training rows to watch; 0: the training loss")] = 0.0
    device: Annotated[str, Help("auto takes CUDA where there is one", DEVICES)] = "cpu"
