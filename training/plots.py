"""Draw the plots of one training: its losses, and what the network answers.

Equal input gives equal bytes, whatever the user's matplotlibrc says: nothing but the numbers is
drawn, and no date or version is written into a file.
"""

import io
import math
from collections.abc import Sequence

import matplotlib
import matplotlib.style
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from msgspec import Struct
from PIL import Image
from torch import Tensor, nn

from service.card import Card, Picture
from training.loop import History, answers
from training.plane import boundary_figure
from training.plot_style import (
    BLUE,
    DARK,
    LETTER,
    LONGEST_NAME,
    ORANGE,
    STYLE,
    VERMILLION,
    WIDTH,
    named,
    shortened,
)
from training.rows import Rows

LABELS_FOR_PAIRS = 5  # with fewer the matrix is enough
PAIRS = 10  # of labels, at most, that are shown
FEW_EPOCHS = 50  # so few get a marker each


class Plot(Struct, frozen=True):
    """A plot as the card lists it, and its content, a PNG file."""

    picture: Picture
    content: bytes


def draw(
    network: nn.Module, card: Card, train: Rows, held_out: Rows, history: History | None
) -> list[Plot]:
    """Draw all plots that there are of this training, in the order of the card.

    network: on the CPU, raw units -> answers, as `answers` takes it.
    """
    answered = answers(network, held_out.inputs)
    plots = []
    with matplotlib.style.context(["default", STYLE]):
        if history is not None:
            plots.append(_plot("loss.png", "Loss of each epoch", loss_figure(history)))
        if card.task == "regression":
            title = "Predicted against actual values of the held-out rows"
            figure = predicted_figure(card, answered, held_out.targets)
            return [*plots, _plot("predicted.png", title, figure)]
        counts = confusion(answered[0], held_out.targets)
        title = "True and given labels of the held-out rows"
        plots.append(_plot("confusion.png", title, confusion_figure(counts, card.labels)))
        if len(card.labels) >= LABELS_FOR_PAIRS and (pairs := most_confused(counts, PAIRS)):
            figure = confused_figure(pairs, counts, card.labels)
            plots.append(_plot("confused.png", "Labels most often confused", figure))
        if len(card.features) == 2:
            title = "Answers over the plane of the two inputs, and the border between the labels"
            figure = boundary_figure(network, card, train, held_out)
            plots.append(_plot("boundary.png", title, figure))
    return plots


def _plot(file: str, title: str, figure: Figure) -> Plot:
    figure.draw_without_rendering()  # the first layout does not know all numbers on the axes yet
    full, content = io.BytesIO(), io.BytesIO()
    figure.savefig(full, format="png")
    # With a palette it takes a third of the bytes, and without Matplotlib's version in it.
    image = Image.open(full).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    image.save(content, format="png", optimize=True)
    return Plot(Picture(file=file, title=title), content.getvalue())


def loss_figure(history: History) -> Figure:
    """Draw the loss over the epochs, on a scale of logarithms where it spans a factor of ten."""
    figure = Figure(figsize=(WIDTH, 3.8))
    axes = figure.add_subplot()
    epochs = max(len(history.loss), len(history.held_out))
    for name, losses, colour in (
        ("training", history.loss, ORANGE),
        ("held out", history.held_out, BLUE),
    ):
        if losses:
            line = "o-" if epochs <= FEW_EPOCHS else "-"
            numbers = range(1, len(losses) + 1)
            axes.plot(numbers, losses, line, ms=4, lw=1.2, color=colour, label=name)
    name, losses = (
        ("Held-out", history.held_out) if history.held_out else ("Training", history.loss)
    )
    axes.set_title(
        f"{name} loss: {_number(losses[0])} after epoch 1"
        + (f", {_number(losses[-1])} after epoch {len(losses)}" if len(losses) > 1 else "")
    )
    axes.set(xlabel="epoch", ylabel="loss of each epoch")
    if epochs == 1:
        axes.set_xlim(0, 2)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    _scale(axes, [*history.loss, *history.held_out])
    axes.grid(axis="y", color="0.9")
    axes.legend()
    return figure


def _scale(axes: Axes, losses: Sequence[float]) -> None:
    finite = [loss for loss in losses if math.isfinite(loss)]
    if not finite or min(finite) <= 0 or max(finite) <= 10 * min(finite):
        return
    axes.set_yscale("log")
    steps = (1, 2, 5) if max(finite) <= 1000 * min(finite) else (1,)
    axes.yaxis.set_major_locator(LogLocator(subs=steps))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def confusion(probabilities: Tensor, targets: Tensor) -> Tensor:
    """Count how often each true label, down, was given each label, across: int64 (labels, labels).

    probabilities: (n, labels). targets: int64 (n,).
    """
    labels = probabilities.shape[1]
    given = probabilities.argmax(dim=1)  # (n, labels) -> (n,)
    cells = torch.bincount(targets * labels + given, minlength=labels**2)
    return cells.reshape(labels, labels)


def confusion_figure(counts: Tensor, labels: Sequence[str]) -> Figure:
    """Draw the counts, as `confusion` gives them: right answers blue, wrong ones red."""
    size = len(labels)
    figure = Figure(figsize=(WIDTH, min(7.0, 2.5 + 0.42 * size)))
    axes = figure.add_subplot(facecolor="0.96")
    shares = (counts / counts.sum(dim=1, keepdim=True).clamp(min=1)).numpy()
    # Not in proportion, or the mistakes of a good network would all have one colour.
    norm = PowerNorm(0.5, vmin=0, vmax=1)
    right = np.eye(size, dtype=bool)
    for cells, pale, full in ((right, "#d6e8f4", BLUE), (~right, "#fce3d0", VERMILLION)):
        shown = np.where(cells & (shares > 0), shares, np.nan)
        colours = LinearSegmentedColormap.from_list("", [pale, full])
        axes.imshow(shown, cmap=colours, norm=norm, aspect="auto")
    names = [shortened(label) for label in labels]
    longest = LETTER * max(map(len, names))
    cell = (WIDTH * 72 - 70 - longest) / size  # points across, about
    fits = min(11.0, 1.4 * cell / len(str(int(counts.max()))))
    for i, j in np.ndindex(size, size):
        colour = "white" if shares[i, j] > 0.3 else "black" if counts[i, j] else "0.6"
        axes.text(j, i, str(int(counts[i, j])), color=colour, size=fits, ha="center", va="center")
    axes.set_yticks(range(size), names)
    if longest < cell:
        axes.set_xticks(range(size), names)
    else:
        # Two lines at 45 degrees touch where the cells are narrower than a line and a half.
        axes.set_xticks(range(size), names, ha="right", va="center", rotation_mode="anchor")
        axes.tick_params(axis="x", rotation=45 if cell > 20 else 90)
    axes.set_xticks(np.arange(size - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(size - 1) + 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    axes.set(xlabel="label given", ylabel="true label")
    rows, correct = int(counts.sum()), int(counts.trace())
    share = f"{100 * correct / rows:.4g} %"
    axes.set_title(f"{correct:,} of {rows:,} held-out rows are right: {share}")
    return figure


class Pair(Struct, frozen=True):
    """How often rows of one true label were given another one, both as indices."""

    true: int
    given: int
    count: int


def most_confused(counts: Tensor, most: int) -> list[Pair]:
    """Return the wrong cells of a confusion matrix that are not empty, the largest first.

    counts: as `confusion` gives them. Among equal ones the first in the matrix comes first.
    """
    pairs = [
        Pair(i, j, count)
        for i, row in enumerate(counts.tolist())
        for j, count in enumerate(row)
        if i != j and count
    ]
    return sorted(pairs, key=lambda pair: -pair.count)[:most]


def confused_figure(pairs: Sequence[Pair], counts: Tensor, labels: Sequence[str]) -> Figure:
    """Draw pairs of labels as bars, each with its count and the rows of the true label."""
    names = [shortened(label) for label in labels]
    confused = [(names[pair.true], names[pair.given]) for pair in pairs]
    long = max(len(true + given) for true, given in confused) > LONGEST_NAME
    between = "\nread as " if long else " read as "
    figure = Figure(figsize=(WIDTH, 0.8 + (0.5 if long else 0.34) * len(pairs)))
    axes = figure.add_subplot()
    lengths = [pair.count for pair in pairs]
    bars = axes.barh(range(len(pairs)), lengths, color=ORANGE, height=0.7)
    of = counts.sum(dim=1).tolist()
    axes.bar_label(bars, [f"{pair.count:,} of {of[pair.true]:,}" for pair in pairs], padding=4)
    axes.set_yticks(range(len(pairs)), [true + between + given for true, given in confused])
    axes.set_xticks([])
    axes.set(xlim=(0, lengths[0]), ylim=(len(pairs) - 0.5, -0.5))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    mistakes = int(counts.sum() - counts.trace())
    title = f"The most frequent mistakes: {sum(lengths):,} of all {mistakes:,}"
    figure.suptitle(title, x=0.02, ha="left", size=12)  # long names leave no room over the bars
    return figure


def predicted_figure(card: Card, answered: tuple[Tensor, ...], actual: Tensor) -> Figure:
    """Draw what was predicted of each target against what is true, a panel each.

    answered: values (n, targets) and, where there are any, intervals (n, targets, 2).
    actual: (n, targets).
    """
    panels = len(card.targets)
    figure = Figure(figsize=(WIDTH, 6.2 * panels))
    for k, target in enumerate(card.targets):
        axes = figure.add_subplot(panels, 1, k + 1)
        predicted, *bounds = (each[:, k] for each in answered)  # (n,), and (n, 2) if there are any
        title = f"RMSE {_number((predicted - actual[:, k]).square().mean().sqrt().item())}"
        if card.interval is None:
            axes.scatter(actual[:, k], predicted, s=20, color=BLUE)
        else:
            held = inside(actual[:, k], bounds[0])
            title += f"; {int(held.sum()):,} of {len(held):,} in their "
            title += f"{100 * card.interval.coverage:.4g} % interval"
            _intervals(axes, predicted, bounds[0], actual[:, k], held)
        _diagonal(axes, torch.cat([actual[:, k], predicted, *(ends.flatten() for ends in bounds)]))
        axes.set_title(title)
        axes.set(xlabel=f"actual {named(target)}", ylabel=f"predicted {named(target)}")
    return figure


def _intervals(axes: Axes, predicted: Tensor, bounds: Tensor, actual: Tensor, held: Tensor) -> None:
    for name, which, colour, marker in (
        ("inside", held, BLUE, "o"),
        ("outside", ~held, VERMILLION, "D"),
    ):
        low, high = bounds[which].unbind(dim=1)
        axes.vlines(actual[which], low, high, color=colour, linewidth=0.9, alpha=0.5)
        label = f"{name} the interval: {int(which.sum()):,}"
        points = actual[which], predicted[which]
        axes.scatter(*points, s=20, color=colour, marker=marker, label=label)
    axes.legend(loc="upper left")


def _diagonal(axes: Axes, values: Tensor) -> None:
    """Give both axes the reach of the values, and draw the line of the true ones."""
    low, high = values.min().item(), values.max().item()
    margin = 0.05 * (high - low) or 1.0
    reach = (low - margin, high + margin)
    axes.plot(reach, reach, color=DARK, linewidth=1, zorder=0)
    axes.set(xlim=reach, ylim=reach, aspect="equal")
    axes.locator_params(nbins=7)


def inside(actual: Tensor, bounds: Tensor) -> Tensor:
    """Return whether each value, (n,), lies within its bounds, (n, 2): bool (n,)."""
    low, high = bounds.unbind(dim=1)
    return (low <= actual) & (actual <= high)


def _number(value: float) -> str:
    return f"{value:,.0f}" if 1000 <= abs(value) < math.inf else f"{value:.3g}"
