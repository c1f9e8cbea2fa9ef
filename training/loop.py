"""The training loop and the measuring of its result."""

import math
from collections.abc import Callable

import torch
from msgspec import Struct
from torch import Tensor, nn
from tqdm import tqdm

from training.data import Rows
from training.errors import Diverged

# One thread: equal bytes on any number of cores, and no thread waits for another that a busy
# machine has put aside (ten epochs of MNIST beside one other busy process on two cores: 341 s
# with two threads, 13 s with one).
THREADS = 1
EVALUATION_BATCH = 1000  # rows run together when nothing is learnt

Loss = Callable[[Tensor, Tensor], Tensor]  # (outputs, targets) -> one number


class Hyperparameters(Struct, frozen=True, kw_only=True):
    """What is chosen before training. Each model's file says why it chose so."""

    hidden: tuple[int, ...]  # widths of the hidden layers
    epochs: int  # how often every training row is seen
    batch_size: int  # rows per step
    learning_rate: float  # the highest; it rises over 30 % of the steps, then falls to zero
    weight_decay: float  # how strongly AdamW pulls the weights to zero
    seed: int  # of the first weights, the order of the rows and the augmentation


def make_deterministic(seed: int) -> None:
    """Make what follows in this process repeatable, bit by bit, on this kind of machine."""
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(THREADS)
    torch.manual_seed(seed)


def fit(
    network: nn.Module,
    train: Rows,
    loss: Loss,
    parameters: Hyperparameters,
    augment: Callable[[Tensor], Tensor] | None = None,
) -> list[float]:
    """Train the network in place, and return the mean loss of each epoch.

    AdamW (https://arxiv.org/abs/1711.05101) with a one-cycle learning rate
    (https://arxiv.org/abs/1708.07120). `augment` changes each batch of inputs before it is
    used; the shape stays. Raises Diverged when the loss is not a finite number.
    """
    steps_per_epoch = math.ceil(len(train.inputs) / parameters.batch_size)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=parameters.learning_rate, weight_decay=parameters.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, parameters.learning_rate, total_steps=parameters.epochs * steps_per_epoch
    )
    losses = []
    network.train()
    progress = tqdm(range(parameters.epochs), desc="epochs", disable=None, leave=False)
    for epoch in progress:
        total = 0.0
        order = torch.randperm(len(train.inputs))
        for step, batch in enumerate(torch.split(order, parameters.batch_size), start=1):
            inputs = train.inputs[batch]
            outputs = network(inputs if augment is None else augment(inputs))
            step_loss = loss(outputs, train.targets[batch])
            if not step_loss.isfinite():
                raise Diverged(
                    f"the loss became {step_loss.item()} at step "
                    f"{epoch * steps_per_epoch + step} (epoch {epoch + 1}): nothing was saved; "
                    "is the learning rate too high, or a value in the data not a number?"
                )
            optimizer.zero_grad()
            step_loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
            optimizer.step()
            schedule.step()
            total += step_loss.item() * len(batch)
        losses.append(total / len(order))
        progress.set_postfix(loss=f"{losses[-1]:.4f}")
    return losses


def answer(network: nn.Module, inputs: Tensor) -> Tensor:
    """Run the network without learning: float32 (n, ...) -> (n, outputs)."""
    network.eval()
    with torch.inference_mode():
        return torch.cat([network(batch) for batch in torch.split(inputs, EVALUATION_BATCH)])


def evaluate(network: nn.Module, rows: Rows) -> dict[str, float]:
    """Measure the network's answers against the targets of rows it has not seen.

    Labels give `accuracy`, the share of right answers. Numbers give `rmse` and `mae`, in the
    unit of the target, and `r2`, the share of the variance explained.
    """
    answers = answer(network, rows.inputs)
    if rows.targets.is_floating_point():
        errors = answers - rows.targets
        squares = errors.square().mean()
        metrics = {
            "rmse": squares.sqrt(),
            "mae": errors.abs().mean(),
            "r2": 1 - squares / rows.targets.var(correction=0),
        }
    else:
        right = answers.argmax(dim=1) == rows.targets  # (n, classes) -> (n,)
        metrics = {"accuracy": right.double().mean()}
    return {name: round(value.item(), 4) for name, value in metrics.items()}
