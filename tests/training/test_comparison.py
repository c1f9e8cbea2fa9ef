from pathlib import Path

import msgspec
import pytest
from sklearn.linear_model import LinearRegression

from training import comparison, moons
from training.comparison import Line, compare, defaults, over_splits, table
from training.errors import Unloadable
from training.export import Floor
from training.recipes import load
from training.rows import Rows

MODELS = Path(__file__).parents[2] / "models"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["iris", "housing"])
def test_network_and_classical_models_are_measured_on_the_same_splits(
    name: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    if name == "housing":
        request.getfixturevalue("real_data")
    recipe = load(f"{name}/1")
    assert recipe.splits is not None
    splits = recipe.splits()[:2]
    numbers = ["rmse", "interval_coverage", "rmse"]
    expected = numbers if name == "housing" else ["accuracy", "accuracy"]
    measured: list[tuple[Rows, Rows]] = []

    def measure(model: object, train: Rows, held_out: Rows) -> float:
        measured.append((train, held_out))
        return 0.5

    monkeypatch.setattr(comparison, "classical", measure)
    quick = msgspec.structs.replace(
        recipe,
        parameters=msgspec.structs.replace(recipe.parameters, epochs=10),
        splits=lambda: splits,
        baselines=lambda seed: {"line": LinearRegression()},
    )
    lines = compare([quick], MODELS)
    assert [line.metric for line in lines] == expected
    assert [line.model for line in lines] == ["network 1"] * (len(lines) - 1) + ["line"]
    assert {len(line.results) for line in lines} == {2}
    assert lines[0].results[0] != lines[0].results[1]
    assert measured == splits


@pytest.mark.slow
def test_seed_of_the_network_is_the_number_of_the_split() -> None:
    seeds: list[int] = []
    watching = msgspec.structs.replace(
        moons.RECIPE,
        learn=lambda network, parameters, rows, watch: seeds.append(parameters.seed),
    )
    over_splits(watching, [moons.load()] * 3)
    assert seeds == [0, 1, 2]


@pytest.mark.slow
@pytest.mark.parametrize("place", ["xor/1", "moons/1"])
def test_committed_model_is_measured_as_its_card_says(place: str) -> None:
    network, *classical_ones = compare([load(place)], MODELS)
    assert network == Line(load(place).name, "network 1", "accuracy", [1.0])
    assert classical_ones[0].model == "logistic regression"
    assert all(line.results < [1.0] for line in classical_ones)


@pytest.mark.slow
def test_network_is_measured_as_the_classical_models_are_whatever_its_floor() -> None:
    own = load("moons/1")
    other = msgspec.structs.replace(
        own, measure=lambda network, rows: {"other": 0.5}, floor=Floor("other"), baselines=None
    )
    network, *classical_ones = compare([other], MODELS)
    assert network == Line("moons", "network 1", "accuracy", [1.0])
    assert [line.model for line in classical_ones] == ["logistic regression", "random forest"]


def test_numbers_have_their_own_classical_models() -> None:
    assert list(defaults(False, 0)) == ["linear regression", "random forest"]


@pytest.mark.slow
def test_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unloadable, match=r"xor/1/state_dict\.pt is missing: train the model first"):
        compare([load("xor/1")], tmp_path)


@pytest.mark.slow
def test_versions_of_a_model_share_their_baselines() -> None:
    moon = load("moons/1")
    lines = compare([moon, msgspec.structs.replace(moon, name="moons")], MODELS)
    assert [line.model for line in lines] == [
        *["network 1", "network 1", "logistic regression", "SVM, radial"]
    ]


def test_table_shows_mean_spread_least_and_most() -> None:
    lines = [
        Line("iris", "network 1", "accuracy", [0.95, 0.975, 1.0]),
        Line("housing", "network 1", "rmse", [2.0, 3.0]),
        Line("housing", "network 1", "interval_coverage", [0.9, 0.95]),
        Line("xor", "network 1", "accuracy", [1.0]),
    ]
    rows = [" ".join(line.split()) for line in table(lines).splitlines()]
    assert rows == [
        "data model splits metric mean spread least most",
        "iris network 1 3 accuracy 97.50 % 2.50 % 95.00 % 100.00 %",
        "housing network 1 2 rmse 2.500 0.707 2.000 3.000",
        "housing network 1 2 coverage 92.50 % 3.54 % 90.00 % 95.00 %",
        "xor network 1 1 accuracy 100.00 %",
    ]
