"""The models there are, and how to find one by its name on the command line.

To import a model's file takes seconds, as it imports PyTorch, so this happens only to those that
are needed.
"""

import ast
import importlib
import importlib.util
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from service.card import expected_version, version_of
from training.errors import Unsuitable
from training.hyperparameters import Hyperparameters

if TYPE_CHECKING:
    from training.recipe import Recipe

# By the place of its files below models/: the module that has its RECIPE.
MODULES = {
    "xor/1": "xor",
    "moons/1": "moons",
    "iris/1": "iris",
    "housing/1": "housing",
    "mnist/1": "mnist",
    "mnist/2": "mnist_cnn",
}

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # the service takes these


def names() -> list[str]:
    """Return the names of the models, each once."""
    return list(dict.fromkeys(place.split("/")[0] for place in MODULES))


def find(named: Iterable[str]) -> "list[Recipe]":
    """Return the recipes of these names, each once.

    A name is `mnist`, which is every version of it, `mnist/2`, `all`, or a Python file that has a
    RECIPE. Raises Unsuitable.
    """
    places: dict[str, None] = {}
    for name in named:
        if not (found := _places(name)):
            raise Unsuitable(
                f"NAME: expected one of {', '.join(names())}, one version such as "
                f"{next(iter(MODULES))}, all, or a file such as wine.py, got {name!r}"
            )
        places |= dict.fromkeys(found)
    recipes = [_run(Path(place)) if place.endswith(".py") else load(place) for place in places]
    return list({recipe.place: recipe for recipe in recipes}.values())


def load(place: str) -> "Recipe":
    """Return the recipe of a place in MODULES."""
    recipe: Recipe = importlib.import_module(f"training.{MODULES[place]}").RECIPE
    return recipe


def parameters(arguments: Iterable[str]) -> Hyperparameters | None:
    """Return the choices of the one model that the arguments name; None if it is not one.

    For a model of MODULES they are read from the source of its file, which is not imported.
    Raises Unsuitable for a file that is no recipe.
    """
    places = {place for argument in arguments for place in _places(argument)}
    if len(places) != 1:
        return None
    (place,) = places
    if place.endswith(".py"):
        return _run(Path(place)).parameters
    source = ast.parse(Path(__file__).with_name(f"{MODULES[place]}.py").read_text())
    (call,) = (
        node.value
        for node in source.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PARAMETERS"
    )
    assert isinstance(call, ast.Call)
    return Hyperparameters(**{str(k.arg): ast.literal_eval(k.value) for k in call.keywords})


def _places(name: str) -> list[str]:
    """Return the places that a name means, or the file that it is; none for what is no name."""
    if name.endswith(".py"):
        return [name]
    return [place for place in MODULES if name in ("all", place, place.split("/")[0])]


def _run(path: Path) -> "Recipe":
    """Run a file of the user's own and return its RECIPE."""
    from training.recipe import Recipe

    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise Unsuitable(f"NAME: expected a Python file, got {path}: there is none")
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)  # where dataclasses find their module
    spec.loader.exec_module(module)
    recipe = getattr(module, "RECIPE", None)
    if not isinstance(recipe, Recipe):
        raise Unsuitable(f"{path}: expected RECIPE = Recipe(...), got {recipe!r}")
    name, _, version = recipe.place.partition("/")
    if not _NAME.fullmatch(name) or version_of(version) is None:
        raise Unsuitable(
            f"{path}: expected a name of letters, digits, . _ - and as its version "
            f"{expected_version(version)}, got {recipe.place!r}"
        )
    return recipe
