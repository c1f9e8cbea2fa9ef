"""What a file without a card says of its classes; NumPy is the oracle of what they are."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from service.engine.classifier import MOST_COUNTED_LABELS, Classifier
from service.engine.model import Model
from tests.support.classifiers import NAMES, NUMBERS, save_classifier
from tests.support.foreign_models import FLOAT, INT64, graph, info, node, save
from tests.support.toys import save_mean, save_toy, toy_card


def found(path: Path) -> Classifier | None:
    return Model.open(path).classifier


def doubts(path: Path) -> list[str]:
    return Model.open(path).trial.doubts


@pytest.mark.parametrize("labels", [NAMES, NUMBERS], ids=["texts", "numbers"])
@pytest.mark.parametrize("is_zipped", [True, False], ids=["maps", "array"])
def test_labels_are_those_of_the_maps_or_of_what_makes_the_label(
    tmp_path: Path, labels: list[Any], is_zipped: bool
) -> None:
    path = save_classifier(tmp_path, labels, is_zipped=is_zipped)
    assert found(path) == Classifier(labels, label=0, scores=1)
    assert doubts(path) == []


def test_labels_of_a_classifying_operation_are_found_through_others(tmp_path: Path) -> None:
    """As LightGBM's and XGBoost's files without ZipMap have them."""
    trees = node(
        "LinearClassifier",
        ["x"],
        ["number", "scores_"],
        domain="ai.onnx.ml",
        classlabels_ints=[5, 6],
        coefficients=[1.0, -1.0, -1.0, 1.0],
        intercepts=[0.0, 0.0],
        post_transform="SOFTMAX",
    )
    nodes = [
        trees,
        node("Identity", ["number"], ["same"]),
        node("Cast", ["same"], ["label"], to=INT64),
        node("Identity", ["scores_"], ["probabilities"]),
    ]
    outputs = [info("label", INT64, ["n"]), info("probabilities", FLOAT, ["n", 2])]
    model = graph(nodes, [info("x", FLOAT, ["n", 2])], outputs)
    model.opset_import.add(domain="ai.onnx.ml", version=1)
    assert found(save(tmp_path, "trees", model)) == Classifier([5, 6], 0, 1)


def test_labels_that_nothing_says_are_not_known(tmp_path: Path) -> None:
    path = save_classifier(tmp_path, says_labels=False)
    assert found(path) == Classifier([], label=0, scores=1)


@pytest.mark.parametrize("labels", [["a", "a", "b"], [1, 1, 2]], ids=["texts", "numbers"])
def test_labels_that_are_the_same_are_none(tmp_path: Path, labels: list[Any]) -> None:
    assert found(save_classifier(tmp_path, labels)) == Classifier([], label=0, scores=1)


@pytest.mark.parametrize(
    ("label", "scores"),
    [
        ("output_label", "output_probability"),
        ("label", "scores"),
        ("class", "probability"),
        ("classLabel", "classProbability"),
    ],
)
def test_outputs_are_known_by_their_names(tmp_path: Path, label: str, scores: str) -> None:
    assert found(save_classifier(tmp_path, label=label, scores=scores)) is not None


@pytest.mark.parametrize(
    ("label", "scores", "beside"),
    [
        ("highest", "probabilities", ""),
        ("label", "output", ""),
        ("label", "probabilities", "scores"),  # two that may be the scores
        ("output_label", "probabilities", "label"),  # it would stand in the answer twice
    ],
)
def test_other_names_make_no_classifier(
    tmp_path: Path, label: str, scores: str, beside: str
) -> None:
    path = save_classifier(tmp_path, label=label, scores=scores, beside=beside)
    assert found(path) is None
    assert doubts(path) == []


def test_several_labels_of_a_row_make_no_classifier(tmp_path: Path) -> None:
    nodes = [
        node("Cast", ["x"], ["label"], to=INT64),
        node("Softmax", ["x"], ["probabilities"], axis=1),
    ]
    outputs = [info("label", INT64, ["n", 3]), info("probabilities", FLOAT, ["n", 3])]
    model = graph(nodes, [info("x", FLOAT, ["n", 3])], outputs)
    assert found(save(tmp_path, "several", model)) is None


def test_outputs_beside_are_named(tmp_path: Path) -> None:
    path = save_classifier(tmp_path, beside="twice")
    assert found(path) == Classifier(NAMES, label=0, scores=1, beside=[2])


@pytest.mark.parametrize("scores", ["probabilities", "scores"])
def test_what_is_not_from_0_to_1_are_scores_and_the_name_is_doubted(
    tmp_path: Path, scores: str
) -> None:
    path = save_classifier(tmp_path, scores=scores, are_margins=True)
    assert found(path) == Classifier(NAMES, label=0, scores=1, are_probabilities=False)
    said = doubts(path)
    assert len(said) == (scores == "probabilities")
    for doubt in said:
        assert doubt.startswith(
            "output probabilities has no probabilities: a trial saw numbers from -"
        )
        assert doubt.endswith("; /predict calls them scores")


def save_given(folder: Path, *nodes: onnx.NodeProto, **weights: Any) -> Path:
    """Write a model of three numbers, whose `probabilities` the nodes make of `shares` and `x`."""
    first = node("Softmax", ["x"], ["shares"], axis=1)
    last = node("ArgMax", ["x"], ["label"], axis=1, keepdims=0)
    outputs = [info("label", INT64, ["n"]), info("probabilities", FLOAT, ["n", 3])]
    inner = graph([first, *nodes, last], [info("x", FLOAT, ["n", 3])], outputs, **weights)
    return save(folder, "given", inner)


def test_what_does_not_add_up_to_1_are_scores(tmp_path: Path) -> None:
    half = node("Mul", ["shares", "factor"], ["probabilities"])
    path = save_given(tmp_path, half, factor=np.float32(0.5))
    assert found(path) == Classifier([], 0, 1, are_probabilities=False)
    (doubt,) = doubts(path)
    assert "a trial saw rows that add up to 0.5 to 0.5; /predict" in doubt


def test_what_adds_up_to_1_and_is_not_from_0_to_1_are_scores(tmp_path: Path) -> None:
    path = save_given(
        tmp_path,
        node("ReduceMean", ["x", "axis"], ["mean"]),
        node("Sub", ["x", "mean"], ["centred"]),
        node("Clip", ["centred", "low", "high"], ["some"]),
        node("ReduceSum", ["some", "axis"], ["sum"]),
        node("Div", ["sum", "three"], ["share"]),
        node("Sub", ["some", "share"], ["of_0"]),
        node("Add", ["of_0", "third"], ["probabilities"]),
        axis=np.array([1]),
        low=np.float32(-9),
        high=np.float32(9),
        three=np.float32(3),
        third=np.float32(1 / 3),
    )
    assert found(path) == Classifier([], 0, 1, are_probabilities=False)


def test_rows_that_are_0_for_each_class_say_nothing(tmp_path: Path) -> None:
    """Scikit-learn divides by their sum, and has no number there; its converters have 0."""
    path = save_given(
        tmp_path,
        node("ReduceMax", ["x", "axis"], ["most"]),
        node("Less", ["most", "limit"], ["is_small"]),
        node("Cast", ["is_small"], ["factor"], to=FLOAT),
        node("Mul", ["shares", "factor"], ["probabilities"]),
        axis=np.array([1]),
        limit=np.float32(1000),
    )
    assert found(path) == Classifier([], 0, 1)
    assert doubts(path) == []


def test_what_is_rounded_are_probabilities(tmp_path: Path) -> None:
    more = node("Mul", ["shares", "factor"], ["probabilities"])
    path = save_given(tmp_path, more, factor=np.float32(1 + 2e-6))
    assert found(path) == Classifier([], 0, 1)
    assert doubts(path) == []


def test_a_label_that_is_not_that_of_the_highest_score_is_doubted(tmp_path: Path) -> None:
    """As in files of a two-class SVC that skl2onnx 1.20 writes."""
    (doubt,) = doubts(save_classifier(tmp_path, is_swapped=True))
    assert doubt.startswith("output label is not the label of the highest score in ")
    assert doubt.endswith(" rows of a trial: one of label and probabilities may be wrong")


def test_a_label_that_no_map_has_gives_way_to_that_of_the_highest_score(tmp_path: Path) -> None:
    """As in files of two-class CatBoost models whose labels are not 0 and 1."""
    path = save_classifier(tmp_path, NUMBERS, is_zipped=True, is_place=True)
    assert found(path) == Classifier(NUMBERS, label=None, scores=1)
    (doubt,) = doubts(path)
    assert doubt.startswith("output label answers ")
    assert "which is none of the labels of probabilities: /predict answers the label of" in doubt


@pytest.mark.parametrize(("labels", "is_wrong"), [([1, 2], True), ([1, 3], False)], ids=str)
def test_a_label_beside_the_others_is_none_of_the_scores_unless_two_are_0_and_1(
    tmp_path: Path, labels: list[int], is_wrong: bool
) -> None:
    """One may stand for rows that are none of the classes; ONNX Runtime's 0 and 1 do not."""
    answered = labels if not is_wrong else [0, 1]
    nodes = [
        node("Softmax", ["x"], ["given"], axis=1),
        node("ArgMax", ["x"], ["place"], axis=1, keepdims=0),
        node("Gather", ["answered", "place"], ["known"]),
        node("ReduceMax", ["given", "axis"], ["most"], keepdims=0),
        node("Less", ["most", "limit"], ["is_none"]),
        node("Where", ["is_none", "none", "known"], ["label"]),
        node("ZipMap", ["given"], ["p"], domain="ai.onnx.ml", classlabels_int64s=labels),
    ]
    nodes[-1].output[0] = "probabilities"
    maps = helper.make_map_type_proto(INT64, helper.make_tensor_type_proto(FLOAT, []))
    probabilities = helper.make_value_info("probabilities", helper.make_sequence_type_proto(maps))
    model = graph(
        nodes,
        [info("x", FLOAT, ["n", 2])],
        [info("label", INT64, ["n"]), probabilities],
        answered=np.array(answered),
        axis=np.array([1]),
        limit=np.float32(0.7),
        none=np.array(0 if is_wrong else -1),
    )
    model.opset_import.add(domain="ai.onnx.ml", version=1)
    opened = Model.open(save(tmp_path, "two", model))
    assert -1 in opened.run([np.zeros((1, 2), np.float32)])[0] or is_wrong
    assert opened.classifier == Classifier(labels, None if is_wrong else 0, 1)


def test_a_label_that_its_maker_has_not_gives_way_too(tmp_path: Path) -> None:
    path = save_classifier(tmp_path, ["7", "-1", "3"])
    model = onnx.load(path)
    model.graph.node[-2].output[0] = "text"
    model.graph.node.append(node("Cast", ["text"], ["label"], to=INT64))
    model.graph.output[0].type.tensor_type.elem_type = INT64
    onnx.save(model, path)
    assert found(path) == Classifier(["7", "-1", "3"], label=None, scores=1)
    assert len(doubts(path)) == 1


def test_a_card_says_it_and_an_output_alone_does_not(tmp_path: Path) -> None:
    labels = toy_card().labels
    assert found(save_toy(tmp_path, card=toy_card())) == Classifier(labels, label=None, scores=0)
    assert found(save_toy(tmp_path)) is None
    assert found(save_mean(tmp_path)) is None


def test_a_file_that_could_not_be_tried_has_scores_as_it_is_declared(tmp_path: Path) -> None:
    nodes = [
        node("Gather", ["table", "x"], ["probabilities"]),
        node("Squeeze", ["x"], ["label"]),
    ]
    table = np.zeros((1, 3), np.float32)[:0]  # of no row: each place is wrong
    outputs = [info("label", INT64, ["n"]), info("probabilities", FLOAT, ["n", 3])]
    model = graph(nodes, [info("x", INT64, ["n"])], outputs, table=table)
    opened = Model.open(save(tmp_path, "never", model))
    assert opened.trial.failure
    assert opened.classifier == Classifier([], 0, 1, are_probabilities=False)
    assert opened.trial.doubts == []


def test_labels_are_counted_if_they_are_few() -> None:
    few = Classifier(list(range(MOST_COUNTED_LABELS)), 0, 1)
    assert few.counted == few.names == [str(each) for each in range(MOST_COUNTED_LABELS)]
    assert Classifier([*few.labels, MOST_COUNTED_LABELS], 0, 1).counted == []
    assert Classifier([], 0, 1).counted == []


def test_a_label_that_is_no_text_is_none(tmp_path: Path) -> None:
    path = save_classifier(tmp_path)
    model = onnx.load(path)
    (classes,) = (each for each in model.graph.initializer if each.name == "classes")
    classes.string_data[0] = b"\xff"
    onnx.save(model, path)
    classifier = found(path)
    assert classifier is None or classifier.labels == []
