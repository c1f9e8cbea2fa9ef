import hashlib
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from sklearn.datasets import load_diabetes
from torch import nn

from training.errors import DataUnavailable, InvalidData, Unsuitable
from training.export import Floor, export
from training.hyperparameters import Hyperparameters
from training.loop import evaluate
from training.recipe import present, train
from training.tabular import Table

QUICK = Hyperparameters(
    hidden=(8,), epochs=40, batch_size=16, learning_rate=0.02, weight_decay=0.01, seed=0
)
FLOWERS = Table(
    path="flowers.csv",
    description="Which flower it is.",
    features=[("width", "cm", "of a leaf"), ("age", "days", "since it opened")],
    target="kind",
    labels=["rose", "lily"],
    source="made up",
    licence="MIT",
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCHLIT_DATA_DIR", str(tmp_path))
    return tmp_path


def flowers(rows: int) -> str:
    """Roses are wider by 2 cm than lilies; every third is a rose."""
    lines = ["kind,age,width"]
    for row in range(rows):
        kind = "lily" if row % 3 else "rose"
        lines.append(f"{kind},{row % 7},{(3 if row % 3 else 5) + row % 11 / 10}")
    return "\n".join(lines) + "\n"


def test_columns_are_taken_by_name_and_labels_by_their_place(folder: Path) -> None:
    (folder / "flowers.csv").write_text(flowers(90))
    train_rows, held_out = FLOWERS.load()
    assert (len(train_rows.inputs), len(held_out.inputs)) == (63, 27)
    assert held_out.targets.bincount().tolist() == [9, 18]  # a third are roses here too
    for rows in (train_rows, held_out):
        widths, ages = rows.inputs.unbind(dim=1)
        assert torch.equal(widths >= 5, rows.targets == 0)
        assert ages.max() <= 6


@pytest.mark.slow
def test_table_of_labels_becomes_a_model(folder: Path) -> None:
    (folder / "flowers.csv").write_text(flowers(90))
    recipe = FLOWERS.recipe(name="flower", parameters=QUICK, floor=Floor("accuracy", at_least=0.9))
    candidate = train(recipe, QUICK)
    card = candidate.card
    assert (card.task, card.labels) == ("classification", ["rose", "lily"])
    assert [feature.name for feature in card.features] == ["width", "age"]
    assert [example.name for example in card.examples] == ["median rose", "median lily"]
    assert card.examples[0].output[0] > 0.9 > 0.1 > card.examples[1].output[0]
    digest = hashlib.sha256((folder / "flowers.csv").read_bytes()).hexdigest()
    assert card.dataset.sha256 == digest
    export(candidate, folder / "models/flower/1")
    assert (folder / "models/flower/1/boundary.png").exists()


def test_model_is_measured_on_the_rows_held_out_and_described_by_the_others(folder: Path) -> None:
    (folder / "flowers.csv").write_text(flowers(90))
    recipe = FLOWERS.recipe("flower", QUICK, Floor("accuracy", at_least=0.9), version=3)
    assert recipe.place == "flower/3"
    train_rows, held_out = recipe.load()
    unlearnt = recipe.build(QUICK, train_rows)
    torch.testing.assert_close(
        unlearnt[0](train_rows.inputs).mean(dim=0), torch.zeros(2), atol=1e-5, rtol=0
    )

    # Right for the first two thirds of what is held out, and for none of what is not.
    class Oracle(nn.Module):
        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            known = (rows[:, None] == held_out.inputs[:18]).all(dim=2).any(dim=1)
            wide = rows[:, 0] >= 5
            return nn.functional.one_hot((known != wide).long(), 2).float()

    candidate = present(recipe, Oracle(), QUICK, train_rows, held_out, None)
    assert candidate.card.metrics == evaluate(Oracle(), held_out)
    assert candidate.card.metrics != evaluate(Oracle(), train_rows)
    assert candidate.floor == Floor("accuracy", at_least=0.9)
    width = candidate.card.features[0]
    widths = train_rows.inputs[:, 0]
    assert width.minimum == pytest.approx(widths.min().item())
    assert width.maximum == pytest.approx(widths.max().item())
    assert torch.equal(candidate.rows[:27], held_out.inputs)


@pytest.mark.slow
def test_zero_is_an_answer_as_good_as_any(folder: Path) -> None:
    """Where the right answer is often 0, PyTorch and ONNX Runtime differ by more than all of it."""
    lines = ["a,b,rain"]
    for row in range(400):
        a, b = row % 20 - 10, row // 20 - 10
        lines.append(f"{a},{b},{max(0, a - b)}")
    (folder / "rain.csv").write_text("\n".join(lines))
    table = Table(
        path="rain.csv",
        description="Rain.",
        features=[("a", "", ""), ("b", "", "")],
        target="rain",
        source="made up",
        licence="MIT",
    )
    parameters = msgspec.structs.replace(QUICK, hidden=(64, 64), epochs=5)
    recipe = table.recipe("rain", parameters, Floor("rmse", at_most=3.0))
    assert export(train(recipe, parameters), folder / "models/rain/1") < 1e-4


@pytest.mark.slow
def test_small_units_keep_their_digits(folder: Path) -> None:
    lines = [
        "kind,age,width",
        *(f"{'rose' if n % 2 else 'lily'},{n % 5},{n % 7 + 1}e-7" for n in range(60)),
    ]
    (folder / "flowers.csv").write_text("\n".join(lines))
    recipe = FLOWERS.recipe("flower", QUICK, Floor("accuracy"))
    example = train(recipe, QUICK).card.examples[0]
    assert 1e-7 <= example.input[0] <= 7e-7


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"labels": ["rose"]}, "labels: expected a list of two or more different texts, or none"),
        ({"labels": ["rose", "rose"]}, "labels: expected a list of two or more different texts"),
        ({"labels": "ab"}, "labels: expected a list of two or more .*, got 'ab'"),
        ({"labels": [0, 1]}, r"labels: expected a list of two or more .*, got \[0, 1\]"),
        ({"features": []}, r"features: expected one or more .*, got \[\]"),
        ({"features": ["age", "width"]}, "features: expected one or more"),
        ({"features": [("age", "", "")] * 2}, "features: expected .*, each column once, got"),
        ({"held_out": 0.0}, "held_out: expected a share between 0 and 1, got 0.0"),
        ({"held_out": 30}, "held_out: expected a share between 0 and 1, got 30"),
        ({"held_out": "0.3"}, "held_out: expected a share between 0 and 1, got '0.3'"),
    ],
)
def test_table_that_cannot_be_is_named(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(Unsuitable, match=rf"^flowers\.csv: {sentence}"):
        msgspec.structs.replace(FLOWERS, **changes)


def test_label_without_rows_is_named(folder: Path) -> None:
    (folder / "flowers.csv").write_text(flowers(90))
    table = msgspec.structs.replace(FLOWERS, labels=["rose", "lily", "tulip"])
    with pytest.raises(InvalidData, match="kind: expected rows of every label, got none of tulip"):
        table.load()


@pytest.mark.slow
def test_table_of_numbers_becomes_a_model(folder: Path) -> None:
    """A data set that the project has not seen; linear regression has an RMSE of about 55."""
    data = load_diabetes(scaled=False)
    rows = [",".join(map(str, [*row, y])) for row, y in zip(data.data, data.target, strict=True)]
    header = ",".join([*data.feature_names, "progression"])
    (folder / "diabetes.csv").write_text("\n".join([header, *rows]))
    table = Table(
        path="diabetes.csv",
        description="How far diabetes has gone after a year.",
        features=[(name, "", name) for name in data.feature_names],
        target="progression",
        unit="points",
        source="scikit-learn",
        licence="unknown",
    )
    parameters = msgspec.structs.replace(QUICK, weight_decay=0.3, epochs=30)
    candidate = train(
        table.recipe(name="diabetes", parameters=parameters, floor=Floor("rmse", at_most=60)),
        parameters,
    )
    card = candidate.card
    assert (card.task, card.targets[0].name, card.targets[0].unit) == (
        *("regression", "progression", "points"),
    )
    assert 45 < card.metrics["rmse"] < 60  # in points, not standard deviations
    assert 100 < card.examples[0].output[0] < 200
    history = msgspec.json.decode(candidate.files["history.json"])
    assert 0 < history["held_out"][-1] < 1  # standardized, as the loss of training is
    export(candidate, folder / "models/diabetes/1")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("kind,age\nrose,1\n", r"flowers.csv: expected one column 'width', got kind, age"),
        ("kind,age,width\ntulip,1,2\n", "line 2: kind: expected one of rose, lily, got 'tulip'"),
        ("kind,age,width\nrose,old,2\n", "line 2: age: expected a finite number, got 'old'"),
        ("kind,age,width\nrose,1,nan\n", "line 2: width: expected a finite number, got 'nan'"),
        ("kind,age,width\n", "expected a header and rows, got 1 lines"),
        ("", "expected a header and rows, got 0 lines"),
        ("kind,age,width\nrose,1,2\nlily,1,2\n", "expected more rows, to split them: "),
    ],
)
def test_bad_table_is_named_with_its_line(content: str, sentence: str, folder: Path) -> None:
    (folder / "flowers.csv").write_text(content)
    with pytest.raises(InvalidData, match=sentence):
        FLOWERS.load()


def test_missing_table_is_named(folder: Path) -> None:
    with pytest.raises(DataUnavailable, match=r"flowers\.csv is missing: put the file there"):
        FLOWERS.load()
