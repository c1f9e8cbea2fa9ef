from pathlib import Path
from typing import Any

import onnx
import pytest
from msgspec import Raw

from service.commands.score.layout import Layout
from service.engine.model import Model
from service.errors import CannotScore
from service.formats.lines import Row
from service.formats.predictions import predictions
from service.formats.registry import CSV, JSON_LINES
from tests.support.classifiers import NUMBERS, ROWS, save_classifier
from tests.support.toys import save_bounded, save_mean, save_same, save_toy, toy_card

ANSWER: dict[str, Any] = {
    "label": "red",
    "probability": 0.5,
    "probabilities": {"red": 0.5, "green": 0.25, "blue": 0.25},
}


def renamed(path: Path, output: str) -> Model:
    """Give the output of a model another name."""
    model = onnx.load(path)
    model.graph.output[0].name = model.graph.node[-1].output[0] = output
    onnx.save(model, path)
    return Model.open(path)


@pytest.fixture
def toy(tmp_path: Path) -> Model:
    return Model.open(save_toy(tmp_path, card=toy_card()))


def head(model: Model, kept: list[str] | None = None) -> str:
    return Layout(CSV, model, kept).head().decode()


def test_the_columns_of_csv_are_named(toy: Model, tmp_path: Path) -> None:
    assert head(toy) == "line,label,probability,red,green,blue\n"
    kept = ["id", "the, note"]
    assert head(toy, kept) == 'line,id,"the, note",label,probability,red,green,blue\n'
    assert head(Model.open(save_mean(tmp_path))) == "line,value\n"
    assert head(Model.open(save_bounded(tmp_path))) == "line,value,lower,upper\n"
    assert head(Model.open(save_bounded(tmp_path, targets=2))) == (
        "line,twice_0.value,twice_0.lower,twice_0.upper,twice_1.value,twice_1.lower,twice_1.upper\n"
    )
    same = save_same(tmp_path, ["batch", 2, 2])
    assert head(Model.open(same)) == ("line,output[0][0],output[0][1],output[1][0],output[1][1]\n")
    assert head(renamed(save_same(tmp_path, ["batch"]), "y")) == "line,y\n"


def test_json_lines_have_no_head(toy: Model) -> None:
    assert Layout(JSON_LINES, toy, None).head() == b""


def test_an_answer_has_its_line_and_what_is_kept(toy: Model) -> None:
    row = Row(7, [], ["x\ny", ""])
    kept = ["note", "id"]
    assert Layout(CSV, toy, kept).lines([row], [ANSWER]) == (b'7,"x\ny",,red,0.5,0.5,0.25,0.25\n')
    assert Layout(CSV, toy, None).lines([row], [ANSWER]) == b"7,red,0.5,0.5,0.25,0.25\n"
    answer = (
        b'"label":"red","probability":0.5,"probabilities":{"red":0.5,"green":0.25,"blue":0.25}}\n'
    )
    assert Layout(JSON_LINES, toy, kept).lines([row], [ANSWER]) == (
        b'{"line":7,"kept":{"note":"x\\ny","id":""},' + answer
    )
    of_json = Row(8, [], Raw(b'{"id":[1.50]}'))
    assert Layout(JSON_LINES, toy, []).lines([of_json, of_json], [ANSWER] * 2) == (
        (b'{"line":8,"kept":{"id":[1.50]},' + answer) * 2
    )


def test_no_two_columns_have_one_name(tmp_path: Path) -> None:
    labels = ["label", "line", "probability"]
    toy = Model.open(save_toy(tmp_path, card=toy_card()))
    odd = Model.open(save_toy(tmp_path, 2, card=toy_card(labels=labels)))
    for model, kept, name in ((toy, ["line"], "line"), (toy, ["red"], "red"), (odd, None, "line")):
        with pytest.raises(CannotScore) as raised:
            Layout(CSV, model, kept)
        assert str(raised.value) == (
            f"OUTPUT: column '{name}': expected one of that name, got 2: rename one, or write "
            "JSON Lines (.jsonl)"
        )
    assert Layout(JSON_LINES, toy, ["line", "red"]).head() == b""  # they are apart there
    with pytest.raises(CannotScore) as raised:
        Layout(JSON_LINES, toy, ["x", "x"])
    assert str(raised.value) == (
        "OUTPUT: column 'x': expected one of that name, got 2: rename one in INPUT"
    )


def test_no_two_fields_have_one_name(tmp_path: Path) -> None:
    for output, kept in (("line", None), ("kept", [])):
        model = renamed(save_same(tmp_path, ["batch", 1]), output)
        with pytest.raises(CannotScore) as raised:
            Layout(JSON_LINES, model, kept)
        assert str(raised.value) == (
            f"OUTPUT: field '{output}': expected one of that name, got 2: rename that output of "
            "the model"
        )
    # Nothing else is called that where nothing is kept.
    assert Layout(JSON_LINES, model, None).lines([Row(1, [], [])], [{"kept": [1.0]}]) == (
        b'{"line":1,"kept":[1.0]}\n'
    )


def test_an_output_of_an_open_shape_has_no_columns(tmp_path: Path) -> None:
    model = Model.open(save_same(tmp_path, ["batch", None]))
    with pytest.raises(CannotScore, match=r"^output output: expected a shape for CSV, got an open"):
        Layout(CSV, model, None)
    assert Layout(JSON_LINES, model, None).head() == b""


def test_a_classifier_without_a_card_has_the_columns_of_one(tmp_path: Path) -> None:
    known = Model.open(save_classifier(tmp_path, NUMBERS, beside="twice"))
    assert head(known) == "line,label,probability,7,-1,3,twice[0],twice[1],twice[2],twice[3]\n"
    margins = Model.open(save_classifier(tmp_path, are_margins=True))
    assert head(margins) == "line,label,red,green,blue\n"
    unknown = Model.open(save_classifier(tmp_path, says_labels=False))
    columns = "probabilities[0],probabilities[1],probabilities[2]"
    assert head(unknown) == f"line,label,probability,{columns}\n"
    for model in (known, margins, unknown):
        (answer, *_) = predictions(model, model.run([ROWS]))
        line = Layout(CSV, model, None).lines([Row(7, [], None)], [answer]).decode()
        assert line.count(",") == head(model).count(",")


def test_an_output_beside_the_classes_has_a_name_of_its_own(tmp_path: Path) -> None:
    model = Model.open(save_classifier(tmp_path, beside="line"))
    with pytest.raises(CannotScore, match="OUTPUT: field 'line': expected one of that name"):
        Layout(JSON_LINES, model, None)
