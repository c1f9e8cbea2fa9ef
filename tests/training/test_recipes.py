from pathlib import Path

import pytest

from training.errors import Unsuitable
from training.recipes import MODULES, find, load, parameters

WINE = """
import msgspec
from training import moons

RECIPE = msgspec.structs.replace(moons.RECIPE, name={name!r}, version={version!r})
"""


def places(*names: str) -> list[str]:
    return [recipe.place for recipe in find(names)]


def test_name_is_every_version_and_place_is_one() -> None:
    assert places("mnist") == ["mnist/1", "mnist/2"]
    assert places("mnist/2") == ["mnist/2"]
    assert places("all") == list(MODULES)
    assert places("mnist/2", "xor", "mnist", "xor/1") == ["mnist/2", "xor/1", "mnist/1"]


def test_file_of_ones_own_is_found(tmp_path: Path) -> None:
    path = tmp_path / "wine.py"
    path.write_text(WINE.format(name="wine", version=1732700000))
    assert places(str(path)) == ["wine/1732700000"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "expected a Python file, got .*wine.py: there is none"),
        ("", r"wine.py: expected RECIPE = Recipe\(...\), got None"),
        ("RECIPE = 3", r"wine.py: expected RECIPE = Recipe\(...\), got 3"),
        (WINE.format(name="../wine", version=1), "expected a name of .*, got '../wine/1'"),
        (WINE.format(name="wine", version=0), "from 1 to 9223372036854775807, got 'wine/0'"),
        (WINE.format(name="wine", version="1 "), "from 1 to 9223372036854775807, got 'wine/1 '"),
        (WINE.format(name="wine", version="001"), "without zeros in front, got 'wine/001'"),
    ],
)
def test_file_without_a_recipe_is_named(content: str | None, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "wine.py"
    if content is not None:
        path.write_text(content)
    with pytest.raises(Unsuitable, match=sentence):
        find([str(path)])


def test_file_may_hold_dataclasses(tmp_path: Path) -> None:
    path = tmp_path / "wine_with_a_class.py"
    head = "from __future__ import annotations\nfrom dataclasses import dataclass\n"
    path.write_text(f"{head}@dataclass\nclass A:\n    b: int\n" + WINE.format(name="w", version=1))
    assert places(str(path)) == ["w/1"]


def test_folder_is_no_recipe(tmp_path: Path) -> None:
    (tmp_path / "wine.py").mkdir()
    with pytest.raises(Unsuitable, match="there is none"):
        find([str(tmp_path / "wine.py")])


def test_unknown_name_is_reported_with_those_known() -> None:
    with pytest.raises(Unsuitable, match=r"one of xor, moons, iris, housing, mnist, .* 'mnist/3'"):
        find(["mnist/3"])


@pytest.mark.parametrize("place", MODULES)
def test_parameters_in_the_source_are_those_of_the_recipe(place: str) -> None:
    assert load(place).place == place
    assert parameters(["--epochs", place, "--help"]) == load(place).parameters


def test_parameters_are_those_of_the_one_model_that_is_named(tmp_path: Path) -> None:
    path = tmp_path / "wine_parameters.py"
    path.write_text(WINE.format(name="wine", version=3))
    assert parameters([str(path)]) == load("moons/1").parameters
    assert parameters(["iris", "iris/1"]) == load("iris/1").parameters
    assert parameters(["iris", "xor"]) is None
    assert parameters(["mnist"]) is None
    assert parameters(["--help"]) is None
