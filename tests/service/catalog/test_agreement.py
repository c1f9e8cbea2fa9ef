"""What two versions answered, held against NumPy and against what is said of each kind."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import helper

from service.catalog.agreement import Agreement
from service.engine.model import Model
from service.metrics.instruments import SHADOW_ABSOLUTE, SHADOW_PROBABILITY, SHADOW_RELATIVE
from tests.support.classifiers import save_classifier
from tests.support.onnx_graphs import save_several
from tests.support.toys import save_bounded, save_graph, save_mean, save_toy, tensor, toy_card

NAN, INF = float("nan"), float("inf")


def floats(values: Any) -> NDArray[Any]:
    return np.array(values, np.float32)


def agreement(path: Path) -> Agreement:
    model = Model.open(path)
    return Agreement(model, model)


def test_classifiers_agree_on_the_label(tmp_path: Path) -> None:
    compare = agreement(save_toy(tmp_path, card=toy_card()))
    before = floats([[0.7, 0.2, 0.1], [0.4, 0.5, 0.1], [0.1, 0.1, 0.8], [0.9, 0.1, 0]])
    after = floats([[0.6, 0.3, 0.1], [0.6, 0.3, 0.1], [0.1, 0.1, 0.8], [NAN, 0.1, 0]])
    compared = compare([before], [after], 4)
    assert compared.agrees.tolist() == [True, False, True, False]
    assert compared.failed.tolist() == [False, False, False, True]
    np.testing.assert_allclose(compared.differences[SHADOW_PROBABILITY], [0.1, 0.2, 0], atol=1e-6)
    assert compared.labels is not None
    assert [each.tolist()[:3] for each in compared.labels] == [[0, 1, 2], [0, 0, 2]]
    assert (compare.labels, compare.meaning) == (["red", "green", "blue"], "the same label")


@pytest.mark.parametrize("is_margin", [False, True])
def test_of_a_file_without_a_card_its_label_counts(tmp_path: Path, is_margin: bool) -> None:
    compare = agreement(save_classifier(tmp_path, are_margins=is_margin, beside="twice"))
    labels = [np.array(each, np.object_) for each in (["red", "blue"], ["red", "green"])]
    scores = floats([[0.5, 0.3, 0.2], [0.3, 0.2, 0.5]]), floats([[0.5, 0.3, 0.2], [0.3, 0.6, 0.1]])
    beside = floats([[1, 1, 1, 1]] * 2), floats([[9, 9, 9, 9]] * 2)
    parts = [[labels[each], scores[each], beside[each]] for each in (0, 1)]
    compared = compare(*parts, 2)
    assert compared.agrees.tolist() == [True, False]
    kinds = [SHADOW_ABSOLUTE, SHADOW_RELATIVE] if is_margin else [SHADOW_PROBABILITY]
    assert compare.differences == list(compared.differences) == kinds
    np.testing.assert_allclose(compared.differences[kinds[0]], [0, 0.4], atol=1e-6)
    assert compared.labels is not None
    assert [each.tolist() for each in compared.labels] == [[0, 2], [0, 1]]


def test_a_value_agrees_within_the_interval_of_the_version(tmp_path: Path) -> None:
    compare = agreement(save_bounded(tmp_path, targets=2))
    before = [floats([[6, 6]] * 3), floats([[[5, 7], [5, 7]]] * 3)]
    after = [floats([[6.9, 5.1], [7.1, 6], [6, 4.9]]), floats([[[0, 1], [0, 1]]] * 3)]
    compared = compare(before, after, 3)
    assert compared.agrees.tolist() == [True, False, False]
    np.testing.assert_allclose(compared.differences[SHADOW_ABSOLUTE], [0.9, 1.1, 1.1], atol=1e-6)
    assert "interval" in compare.meaning


def test_a_value_without_an_interval_agrees_within_a_hundredth(tmp_path: Path) -> None:
    compare = agreement(save_mean(tmp_path))
    before = [floats([[100], [100], [-100], [0], [0], [1e-7]])]
    after = [floats([[100.9], [101.2], [100], [0], [1], [-1e-7]])]
    compared = compare(before, after, 6)
    assert compared.agrees.tolist() == [True, False, False, True, False, True]
    shares = [0.9 / 100.9, 1.2 / 101.2, 2, 0, 1, 2]
    np.testing.assert_allclose(compared.differences[SHADOW_RELATIVE], shares, rtol=1e-4)
    assert compare.meaning == "numbers within 1% of each other, and all else the same"


def test_what_is_not_finite_agrees_with_itself_alone(tmp_path: Path) -> None:
    compare = agreement(save_mean(tmp_path))
    before = [floats([[NAN], [INF], [INF], [1], [NAN]])]
    after = [floats([[NAN], [INF], [-INF], [INF], [1]])]
    compared = compare(before, after, 5)
    assert compared.agrees.tolist() == [True, True, False, False, False]
    assert compared.failed.tolist() == [False, False, False, True, False]
    assert not compared.differences[SHADOW_ABSOLUTE].size


def test_each_output_of_a_foreign_model_must_agree(tmp_path: Path) -> None:
    save_several(tmp_path)
    compare = agreement(tmp_path / "several/1/model.onnx")
    names = np.array([["a"], ["b"]], np.object_)
    same = [floats([1, 2]), floats([1, 2]), np.array([[2, 2, 2]] * 2), names]
    assert compare(same, [*same], 2).agrees.tolist() == [True, True]
    others = floats([1.005, 3]), floats([1, 9]), np.array([[2, 2, 2], [2, 3, 2]]), names[:, ::-1]
    for place, expected in ((0, [True, False]), (1, [True, False]), (2, [True, False])):
        after = [*same]
        after[place] = others[place]
        assert compare(same, after, 2).agrees.tolist() == expected
    after = [*same[:3], np.array([["a"], ["c"]], np.object_)]
    assert compare(same, after, 2).agrees.tolist() == [True, False]
    np.testing.assert_allclose(compare(same, after, 2).differences[SHADOW_ABSOLUTE], [0, 0])


def test_answers_that_are_not_one_for_each_row_are_compared_as_one(tmp_path: Path) -> None:
    path = tmp_path / "sum/1/model.onnx"
    nodes = [helper.make_node("ReduceSum", ["input"], ["sum"], keepdims=0)]
    save_graph(path, nodes, [tensor("input", ["n", 2])], [tensor("sum", [])], [], None)
    compare = agreement(path)
    assert compare([floats(3)], [floats(3.01)], 5).agrees.tolist() == [True]
    assert compare([floats(3)], [floats(4)], 5).agrees.tolist() == [False]
    assert compare([floats([1, 2])], [floats([1, 2, 3])], 2).agrees.tolist() == [False]
