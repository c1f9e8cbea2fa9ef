"""Draw the pictures of one training: how the loss went, and what the network answers.

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
from matplotlib.colors import LinearSegmentedColormap, PowerNorm, to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from msgspec import Struct
from PIL import Image
from torch import Tensor, nn

from service.card import Card, Feature, Picture, Target
from training.data import Rows
from training.loop import History, answers

WIDTH = 6.5  # inches
LETTER = 6.5  # points that a letter is wide, about; there are 72 to an inch
DOTS_PER_INCH = 110
STYLE = {
    "figure.dpi": DOTS_PER_INCH,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.w_pad": 0.1,
    "figure.constrained_layout.h_pad": 0.1,
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "text.parse_math": False,  # a label may hold a dollar sign
}

# What everybody can tell apart: M. Okabe and K. Ito, https://jfly.uni-koeln.de/color/
BLUE, VERMILLION, GREEN, ORANGE = "#0072b2", "#d55e00", "#009e73", "#e69f00"
PURPLE, SKY, YELLOW, DARK = "#cc79a7", "#56b4e9", "#f0e442", "#333333"
LABEL_COLOURS = (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY, YELLOW)

LABELS_FOR_PAIRS = 5  # with fewer, the matrix says it all
PAIRS = 10  # of labels, at most, that are shown
LONGEST_NAME = 24  # characters of a label that are written
GRID = 200  # points of the plane along each side
MARGIN = 0.2  # how far the plane reaches beyond the points, in parts of their extent
FEW_EPOCHS = 50  # so few get a marker each


class Drawing(Struct, frozen=True):
    """A picture as the card lists it, and its content, a PNG file."""

    picture: Picture
    content: bytes


def draw(
    network: nn.Module, card: Card, train: Rows, held_out: Rows, history: History | None
) -> list[Drawing]:
    """Draw all that can be drawn of this training; of what is not there, nothing.

    network: on the CPU, raw units -> answers, as `answers` takes it.
    """
    answered = answers(network, held_out.inputs)
    drawings = []
    with matplotlib.style.context(["default", STYLE]):
        if history is not None:
            drawings.append(_drawing("loss.png", "Loss of each epoch", loss_figure(history)))
        if card.task == "regression":
            title = "Predicted against actual values of the held-out rows"
            figure = predicted_figure(card, answered, held_out.targets)
            return [*drawings, _drawing("predicted.png", title, figure)]
        counts = confusion(answered[0], held_out.targets)
        title = "True and given labels of the held-out rows"
        drawings.append(_drawing("confusion.png", title, confusion_figure(counts, card.labels)))
        if len(card.labels) >= LABELS_FOR_PAIRS and (pairs := most_confused(counts, PAIRS)):
            figure = confused_figure(pairs, counts, card.labels)
            drawings.append(_drawing("confused.png", "Labels most often confused", figure))
        if len(card.features) == 2:
            title = "Answers over the plane of the two inputs, and the border between the labels"
            figure = boundary_figure(network, card, train, held_out)
            drawings.append(_drawing("boundary.png", title, figure))
    return drawings


def _drawing(file: str, title: str, figure: Figure) -> Drawing:
    figure.draw_without_rendering()  # the first layout does not know all numbers on the axes yet
    full, content = io.BytesIO(), io.BytesIO()
    figure.savefig(full, format="png")
    # With a palette it takes a third of the bytes, and without Matplotlib's version in it.
    image = Image.open(full).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    image.save(content, format="png", optimize=True)
    return Drawing(Picture(file=file, title=title), content.getvalue())


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
    # Not in proportion, or the mistakes of a good network would all look alike.
    norm = PowerNorm(0.5, vmin=0, vmax=1)
    right = np.eye(size, dtype=bool)
    for cells, pale, full in ((right, "#d6e8f4", BLUE), (~right, "#fce3d0", VERMILLION)):
        shown = np.where(cells & (shares > 0), shares, np.nan)
        colours = LinearSegmentedColormap.from_list("", [pale, full])
        axes.imshow(shown, cmap=colours, norm=norm, aspect="auto")
    names = [_shortened(label) for label in labels]
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

    counts: as `confusion` gives them. Of equal ones the first in the matrix comes first.
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
    names = [_shortened(label) for label in labels]
    told = [(names[pair.true], names[pair.given]) for pair in pairs]
    long = max(len(true + given) for true, given in told) > LONGEST_NAME
    between = "\nread as " if long else " read as "
    figure = Figure(figsize=(WIDTH, 0.8 + (0.5 if long else 0.34) * len(pairs)))
    axes = figure.add_subplot()
    lengths = [pair.count for pair in pairs]
    bars = axes.barh(range(len(pairs)), lengths, color=ORANGE, height=0.7)
    of = counts.sum(dim=1).tolist()
    axes.bar_label(bars, [f"{pair.count:,} of {of[pair.true]:,}" for pair in pairs], padding=4)
    axes.set_yticks(range(len(pairs)), [true + between + given for true, given in told])
    axes.set_xticks([])
    axes.set(xlim=(0, lengths[0]), ylim=(len(pairs) - 0.5, -0.5))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    mistakes = int(counts.sum() - counts.trace())
    title = f"The most frequent mistakes: {sum(lengths):,} of all {mistakes:,}"
    figure.suptitle(title, x=0.02, ha="left", size=12)  # long names leave no room over the bars
    return figure


def boundary_figure(network: nn.Module, card: Card, train: Rows, held_out: Rows) -> Figure:
    """Draw the answers over the plane of the two features, the border, and the rows.

    Of two labels it shows how probable they are, of more only which one is the answer.
    """
    same = torch.equal(train.inputs, held_out.inputs)
    points = torch.cat([train.inputs, held_out.inputs])  # (n, 2)
    x, y = (_reach(values) for values in points.unbind(dim=1))  # (GRID,) each
    plane = torch.cartesian_prod(y, x).flip(1)  # (GRID * GRID, 2), a row of the picture at a time
    probabilities = answers(network, plane)[0].reshape(GRID, GRID, -1)  # (GRID, GRID, labels)
    one_unit = card.features[0].unit == card.features[1].unit
    slope = float((y[-1] - y[0]) / (x[-1] - x[0])) if one_unit else 0.75
    figure = Figure(figsize=(WIDTH, 1.3 + 4.5 * min(1.0, max(0.4, slope))))
    axes = figure.add_subplot(aspect="equal" if one_unit else "auto")
    colours = _label_colours(len(card.labels))
    _shade(figure, axes, (x, y), probabilities, card.labels, colours)
    area = min(200.0, max(8.0, 9000 / len(points)))
    _points(axes, train, colours, area, filled=True)
    if not same:
        _points(axes, held_out, colours, area, filled=False)
    axes.set(xlabel=_named(card.features[0]), ylabel=_named(card.features[1]))
    _legend(figure, card.labels, colours, same=same)
    right = int(confusion(answers(network, held_out.inputs)[0], held_out.targets).trace())
    which = "points" if same else "held-out points"
    axes.set_title(f"{right:,} of {len(held_out.inputs):,} {which} lie on their side of the border")
    return figure


def _reach(values: Tensor) -> Tensor:
    low, high = values.min().item(), values.max().item()
    margin = MARGIN * (high - low) or 1.0
    return torch.linspace(low - margin, high + margin, GRID)


def _label_colours(count: int) -> list[str]:
    if count <= len(LABEL_COLOURS):
        return list(LABEL_COLOURS[:count])
    return [to_hex(colour) for colour in matplotlib.colormaps["viridis"](np.linspace(0, 1, count))]


def _shade(
    figure: Figure,
    axes: Axes,
    sides: tuple[Tensor, Tensor],
    probabilities: Tensor,
    labels: Sequence[str],
    colours: Sequence[str],
) -> None:
    """Colour the plane, and draw a line where one label takes over from another."""
    tints = [_tint(colour) for colour in colours]
    if len(labels) == 2:
        shades = LinearSegmentedColormap.from_list("", [tints[0], "white", tints[1]])
        second = probabilities[:, :, 1].clamp(0, 1)
        filled = axes.contourf(*sides, second, levels=np.linspace(0, 1, 11), cmap=shades)
        beside = axes.inset_axes((1.04, 0, 0.04, 1))  # as high as the plane
        bar = figure.colorbar(filled, cax=beside, ticks=[0, 0.5, 1])
        bar.set_label(f"probability of {_shortened(labels[1])}")
    for label, tint in enumerate(tints):
        others = probabilities.clone()
        others[:, :, label] = -1
        lead = probabilities[:, :, label] - others.amax(dim=2)  # (GRID, GRID), above 0 where it won
        if len(labels) > 2:
            axes.contourf(*sides, lead, levels=[0, 2], colors=[tint])
        axes.contour(*sides, lead, levels=[0], colors=[DARK], linewidths=1.5)


def _tint(colour: str) -> str:
    red, green, blue = (1 - 0.45 * (1 - part) for part in to_rgb(colour))
    return to_hex((red, green, blue))


def _points(axes: Axes, rows: Rows, colours: Sequence[str], area: float, *, filled: bool) -> None:
    x, y = rows.inputs.unbind(dim=1)
    own = [colours[label] for label in rows.targets.tolist()]
    if filled:
        axes.scatter(x, y, s=area, c=own, edgecolors="white", linewidths=0.6)
    else:
        axes.scatter(x, y, s=area, c="white", edgecolors=own, linewidths=1.6)


def _legend(figure: Figure, labels: Sequence[str], colours: Sequence[str], *, same: bool) -> None:
    entries = [
        (f"label {_shortened(label)}", "s", colour, colour)
        for label, colour in zip(labels, colours, strict=True)
    ]
    entries.append(("trained on and measured on" if same else "trained on", "o", DARK, DARK))
    if not same:
        entries.append(("held out", "o", "white", DARK))
    keys = [
        Line2D([], [], ls="", marker=marker, ms=8, mfc=face, mec=edge, label=name)
        for name, marker, face, edge in entries
    ]
    lengths = [len(name) + 4 for name, *_ in entries]  # with the marker and the space between
    room = WIDTH * 72 / LETTER
    columns = len(keys) if sum(lengths) < room else max(1, int(room / max(lengths)))
    figure.legend(
        handles=keys,
        loc="outside lower center",
        ncols=columns,
        columnspacing=1.2,
        handletextpad=0.2,
        borderaxespad=0,
    )


def predicted_figure(card: Card, answered: tuple[Tensor, ...], actual: Tensor) -> Figure:
    """Draw what was predicted of each target against what is true, a panel each.

    answered: values (n, targets) and, where there are any, intervals (n, targets, 2).
    actual: (n, targets).
    """
    panels = len(card.targets)
    figure = Figure(figsize=(WIDTH, 6.2 * panels))
    for k, target in enumerate(card.targets):
        axes = figure.add_subplot(panels, 1, k + 1)
        said, *bounds = (part[:, k] for part in answered)  # (n,), and (n, 2) where there are any
        title = f"RMSE {_number((said - actual[:, k]).square().mean().sqrt().item())}"
        if card.interval is None:
            axes.scatter(actual[:, k], said, s=20, color=BLUE)
        else:
            held = inside(actual[:, k], bounds[0])
            title += f"; {int(held.sum()):,} of {len(held):,} in their "
            title += f"{100 * card.interval.coverage:.4g} % interval"
            _intervals(axes, said, bounds[0], actual[:, k], held)
        _diagonal(axes, torch.cat([actual[:, k], said, *(ends.flatten() for ends in bounds)]))
        axes.set_title(title)
        axes.set(xlabel=f"actual {_named(target)}", ylabel=f"predicted {_named(target)}")
    return figure


def _intervals(axes: Axes, said: Tensor, bounds: Tensor, actual: Tensor, held: Tensor) -> None:
    for name, which, colour, marker in (
        ("inside", held, BLUE, "o"),
        ("outside", ~held, VERMILLION, "D"),
    ):
        low, high = bounds[which].unbind(dim=1)
        axes.vlines(actual[which], low, high, color=colour, linewidth=0.9, alpha=0.5)
        label = f"{name} the interval: {int(which.sum()):,}"
        axes.scatter(actual[which], said[which], s=20, color=colour, marker=marker, label=label)
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
    """Say of each value, (n,), whether it lies within its bounds, (n, 2): bool (n,)."""
    low, high = bounds.unbind(dim=1)
    return (low <= actual) & (actual <= high)


def _named(column: Feature | Target) -> str:
    return f"{column.name} ({column.unit})" if column.unit else column.name


def _shortened(name: str) -> str:
    """Cut the middle out of a long name: names often differ at their ends."""
    if len(name) <= LONGEST_NAME:
        return name
    half = (LONGEST_NAME - 1) // 2
    return f"{name[:half]}…{name[-half:]}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if 1000 <= abs(value) < math.inf else f"{value:.3g}"
