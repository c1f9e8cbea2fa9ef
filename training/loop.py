"""The training loop and the measuring of its result."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Self

import msgspec
import torch
from msgspec import Struct
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from training import THREADS
from training.errors import Diverged, Unsuitable
from training.hyperparameters import Hyperparameters
from training.progress import Progress
from training.rows import Rows

EVALUATION_BATCH = 1000  # rows run together when nothing is learnt
MOMENTUM = 0.9

# (outputs, targets) -> one number, or for networks trained side by side one number each: (members,)
Loss = Callable[[Tensor, Tensor], Tensor]
# (inputs, share of the training that is done, 0 to 1) -> inputs, changed at random. The shape may
# gain a dimension in front, of networks that stand side by side.
Augment = Callable[[Tensor, float], Tensor]


class Watch(Struct, frozen=True):
    """Rows to measure after each epoch; nothing is learnt from them, nothing chosen by them.

    rows: as the part of the network that is trained takes them.
    answer: the layer after that part, which turns its outputs into answers.
    targets: what the answers are measured against, as in Rows.
    """

    title: str  # of the training, for its progress
    rows: Rows
    answer: nn.Module
    targets: Tensor

    def on(self, rows: Rows) -> Self:
        """Return this, with the rows as the part of the network that is trained takes them."""
        return msgspec.structs.replace(self, rows=rows)


class History(Struct, frozen=True):
    """The loss of each epoch: its mean over the training rows, and that of the rows watched."""

    loss: list[float]
    held_out: list[float]  # empty where none were watched


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
    watch: Watch | None = None,
    augment: Augment | None = None,
) -> History:
    """Train the network in place, and return the loss of each epoch.

    The learning rate makes one cycle (https://arxiv.org/abs/1708.07120). `augment` changes each
    batch of inputs before it is used. It stops early where `parameters` say so. The network is
    on the CPU afterwards. Raises Diverged when the loss is not a finite number, Unsuitable when
    the parameters do not go together with the rows or the machine.
    """
    rows, validation = _cut(train, parameters.validation)
    _check(parameters, len(rows.inputs))
    steps_per_epoch = math.ceil(len(rows.inputs) / parameters.batch_size)
    steps = parameters.epochs * steps_per_epoch
    device = choose_device(parameters.device)
    network.to(device)
    optimizer = make_optimizer(network, parameters)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        parameters.learning_rate,
        total_steps=steps,
        # Plain SGD has a momentum of zero, and is to keep it.
        cycle_momentum=parameters.optimizer in ("momentum", "adam", "adamw"),
    )
    stop = EarlyStop(parameters.stop_loss, parameters.patience)
    average = AveragedModel(network, avg_fn=moving_average(parameters.ema_decay), use_buffers=True)
    average.update_parameters(network)  # the first time it copies the weights
    history = History([], [])
    with Progress(watch.title if watch else None, parameters.epochs, steps_per_epoch) as progress:
        for epoch in range(parameters.epochs):
            network.train()
            total = 0.0
            order = torch.randperm(len(rows.inputs))
            for step, batch in enumerate(
                torch.split(order, parameters.batch_size), start=epoch * steps_per_epoch
            ):
                inputs = rows.inputs[batch]
                if augment is not None:
                    inputs = augment(inputs, step / steps)
                step_loss = loss(network(inputs.to(device)), rows.targets[batch].to(device))
                if not step_loss.isfinite().all():
                    raise Diverged(
                        f"the loss became {step_loss.mean().item()} at step {step + 1} "
                        f"(epoch {epoch + 1}): nothing was saved; is the learning rate too high, "
                        "or a value in the data not a number?"
                    )
                optimizer.zero_grad()
                step_loss.sum().backward()  # type: ignore[no-untyped-call]  # torch has no types for it
                optimizer.step()
                schedule.step()
                average.update_parameters(network)
                total += step_loss.mean().item() * len(batch)
                progress.step()
            history.loss.append(total / len(order))
            if watch is not None:
                held_out, outputs = _measured(average.module, watch.rows, loss)
                history.held_out.append(held_out)
                measure = partial(_metrics, watch, outputs)
                progress.epoch(epoch + 1, history.loss[-1], held_out, measure)
            watched = history.loss[-1]
            if validation is not None:
                watched, _ = _measured(average.module, validation, loss)
            if stop.now(average.module, watched):
                break
    stop.restore(average.module)
    network.load_state_dict(average.module.state_dict())
    network.cpu()
    return history


def _cut(train: Rows, share: float) -> tuple[Rows, Rows | None]:
    """Cut a random share of the rows off, to be watched rather than trained on."""
    if share == 0:
        return train, None
    order = torch.randperm(len(train.inputs))
    cut = max(1, round(share * len(order)))
    return train.take(order[cut:]), train.take(order[:cut])


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


def _measured(network: nn.Module, rows: Rows, loss: Loss) -> tuple[float, list[Tensor]]:
    """Return the mean loss of rows that the network does not learn from, and its outputs."""
    device = next(network.parameters()).device
    network.eval()
    total, outputs = 0.0, []
    with torch.inference_mode():
        for inputs, targets in zip(
            torch.split(rows.inputs, EVALUATION_BATCH),
            torch.split(rows.targets, EVALUATION_BATCH),
            strict=True,
        ):
            outputs.append(network(inputs.to(device)))
            batch_loss = loss(outputs[-1], targets.to(device))
            total += batch_loss.mean().item() * len(inputs)
    return total / len(rows.inputs), [batch.cpu() for batch in outputs]


def _metrics(watch: Watch, outputs: Sequence[Tensor]) -> dict[str, float]:
    with torch.inference_mode():
        return metrics(_joined([watch.answer(batch) for batch in outputs]), watch.targets)


def moving_average(decay: float) -> Callable[[Tensor, Tensor, Tensor | int], Tensor]:
    """Return how AveragedModel takes in a step: as an exponential moving average with this decay.

    It forgets faster in the first steps, as TensorFlow's does
    (https://www.tensorflow.org/api_docs/python/tf/train/ExponentialMovingAverage). With a decay
    of 0 it is the network itself. So are counts, which have no mean.
    """

    def average(mean: Tensor, live: Tensor, steps: Tensor | int) -> Tensor:
        share = min(decay, (1 + int(steps)) / (10 + int(steps)))
        return mean.lerp(live, 1 - share) if decay and live.is_floating_point() else live

    return average


class EarlyStop:
    """Watch a loss, and keep the weights of its best epoch where patience may end training."""

    def __init__(self, stop_loss: float, patience: int) -> None:
        self.stop_loss, self.patience = stop_loss, patience
        self.best = math.inf
        self.best_state: Mapping[str, Tensor] | None = None
        self.waited = 0  # epochs since the best one

    def now(self, network: nn.Module, watched: float) -> bool:
        """Record the loss of an epoch, and return whether to stop after it."""
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
    """Return the device of a name in DEVICES. Raises Unsuitable where there is no CUDA device."""
    if name == "cuda" and not torch.cuda.is_available():
        raise Unsuitable("expected a CUDA device for device cuda, got none that PyTorch can use")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def make_optimizer(network: nn.Module, parameters: Hyperparameters) -> torch.optim.Optimizer:
    """Build the optimizer of a name in OPTIMIZERS, with PyTorch's own defaults for the rest.

    Weight decay is decoupled from the gradient in adamw (https://arxiv.org/abs/1711.05101), and
    included in it in the others.
    """
    optimizers: dict[str, Callable[..., torch.optim.Optimizer]] = {
        "sgd": torch.optim.SGD,
        "momentum": partial(torch.optim.SGD, momentum=MOMENTUM),
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
        "rmsprop": torch.optim.RMSprop,
        "adagrad": torch.optim.Adagrad,
    }
    return optimizers[parameters.optimizer](
        network.parameters(), lr=parameters.learning_rate, weight_decay=parameters.weight_decay
    )


def answers(network: nn.Module, inputs: Tensor) -> tuple[Tensor, ...]:
    """Run the network without learning: float32 (n, ...) -> its answers, each (n, ...).

    The first is the probabilities or the values; a second, if there is one, their intervals.
    """
    network.eval()
    with torch.inference_mode():
        return _joined([network(batch) for batch in torch.split(inputs, EVALUATION_BATCH)])


def _joined(batches: Sequence[Tensor | tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    parts = [(batch,) if isinstance(batch, Tensor) else batch for batch in batches]
    return tuple(torch.cat(part) for part in zip(*parts, strict=True))


def evaluate(network: nn.Module, rows: Rows) -> dict[str, float]:
    """Measure the network's answers against the targets of rows it has not seen: see metrics."""
    return metrics(answers(network, rows.inputs), rows.targets)


def metrics(answered: tuple[Tensor, ...], targets: Tensor) -> dict[str, float]:
    """Measure answers, as `answers` gives them, against targets, as in Rows.

    Labels give `accuracy`, the share of right answers. Numbers give `rmse` and `mae`, in the
    unit of the target, and `r2`, the share of the variance explained, where there is any;
    intervals give `interval_coverage`, the share of targets inside, and `interval_width`, the
    mean.
    """
    answer, *intervals = answered
    if targets.is_floating_point():
        errors = answer - targets
        squares = errors.square().mean()
        measured = {"rmse": squares.sqrt(), "mae": errors.abs().mean()}
        variance = targets.var(correction=0)
        if variance > 0:
            measured["r2"] = 1 - squares / variance
        for interval in intervals:
            lower, upper = interval.unbind(dim=2)  # (n, targets, 2) -> (n, targets) each
            inside = (lower <= targets) & (targets <= upper)
            measured["interval_coverage"] = inside.double().mean()
            measured["interval_width"] = (upper - lower).mean()
    else:
        right = answer.argmax(dim=1) == targets  # (n, classes) -> (n,)
        measured = {"accuracy": right.double().mean()}
    return {name: _rounded(value.item()) for name, value in measured.items()}


def _rounded(value: float) -> float:
    """Four digits after the point, and three that count where the value is small."""
    return round(value, 4) if abs(value) >= 0.1 else float(f"{value:.3g}")
