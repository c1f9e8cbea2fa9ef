"""The models there are, by name."""

from training import housing, iris, mnist, moons, xor

RECIPES = {
    "xor": xor.RECIPE,
    "moons": moons.RECIPE,
    "iris": iris.RECIPE,
    "housing": housing.RECIPE,
    "mnist": mnist.RECIPE,
}
