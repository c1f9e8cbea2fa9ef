from pathlib import Path

import pytest
from msgspec.structs import replace

from service.engine.model import Model
from service.errors import InvalidInput
from service.formats.csv_header import check_width, header_of, named
from tests.support.toys import save_toy, toy_card


def named_so(folder: Path, units: dict[str, str]) -> Model:
    """Return a model of features of these names and units."""
    first = toy_card().features[0]
    features = [replace(first, name=name, unit=unit) for name, unit in units.items()]
    return Model.open(save_toy(folder, card=toy_card(features=features)))


@pytest.fixture(scope="module")
def iris(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A model of the columns of iris, in other units."""
    units = {"sepal_length": "cm", "sepal_width": "", "petal length (mm)": "mm", "x": "°C"}
    return named_so(tmp_path_factory.mktemp("models"), units)


@pytest.mark.parametrize(
    ("cells", "places"),
    [
        ("sepal_length,sepal_width,petal length (mm),x", [0, 1, 2, 3]),
        ("SEPAL_LENGTH,SEPAL_WIDTH,PETAL LENGTH (MM),X", [0, 1, 2, 3]),
        ("Sepal.Length,Sepal.Width,Petal.Length,x", [0, 1, 2, 3]),
        ("SepalLengthCm,SepalWidth,PetalLengthMm,X (°C)", [0, 1, 2, 3]),
        ("x [°C],sepal length (cm),,sepal-width,petal_length,class", [1, 3, 4, 0]),
        ("X,x,sepal_length,Sepal_Length,sepal_width,petal_length", [2, 4, 5, 1]),  # as it stands
    ],
)
def test_a_name_may_be_written_in_several_ways(cells: str, places: list[int], iris: Model) -> None:
    header = header_of(cells.split(","), iris, "line 1")
    assert header.places == places
    assert sorted(places + header.kept) == list(range(header.width))


@pytest.mark.parametrize(
    ("cells", "why"),
    [
        ("sepal length (inch),sepal_width,petal_length,x", "expected sepal_length in cm, got"),
        ("sepal_length,sepal_width,petal length (cm),x", r"expected petal length \(mm\) in mm, g"),
        ("sepal_length,sepal width (cm),petal_length,x", "expected a column sepal_width, got none"),
        ("sepal_length,sepal_width,petal_length,x (C)", "expected x in °C, got"),
        ("Sepal_Length,sepal length,sepal_width,petal_length,x", "expected one column sepal_l"),
    ],
)
def test_no_name_is_guessed(cells: str, why: str, iris: Model) -> None:
    with pytest.raises(InvalidInput, match=f"^line 1: {why}"):
        header_of(cells.split(","), iris, "line 1")


@pytest.mark.parametrize(
    ("names", "cells"),
    [
        ({"t-1": "", "t-2": ""}, "t+1,t+2"),
        ({"t-1": "", "t-2": ""}, "t1,t2"),
        ({"p<5": "", "p>7": ""}, "p>5,p>7"),
        ({"c": "", "d": ""}, "C++,d"),
        ({"a.1": "", "a": ""}, "a1,a"),
        ({"log(x)": "", "z": ""}, "log,z"),
        ({"price (log)": "", "z": ""}, "price,z"),
        ({"growth %": "", "z": ""}, "growth,z"),
        ({"power": "MW", "z": ""}, "power (mW),z"),
        ({"power": "MW", "z": ""}, "power_mW,z"),
        ({"power": "MW", "z": ""}, "Power [mw],z"),
        ({"mass": "g", "z": ""}, "mass (G),z"),
    ],
)
def test_a_name_that_says_something_else_is_refused(
    names: dict[str, str], cells: str, tmp_path: Path
) -> None:
    model = named_so(tmp_path, names | {"y1": "", "y2": ""})
    with pytest.raises(InvalidInput, match=r"^line 1: expected "):
        header_of([*cells.split(","), "y1", "y2"], model, "line 1")


def test_columns_of_nearly_the_same_name_are_told_apart_as_they_stand(tmp_path: Path) -> None:
    model = named_so(tmp_path, dict.fromkeys(("x_1", "x1", "y", "z"), ""))
    assert header_of(["x1", "x_1", "y", "z"], model, "line 1").places == [1, 0, 2, 3]
    with pytest.raises(InvalidInput, match=r"for each name, got \"X1\" for 2 of them$"):
        header_of(["X1", "Y", "Z"], model, "line 1")


def test_a_long_name_costs_nothing(iris: Model) -> None:
    assert named(["(" * 10**6 + ")", "x" * 10**6], iris) == 0
    with pytest.raises(InvalidInput, match=r"^line 1: expected at most 10004 columns, got 10005$"):
        check_width(["x"] * 10_005, iris, "line 1")
