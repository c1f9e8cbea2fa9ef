import json
import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simdjson
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from service.engine.model import Model
from service.errors import InvalidInput, RequestError, TooLarge
from service.formats import json_rows as inputs
from tests.support.toys import save_graph, save_mean, save_same, save_toy, tensor, toy_card


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model.open(save_toy(tmp_path_factory.mktemp("toy"), card=toy_card()))


@pytest.fixture(scope="module")
def mean(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model.open(save_mean(tmp_path_factory.mktemp("mean")))


def read(body: bytes | str, model: Model, max_rows: int = 100) -> Any:
    body = body.encode() if isinstance(body, str) else body
    fields = inputs.BodyParser().parse(body)
    return inputs.to_rows(fields, body, model, max_rows)


def instances(text: str) -> str:
    return f'{{"instances": {text}}}'


def went_fast(body: str, model: Model) -> bool:
    fields = inputs.BodyParser().parse(body.encode())
    if type(fields["instances"]) is not simdjson.Array:
        return False
    try:
        inputs.fast_rows(fields["instances"], body.encode(), model, 100)
    except Exception:
        return False
    return True


FOUR = [[1.0, 2.0, 3.0, 4.0]]
SIX = [[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]]


@pytest.mark.parametrize(
    "text",
    [
        "[[1,2,3,4]]",
        "[[1.0,2e0,3,4]]",
        '[{"a":1,"b":2,"c":3,"d":4}]',
        '[{"d":4,"c":3.0,"b":2,"a":1}]',
    ],
)
def test_lists_and_named_features_give_rows_the_fast_way(text: str, toy: Model) -> None:
    rows = read(instances(text), toy)
    assert rows.dtype == np.float32
    assert rows.tolist() == FOUR
    assert went_fast(instances(text), toy)


@pytest.mark.parametrize("text", ["[[1,2,3,4,5,6]]", "[[[1,2,3],[4,5,6]]]"])
def test_images_are_flat_or_nested(text: str, mean: Model) -> None:
    assert read(instances(text), mean).tolist() == SIX
    assert went_fast(instances(text), mean)


@pytest.mark.parametrize(
    "text",
    [
        '[[1,2,3,4],{"a":1,"b":2,"c":3,"d":4}]',
        '[{"a":1,"b":2,"c":3,"d":4},[1,2,3,4]]',
        "[[1,2,3,4], [100000000000000000000,2,3,4]]",  # an integer beyond 64 bits
    ],
)
def test_what_is_unusual_goes_the_slow_way_and_is_right(text: str, toy: Model) -> None:
    rows = read(instances(text), toy)
    assert rows[0].tolist() == FOUR[0]
    assert rows.shape == (2, 4)
    assert not went_fast(instances(text), toy)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        # The trap: as_buffer flattens, so these would pass as rows of 4.
        ("[[1,2,3],[4,5,6,7,8]]", "instances[0]: expected a list of 4 numbers or an object of "),
        ("[[1,[2,3],4]]", "instances[0]: expected a list of 4 numbers or an object"),
        ("[[1,[2],3,4]]", "instances[0].b: expected a number, got a list of 1"),
        ("[[[],1,2,3],[[1,2],3,4,5]]", "instances[0]: expected a list of 4 numbers"),
        (
            "[1,2,3,4]",
            "instances[0]: expected a list of 4 numbers or an object of a, b, c, d, got 1",
        ),
        ("[[1,2,3]]", "instances[0]: expected a list of 4 numbers or an object"),
        ("[[1,2,3,4,5]]", "d, got a list of 5"),
        ("[[]]", "d, got a list of 0"),
        ("[]", "instances: expected at least one instance, got an empty list"),
        ("{}", "instances: expected a list of instances, got an object of 0 fields"),
        ("null", "instances: expected a list of instances, got null"),
        ('"abcd"', 'instances: expected a list of instances, got "abcd"'),
        ('[["1",2,3,4]]', 'instances[0].a: expected a number, got "1"'),
        ("[[1,2,null,4]]", "instances[0].c: expected a number, got null"),
        ("[[1,2,3,true]]", "instances[0].d: expected a number, got true"),
        ("[[1,2,3,4],[1,NaN,3,4]]", "instances[1].b: expected a finite number"),
        ("[[1,2,3,-Infinity]]", "instances[0].d: expected a finite number"),
        ("[[1,2,1e39,4]]", "instances[0].c: expected a finite number that fits float32"),
        ("[[1,2,-1e39,4]]", "instances[0].c: expected a finite number that fits float32"),
        ("[[1,2,1e400,4]]", "instances[0].c: expected a finite number that fits float32"),
        ('[{"a":1,"b":2,"c":3}]', "instances[0].d: expected a number, got no such field"),
        (
            '[{"a":1,"b":2,"c":3,"d":4,"e":5}]',
            'instances[0]: "e": unknown feature; expected a, b, c, d',
        ),
        ('[{"a":1,"b":2,"c":3,"d":"wide"}]', 'instances[0].d: expected a number, got "wide"'),
        ('[{"a":1,"b":2,"c":3,"d":true}]', "instances[0].d: expected a number, got true"),
        ('[{"a":1,"b":2,"c":3,"d":1e39}]', "instances[0].d: expected a finite number"),
        ("[[1,2,3,4],5]", "instances[1]: expected a list of 4 numbers"),
    ],
)
def test_what_does_not_fit_is_named_with_its_place(text: str, sentence: str, toy: Model) -> None:
    with pytest.raises(InvalidInput) as error:
        read(instances(text), toy)
    assert sentence in str(error.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[[[1,2],[3,4],[5,6]]]", "instances[0]: expected a list of 2, got a list of 3"),
        ("[[[1,2,3],[4,5]]]", "instances[0][1]: expected a list of 3, got a list of 2"),
        ("[[[1,2,3],[4,5,null]]]", "instances[0][1][2]: expected a number, got null"),
        ("[[1,2,3,4,5,[6]]]", "instances[0][5]: expected a number, got a list of 1"),
        ("[[[1,2,3],4]]", "instances[0][1]: expected a list of 3, got 4"),
        ('[{"a":1}]', 'nested lists of 2 x 3 or {"b64": a PNG or JPEG}, got an object of 1 fields'),
        ("[[1]]", "a list of 6 numbers or nested lists of 2 x 3 or {"),
    ],
)
def test_an_image_that_does_not_fit_is_named_with_its_place(
    text: str, sentence: str, mean: Model
) -> None:
    with pytest.raises(InvalidInput) as error:
        read(instances(text), mean)
    assert sentence in str(error.value)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "body: expected a JSON object"),
        (b" \n", "got nothing"),
        (b"{", "body: expected JSON, got: "),
        (b"model=iris", "body: expected JSON, got: "),
        (b"[1]", "got a list of 1"),
        (b"7", "got 7"),
        (b'"x"', 'got "x"'),
        (b'{"instance": [[1,2,3,4]]}', '"instance": unknown field; did you mean instances?'),
        (b'{"zzz": 1}', '"zzz": unknown field; expected instances, model, version'),
        (b"{}", "instances: expected a list of instances, got no such field"),
        (b'{"instances": [["\xff"]]}', "body: expected JSON in UTF-8, got byte 17 that is not"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"instances": ' + b"[" * 100_000, "nested too deeply"),
        (b'{"instances": [[1,2,3,4]]} x', "body: expected JSON, got: Extra data"),
    ],
)
def test_a_body_that_is_not_a_request_is_named(body: bytes, sentence: str, toy: Model) -> None:
    with pytest.raises(InvalidInput) as error:
        read(body, toy)
    assert sentence in str(error.value)


def test_an_error_never_repeats_a_long_value(toy: Model) -> None:
    with pytest.raises(InvalidInput) as error:
        read(instances(json.dumps([["x" * 10_000, 2, 3, 4]])), toy)
    assert len(str(error.value)) < 200


def test_too_many_rows_are_refused(toy: Model) -> None:
    text = json.dumps(FOUR * 11)
    assert len(read(instances(text), toy, max_rows=11)) == 11
    with pytest.raises(TooLarge, match="expected at most 10 in one request, got 11"):
        read(instances(text), toy, max_rows=10)
    mixed = json.dumps([*(FOUR * 10), {"a": 1}])
    with pytest.raises(TooLarge):
        read(instances(mixed), toy, max_rows=10)


def test_a_field_given_twice_counts_the_last_time(toy: Model) -> None:
    assert read('{"instances": [[0,0,0,0]], "instances": [[1,2,3,4]]}', toy).tolist() == FOUR
    assert read(instances('[{"a":9,"b":2,"c":3,"d":4,"a":1}]'), toy).tolist() == FOUR


def test_the_largest_float32_passes_and_the_next_does_not(toy: Model) -> None:
    largest = float(np.finfo(np.float32).max)
    assert read(instances(f"[[{largest!r},2,3,4]]"), toy)[0, 0] == np.float32(largest)
    with pytest.raises(InvalidInput):
        read(instances("[[3.41e38,2,3,4]]"), toy)


def test_a_parser_can_be_used_again_after_an_error(toy: Model) -> None:
    parser = inputs.BodyParser()
    kept = parser.parse(b'{"instances": [[1,2,3]]}')  # held, as a traceback might hold it
    for body in (b'{"instances": [[1,2,3,4]]}', b"{", b'{"instances": [[1,2,3,4]]}'):
        try:
            fields = parser.parse(body)
            assert inputs.to_rows(fields, body, toy, 9).tolist() == FOUR
        except InvalidInput:
            assert body == b"{"
        fields = {}
    assert kept
    again = parser.parse(b'{"instances": []}')
    assert type(again["instances"]) is simdjson.Array  # the fast way is open again


def test_whole_numbers_are_asked_for_where_the_model_takes_them(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    shape = ["batch", 1]
    save_graph(
        path,
        [helper.make_node("Identity", ["input"], ["output"])],
        [tensor("input", shape, TensorProto.INT8)],
        [tensor("output", shape, TensorProto.INT8)],
        [],
        None,
    )
    model = Model.open(path)
    rows = read(instances("[[5],[-128],[3.0]]"), model)
    assert (rows.dtype, rows.tolist()) == (np.int8, [[5], [-128], [3]])
    for text in ("[[1.5]]", "[[128]]", "[[1e400]]", "[[NaN]]"):
        with pytest.raises(InvalidInput, match=r"instances\[0\]\[0\]: expected a whole number"):
            read(instances(text), model)


numbers = st.one_of(
    st.integers(-(10**40), 10**40), st.floats(), st.integers(-9, 9), st.booleans(), st.none()
)
anything = st.recursive(
    numbers | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.sampled_from(["a", "b", "c", "d", "e"]), inner, max_size=5)
    ),
    max_leaves=12,
)
rows_of_four = st.lists(st.lists(numbers, min_size=4, max_size=4), min_size=1, max_size=3)
named_rows = st.lists(
    st.fixed_dictionaries({name: st.floats(-1e30, 1e30) for name in "abcd"}), min_size=1, max_size=3
)


@settings(max_examples=300, deadline=None)
@given(st.one_of(anything, rows_of_four, named_rows, st.lists(anything, max_size=3)))
def test_both_ways_say_the_same_of_any_instances(toy: Model, value: Any) -> None:
    body = json.dumps({"instances": value}).encode()

    def attempt(way: Any) -> Any:
        try:
            return way().tobytes()
        except RequestError as error:
            return str(error)

    assert attempt(lambda: read(body, toy)) == attempt(
        lambda: inputs.slow_rows(json.loads(body), toy, 100)
    )


FLOATS = {
    "float16": TensorProto.FLOAT16,
    "float32": TensorProto.FLOAT,
    "double": TensorProto.DOUBLE,
}
INTEGERS = {"int8": TensorProto.INT8, "int64": TensorProto.INT64, "uint64": TensorProto.UINT64}
FORMATS = {"float16": "e", "float32": "f", "double": "d"}  # of the struct module


@pytest.fixture(scope="module")
def same(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    """Return a model of each type, with rows of 4 numbers."""
    folder = tmp_path_factory.mktemp("same")
    return {
        name: Model.open(save_same(folder, ["batch", 4], kind, name=name))
        for name, kind in (FLOATS | INTEGERS).items()
    }


def a_line(numerals: list[str], model: Model) -> Any:
    instance = inputs.parsed(f"[{','.join(numerals)}]".encode(), "instances[0]")
    return np.array([inputs.row(instance, "instances[0]", model)], model.input.dtype)


def a_slow_list(numerals: list[str], model: Model) -> Any:
    body = instances(f"[[{','.join(numerals)}]]").encode()
    return inputs.slow_rows(inputs.parse_slowly(body, inputs.FIELDS), model, 100)


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


def test_the_largest_number_as_it_is_printed_goes_the_fast_way(toy: Model) -> None:
    assert went_fast(instances("[[3.4028235e38,-3.4028235e38,0,0.5]]"), toy)


def test_a_number_that_is_much_too_large_is_no_warning_in_the_fast_way(toy: Model) -> None:
    body = instances("[[1e200,2,3,4]]").encode()
    numbers = inputs.BodyParser().parse(body)["instances"]
    with pytest.raises(inputs.Unfit):  # not a RuntimeWarning of NumPy
        inputs.fast_rows(numbers, body, toy, 100)


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
    ("body", "sentence"),
    [
        ('{"instances": -0}', "instances: expected a list of instances, got "),
        ('{"instances": [-0]}', "numbers or an object of a, b, c, d, got "),
        ('{"instances": [[1, 2, 3, 4]], "x": -0}', '"x": unknown field'),
    ],
)
def test_minus_zero_is_shown_as_it_may_be_written(body: str, sentence: str, toy: Model) -> None:
    with pytest.raises(InvalidInput) as error:
        read(body, toy)
    assert sentence in str(error.value)
    assert "0.0" not in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "[[0,-1,2,-3]]",
        "[[0,-0.5,1e-05,1E-0]]",
        "[[-0.0,0,-0.0,1e-07]]",
        "[[-0e0,0,0,0]]",
        "[[-0,0,-0,1e-07],[0,0,0,-0]]",
        '[{"a":0,"b":-0.5,"c":1e-05,"d":-0.0}]',
        f"[{','.join(['[0,-0.5,2,0.0]'] * 90)}]",
        f"[{','.join(['[0,-0.5,1e-05,0.0]'] * 90)}]",
        f"[{','.join(['[7,-0.5,1e-05,-1]'] * 90)}]",
    ],
)
@pytest.mark.parametrize("name", ["toy", "resnet-0", "x-0.5"])
def test_zeros_and_signs_go_the_fast_way(text: str, name: str, toy: Model) -> None:
    assert went_fast(f'{{"model": "{name}", "instances": {text}}}', toy)


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
    assert inputs.minus_signs(text.encode()) == count


SPACES = st.sampled_from(["", "", "", " ", "\n", "\t", " \r\n"])
FEW = st.sampled_from(
    ["-0", "-0", "0", "-0.0", "0.0", "-1", "2.5", "-0.5", "1e-05", "-1E-3", "7e0"]
)


@settings(max_examples=80, deadline=None)
@given(data=st.data(), count=st.integers(1, 80), is_nested=st.booleans())
def test_minus_zeros_among_others_go_the_fast_way(
    toy: Model, mean: Model, data: st.DataObject, count: int, is_nested: bool
) -> None:
    model, size = (mean, 6) if is_nested else (toy, 4)
    numbers = data.draw(st.lists(FEW, min_size=count * size, max_size=count * size))
    spaced = [f"{data.draw(SPACES)}{each}{data.draw(SPACES)}" for each in numbers[:40]]
    spaced += numbers[40:]
    rows = [spaced[n : n + size] for n in range(0, len(spaced), size)]
    if is_nested:
        texts = [f"[[{','.join(row[:3])}],[{','.join(row[3:])}]]" for row in rows]
    else:
        texts = [f"[{','.join(row)}]" for row in rows]
    parts = [
        '"model":"my-0, -0 ,-0,-0 "',
        f'"instances":[{",".join(texts)}]',
        data.draw(st.sampled_from(['"version":-0', '"version": -0 ', '"version":-3'])),
    ]
    body = f"{{{','.join(data.draw(st.permutations(parts)))}}}"
    expected = np.array([float(each) for each in numbers], np.float32)
    assert read(body, model).tobytes() == expected.tobytes()
    assert went_fast(body, model)


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
@ways
def test_floats_are_those_that_struct_gives(
    way: Callable[[list[str], Model], Any], kind: str, same: dict[str, Model], row: list[str]
) -> None:
    expected = [packed(each, FORMATS[kind]) for each in row]
    try:
        got = way(row, same[kind]).tobytes()
    except InvalidInput as error:
        got = str(error)
    if None in expected:
        assert f"[{expected.index(None)}]: expected a finite number" in got
    else:
        assert got == b"".join(each for each in expected if each)
