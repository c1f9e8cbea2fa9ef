from typing import Any

import msgspec
import pytest

from service.words import LONGEST, cut, did_you_mean, misspelt, plain, quoted, shown

LONG = "x" * 10_000


def test_what_is_long_is_cut() -> None:
    assert cut("x" * LONGEST) == "x" * LONGEST
    assert cut(LONG) == "x" * LONGEST + "..."


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "null"),
        (True, "true"),
        (7, "7"),
        (1.5, "1.5"),
        (1e39, "1e+39"),
        (-0.0, "-0"),
        (float("nan"), "NaN"),
        (float("-inf"), "-Infinity"),
        ("", '""'),
        ('a"b\n\u00e4', '"a\\"b\\n\u00e4"'),
        (10**100, "1" + "0" * 39 + "..."),
        (LONG, '"' + "x" * 39 + "..."),
        ([], "a list of 0"),
        ([[1, 2], 3], "a list of 2"),
        ({"a": 1}, "an object of 1 fields"),
        (b"abc", "3 bytes"),
        (msgspec.msgpack.Ext(5, b""), "a value of type Ext"),
        ((1,), "a value of type tuple"),
    ],
)
def test_a_value_is_shown_in_a_few_words(value: Any, words: str) -> None:
    assert shown(value) == words


def test_a_name_is_quoted_and_cut() -> None:
    assert quoted('a"\u00e4') == '"a\\"\u00e4"'
    assert quoted(LONG) == f'"{"x" * LONGEST}..."'


def test_a_name_that_is_like_another_is_suggested() -> None:
    assert did_you_mean("instance", {"model", "instances"}) == "; did you mean instances?"
    assert did_you_mean("zzz", {"model", "instances"}) == "; expected instances, model"
    assert did_you_mean("modle", ["model"]) == "; did you mean model?"
    assert did_you_mean("x", []) == "; expected "
    assert did_you_mean("model" + LONG, ["model"]) == "; expected model"  # in no time


@pytest.mark.parametrize(
    "name",
    [
        *("VERSION", "Version", "versions", "versio", "ersion", "wersion", "evrsion", "verison"),
        *("versoin", "vresion", "versin", "version_", "VERISON", "vers\u00efon"),
    ],
)
def test_a_word_that_is_ours_but_for_an_edit_or_two_is_misspelt(name: str) -> None:
    assert misspelt(name, ["prepare", "version"]) == "version"


@pytest.mark.parametrize(
    "name",
    [
        *("api-version", "apiVersion", "api_version", "session", "sessionId", "region", "person"),
        *("model_version", "precision", "mission", "v", "ver", "", "subscription-key", "dimension"),
        *("versioning", "verbose", "param", "share", "compare", "x" * 10_000, "\ud800"),
    ],
)
def test_a_word_of_somebody_else_is_not_misspelt(name: str) -> None:
    assert misspelt(name, ["prepare", "version"]) == ""


def test_what_others_wrote_is_one_line_that_a_terminal_does_not_obey() -> None:
    text = "a \u00e4\n\x1b[31m\u202e\x07\t\ud800"
    assert plain(text) == "a \u00e4\\n\\x1b[31m\\u202e\\x07\\t\\ud800"
    assert plain(text).isprintable()
