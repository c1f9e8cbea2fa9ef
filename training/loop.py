"""The training loop and the measuring of its result."""

import math
import os
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from tqdm import tqdm

from training.data import Rows
from training.errors import Diverged, Unsuitable
from training.hyperparameters import Hyperparameters

# One thread: equal bytes on any number of cores, and no thread waits for another that a busy
# machine has put aside (ten epochs of MNIST beside one other busy process on two cores: 341 s
# with two threads, 13 s with one).
THREADS = 1
EVALUATION_BATCH = 1000  # rows run together when nothing is learnt
MOMENTUM = 0.9
OPTIMIZERS = ("sgd", "momentum", "adam", "adamw", "rmsprop", "adagrad")
DEVICES = ("auto", "cpu", "cuda")

# (outputs, targets) -> one number, or for networks trained side by side one number each: (members,)
Loss = Callable[[Tensor, Tensor], Tensor]


def make_deterministic(seed: int) -> None:
    """Make what follows in this process repeatable, bit by bit, on this kind of machine."""
    # cuBLAS repeats itself only with a workspace of its own, set before CUDA is first used:
    # https://docs.nvidia.com/cuda/cublas/#results-reproducibility
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
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
    """Train the network in place, and return the mean training loss of each epoch.

    The learning rate makes one cycle (https://arxiv.org/abs/1708.07120). `augment` changes each
    batch of inputs before it is used; the shape may gain a dimension in front, of networks that
    stand side by side. It stops early where `parameters` say so. The network is on the CPU
    afterwards. Raises Diverged when the loss is not a finite number, Unsuitable when the
    parameters do not go together with the rows or the machine.
    """
    rows, watched = _part(train, parameters.validation)
    _check(parameters, len(rows.inputs))
    steps_per_epoch = math.ceil(len(rows.inputs) / parameters.batch_size)
    device = choose_device(parameters.device)
    network.to(device)
    optimizer = make_optimizer(network, parameters)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        parameters.learning_rate,
        total_steps=parameters.epochs * steps_per_epoch,
        # Plain SGD has a momentum of zero, and is to keep it.
        cycle_momentum=parameters.optimizer in ("momentum", "adam", "adamw"),
    )
    stop = EarlyStop(parameters.stop_loss, parameters.patience)
    losses = []
    network.train()
    progress = tqdm(range(parameters.epochs), desc="epochs", disable=None, leave=False)
    for epoch in progress:
        total = 0.0
        order = torch.randperm(len(rows.inputs))
        for step, batch in enumerate(torch.split(order, parameters.batch_size), start=1):
            inputs = rows.inputs[batch]
            inputs = (inputs if augment is None else augment(inputs)).to(device)
            step_loss = loss(network(inputs), rows.targets[batch].to(device))
            if not step_loss.isfinite().all():
                raise Diverged(
                    f"the loss became {step_loss.mean().item()} at step "
                    f"{epoch * steps_per_epoch + step} (epoch {epoch + 1}): nothing was saved; "
                    "is the learning rate too high, or a value in the data not a number?"
                )
            optimizer.zero_grad()
            step_loss.sum().backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
            optimizer.step()
            schedule.step()
            total += step_loss.mean().item() * len(batch)
        losses.append(total / len(order))
        progress.set_postfix(loss=f"{losses[-1]:.4f}")
        if stop.now(network, losses[-1] if watched is None else _loss_of(network, watched, loss)):
            break
    stop.restore(network)
    network.cpu()
    return losses


def _part(train: Rows, share: float) -> tuple[Rows, Rows | None]:
    """Cut a random share of the rows off, to be watched rather than trained on."""
    if share == 0:
        return train, None
    order = torch.randperm(len(train.inputs))
    cut = max(1, round(share * len(order)))
    watched, rows = (
        Rows(inputs=train.inputs[i], targets=train.targets[i]) for i in (order[:cut], order[cut:])
    )
    return rows, watched


def _check(parameters: Hyperparameters, rows: int) -> None:
    if rows == 0:
        raise Unsuitable(
            f"expected fewer rows for validation than all, got {parameters.validation}"
        )
    if parameters.validation and not (parameters.stop_loss or parameters.patience):
        raise Unsuitable(
            "expected patience or a stop loss, for which the validation rows are there"
        )
    last = rows % parameters.batch_size or min(rows, parameters.batch_size)
    if parameters.batch_normalisation and last == 1:
        raise Unsuitable(
            "expected at least 2 rows in each batch, as batch normalisation needs them, got a last "
            f"batch of 1 of the {rows} rows: choose another batch size than {parameters.batch_size}"
        )


def _loss_of(network: nn.Module, rows: Rows, loss: Loss) -> float:
    """Return the mean loss of rows that the network does not learn from."""
    device = next(network.parameters()).device
    network.eval()
    total = 0.0
    with torch.inference_mode():
        for inputs, targets in zip(
            torch.split(rows.inputs, EVALUATION_BATCH),
            torch.split(rows.targets, EVALUATION_BATCH),
            strict=True,
        ):
            batch_loss = loss(network(inputs.to(device)), targets.to(device))
            total += batch_loss.mean().item() * len(inputs)
    network.train()
    return total / len(rows.inputs)


class EarlyStop:
    """Watch a loss, and keep the weights of its best epoch where patience may end training."""

    def __init__(self, stop_loss: float, patience: int) -> None:
        self.stop_loss, self.patience = stop_loss, patience
        self.best = math.inf
        self.best_state: Mapping[str, Tensor] | None = None
        self.waited = 0  # epochs since the best one

    def now(self, network: nn.Module, watched: float) -> bool:
        """Take note of an epoch's loss and say whether to stop after it."""
        self.waited += 1
        if watched < self.best:
            self.best, self.waited = watched, 0
            if self.patience:
                state = network.state_dict()
                self.best_state = {name: tensor.clone() for name, tensor in state.items()}
        return watched < self.stop_loss or 0 < self.patience <= self.waited

    def restore(self, network: nn.Module) -> None:
        """Put the weights of the best epoch back, if they were kept."""
        if self.best_state is not None:
            network.load_state_dict(self.best_state)


def choose_device(name: str) -> torch.device:
    """Return the device of a name in DEVICES. Raises Unsuitable when CUDA is not to be had."""
    if name == "cuda" and not torch.cuda.is_available():
        raise Unsuitable("expected a CUDA device for device cuda, got none that PyTorch can use")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def make_optimizer(network: nn.Module, parameters: Hyperparameters) -> torch.optim.Optimizer:
    """Build the optimizer of a name in OPTIMIZERS, with PyTorch's own defaults for the rest.

    Weight decay is decoupled from the gradient in adamw (https://arxiv.org/abs/1711.05101), and
    a part of it in the others.
    """
    weights, rate, decay = (
        network.parameters(),
        parameters.learning_rate,
        parameters.weight_decay,
    )
    match parameters.optimizer:
        case "sgd":
            return torch.optim.SGD(weights, lr=rate, weight_decay=decay)
        case "momentum":
            return torch.optim.SGD(weights, lr=rate, weight_decay=decay, momentum=MOMENTUM)
        case "adam":
            return torch.optim.Adam(weights, lr=rate, weight_decay=decay)
        case "adamw":
            return torch.optim.AdamW(weights, lr=rate, weight_decay=decay)
        case "rmsprop":
            return torch.optim.RMSprop(weights, lr=rate, weight_decay=decay)
        case "adagrad":
            return torch.optim.Adagrad(weights, lr=rate, weight_decay=decay)
    raise AssertionError(f"there is no optimizer {parameters.optimizer!r}. This is a bug.")


def answers(network: nn.Module, inputs: Tensor) -> tuple[Tensor, ...]:
    """Run the network without learning: float32 (n, ...) -> its answers, each (n, ...).

    The first is the probabilities or the values; a second, if there is one, their intervals.
    """
    network.eval()
    with torch.inference_mode():
        batches = [network(batch) for batch in torch.split(inputs, EVALUATION_BATCH)]
    if isinstance(batches[0], Tensor):
        return (torch.cat(batches),)
    return tuple(torch.cat(parts) for parts in zip(*batches, strict=True))


def evaluate(network: nn.Module, rows: Rows) -> dict[str, float]:
    """Measure the network's answers against the targets of rows it has not seen.

    Labels give `accuracy`, the share of right answers. Numbers give `rmse` and `mae`, in the
    unit of the target, and `r2`, the share of the variance explained; intervals give
    `interval_coverage`, the share of targets inside, and `interval_width`, the mean.
    """
    answer, *intervals = answers(network, rows.inputs)
    if rows.targets.is_floating_point():
        errors = answer - rows.targets
        squares = errors.square().mean()
        metrics = {
            "rmse": squares.sqrt(),
            "mae": errors.abs().mean(),
            "r2": 1 - squares / rows.targets.var(correction=0),
        }
        for interval in intervals:
            lower, upper = interval.unbind(dim=2)  # (n, targets, 2) -> (n, targets) each
            inside = (lower <= rows.targets) & (rows.targets <= upper)
            metrics["interval_coverage"] = inside.double().mean()
            metrics["interval_width"] = (upper - lower).mean()
    else:
        right = answer.argmax(dim=1) == rows.targets  # (n, classes) -> (n,)
        metrics = {"accuracy": right.double().mean()}
    return {name: round(value.item(), 4) for name, value in metrics.items()}
