import io
import math

import msgspec
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image as Pillow
from torch import Tensor, nn

from service.card import Card, Interval
from training import report
from training.data import Rows
from training.export import Candidate
from training.loop import History
from training.report import Pair, confusion, draw, inside, loss_figure, most_confused

HISTORY = History([2.0, 0.5, 0.1], [1.5, 0.6, 0.2])


def rows_of(candidate: Candidate) -> Rows:
    """The clouds, or the plane over them."""
    inputs = candidate.rows
    if candidate.card.task == "regression":
        return Rows(inputs=inputs, targets=inputs[:, :1] + 2 * inputs[:, 1:])
    return Rows(inputs=inputs, targets=torch.arange(len(inputs)) % 3)


def drawn(candidate: Candidate, history: History | None = HISTORY) -> dict[str, bytes]:
    rows = rows_of(candidate)
    drawings = draw(candidate.network, candidate.card, rows, rows, history)
    return {drawing.picture.file: drawing.content for drawing in drawings}


def texts(figure: Figure) -> list[str]:
    """All that is written in the first panel."""
    (axes, *_) = figure.axes
    title = axes.get_title(loc="left") or axes.get_title()  # the style of `draw` has it on the left
    return [title, *(text.get_text() for text in axes.texts)]


# What is drawn of which model


def test_classifier_of_two_features_has_a_plane(classifier: Candidate) -> None:
    assert list(drawn(classifier)) == ["loss.png", "confusion.png", "boundary.png"]


def test_regressor_has_predicted_against_actual(regressor: Candidate) -> None:
    assert list(drawn(regressor)) == ["loss.png", "predicted.png"]


def test_without_a_history_there_is_no_picture_of_it(classifier: Candidate) -> None:
    assert list(drawn(classifier, None)) == ["confusion.png", "boundary.png"]


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
def test_pairs_are_shown_of_many_labels_if_any_were_confused(
    labels: int, wrong: int, has_pairs: bool, classifier: Candidate
) -> None:
    targets = torch.arange(40) % labels
    given = targets.clone()
    given[:wrong] = labels - 1
    rows = Rows(inputs=torch.zeros(40, 3), targets=targets)
    network = Answering(nn.functional.one_hot(given, labels).float())
    drawings = draw(network, image_card(classifier, labels), rows, rows, None)
    files = [drawing.picture.file for drawing in drawings]
    assert files == ["confusion.png", *(["confused.png"] if has_pairs else [])]


def test_pictures_are_legible_small_and_the_same_again(
    classifier: Candidate, regressor: Candidate
) -> None:
    for candidate in (classifier, regressor):
        first, again = drawn(candidate), drawn(candidate)
        assert first == again
        for name, content in first.items():
            picture = Pillow.open(io.BytesIO(content))
            assert picture.format == "PNG"
            assert 600 < picture.width < 800, name
            assert 300 < picture.height < 900, name
            assert len(np.unique(np.asarray(picture.convert("L")))) > 10, name  # something is there
            assert len(content) < 100_000, name
            assert picture.info.keys() <= {"dpi"}, name  # no date, no version


def test_users_own_style_changes_nothing(classifier: Candidate) -> None:
    first = drawn(classifier)
    with report.matplotlib.rc_context({"font.size": 30, "axes.facecolor": "black"}):
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
    title, *cells = texts(report.confusion_figure(counts, ["a", "b"]))
    assert title == "90 of 100 held-out rows are right: 90.00%"
    assert cells == ["90", "10", "0", "0"]


def test_long_names_of_labels_are_shortened_in_the_middle() -> None:
    long = "a very long name of a label, with its end"
    figure = report.confusion_figure(torch.eye(2, dtype=torch.int64), [long, "b"])
    (axes,) = figure.axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["a very long…ith its end", "b"]


def test_bars_say_how_many_of_how_many() -> None:
    counts = torch.tensor([[90, 2, 0], [5, 80, 2], [1, 0, 70]])
    figure = report.confused_figure(most_confused(counts, 2), counts, ["a", "b", "c"])
    title, *bars = texts(figure)
    assert title == "These pairs are 7 of the 10 mistakes"
    assert bars == ["5 of 87", "2 of 92"]
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["b read as a", "a read as b"]


def test_share_inside_the_intervals_is_told(regressor: Candidate) -> None:
    actual = torch.tensor([[1.0], [2.0], [3.0], [4.0]])
    bounds = torch.stack([actual - 1, actual + torch.tensor([[1.0], [0.0], [-0.5], [1.0]])], dim=2)
    assert inside(actual[:, 0], bounds[:, 0]).tolist() == [True, True, False, True]
    card = msgspec.structs.replace(regressor.card, interval=Interval(coverage=0.9))
    rows = Rows(inputs=torch.zeros(4, 2), targets=actual)
    (drawing,) = draw(Answering(actual + 0.5, bounds), card, rows, rows, None)
    assert drawing.picture.file == "predicted.png"
    figure = report.predicted_figure(card.targets, (actual + 0.5, bounds), actual)
    assert texts(figure)[0] == "RMSE 0.5; 75% of 4 actual values in their interval"


def test_border_is_told_with_the_rows_on_their_side(classifier: Candidate) -> None:
    rows = rows_of(classifier)
    wrong = Rows(inputs=rows.inputs[:12], targets=(rows.targets[:12] + 1) % 3)
    figure = report.boundary_figure(classifier.network, classifier.card, rows, wrong)
    assert texts(figure)[0] == "0 of 12 held-out points lie on their side of the border"
    figure = report.boundary_figure(classifier.network, classifier.card, rows, rows)
    assert texts(figure)[0] == "120 of 120 points lie on their side of the border"


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
def test_unusual_losses_are_drawn_too(history: History, classifier: Candidate) -> None:
    assert "loss.png" in drawn(classifier, history)
