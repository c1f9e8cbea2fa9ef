import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.engine.model import Model
from service.formats.predictions import csv_of, json_lines_of, predictions
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
