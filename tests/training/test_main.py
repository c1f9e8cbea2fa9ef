import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
import torch
from torch import nn

from service.card import Card, Dataset
from training import iris
from training.__main__ import main
from training.errors import Diverged
from training.export import Floor
from training.hyperparameters import Hyperparameters
from training.loop import History, Watch, fit
from training.network import perceptron
from training.recipe import Recipe
from training.recipes import MODULES, find
from training.rows import Rows


def add(monkeypatch: pytest.MonkeyPatch, recipe: Recipe) -> None:
    """Add a model of this recipe to those that the command line knows."""
    monkeypatch.setitem(MODULES, recipe.place, recipe.name)
    module = SimpleNamespace(RECIPE=recipe)
    monkeypatch.setitem(sys.modules, f"training.{recipe.name}", module)


def made_by(
    train: Callable[[Hyperparameters], None], parameters: Hyperparameters, name: str = "toy"
) -> Recipe:
    """A recipe that only calls `train`; its network is right from the start."""

    def learn(
        network: nn.Sequential, parameters: Hyperparameters, rows: Rows, watch: Watch | None
    ) -> History:
        train(parameters)
        return History([0.5], [0.6])

    rows = Rows(inputs=torch.eye(3)[torch.arange(30) % 3], targets=torch.arange(30) % 3)
    return Recipe(
        name=name,
        description="Which corner a point is in.",
        features=[("x", "m", ""), ("y", "m", ""), ("z", "m", "")],
        labels=["east", "north", "up"],
        dataset=Dataset(name="corners", source="made up", sha256="0" * 64, licence="MIT"),
        parameters=parameters,
        floor=Floor("accuracy", at_least=1.0),
        load=lambda: (rows, rows),
        build=lambda parameters, rows: nn.Sequential(nn.Linear(3, 3), nn.Softmax(dim=1)),
        learn=learn,
        measure=lambda network, rows: {"accuracy": 1.0},
        typical=lambda rows: {"origin": torch.zeros(3)},
    )


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> list[Hyperparameters]:
    """A model named toy; returns the parameters of each training of it."""
    trained: list[Hyperparameters] = []
    parameters = msgspec.structs.replace(iris.PARAMETERS, seed=5, epochs=7)
    add(monkeypatch, made_by(trained.append, parameters))
    return trained


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


@pytest.mark.slow
def test_model_is_trained_from_the_command_line_and_again_to_the_same_bytes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = command("moons", "--models-dir", str(tmp_path / "first"), PYTHONHASHSEED="1")
    assert first.returncode == 0
    assert re.fullmatch(
        r"moons/1: epoch 400 of 400: loss 0\.\d+, held out 0\.\d+, accuracy 1\.0+, after \d+ s\n",
        first.stderr,
    )
    header, line = first.stdout.splitlines()
    assert re.split("  +", header) == [
        *["model", "held out", "differs", "model.onnx", "state_dict.pt", "seconds"]
    ]
    assert line.split()[:2] == ["moons/1", "accuracy"]
    assert 0 < float(line.split()[3]) < 1e-5

    torch.rand(9)  # what ran before in the process must not matter
    assert main(["moons", "--models-dir", str(tmp_path / "again")]) == 0
    for name in ("model.onnx", "state_dict.pt", "request.json"):
        again = (tmp_path / "again/moons/1" / name).read_bytes()
        assert (tmp_path / "first/moons/1" / name).read_bytes() == again
    assert capsys.readouterr().out.splitlines()[0] == header

    card = card_of(tmp_path / "again/moons/1/model.onnx")
    assert f"accuracy {card.metrics['accuracy']:.4f}" in line
    assert card.metrics["accuracy"] >= 0.97


@pytest.mark.slow
def test_command_line_overrides_the_models_own_choices(
    toy: list[Hyperparameters], tmp_path: Path
) -> None:
    assert main(["toy", "--models-dir", str(tmp_path)]) == 0
    assert main(["toy", "--models-dir", str(tmp_path), "--seed", "0", "--epochs", "9"]) == 0
    assert [(each.seed, each.epochs) for each in toy] == [(5, 7), (0, 9)]


def test_seed_of_the_command_line_decides_the_weights(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    drawn: list[float] = []

    def train(parameters: Hyperparameters) -> None:
        drawn.append(torch.rand(1).item())
        raise Diverged("enough")

    add(monkeypatch, made_by(train, iris.PARAMETERS))
    for seed in ("1", "1", "2"):
        main(["toy", "--models-dir", str(tmp_path), "--seed", seed])
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.slow
def test_model_named_twice_is_trained_once(toy: list[Hyperparameters], tmp_path: Path) -> None:
    assert main(["toy", "toy", "--models-dir", str(tmp_path)]) == 0
    assert len(toy) == 1


@pytest.mark.slow
def test_all_names_every_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    trained: list[Hyperparameters] = []
    recipes = find(["all"])
    for recipe in recipes:
        each = made_by(trained.append, recipe.parameters, recipe.name)
        named = msgspec.structs.replace(each, version=recipe.version)
        monkeypatch.setattr(f"training.{MODULES[recipe.place]}.RECIPE", named)
    assert main(["all", "--models-dir", str(tmp_path)]) == 0
    assert trained == [recipe.parameters for recipe in recipes]
    assert len(trained) == 6


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "required: NAME"),
        (["iris", "--lr", "1"], "unrecognized arguments: --lr 1"),
        (["export"], "required: NAME"),
    ],
)
def test_wrong_usage_is_reported(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("command", ["train", "evaluate", "export"])
@pytest.mark.parametrize("name", ["rose", "iris/7", "xor/", "rose/1"])
def test_name_that_is_unknown_is_reported(
    command: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([name] if command == "train" else [command, name]) == 2
    assert capsys.readouterr().err == (
        "error: NAME: expected one of xor, moons, iris, housing, mnist, one version such as "
        f"xor/1, all, or a file such as wine.py, got {name!r}\n"
    )


def test_unsuitable_choice_is_one_sentence_and_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["moons", "--validation", "0.25", "--models-dir", str(tmp_path)]
    assert main(arguments) == 2
    assert capsys.readouterr().err == (
        "error: expected patience or a stop loss, for which the validation rows are there\n"
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["iris", "moons", "housing"])
def test_model_with_unusual_choices_is_saved_and_built_again(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if name == "housing":
        request.getfixturevalue("real_data")
    choices = "--hidden 24,12 --activation gelu --optimizer adam --batch-normalisation yes"
    more = "--dropout 0.02 --validation 0.1 --patience 60 --weight-decay 0 --learning-rate 0.03"
    epochs = "30" if name == "housing" else "100"
    arguments = [name, *choices.split(), *more.split(), "--epochs", epochs, "--seed", "4"]
    assert main([*arguments, "--models-dir", str(tmp_path)]) == 0
    folder = tmp_path / name / "1"
    made = card_of(folder / "model.onnx").training
    assert (made["hidden"], made["activation"], made["optimizer"]) == ([24, 12], "gelu", "adam")
    assert (made["batch_normalisation"], made["dropout"], made["patience"]) == (True, 0.02, 60)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert main(["export", name, "--models-dir", str(tmp_path)]) == 0
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.slow
def test_export_builds_all_files_from_weights_and_history(tmp_path: Path) -> None:
    committed = Path(__file__).parents[2] / "models/moons/1"
    folder = tmp_path / "moons/1"
    folder.mkdir(parents=True)
    for name in ("state_dict.pt", "history.json"):
        (folder / name).write_bytes((committed / name).read_bytes())
    assert main(["export", "moons", "--models-dir", str(tmp_path)]) == 0
    assert len(list(folder.iterdir())) == 7
    for path in committed.iterdir():
        assert (folder / path.name).read_bytes() == path.read_bytes(), path.name


@pytest.mark.slow
def test_export_without_a_history_has_no_plot_of_it(tmp_path: Path) -> None:
    committed = Path(__file__).parents[2] / "models/moons/1"
    folder = tmp_path / "moons/1"
    folder.mkdir(parents=True)
    (folder / "state_dict.pt").write_bytes((committed / "state_dict.pt").read_bytes())
    assert main(["export", "moons", "--models-dir", str(tmp_path)]) == 0
    plots = [picture.file for picture in card_of(folder / "model.onnx").pictures]
    assert sorted(plots) == sorted(path.name for path in folder.glob("*.png"))
    assert sorted(plots) == ["boundary.png", "confusion.png"]


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


@pytest.fixture
def interrupts() -> Iterator[None]:
    """Let SIGINT interrupt, as it does from a terminal; a shell ignores it in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.slow
@pytest.mark.usefixtures("interrupts")
def test_interrupting_leaves_the_old_model_and_gives_130(
    toy: list[Hyperparameters],
    clouds: Rows,
    toy_parameters: Hyperparameters,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["toy", "--models-dir", str(tmp_path)]) == 0
    before = (tmp_path / "toy/1/model.onnx").read_bytes()

    def train(parameters: Hyperparameters) -> None:
        def press_ctrl_c(inputs: torch.Tensor, done: float) -> torch.Tensor:
            signal.raise_signal(signal.SIGINT)
            return inputs

        network = perceptron(2, toy_parameters, 3)
        cross_entropy = nn.functional.cross_entropy
        fit(network, clouds, cross_entropy, toy_parameters, augment=press_ctrl_c)
        raise AssertionError("was not interrupted")

    add(monkeypatch, made_by(train, toy_parameters))
    capsys.readouterr()
    assert main(["toy", "--models-dir", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "interrupted: nothing more was saved\n"
    assert (tmp_path / "toy/1/model.onnx").read_bytes() == before


@pytest.mark.slow
def test_table_shows_what_was_saved_before_an_error(
    toy: list[Hyperparameters],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def train(parameters: Hyperparameters) -> None:
        raise Diverged("the loss became nan")

    add(monkeypatch, made_by(train, iris.PARAMETERS, "bad"))
    assert main(["toy", "bad", "--models-dir", str(tmp_path)]) == 1
    printed = capsys.readouterr()
    assert printed.err == "error: the loss became nan\n"
    assert [line.split()[0] for line in printed.out.splitlines()] == ["model", "toy/1"]
