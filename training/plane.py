"""The plot of a model of two features: the plane, the answers over it, and the rows."""

from collections.abc import Sequence

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor, nn

from service.card import Card
from training.loop import answers
from training.plot_style import DARK, LABEL_COLOURS, LETTER, WIDTH, named, shortened
from training.rows import Rows

GRID = 200  # points of the plane along each side
MARGIN = 0.2  # how far the plane reaches beyond the points, in shares of their extent


def boundary_figure(network: nn.Module, card: Card, train: Rows, held_out: Rows) -> Figure:
    """Draw the answers over the plane of the two features, the border, and the rows.

    For two labels it shows how probable they are, for more only which one is the answer.
    """
    same = torch.equal(train.inputs, held_out.inputs)
    points = torch.cat([train.inputs, held_out.inputs])  # (n, 2)
    x, y = (_reach(values) for values in points.unbind(dim=1))  # (GRID,) each
    plane = torch.cartesian_prod(y, x).flip(1)  # (GRID * GRID, 2), a line of the plot at a time
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
    axes.set(xlabel=named(card.features[0]), ylabel=named(card.features[1]))
    _legend(figure, card.labels, colours, same=same)
    given = answers(network, held_out.inputs)[0].argmax(dim=1)  # (n, labels) -> (n,)
    right = int((given == held_out.targets).sum())
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
        bar.set_label(f"probability of {shortened(labels[1])}")
    for label, tint in enumerate(tints):
        others = probabilities.clone()
        others[:, :, label] = -1
        lead = probabilities[:, :, label] - others.amax(dim=2)  # (GRID, GRID), above 0 where it won
        if len(labels) > 2:
            axes.contourf(*sides, lead, levels=[0, 2], colors=[tint])
        axes.contour(*sides, lead, levels=[0], colors=[DARK], linewidths=1.5)


def _tint(colour: str) -> str:
    red, green, blue = (1 - 0.45 * (1 - share) for share in to_rgb(colour))
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
        (f"label {shortened(label)}", "s", colour, colour)
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
