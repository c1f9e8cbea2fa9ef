import json
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.engine.model import Model
from service.errors import InvalidInput, RequestError
from service.formats import json_fast
from service.formats.json_rows import slow_rows
from service.formats.json_text import parsed
from service.formats.message import LARGEST_IN_LOOP, Slow
from service.formats.numbers import Unfit
from service.formats.tensors import DATATYPES
from tests.support.bodies import FIELDS, instances, large, limits, message, read, went_fast

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
    for body in (instances(text), large(instances(text))):
        rows = read(body, toy)
        assert rows.dtype == np.float32
        assert rows.tolist() == FOUR
        assert went_fast(body, toy)


@pytest.mark.parametrize("text", ["[[1,2,3,4,5,6]]", "[[[1,2,3],[4,5,6]]]"])
def test_images_are_flat_or_nested(text: str, mean: Model) -> None:
    for body in (instances(text), large(instances(text))):
        assert read(body, mean).tolist() == SIX
        assert went_fast(body, mean)


@pytest.mark.parametrize(
    "text",
    [
        '[[1,2,3,4],{"a":1,"b":2,"c":3,"d":4}]',
        '[{"a":1,"b":2,"c":3,"d":4},[1,2,3,4]]',
        "[[1,2,3,4], [100000000000000000000,2,3,4]]",  # an integer beyond 64 bits
    ],
)
def test_what_simdjson_does_not_read_goes_the_slow_way_and_is_right(text: str, toy: Model) -> None:
    for body, is_fast in ((instances(text), True), (large(instances(text)), False)):
        rows = read(body, toy)
        assert rows[0].tolist() == FOUR[0]
        assert rows.shape == (2, 4)
        assert went_fast(body, toy) is is_fast


@pytest.mark.parametrize("names", ["abcd", "wxyz"])
def test_an_object_is_no_row_of_a_model_without_names(names: str, same: dict[str, Model]) -> None:
    text = instances(json.dumps([dict.fromkeys(names, 1)]))
    for body in (text, large(text)):
        with pytest.raises(InvalidInput, match=r"expected a list of 4 numbers, got an object of 4"):
            read(body, same["float32"])


def test_messages_do_not_disturb_each_other(toy: Model) -> None:
    """A parser of simdjson refuses while something that it parsed is alive."""
    kept = [message(large(instances(text))) for text in ("[[1,2,3]]", "[[1,2,3,4]]")]
    with pytest.raises(InvalidInput):
        message(large("{"))
    assert went_fast(large(instances("[[1,2,3,4]]")), toy)
    for _ in range(2):  # it may be read again, as it is in a thread
        with pytest.raises(InvalidInput, match="got a list of 3"):
            kept[0].rows(toy, limits())
        assert kept[1].rows(toy, limits()).tolist() == FOUR


@pytest.mark.parametrize("instances", ["[[1,2,3,4]]", "7"])
def test_what_stands_beside_the_instances_is_no_object_of_simdjson(instances: str) -> None:
    body = (
        f'{{"model": "toy", "version": {{"a": [1, {{}}]}}, "other": [1, [2.5]], '
        f'"instances": {instances}}}'
    )
    for each in (body, large(body)):
        fields = json_fast.read(each.encode(), FIELDS | {"other"}).fields
        assert fields == {"model": "toy", "version": {"a": [1, {}]}, "other": [1, [2.5]]}
        types = [type(fields[name]) for name in ("model", "version", "other")]
        assert types == [str, dict, list]


AWKWARD = '{"a":1,"b":2,"c":3,"d":4}'  # beside lists


@pytest.mark.parametrize("count", [1, 1000])
@pytest.mark.parametrize("first", [AWKWARD, "[1,2,3,4]"])
def test_only_what_is_small_is_walked_in_the_loop(toy: Model, first: str, count: int) -> None:
    body = instances(f"[{first}{',[1,2,3,4]' * count}]")
    read = message(body)
    for in_loop in (True, False):
        if in_loop and first == AWKWARD and len(body) > LARGEST_IN_LOOP:
            with pytest.raises(Slow):
                read.rows(toy, limits(2000, in_loop=True))
        else:
            rows = read.rows(toy, limits(2000, in_loop=in_loop))
            assert rows.tolist() == FOUR * (count + 1)


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


@settings(max_examples=150, deadline=None)
@given(st.one_of(anything, rows_of_four, named_rows, st.lists(anything, max_size=3)))
def test_both_ways_say_the_same_of_any_instances(toy: Model, value: Any) -> None:
    body = json.dumps({"instances": value}).encode()

    def attempt(way: Any) -> Any:
        try:
            return way().tobytes()
        except RequestError as error:
            return str(error)

    expected = attempt(lambda: slow_rows(parsed(body, "")["instances"], toy, limits()))
    assert attempt(lambda: read(body, toy)) == expected
    assert attempt(lambda: read(large(body.decode()), toy)) == expected


def test_the_largest_number_as_it_is_printed_goes_the_fast_way(toy: Model) -> None:
    body = instances("[[3.4028235e38,-3.4028235e38,0,0.5]]")
    assert went_fast(body, toy)
    assert went_fast(large(body), toy)


def test_a_number_that_is_much_too_large_is_no_warning_in_the_fast_way(toy: Model) -> None:
    with pytest.raises(Unfit):  # not a RuntimeWarning of NumPy
        json_fast.read_lists(b"[[1e200,2,3,4]]", toy, limits())


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
    body = f'{{"model": "{name}", "instances": {text}}}'
    assert went_fast(body, toy)
    assert went_fast(large(body), toy)


SPACES = st.sampled_from(["", "", "", " ", "\n", "\t", " \r\n"])
FEW = st.sampled_from(
    ["-0", "-0", "0", "-0.0", "0.0", "-1", "2.5", "-0.5", "1e-05", "-1E-3", "7e0"]
)


@settings(max_examples=30, deadline=None)
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
    for each in (body, large(body)):
        assert read(each, model).tobytes() == expected.tobytes()
        assert went_fast(each, model)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int8, np.uint64])
def test_a_tensor_is_flat_or_nested_as_its_shape(dtype: type[np.generic]) -> None:
    for text in (b"[0,1,2,3,4,5]", b"[[0,1,2],[3,4,5]]"):
        array = json_fast.read_tensor(text, (2, 3), dtype)
        assert (array.dtype, array.tolist()) == (dtype, [[0, 1, 2], [3, 4, 5]])
    for text in (b"[[0,1],[2,3],[4,5]]", b"[[0,1,2],[3,4,5,6]]", b"[[[0,1,2],[3,4,5]]]"):
        with pytest.raises(Unfit):
            json_fast.read_tensor(text, (2, 3), dtype)
    with pytest.raises(json_fast.WrongCount) as raised:
        json_fast.read_tensor(b"[0,1,2,3,4]", (2, 3), dtype)
    assert raised.value.count == 5


def test_an_array_that_was_read_is_not_changed_by_the_next() -> None:
    first = json_fast.read_tensor(b"[1,2,3]", (3,), np.float64)
    second = json_fast.read_tensor(b"[7,8,9]", (3,), np.float64)
    assert (first.tolist(), second.tolist()) == ([1, 2, 3], [7, 8, 9])


OF_NUMBERS = [each for each in DATATYPES.values() if np.dtype(each).kind in "iuf"]


@pytest.mark.parametrize("dtype", [each for each in OF_NUMBERS if each is not np.float16])
@pytest.mark.parametrize("is_flat", [True, False])
def test_tensors_of_all_numbers_are_read_fast(dtype: type[np.generic], is_flat: bool) -> None:
    array = np.arange(24).astype(dtype).reshape(2, 3, 4)
    text = json.dumps((array.ravel() if is_flat else array).tolist()).encode()
    got = json_fast.read_tensor(text, (2, 3, 4), dtype)
    assert (got.dtype, got.shape, got.tobytes()) == (dtype, (2, 3, 4), array.tobytes())


@pytest.mark.parametrize(
    "text",
    [
        "0,-1,2,-3",
        "0,-0.5,1e-05,1E-0",
        "-0.0,0,-0e0,1e-07",
        "-0,0, -0 ,-0,1e-07,-0",
        ",".join(["-0,-0.5,1e-05,0.0"] * 90),
        "3.4028235e38,-3.4028235e38,0,1",
        ",".join(["0,-0.5,2,0.0"] * 90),
        ",".join(["0,-0.5,1e-05,0.0"] * 90),
        ",".join(["7,-0.5,1e-05,-1"] * 90),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_tensors_of_zeros_signs_and_large_numbers_are_read_fast(
    text: str, dtype: type[np.generic]
) -> None:
    expected = np.array([float(each) for each in text.split(",")], dtype)
    got = json_fast.read_tensor(f"[{text}]".encode(), expected.shape, dtype)
    assert (got.dtype, got.tobytes()) == (dtype, expected.tobytes())


def test_a_body_of_very_many_fields_is_refused_by_the_first_that_is_not_known() -> None:
    """simdjson finds each by a walk over all: this took minutes."""
    fields = b",".join(b'"f%d":1' % number for number in range(200_000))
    with pytest.raises(InvalidInput, match=r'^"f0": unknown field'):
        json_fast.read(b"{%b}" % fields, FIELDS)
    body = b'{"instances":[[1]],"model":{%b}}' % fields
    assert len(json_fast.read(body, FIELDS).fields["model"]) == 200_000


@pytest.mark.parametrize(
    ("text", "is_fast"),
    [
        ("[[[1,2,3],[4,5,6]],[[1,2,3],[-0,-0.0,0]]]", True),
        ("[[[1],[2]]]", True),
        ("[[[1,2],[4,5]],[[1,2,3],[4,5,6]]]", False),  # of two shapes
        ("[[[1,2,null],[4,5,6]]]", False),
        ("[[[],[]]]", False),
        ("[[[1,2],[3]]]", False),
        ("[[[1,[2]],[3,4]]]", False),
        ("[[[1,2]]]", False),
        ("[[1,2]]", False),
        ("[[[[1]],[[2]]]]", False),
        ("[1]", False),
        ('[{"input": 1}]', False),
    ],
)
def test_rows_of_one_open_shape_are_read_the_fast_way(
    text: str, is_fast: bool, any_width: Model
) -> None:
    body = large(instances(text))
    assert went_fast(body, any_width) is is_fast
    try:
        expected = slow_rows(json.loads(text), any_width, limits(10))
    except InvalidInput as error:
        with pytest.raises(InvalidInput, match=re.escape(str(error))):
            read(body, any_width)
        return
    for one, other in zip(read(body, any_width), expected, strict=True):
        np.testing.assert_array_equal(one, other)
        assert (one.dtype, one.shape) == (np.float32, other.shape)
