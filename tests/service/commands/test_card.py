"""Cards for models that were made elsewhere."""

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from service.__main__ import main
from service.card import Card
from service.engine.model import Model
from service.settings import Settings
from tests.support.classifiers import save_classifier
from tests.support.foreign_models import FLOAT, graph, info, node, save, weights
from tests.support.toys import (
    WEIGHTS,
    save_columns,
    save_imputed,
    save_same,
    save_toy,
    serving,
    toy_card,
)

ROWS = "a,b,c,d\n1,2,3,4\n5,6,7,8\n9,8,7,6\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.csv").write_text(ROWS)
    return tmp_path


def refused(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run the command, which cannot be done; return its sentence."""
    assert main(["card", *arguments]) == 1
    assert not list(Path().glob("**/.*.onnx"))  # nothing is left
    return capfd.readouterr().err.removeprefix("torchlit: ").strip()


def card_of(path: str) -> Card:
    model = Model.open(Path(path))
    model.self_test()
    assert model.card is not None
    return model.card


def test_a_card_says_what_rows_show(capfd: pytest.CaptureFixture[str]) -> None:
    made = str(save_toy(Path("made")))
    labels = ["--labels", "red,green,blue", "--units", "a=cm, c=kg", "--description", "A toy."]
    assert main(["card", made, "--examples", "rows.csv", *labels, "--output", "new/1/m.onnx"]) == 0
    assert "new/1/m.onnx: classification, 4 columns, 3 examples" in capfd.readouterr().out
    card = card_of("new/1/m.onnx")
    assert [each.name for each in card.features] == ["a", "b", "c", "d"]
    assert [each.unit for each in card.features] == ["cm", "", "kg", ""]
    first = card.features[0]
    assert (first.minimum, first.maximum, first.mean, first.default) == (1, 9, 5, 5)
    assert first.std == pytest.approx(np.std([1, 5, 9]))
    assert (card.labels, card.description) == (["red", "green", "blue"], "A toy.")
    logits = np.array([1, 2, 3, 4]) @ WEIGHTS
    expected = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    assert card.examples[0].output == pytest.approx(expected.tolist(), abs=1e-6)
    assert Path(made).read_bytes() == Path("new/1/m.onnx").read_bytes()[: Path(made).stat().st_size]


def test_columns_of_several_types_are_described() -> None:
    made = str(save_columns(Path("made"), has_town=False))
    Path("rows.csv").write_text(
        "city,age,paid,rooms\nŁódź,30.5,true,2\nBerlin,41,false,3\nBerlin,20,false,5\n"
    )
    assert main(["card", made, "--examples", "rows.csv"]) == 0
    card = card_of(made.replace(".onnx", ".card.onnx"))
    assert [(each.name, each.type, each.default) for each in card.features] == [
        ("age", "number", 30.5),
        ("rooms", "number", 3),
        ("city", "string", "Berlin"),
        ("paid", "boolean", False),
    ]
    assert card.features[2].values == ["Berlin", "Łódź"]
    assert card.examples[0].input == [30.5, 2, "Łódź", True]


def test_missing_values_stay_missing() -> None:
    made = str(save_imputed(Path("made")))
    Path("rows.csv").write_text("age,size\n,1\n3,2\n")
    assert main(["card", made, "--examples", "rows.csv", "--output", "out.onnx"]) == 0
    card = card_of("out.onnx")
    assert card.examples[0].input == [None, 1]
    assert card.features[0].range == (3, 3)


def test_a_classifier_keeps_its_labels_and_may_get_others(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    made = str(save_classifier(tmp_path))
    rows = ",".join("abcd"[: Model.open(Path(made)).row_size])
    count = rows.count(",") + 1
    Path("rows.csv").write_text(f"{rows}\n{','.join(['1'] * count)}\n{','.join(['2'] * count)}\n")
    assert main(["card", made, "--examples", "rows.csv", "--output", "same.onnx"]) == 0
    found = Model.open(Path(made)).classifier
    assert found is not None
    assert card_of("same.onnx").labels == found.names
    others = [f"of_{each}" for each in found.names]
    labels = ["--labels", ",".join(others)]
    assert main(["card", made, "--examples", "rows.csv", *labels, "--output", "other.onnx"]) == 0
    model = Model.open(Path("other.onnx"))
    assert model.classifier is not None
    assert (model.classifier.names, model.classifier.label) == (others, None)
    assert f"{found.names[0]} is now of_{found.names[0]}" in capfd.readouterr().out
    turned = ["--labels", ",".join(reversed(found.names))]
    assert "expected the order of the file" in refused(
        capfd, made, "--examples", "rows.csv", *turned, "--output", "turned.onnx"
    )


@pytest.mark.anyio
async def test_what_has_a_card_is_served_like_our_own(tmp_path: Path) -> None:
    made = str(save_columns(tmp_path / "made", has_town=False))
    Path("rows.csv").write_text(
        "age,rooms,city,paid\n30.5,2,Łódź,true\n41,3,Berlin,false\n20,5,Berlin,false\n"
    )
    output = str(tmp_path / "models/house/1/model.onnx")
    assert main(["card", made, "--examples", "rows.csv", "--output", output]) == 0
    async with serving(Settings(models_dir=tmp_path / "models")) as client:
        listed = (await client.get("/models/house")).json()["versions"][0]["card"]
        (example, *_) = listed["examples"]
        names = [each["name"] for each in listed["features"]]
        named = dict(zip(names, example["input"], strict=True))
        reply = await client.post("/predict", json={"instances": [named, named | {"age": 99}]})
        assert reply.status_code == 200, reply.text
        first, _ = reply.json()["predictions"]
        assert np.ravel([*first.values()]).tolist() == pytest.approx(example["output"])
        metrics = (await client.get("/metrics")).text
        outside = [line for line in metrics.splitlines() if "outside" in line and '"age"' in line]
        assert any(line.endswith(" 1.0") for line in outside), outside
        document = (await client.get("/schema/openapi.json")).text
        assert "20 to 41 in training" in document
        assert "Berlin, Łódź in training" in document


def test_how_to_approve_the_copy_is_told_where_there_is_a_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCHLIT_MODELS_DIR", str(tmp_path / "models"))
    made = str(save_columns(tmp_path / "made", has_town=False))
    Path("rows.csv").write_text("age,rooms,city,paid\n30.5,2,Berlin,true\n41,3,Berlin,false\n")

    def says(output: str) -> str:
        assert main(["card", made, "--examples", "rows.csv", "--output", output, "--force"]) == 0
        return capfd.readouterr().out.split("\n", 1)[1]

    assert says("models/house/1/model.onnx") == ""
    (tmp_path / "models/SHA256SUMS").write_text("")
    assert says("elsewhere.onnx") == ""
    approve = "SHA256SUMS does not list it as it is: approve this one with `python -m service pin "
    assert says("models/house/1/model.onnx") == f"{approve}house/1`\n"
    assert main(["pin", "house/1"]) == 0
    capfd.readouterr()
    assert says("models/house/1/model.onnx") == ""


def test_what_does_not_fit_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    made = str(save_toy(Path("made")))
    rows = ["--examples", "rows.csv"]
    assert "expected 3, one for each class, got 2" in refused(capfd, made, *rows, "--labels", "a,b")
    assert "--units: expected a, b, c, d, got e" in refused(capfd, made, *rows, "--units", "e=cm")
    assert "rows.csv: expected 4 columns, got 1" in refused(capfd, made, *rows, "--columns", "a")
    wrong = ["--columns", "a,b,c,e"]
    assert "expected one column e, got none" in refused(capfd, made, *rows, *wrong)
    for text, why in (
        ("1,2,3,4\n", "expected 4 columns, got 4 values, and 0 names"),
        ("a;b;c;d\n1;2;3;4\n", "expected 4 columns, got 1; is it separated by commas?"),
        ("a,b,c,c\n1,2,3,4\n", "expected one column c, got 2"),
        ("0,1,2,3\n1,2,3,4\n", "got 0,1,2,3, a pandas index"),
        ("", "expected rows, got none"),
    ):
        Path("rows.csv").write_text(text)
        assert why in refused(capfd, made, *rows)
    Path("rows.csv").write_text("a,b,c,d\n1,2,3\n")
    assert "rows.csv: row 2: expected 4 values, got 3" in refused(capfd, made, *rows)
    Path("rows.csv").write_text("a,b,c,d\n1,2,3,x\n")
    assert 'rows.csv: row 2[3]: expected a number, got "x"' in refused(capfd, made, *rows)
    Path("rows.csv").write_text("a,b,c,d\n")
    assert "rows.csv: expected rows, got none" in refused(capfd, made, *rows)
    assert "absent.csv: No such file" in refused(capfd, made, "--examples", "absent.csv")
    assert "no such file" in refused(capfd, "absent.onnx", *rows).lower()


def test_a_copy_is_not_written_over_a_file_or_a_card(capfd: pytest.CaptureFixture[str]) -> None:
    made = str(save_toy(Path("made")))
    rows = ["--examples", "rows.csv"]
    Path("there.onnx").write_text("mine")
    there = [made, *rows, "--labels", "a,b,c", "--output", "there.onnx"]
    assert "there.onnx: is there already; --force replaces it" in refused(capfd, *there)
    assert Path("there.onnx").read_text() == "mine"
    assert main(["card", *there, "--force"]) == 0
    assert "it has a card already" in refused(capfd, "there.onnx", *rows)
    ours = str(save_toy(Path("ours"), card=toy_card()))
    assert "it has a card already" in refused(capfd, ours, *rows)


def test_only_a_model_is_replaced(capfd: pytest.CaptureFixture[str]) -> None:
    made = str(save_toy(Path("made")))
    rows = ["--examples", "rows.csv", "--labels", "a,b,c", "--force"]
    Path("folder.onnx").mkdir()
    for other in ("rows.csv", "folder.onnx"):
        sentence = refused(capfd, made, *rows, "--output", other)
        assert f"--output: expected a file that ends in .onnx, got {other}" in sentence
    assert Path("rows.csv").read_text() == ROWS


def test_the_inputs_of_a_model_name_its_columns(capfd: pytest.CaptureFixture[str]) -> None:
    made = str(save_columns(Path("made"), has_town=False))
    rows = ["--examples", "rows.csv"]
    Path("rows.csv").write_text("1,2\n")
    assert "rows.csv: expected 4 columns, got 2 values" in refused(capfd, made, *rows)
    Path("rows.csv").write_text("age;rooms;city;paid\n1;2;Rome;true\n")
    assert "is it separated by commas?" in refused(capfd, made, *rows)
    Path("rows.csv").write_text("age,rooms,City,paid\n1,2,Rome,true\n")
    assert "expected one column city, got none" in refused(capfd, made, *rows)
    others = ["--columns", "rooms,age,city,paid"]
    assert "--columns: expected the inputs of the model" in refused(capfd, made, *rows, *others)
    texts = str(save_same(Path("made"), ["n", 1], TensorProto.STRING))
    Path("rows.csv").write_text("input\nfoo\n")
    assert "expected numbers as the answer, got" in refused(capfd, texts, *rows)


def test_names_may_have_commas(capfd: pytest.CaptureFixture[str]) -> None:
    made = str(save_toy(Path("made")))
    labels = ["--labels", '"no, never",yes,b']
    assert main(["card", made, "--examples", "rows.csv", *labels, "--output", "out.onnx"]) == 0
    assert card_of("out.onnx").labels == ["no, never", "yes", "b"]
    with pytest.raises(SystemExit):
        main(["card", made, "--examples", "rows.csv", "--labels", "a,,b"])
    assert "expected names with commas between them, got 'a,,b'" in capfd.readouterr().err


def test_labels_want_probabilities(capfd: pytest.CaptureFixture[str]) -> None:
    linear = graph(
        [node("MatMul", ["x", "w"], ["y"])],
        [info("x", FLOAT, ["n", 4])],
        [info("y", FLOAT, ["n", 3])],
        w=weights(4, 3),
    )
    made = str(save(Path("made"), "linear", linear))
    rows = ["--examples", "rows.csv"]
    assert "export it with a softmax behind" in refused(capfd, made, *rows, "--labels", "a,b,c")
    assert main(["card", made, *rows, "--output", "out.onnx"]) == 0
    assert [each.name for each in card_of("out.onnx").targets] == ["y_0", "y_1", "y_2"]
