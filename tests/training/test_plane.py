import msgspec
import numpy as np
import pytest
import torch
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex
from matplotlib.contour import ContourSet
from torch import Tensor, nn

from training.export import Candidate
from training.plane import boundary_figure
from training.plot_style import BLUE, VERMILLION
from training.plots import draw
from training.rows import Rows


def test_title_counts_the_rows_on_their_side_of_the_border(
    classifier: Candidate, clouds: Rows
) -> None:
    wrong = Rows(inputs=clouds.inputs[:12], targets=(clouds.targets[:12] + 1) % 3)
    figure = boundary_figure(classifier.network, classifier.card, clouds, wrong)
    assert figure.axes[0].get_title() == "0 of 12 held-out points lie on their side of the border"
    figure = boundary_figure(classifier.network, classifier.card, clouds, clouds)
    assert figure.axes[0].get_title() == "120 of 120 points lie on their side of the border"

    axes = figure.axes[0]
    assert [axes.get_xlabel(), axes.get_ylabel()] == ["x (m)", "y (m)"]


class Nearest(nn.Module):
    """Gives each point of the plane the label of the nearest middle."""

    def __init__(self, middles: Tensor) -> None:
        super().__init__()
        self.middles = middles

    def forward(self, rows: Tensor) -> Tensor:
        return (-torch.cdist(rows, self.middles)).softmax(dim=1)


@pytest.mark.slow
@pytest.mark.parametrize("labels", [2, pytest.param(3, marks=pytest.mark.slow), 9])
def test_plane_is_drawn_of_any_number_of_labels(labels: int, classifier: Candidate) -> None:
    x = torch.arange(labels).float()
    middles = torch.stack([x, x**2], dim=1)
    middles[-1] = 1e6  # a label that is the answer nowhere
    rows = Rows(inputs=middles[:-1].repeat(2, 1), targets=torch.arange(labels - 1).repeat(2))
    names = [f"$\\label {number}$" for number in range(labels)]  # no formula
    card = msgspec.structs.replace(classifier.card, labels=names)
    *_, plane = draw(Nearest(middles), card, rows, rows, None)
    assert plane.picture.file == "boundary.png"
    figure = boundary_figure(Nearest(middles), card, rows, rows)
    (legend,) = figure.legends
    keys = [text.get_text() for text in legend.get_texts()]
    assert keys == [*(f"label {name}" for name in names), "trained on and measured on"]
    colours = [line.get_markerfacecolor() for line in legend.get_lines()]
    assert len(set(colours)) == labels + 1


def test_border_runs_where_two_labels_are_as_probable(classifier: Candidate) -> None:
    middles = torch.tensor([[0.0, 0.0], [4.0, 0.0]])
    points = torch.tensor([[0.0, 0.0], [0.0, 3.0], [4.0, 0.0], [4.0, 3.0]])
    card = msgspec.structs.replace(classifier.card, labels=["left", "right"])
    train = Rows(inputs=points, targets=torch.tensor([0, 0, 1, 1]))
    held_out = Rows(inputs=points[:2] + 1, targets=torch.tensor([0, 1]))
    figure = boundary_figure(Nearest(middles), card, train, held_out)
    assert figure.axes[0].get_title() == "1 of 2 held-out points lie on their side of the border"
    axes = figure.axes[0]
    *_, border = [each for each in axes.collections if isinstance(each, ContourSet)]
    filled, hollow = [each for each in axes.collections if isinstance(each, PathCollection)]
    across, _ = np.concatenate([path.vertices for path in border.get_paths()]).T
    assert across == pytest.approx(2, abs=0.05)
    assert np.asarray(filled.get_offsets()).tolist() == points.tolist()
    assert np.asarray(hollow.get_offsets()).tolist() == (points[:2] + 1).tolist()
    assert to_hex(np.asarray(filled.get_facecolor())[0]) == BLUE
    assert to_hex(np.asarray(hollow.get_facecolor())[0]) == "#ffffff"
    assert to_hex(np.asarray(hollow.get_edgecolor())[1]) == VERMILLION
