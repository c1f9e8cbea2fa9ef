import io
import math
from itertools import pairwise

import msgspec
import numpy as np
import pytest
import torch
from matplotlib import rc_context
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from PIL import Image as Pillow
from torch import Tensor, nn

from service.card import Card, Interval
from training import plots
from training.export import Candidate
from training.loop import History
from training.plots import Pair, confusion, draw, inside, loss_figure, most_confused
from training.rows import Rows

HISTORY = History([2.0, 0.5, 0.1], [1.5, 0.6, 0.2])


def rows_of(candidate: Candidate) -> Rows:
    """The clouds, or the plane over them."""
    inputs = candidate.rows
    if candidate.card.task == "regression":
        return Rows(inputs=inputs, targets=inputs[:, :1] + 2 * inputs[:, 1:])
    return Rows(inputs=inputs, targets=torch.arange(len(inputs)) % 3)


def drawn(candidate: Candidate, history: History | None = HISTORY) -> dict[str, bytes]:
    rows = rows_of(candidate)
    drawn_plots = draw(candidate.network, candidate.card, rows, rows, history)
    return {plot.picture.file: plot.content for plot in drawn_plots}


def texts(figure: Figure) -> list[str]:
    """All that is written in the first panel."""
    (axes, *_) = figure.axes
    title = axes.get_title(loc="left") or axes.get_title()  # the style of `draw` has it on the left
    return [title or figure.get_suptitle(), *(text.get_text() for text in axes.texts)]


# What is drawn of which model


def test_classifier_of_two_features_has_a_plane(classifier: Candidate) -> None:
    assert list(drawn(classifier)) == ["loss.png", "confusion.png", "boundary.png"]


def test_regressor_has_predicted_against_actual(regressor: Candidate) -> None:
    assert list(drawn(regressor)) == ["loss.png", "predicted.png"]


def test_without_a_history_there_is_no_plot_of_it(regressor: Candidate) -> None:
    assert list(drawn(regressor, None)) == ["predicted.png"]


class Answering(nn.Module):
    """Gives the answers it was given, one row each."""

    def __init__(self, *answers: Tensor) -> None:
        super().__init__()
        self.answers = answers

    def forward(self, rows: Tensor) -> Tensor | tuple[Tensor, ...]:
        return self.answers if len(self.answers) > 1 else self.answers[0]


def image_card(classifier: Candidate, labels: int) -> Card:
    names = [f"label {number}" for number in range(labels)]
    features = [classifier.card.features[0]] * 3
    return msgspec.structs.replace(classifier.card, labels=names, features=features)


@pytest.mark.parametrize(
    ("labels", "wrong", "has_pairs"), [(5, 1, True), (5, 0, False), (4, 1, False)]
)
@pytest.mark.slow
def test_pairs_are_shown_of_many_labels_if_any_were_confused(
    labels: int, wrong: int, has_pairs: bool, classifier: Candidate
) -> None:
    targets = torch.arange(40) % labels
    given = targets.clone()
    given[:wrong] = labels - 1
    rows = Rows(inputs=torch.zeros(40, 3), targets=targets)
    network = Answering(nn.functional.one_hot(given, labels).float())
    drawn_plots = draw(network, image_card(classifier, labels), rows, rows, None)
    files = [plot.picture.file for plot in drawn_plots]
    assert files == ["confusion.png", *(["confused.png"] if has_pairs else [])]


@pytest.mark.slow
def test_plots_are_legible_small_and_the_same_again(
    classifier: Candidate, regressor: Candidate
) -> None:
    for candidate in (classifier, regressor):
        first, again = drawn(candidate), drawn(candidate)
        assert first == again
        for name, content in first.items():
            image = Pillow.open(io.BytesIO(content))
            assert image.format == "PNG"
            assert 600 < image.width < 800, name
            assert 300 < image.height < 900, name
            assert len(np.unique(np.asarray(image.convert("L")))) > 10, name  # something is there
            assert nothing_is_cut_off(content), name
            assert len(content) < 60_000, name
            assert image.info.keys() <= {"dpi"}, name  # no date, no version


def nothing_is_cut_off(content: bytes) -> bool:
    pixels = np.asarray(Pillow.open(io.BytesIO(content)).convert("L"))  # (height, width)
    edges = (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1])
    return all((edge == 255).all() for edge in edges)  # white


@pytest.mark.slow
def test_users_own_style_changes_nothing(classifier: Candidate) -> None:
    first = drawn(classifier)
    with rc_context({"font.size": 30, "axes.facecolor": "black"}):
        assert drawn(classifier) == first


# The figures' numbers


def test_confusion_counts_true_labels_down_and_given_ones_across() -> None:
    given = torch.tensor([0, 1, 1, 2, 0])
    counts = confusion(nn.functional.one_hot(given, 4).float(), torch.tensor([0, 0, 1, 2, 2]))
    assert counts.tolist() == [[1, 1, 0, 0], [0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]


def test_most_confused_pairs_come_first_and_right_answers_never() -> None:
    counts = torch.tensor([[90, 2, 0], [5, 80, 2], [1, 0, 70]])
    assert most_confused(counts, 3) == [Pair(1, 0, 5), Pair(0, 1, 2), Pair(1, 2, 2)]
    assert most_confused(torch.eye(3), 3) == []


def test_matrix_shows_every_count_and_the_share_that_is_right() -> None:
    counts = torch.tensor([[90, 10], [0, 0]])  # one label was never held out
    title, *cells = texts(plots.confusion_figure(counts, ["a", "b"]))
    assert title == "90 of 100 held-out rows are right: 90 %"
    assert cells == ["90", "10", "0", "0"]


@pytest.mark.parametrize(("labels", "degrees"), [(3, 0), (8, 45), (20, 90)])
def test_names_of_labels_do_not_overlap(labels: int, degrees: int) -> None:
    names = ["abcdefghij" * (1 if labels == 3 else 2)] * labels
    figure = plots.confusion_figure(torch.eye(labels, dtype=torch.int64), names)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    across, down = axes.get_xticklabels(), axes.get_yticklabels()
    assert {label.get_rotation() for label in across} == {degrees}
    assert not any(a.overlaps(b) for a, b in pairwise(label.get_window_extent() for label in down))
    edges = np.array([label.get_window_extent() for label in across])  # (labels, 2, 2), pixels
    if degrees:
        distance = np.diff(edges[:, 1, 0]) * math.sin(math.radians(degrees))  # of two lines
        assert (distance > float(across[0].get_fontsize()) * figure.dpi / 72).all()
    else:
        assert (edges[:-1, 1, 0] < edges[1:, 0, 0]).all()


def test_right_answers_and_mistakes_differ_in_colour_and_empty_cells_have_none() -> None:
    figure = plots.confusion_figure(torch.tensor([[3, 1], [0, 4]]), ["a", "b"])
    (axes,) = figure.axes
    cells = [np.ma.array(each.get_array()).filled(-1).tolist() for each in axes.images]
    assert cells == [[[0.75, -1], [-1, 1]], [[-1, 0.25], [-1, -1]]]  # right, wrong


def test_bars_say_how_many_of_how_many() -> None:
    counts = torch.tensor([[90, 2, 0], [5, 80, 2], [1, 0, 70]])
    figure = plots.confused_figure(most_confused(counts, 2), counts, ["a", "b", "c"])
    title, *bars = texts(figure)
    assert title == "The most frequent mistakes: 7 of all 10"
    assert bars == ["5 of 87", "2 of 92"]
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["b read as a", "a read as b"]


def test_share_inside_the_intervals_is_in_the_title(regressor: Candidate) -> None:
    actual = torch.tensor([[1.0], [2.0], [3.0], [4.0]])
    bounds = torch.stack([actual - 1, actual + torch.tensor([[1.0], [0.0], [-0.5], [1.0]])], dim=2)
    assert inside(actual[:, 0], bounds[:, 0]).tolist() == [True, True, False, True]
    card = msgspec.structs.replace(regressor.card, interval=Interval(coverage=0.9))
    rows = Rows(inputs=torch.zeros(4, 2), targets=actual)
    (plot,) = draw(Answering(actual + 0.5, bounds), card, rows, rows, None)
    assert plot.picture.file == "predicted.png"
    figure = plots.predicted_figure(card, (actual + 0.5, bounds), actual)
    assert texts(figure)[0] == "RMSE 0.5; 3 of 4 in their 90 % interval"
    (axes,) = figure.axes
    points = [
        each for each in axes.get_legend_handles_labels()[0] if isinstance(each, PathCollection)
    ]
    inner, outer = (np.asarray(each.get_offsets()).tolist() for each in points)
    assert inner == [[1, 1.5], [2, 2.5], [4, 4.5]]
    assert outer == [[3, 3.5]]
    assert axes.get_xlim() == axes.get_ylim()
    assert axes.get_ylim()[0] < 0  # the lowest end of an interval
    assert axes.get_ylim()[1] > 5


def test_each_target_has_a_panel_with_its_unit_where_it_has_one(regressor: Candidate) -> None:
    (target,) = regressor.card.targets
    targets = [target, msgspec.structs.replace(target, name="w", unit="")]
    actual = torch.tensor([[1.0, 9000.0], [2.0, 5000.0]])
    predicted = actual + torch.tensor([[1.0, 2000.0], [-1.0, 2000.0]])
    card = msgspec.structs.replace(regressor.card, targets=targets)
    first, second = plots.predicted_figure(card, (predicted,), actual).axes
    assert [first.get_xlabel(), first.get_ylabel()] == ["actual z (m)", "predicted z (m)"]
    assert [second.get_xlabel(), second.get_ylabel()] == ["actual w", "predicted w"]
    assert [first.get_title(), second.get_title()] == ["RMSE 1", "RMSE 2,000"]


def test_long_numbers_of_several_targets_are_not_cut_off(regressor: Candidate) -> None:
    (target,) = regressor.card.targets
    targets = [msgspec.structs.replace(target, name=name) for name in "abc"]
    actual = torch.tensor([[-3.0, -100.0, -300000.0], [3.0, 150.0, 300000.0]])
    card = msgspec.structs.replace(regressor.card, targets=targets)
    rows = Rows(inputs=torch.zeros(2, 2), targets=actual)
    (plot,) = draw(Answering(actual * 1.1), card, rows, rows, None)
    assert nothing_is_cut_off(plot.content)


# Losses


def lines(history: History) -> dict[str, list[float]]:
    (axes,) = loss_figure(history).axes
    return {str(line.get_label()): list(np.asarray(line.get_ydata())) for line in axes.lines}


def test_losses_are_drawn_on_a_scale_that_fits() -> None:
    assert lines(HISTORY) == {"training": HISTORY.loss, "held out": HISTORY.held_out}
    (axes,) = loss_figure(HISTORY).axes
    assert axes.get_yscale() == "log"
    (axes,) = loss_figure(History([2.0, 1.0], [1.9, 1.1])).axes
    assert axes.get_yscale() == "linear"
    (axes,) = loss_figure(History([1.0, 0.001, 0.0], [])).axes
    assert axes.get_yscale() == "linear"
    title = "Held-out loss: 1.5 after epoch 1, 0.2 after epoch 3"
    assert texts(loss_figure(HISTORY))[0] == title


@pytest.mark.parametrize(
    "history",
    [
        History([0.7], [0.6]),
        History([0.7], []),
        History([0.5] * 400, [0.5] * 400),
        History([1.0, math.nan, 0.01], [math.inf, 0.5, 0.01]),
        History([math.nan], [math.nan]),
        History([1.0, 0.0], [1.0, -0.5]),
    ],
    ids=["one epoch", "not watched", "constant", "not finite", "nothing finite", "not positive"],
)
def test_unusual_losses_are_drawn_too(history: History) -> None:
    content = io.BytesIO()
    loss_figure(history).savefig(content, format="png")
    assert Pillow.open(content).width > 100
