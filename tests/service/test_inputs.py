import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simdjson
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from toys import save_graph, save_mean, save_toy, tensor, toy_card

from service import inputs
from service.errors import InvalidInput, RequestError, TooLarge
from service.model import Model


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
