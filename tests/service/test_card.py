import math
import re
from typing import Any

import pytest
from msgspec.structs import replace

from service.card import Card, Example, Feature, Image, Interval, Picture, Target
from service.errors import InvalidCard
from tests.support.toys import toy_card


def test_a_card_survives_the_way_through_json() -> None:
    card = toy_card()
    assert Card.from_json(card.to_json()) == card


def test_the_same_card_gives_the_same_text() -> None:
    assert toy_card().to_json() == toy_card().to_json()


def test_a_card_of_a_later_writer_is_read() -> None:
    text = toy_card().to_json()[:-1] + ',"something_new":1}'
    assert Card.from_json(text) == toy_card()


FEATURE = Feature(name="a", unit="", description="", minimum=0, maximum=1, mean=0, std=1, default=0)
IMAGE = Image(height=2, width=2, channels=1, preparation="")
TARGET = Target(name="t", unit="", description="")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"image": IMAGE}, "either features or image"),
        ({"features": []}, "either features or image"),
        ({"labels": []}, "expected labels and no targets"),
        ({"targets": [TARGET]}, "expected labels and no targets"),
        ({"task": "regression"}, "expected targets and no labels"),
        ({"interval": Interval(coverage=0.9)}, "expected an interval only of a regression"),
        (
            {
                "task": "regression",
                "labels": [],
                "targets": [TARGET],
                "interval": Interval(coverage=90),
            },
            "interval: expected a coverage between 0 and 1, got 90",
        ),
        (
            {"examples": [Example(name="e", input=[1.0] * 4, output=[1.0] * 3, interval=[0.0])]},
            "example 'e': interval: expected 0 numbers, got 1",
        ),
        ({"labels": ["x", "x", "y"]}, "expected different names in labels"),
        ({"features": [FEATURE] * 4}, "expected different names in features"),
        ({"examples": []}, "expected at least one example"),
        (
            {"examples": [Example(name="e", input=[1.0], output=[1.0, 0.0, 0.0])]},
            "example 'e': input: expected 4 numbers, got 1",
        ),
        (
            {"examples": [Example(name="e", input=[1.0] * 4, output=[1.0])]},
            "example 'e': output: expected 3 numbers, got 1",
        ),
        (
            {"examples": [Example(name="e", input=[float("nan")] * 4, output=[1.0, 0.0, 0.0])]},
            "example 'e': input: expected finite numbers",
        ),
        (
            {"pictures": [Picture(file="../../secret.png", title="t")]},
            "pictures: expected a file name such as loss.png, got '../../secret.png'",
        ),
        (
            {"pictures": [Picture(file="a.png", title="t"), Picture(file="a.png", title="u")]},
            "expected different names in pictures",
        ),
    ],
)
def test_a_card_that_contradicts_itself_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidCard, match=r"^torchlit\.card: ") as error:
        toy_card(**changes).check()
    assert sentence in str(error.value)


def test_what_is_not_a_card_is_refused_with_the_field() -> None:
    with pytest.raises(InvalidCard, match="missing required field `task`"):
        Card.from_json("{}")
    with pytest.raises(InvalidCard, match="truncated"):
        Card.from_json("{")


def test_an_image_is_nested_by_height_and_width() -> None:
    assert IMAGE.shape == (2, 2)
    assert Image(height=4, width=2, channels=3, preparation="").shape == (4, 2, 3)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"minimum": None}, "expected a minimum, maximum, mean and std of a number"),
        ({"type": "string"}, "expected no minimum or the like of a string"),
        ({"default": "x"}, "default: expected a number, got 'x'"),
        ({"default": True}, "default: expected a number, got True"),
    ],
)
def test_a_feature_is_of_its_type(changes: dict[str, Any], sentence: str) -> None:
    card = toy_card()
    first, *others = card.features
    wrong = replace(first, **changes)
    with pytest.raises(InvalidCard, match=rf"feature 'a': .*{re.escape(sentence)}"):
        replace(card, features=[wrong, *others]).check()


def test_texts_and_booleans_are_features() -> None:
    text = Feature(name="t", unit="", description="", default="x", type="string", values=["x"])
    flag = Feature(name="f", unit="", description="", default=False, type="boolean")
    example = Example(name="e", input=["x", None], output=[0.1, 0.2, 0.7])
    card = toy_card(features=[text, flag], examples=[example])
    assert Card.from_json(card.to_json()) == card
    assert (text.seen, flag.seen, text.range) == ("x", "boolean", (-math.inf, math.inf))
    wrong = replace(example, input=[1.0, True])
    with pytest.raises(InvalidCard, match="example 'e': t: expected a string, got 1"):
        replace(card, examples=[wrong]).check()
