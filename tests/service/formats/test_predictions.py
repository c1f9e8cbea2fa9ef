import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.engine.model import Model
from service.formats.predictions import csv_of, json_lines_of, predictions, writer
from service.formats.reply_size import UNKNOWN
from tests.support.classifiers import ANSWERS, MARGINS, NAMES, NUMBERS, ROWS, save_classifier
from tests.support.toys import save_bounded, save_same, save_toy, toy_answer


def answers(model: Model, rows: Any) -> list[dict[str, Any]]:
    return predictions(model, model.run([model.rows_of(rows)]))


def test_a_classification_is_the_label_of_the_highest_probability(toy: Model) -> None:
    rows = np.array([[1, 2, 3, 4], [0, 9, 0, 0], [0, 0, 0, 0]], np.float64)
    for answer, expected in zip(answers(toy, rows), toy_answer(rows), strict=True):
        assert list(answer) == ["label", "probability", "probabilities"]
        assert answer["label"] == ["red", "green", "blue"][int(expected.argmax())]
        assert answer["probability"] == answer["probabilities"][answer["label"]]
        assert list(answer["probabilities"]) == ["red", "green", "blue"]
        assert list(answer["probabilities"].values()) == pytest.approx(expected, abs=1e-6)


def test_a_regression_is_a_value_with_bounds_by_target_if_there_are_several(
    mean: Model, tmp_path: Path
) -> None:
    assert answers(mean, [[0, 1, 2, 3, 4, 5]]) == [{"value": 2.5}]
    one = Model.open(save_bounded(tmp_path))
    assert answers(one, [[1], [2]]) == [
        {"value": 2, "lower": 1, "upper": 3},
        {"value": 4, "lower": 3, "upper": 5},
    ]
    two = Model.open(save_bounded(tmp_path, targets=2))
    assert answers(two, [[1, 2]]) == [
        {
            "twice_0": {"value": 2, "lower": 1, "upper": 3},
            "twice_1": {"value": 4, "lower": 3, "upper": 5},
        }
    ]


def test_without_a_card_a_prediction_has_a_field_for_each_output(tmp_path: Path) -> None:
    model = Model.open(save_same(tmp_path, ["batch", 2, 2]))
    assert answers(model, [[1, 2, 3, 4]]) == [{"output": [[1, 2], [3, 4]]}]
    without_card = Model.open(save_toy(tmp_path))
    (answer,) = answers(without_card, [[0, 0, 0, 0]])
    assert answer == {"probabilities": pytest.approx([1 / 3] * 3)}


PREDICTIONS: list[dict[str, Any]] = [
    {"label": 'a "b", c', "probability": 0.1, "probabilities": {"x": 0.1, "y": [1, [2.5]]}},
    {"value": -0.0, "note": "two\nlines \u00e9"},
]


def test_json_lines_have_a_prediction_in_each() -> None:
    lines = json_lines_of(PREDICTIONS)
    assert lines.endswith(b"\n")
    assert [json.loads(line) for line in lines.splitlines()] == PREDICTIONS
    assert json_lines_of([]) == b""


def test_csv_lays_flat_what_fields_hold() -> None:
    assert csv_of(PREDICTIONS).decode() == (
        '"a ""b"", c",0.1,0.1,1,2.5\n-0.0,"two\nlines \u00e9"\n'
    )
    assert csv_of([]) == b""


def test_outputs_become_float64_without_loss_of_what_float32_says() -> None:
    third = float(np.float32(1) / 3)
    (line,) = json_lines_of([{"value": third}]).splitlines()
    assert np.float32(json.loads(line)["value"]) == np.float32(1) / 3
    assert csv_of([{"value": third}]) == b"0.3333333432674408\n"


@pytest.mark.parametrize("labels", [NAMES, NUMBERS, ['a "b"', "c", "d"]], ids=str)
@pytest.mark.parametrize("is_zipped", [True, False], ids=["maps", "array"])
def test_a_classifier_without_a_card_answers_as_one_with_a_card(
    tmp_path: Path, labels: list[Any], is_zipped: bool
) -> None:
    model = Model.open(save_classifier(tmp_path, labels, is_zipped=is_zipped))
    given = answers(model, ROWS)
    for answer, expected in zip(given, ANSWERS, strict=True):
        assert list(answer) == ["label", "probability", "probabilities"]
        assert answer["label"] == labels[int(expected.argmax())]
        assert answer["probability"] == answer["probabilities"][str(answer["label"])]
        assert list(answer["probabilities"]) == [str(each) for each in labels]
        assert list(answer["probabilities"].values()) == pytest.approx(expected, abs=1e-6)
    assert json.loads(writer(model, "kinds", 1)(model.run([ROWS]))) == given


def test_probabilities_of_labels_that_are_not_known_are_a_list(tmp_path: Path) -> None:
    model = Model.open(save_classifier(tmp_path, says_labels=False))
    given = answers(model, ROWS)
    for answer, expected in zip(given, ANSWERS, strict=True):
        assert answer["label"] == NAMES[int(expected.argmax())]
        assert answer["probability"] == max(answer["probabilities"])
        assert answer["probabilities"] == pytest.approx(expected, abs=1e-6)
    assert json.loads(writer(model, "kinds", 1)(model.run([ROWS]))) == given


@pytest.mark.parametrize("is_known", [True, False])
def test_what_are_no_probabilities_is_not_called_so(tmp_path: Path, is_known: bool) -> None:
    model = Model.open(save_classifier(tmp_path, says_labels=is_known, are_margins=True))
    given = answers(model, ROWS)
    for answer, margins in zip(given, MARGINS.tolist(), strict=True):
        assert list(answer) == ["label", "scores"]
        assert answer["label"] == NAMES[margins.index(max(margins))]
        assert answer["scores"] == (dict(zip(NAMES, margins, strict=True)) if is_known else margins)
    assert json.loads(writer(model, "kinds", 1)(model.run([ROWS]))) == given


def test_the_probability_is_that_of_the_label_that_is_answered(tmp_path: Path) -> None:
    model = Model.open(save_classifier(tmp_path, is_swapped=True))
    for answer in answers(model, ROWS):
        assert answer["probability"] == min(answer["probabilities"].values())
        assert answer["probability"] == answer["probabilities"][answer["label"]]


def test_a_label_that_no_map_has_is_that_of_the_highest(tmp_path: Path) -> None:
    model = Model.open(save_classifier(tmp_path, NUMBERS, is_zipped=True, is_place=True))
    given = answers(model, ROWS)
    assert [answer["label"] for answer in given] == [
        NUMBERS[int(each.argmax())] for each in ANSWERS
    ]
    assert json.loads(writer(model, "kinds", 1)(model.run([ROWS]))) == given


def test_what_stands_beside_has_its_own_name(tmp_path: Path) -> None:
    model = Model.open(save_classifier(tmp_path, beside="twice"))
    given = answers(model, ROWS)
    for answer, row in zip(given, ROWS, strict=True):
        assert list(answer) == ["label", "probability", "probabilities", "twice"]
        assert answer["twice"] == (row + row).tolist()
    assert json.loads(writer(model, "kinds", 1)(model.run([ROWS]))) == given


def test_a_rounded_probability_is_never_above_1(tmp_path: Path) -> None:
    model = Model.open(save_classifier(tmp_path))
    label, _ = model.run([ROWS[:1]])
    rounded = [label, np.array([[1.0000002, -1e-8, 0]], np.float32)]
    (answer,) = predictions(model, rounded)
    assert list(answer["probabilities"].values()) == [1, 0, 0]
    assert json.loads(writer(model, "kinds", 1)(rounded)) == [answer]


@pytest.mark.parametrize("labels", [NAMES, NUMBERS, ["x" * 300, "y", "z"]], ids=len)
@pytest.mark.parametrize("is_place", [True, False])
@pytest.mark.parametrize("are_margins", [True, False])
def test_no_answer_is_longer_than_the_writer_says(
    tmp_path: Path, labels: list[Any], are_margins: bool, is_place: bool
) -> None:
    changes = {"are_margins": are_margins, "is_place": is_place}
    model = Model.open(save_classifier(tmp_path, labels, is_zipped=True, **changes))
    write = writer(model, "kinds", 1)
    assert len(write(model.run([ROWS[:1]]))) <= write.bytes_of_row
    is_text = isinstance(labels[0], str) and not is_place
    assert (write.bytes_of_row == UNKNOWN) == is_text  # how long a text is shows when it is here
