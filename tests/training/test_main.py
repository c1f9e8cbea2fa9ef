import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import torch

from service.card import Card
from training import iris
from training.__main__ import RECIPES, Recipe, main
from training.data import Rows
from training.errors import Diverged
from training.export import Candidate
from training.loop import Hyperparameters, fit
from training.network import perceptron


@pytest.fixture
def toy(classifier: Candidate, monkeypatch: pytest.MonkeyPatch) -> list[Hyperparameters]:
    """A model named toy that is trained already; returns what it was asked to train with."""
    asked: list[Hyperparameters] = []

    def train(parameters: Hyperparameters) -> Candidate:
        asked.append(parameters)
        return classifier

    parameters = msgspec.structs.replace(iris.PARAMETERS, seed=5, epochs=7)
    monkeypatch.setitem(RECIPES, "toy", Recipe(parameters, train))
    return asked


def raising(error: BaseException) -> Recipe:
    def train(parameters: Hyperparameters) -> Candidate:
        raise error

    return Recipe(iris.PARAMETERS, train)


def card_of(model: Path) -> Card:
    content = model.read_bytes()
    return Card.from_json(content[content.index(b'{"task"') :])  # the card is the file's end


def command(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "training", *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_iris_is_trained_from_the_command_line_and_again_to_the_same_bytes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = command("iris", "--models-dir", str(tmp_path / "first"), PYTHONHASHSEED="1")
    assert (first.returncode, first.stderr) == (0, "")
    header, line = first.stdout.splitlines()
    assert re.split("  +", header) == [
        *["model", "version", "held out", "model.onnx", "state_dict.pt", "seconds"]
    ]
    assert line.split()[:3] == ["iris", "1", "accuracy"]

    torch.rand(9)  # what ran before in the process must not matter
    assert main(["iris", "--models-dir", str(tmp_path / "again")]) == 0
    for name in ("model.onnx", "state_dict.pt", "request.json"):
        again = (tmp_path / "again/iris/1" / name).read_bytes()
        assert (tmp_path / "first/iris/1" / name).read_bytes() == again
    assert capsys.readouterr().out.splitlines()[0] == header

    card = card_of(tmp_path / "again/iris/1/model.onnx")
    assert f"accuracy {card.metrics['accuracy']:.4f}" in line
    assert card.metrics["accuracy"] >= 0.95


def test_command_line_overrides_the_models_own_choices(
    toy: list[Hyperparameters], tmp_path: Path
) -> None:
    assert main(["toy", "--models-dir", str(tmp_path)]) == 0
    assert main(["toy", "--models-dir", str(tmp_path), "--seed", "0", "--epochs", "9"]) == 0
    assert [(each.seed, each.epochs) for each in toy] == [(5, 7), (0, 9)]


def test_seed_of_the_command_line_decides_the_weights(
    toy: list[Hyperparameters], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    drawn: list[float] = []

    def train(parameters: Hyperparameters) -> Candidate:
        drawn.append(torch.rand(1).item())
        raise Diverged("enough")

    monkeypatch.setitem(RECIPES, "toy", Recipe(iris.PARAMETERS, train))
    for seed in ("1", "1", "2"):
        main(["toy", "--models-dir", str(tmp_path), "--seed", seed])
    assert drawn[0] == drawn[1] != drawn[2]


def test_model_named_twice_is_trained_once(toy: list[Hyperparameters], tmp_path: Path) -> None:
    assert main(["toy", "toy", "--models-dir", str(tmp_path)]) == 0
    assert len(toy) == 1


def test_all_names_every_model(
    classifier: Candidate, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[int] = []

    def train(parameters: Hyperparameters) -> Candidate:
        asked.append(parameters.epochs)
        return classifier

    own = [recipe.parameters.epochs for recipe in RECIPES.values()]
    for name, recipe in RECIPES.items():
        monkeypatch.setitem(RECIPES, name, Recipe(recipe.parameters, train))
    assert main(["all", "--models-dir", str(tmp_path)]) == 0
    assert asked == own
    assert len(asked) == 3


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["rose"], "invalid choice: 'rose' (choose from iris, housing, mnist, all)"),
        ([], "required: NAME"),
        (["iris", "--epochs", "0"], "expected a number from 1 on, got 0"),
        (["iris", "--epochs", "many"], "invalid"),
        (["iris", "--lr", "1"], "unrecognized arguments: --lr 1"),
    ],
)
def test_wrong_usage_is_told(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert sentence in capsys.readouterr().err.replace("'iris'", "iris").replace(
        "'housing', 'mnist', 'all'", "housing, mnist, all"
    )


def test_error_is_one_sentence_and_status_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCHLIT_DATA_DIR", str(tmp_path))
    (tmp_path / "housing").mkdir()
    (tmp_path / "housing/BostonHousing.csv").write_text("crim,medv\n1,2\n")
    assert main(["housing", "--models-dir", str(tmp_path / "models")]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"error: {tmp_path}/housing/BostonHousing.csv: expected content")
    assert printed.err.count("\n") == 1
    assert not (tmp_path / "models").exists()


def test_result_below_the_floor_is_not_saved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["iris", "--epochs", "1", "--models-dir", str(tmp_path / "models")]) == 1
    assert "iris: expected a held-out accuracy of at least 0.95, got" in capsys.readouterr().err
    assert not (tmp_path / "models").exists()


def test_interrupting_leaves_the_old_model_and_gives_130(
    toy: list[Hyperparameters],
    clouds: Rows,
    toy_parameters: Hyperparameters,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["toy", "--models-dir", str(tmp_path)]) == 0
    before = (tmp_path / "clouds/1/model.onnx").read_bytes()

    def train(parameters: Hyperparameters) -> Candidate:
        def press_ctrl_c(inputs: torch.Tensor) -> torch.Tensor:
            signal.raise_signal(signal.SIGINT)
            return inputs

        network = perceptron(2, (), 3)
        fit(network, clouds, torch.nn.functional.cross_entropy, toy_parameters, press_ctrl_c)
        raise AssertionError("was not interrupted")

    monkeypatch.setitem(RECIPES, "toy", Recipe(toy_parameters, train))
    capsys.readouterr()
    assert main(["toy", "--models-dir", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "interrupted: the model in training was not saved\n"
    assert (tmp_path / "clouds/1/model.onnx").read_bytes() == before


def test_table_shows_what_was_saved_before_an_error(
    toy: list[Hyperparameters],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(RECIPES, "bad", raising(Diverged("the loss became nan")))
    assert main(["toy", "bad", "--models-dir", str(tmp_path)]) == 1
    printed = capsys.readouterr()
    assert printed.err == "error: the loss became nan\n"
    assert [line.split()[0] for line in printed.out.splitlines()] == ["model", "toy"]


def test_onnx_runtime_does_not_report_home() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import os, training; print(os.environ['ORT_DISABLE_TELEMETRY'])"],
        env={key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "1\n"
