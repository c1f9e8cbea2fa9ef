"""What is chosen before training, the same choices for every model."""

from msgspec import Struct


class Hyperparameters(Struct, frozen=True, kw_only=True):
    """What is chosen before training. Each model's file says why it chose so."""

    hidden: tuple[int, ...]  # widths of the hidden layers
    epochs: int  # how often every training row is seen, at most
    batch_size: int  # rows per step
    learning_rate: float  # the highest; it rises over 30 % of the steps, then falls to zero
    weight_decay: float  # how strongly the optimizer pulls the weights to zero
    seed: int  # of the first weights, the order of the rows and the augmentation
    activation: str = "relu"  # a name in network.ACTIVATIONS
    optimizer: str = "adamw"  # a name in loop.OPTIMIZERS
    batch_normalisation: bool = False  # after the linear part of each hidden layer
    ema_decay: float = 0.0  # of the weights' exponential moving average, which is kept; 0: none
    dropout: float = 0.0  # share of each hidden layer's outputs dropped in a step
    stop_loss: float = 0.0  # stop when the watched loss falls below this; 0: never
    patience: int = 0  # stop after so many epochs without a lower watched loss; 0: never
    validation: float = 0.0  # share of the training rows to watch; 0: the training loss itself
    device: str = "cpu"  # auto, cpu or cuda; auto takes CUDA where there is one
