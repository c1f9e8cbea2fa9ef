"""The models there are, and how to find one by what is written on the command line."""

import importlib.util
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from training import housing, iris, mnist, mnist_cnn, moons, xor
from training.errors import Unsuitable
from training.recipe import Recipe

RECIPES = {
    recipe.place: recipe
    for recipe in (
        xor.RECIPE,
        moons.RECIPE,
        iris.RECIPE,
        housing.RECIPE,
        mnist.RECIPE,
        mnist_cnn.RECIPE,
    )
}

_PLACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}/[1-9][0-9]{0,8}")  # the service takes these


def find(names: Iterable[str]) -> list[Recipe]:
    """Return the recipes of these names, each once.

    A name is `mnist`, which is every version of it, `mnist/2`, `all`, or a Python file that has a
    RECIPE. Raises Unsuitable.
    """
    found = {recipe.place: recipe for name in names for recipe in _find(name)}
    return list(found.values())


def is_name(argument: str) -> bool:
    """Whether an argument of the command line names recipes."""
    return argument.endswith(".py") or bool(_known(argument))


def _known(name: str) -> list[Recipe]:
    return [each for each in RECIPES.values() if name in ("all", each.name, each.place)]


def _find(name: str) -> list[Recipe]:
    found = [_load(Path(name))] if name.endswith(".py") else _known(name)
    if not found:
        known = ", ".join(dict.fromkeys(recipe.name for recipe in RECIPES.values()))
        raise Unsuitable(
            f"NAME: expected one of {known}, one version such as {next(iter(RECIPES))}, all, or a "
            f"file such as wine.py, got {name!r}"
        )
    return found


def _load(path: Path) -> Recipe:
    """Run a file of the user's own and return its RECIPE."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise Unsuitable(f"NAME: expected a Python file, got {path}: there is none")
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)  # dataclasses look there for their module
    spec.loader.exec_module(module)
    recipe = getattr(module, "RECIPE", None)
    if not isinstance(recipe, Recipe):
        raise Unsuitable(f"{path}: expected RECIPE = Recipe(...), got {recipe!r}")
    if not _PLACE.fullmatch(recipe.place):
        raise Unsuitable(
            f"{path}: expected a name of letters, digits, . _ - and a version from 1, "
            f"got {recipe.place!r}"
        )
    return recipe
