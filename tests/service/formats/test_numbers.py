"""Numbers of requests, in whichever way JSON is read."""

import math
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.engine.model import Model
from service.errors import InvalidInput
from service.formats.json_rows import parse, row, slow_rows
from service.formats.json_text import parsed
from service.formats.numbers import minus_signs
from tests.support.bodies import FIELDS, instances, limits, read

FLOATS = ["float16", "float32", "double"]
INTEGERS = ["int8", "int64", "uint64"]
FORMATS = {"float16": "e", "float32": "f", "double": "d"}  # of the struct module


def a_line(numerals: list[str], model: Model) -> Any:
    instance = parsed(f"[{','.join(numerals)}]".encode(), "instances[0]")
    return model.rows_of([row(instance, "instances[0]", model)])


def a_slow_list(numerals: list[str], model: Model) -> Any:
    body = instances(f"[[{','.join(numerals)}]]").encode()
    return slow_rows(parse(body, FIELDS)["instances"], model, limits())


def a_flat_list(numerals: list[str], model: Model) -> Any:
    return read(instances(f"[[{','.join(numerals)}]]"), model)


def a_list_beside_a_slow_one(numerals: list[str], model: Model) -> Any:
    return read(instances(f"[[{','.join(numerals)}], [1{'0' * 30}e-30, 0, 0, 0]]"), model)[:1]


def a_body_of_some_size(numerals: list[str], model: Model) -> Any:
    row, other = f"[{','.join(numerals)}]", "[1,0,3e0,4]"
    return read(instances(f"[{other},{row}{f',{other}' * 98}]"), model)[1:2]


WAYS = [a_flat_list, a_body_of_some_size, a_list_beside_a_slow_one, a_slow_list, a_line]
ways = pytest.mark.parametrize("way", WAYS)


def packed(numeral: str, format: str) -> bytes | None:
    """Return a number as the struct module writes it, None for one that it has no room for."""
    try:
        number = float(numeral)
        return struct.pack(f"<{format}", number) if math.isfinite(number) else None
    except OverflowError:
        return None


def test_the_largest_float32_passes_and_the_next_does_not(toy: Model) -> None:
    largest = float(np.finfo(np.float32).max)
    assert read(instances(f"[[{largest!r},2,3,4]]"), toy)[0, 0] == np.float32(largest)
    with pytest.raises(InvalidInput):
        read(instances("[[3.41e38,2,3,4]]"), toy)


@ways
@pytest.mark.parametrize(
    ("kind", "numeral"),
    [
        ("float32", "3.4028235e38"),  # as most languages print the largest
        ("float32", "3.4028235677973362e38"),  # the last float64 that rounds to it
        ("float32", "340282350000000000000000000000000000000"),
        ("float16", "65519"),
        ("float16", "65519.99"),
        ("double", "1.7976931348623158e308"),
        ("double", str(2**1024 - 2**970 - 1)),
    ],
)
def test_what_rounds_to_the_largest_number_is_taken(
    way: Callable[[list[str], Model], Any], kind: str, numeral: str, same: dict[str, Model]
) -> None:
    largest = np.finfo(same[kind].input.dtype).max
    assert way([numeral, f"-{numeral}", "0", "1"], same[kind]).tolist() == [
        [largest, -largest, 0, 1]
    ]


@ways
@pytest.mark.parametrize(
    ("kind", "numeral"),
    [
        ("float32", "3.4028235677973366e38"),  # halfway to what would be the next, and even
        ("float32", str(2**128 - 2**103)),
        ("float32", str(2**128 - 2**103 - 1)),  # which float64 rounds to halfway
        ("float32", "1e200"),
        ("float32", "1e999"),
        ("float32", "1" * 400),
        ("float16", "65520"),
        ("float16", "65520.0"),
        ("float16", "1e39"),
        ("double", "1e999"),
        ("double", str(2**1024 - 2**970)),
        ("double", "1" * 400),
    ],
)
@pytest.mark.parametrize("sign", ["", "-"])
def test_what_rounds_to_infinity_is_refused(
    way: Callable[[list[str], Model], Any],
    kind: str,
    numeral: str,
    sign: str,
    same: dict[str, Model],
) -> None:
    quiet = np.errstate(over="ignore")  # else NumPy's warning, an error here, would stop it too
    with quiet, pytest.raises(InvalidInput) as error:
        way(["0", sign + numeral, "0", "0"], same[kind])
    start, _, _ = str(error.value).partition(" (at most ")
    place, _, sentence = start.partition(": ")
    assert place.startswith("instances[")
    assert place.endswith("][1]")
    assert sentence == f"expected a finite number that fits {np.dtype(same[kind].input.dtype)}"


@ways
@pytest.mark.parametrize("kind", FLOATS)
def test_minus_zero_keeps_its_sign(
    way: Callable[[list[str], Model], Any], kind: str, same: dict[str, Model]
) -> None:
    for numeral in ("-0", "-0.0", "-0e0", "-0E+5", " -0", "-0 ", "\n-0\t", "-1e-400"):
        for place in range(4):
            row = ["0", "0.0", "1e-05", "-0.5"]
            row[place] = numeral
            found = way(row, same[kind])
            expected = [float(each) for each in row]
            assert found.tobytes() == np.array(expected, found.dtype).tobytes(), row


@pytest.mark.parametrize("numeral", ["-0", "-0.0", " -0", "-0 "])
def test_a_named_feature_keeps_the_sign_of_minus_zero(numeral: str, toy: Model) -> None:
    row = read(instances(f'[{{"a":{numeral},"b":0,"c":-0.5,"d":0.0}}]'), toy)
    assert np.signbit(row).tolist() == [[True, False, True, False]]
    row = read(instances(f'[{{"d":{numeral},"b":0,"c":2,"a":1}}]'), toy)
    assert np.signbit(row).tolist() == [[False, False, False, True]]


def test_a_nested_row_keeps_the_sign_of_minus_zero(mean: Model) -> None:
    rows = read(instances("[[[-0,0,1],[2,0.0,-0]]]"), mean)
    assert np.signbit(rows).ravel().tolist() == [True, False, False, False, False, True]


@ways
@pytest.mark.parametrize("numeral", ["-0", "-0.0", "0", "0.0", "-0e5", " -0 "])
def test_minus_zero_is_zero_where_whole_numbers_are_asked_for(
    way: Callable[[list[str], Model], Any], numeral: str, same: dict[str, Model]
) -> None:
    for kind in INTEGERS:
        assert way([numeral, "1", "2.0", numeral], same[kind]).tolist() == [[0, 1, 2, 0]], kind


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("[0]", 0),
        ("[-1,-0,-0.5]", 3),
        ("[-1e-05,1E-3,-2e+7,-3e1,1e-0]", 3),
        ("[-1,1E-3]", 1),
        ('{"model":"a-b","instances":[[-1],[1e-1]],"version":-3}', 1),
    ],
)
def test_signs_of_numbers_are_counted_without_those_of_exponents(text: str, count: int) -> None:
    assert minus_signs(text.encode()) == count


FLOAT_NUMERALS = ["9007199254740993.0", "9007199254740992.0", "-9007199254740992.0", "1e18"]


@ways
@pytest.mark.parametrize("numeral", FLOAT_NUMERALS)
def test_a_float_that_may_be_rounded_is_no_whole_number(
    way: Callable[[list[str], Model], Any], numeral: str, same: dict[str, Model]
) -> None:
    with pytest.raises(InvalidInput) as error:
        way(["1", "2", numeral, "3"], same["int64"])
    assert str(error.value).partition(": ")[2] == (
        "expected a whole number from -9223372036854775808 to 9223372036854775807, written "
        f"without a fraction as floats are exact only below 2**53, got {float(numeral)!r}"
    )
    with pytest.raises(InvalidInput, match="expected a whole number from 0 to 18446744073709551"):
        way(["1", "2", numeral, "3"], same["uint64"])
    with pytest.raises(InvalidInput, match="expected a whole number from -128 to 127, got "):
        way(["1", "2", numeral, "3"], same["int8"])


@ways
def test_a_whole_number_is_exact_over_all_of_its_type(
    way: Callable[[list[str], Model], Any], same: dict[str, Model]
) -> None:
    numerals = ["9007199254740993", "9007199254740991.0", "9223372036854775807", "3e2"]
    expected = [9007199254740993, 9007199254740991, 9223372036854775807, 300]
    assert way(numerals, same["uint64"]).tolist() == [expected]
    signed = [numerals[0], "-9223372036854775808", "-9007199254740991.0", "-9007199254740993"]
    assert way(signed, same["int64"]).tolist() == [[int(each.partition(".")[0]) for each in signed]]
    assert way(["18446744073709551615", *"000"], same["uint64"])[0, 0] == 2**64 - 1


@ways
@pytest.mark.parametrize("numeral", ["1.5", "true", "null", "1e400", "-1e19", "1e30", "1" * 400])
def test_what_is_no_whole_number_of_a_type_is_refused(
    way: Callable[[list[str], Model], Any], numeral: str, same: dict[str, Model]
) -> None:
    for kind in INTEGERS:
        with pytest.raises(InvalidInput, match=r"\[2\]: expected a "):
            way(["1", "2", numeral, "3"], same[kind])


numerals = st.one_of(
    st.integers(-9, 9).map(str),
    st.integers(-(2**130), 2**130).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.floats(width=32, allow_nan=False, allow_infinity=False).map(repr),
    st.floats(width=16, allow_nan=False, allow_infinity=False).map(repr),
    st.floats(65500, 65540).map(repr),
    st.floats(3.40282e38, 3.40283e38).map(repr),
    st.floats(3.40282e38, 3.40283e38).map(lambda number: str(int(number))),
    st.sampled_from(
        ["-0", "-0.0", "0", "-0e1", "65519", "65520", "3.4028235e38", "1e-05", "-1e-46"]
    ),
)


@settings(max_examples=150, deadline=None)
@given(row=st.lists(numerals, min_size=4, max_size=4))
@pytest.mark.parametrize("kind", FLOATS)
def test_floats_are_those_that_struct_gives_whatever_the_way(
    kind: str, same: dict[str, Model], row: list[str]
) -> None:
    expected = [packed(each, FORMATS[kind]) for each in row]
    for way in WAYS:
        try:
            got = way(row, same[kind]).tobytes()
        except InvalidInput as error:
            got = str(error)
        if None in expected:
            assert f"[{expected.index(None)}]: expected a finite number" in got, way
        else:
            assert got == b"".join(each for each in expected if each), way
