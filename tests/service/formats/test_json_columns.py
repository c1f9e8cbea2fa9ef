import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from service.engine.model import Model
from service.errors import RequestError, TooLarge
from service.formats.json_rows import slow_rows
from service.formats.json_text import parsed
from service.formats.message import LARGEST_IN_LOOP, Slow
from tests.support.bodies import instances, large, limits, message, read, went_fast
from tests.support.toys import save_graph, tensor

HOUSE = {"age": 1.5, "rooms": 2, "city": "rome", "paid": True}
NAMES = [*HOUSE]

ages = st.floats(width=32, allow_nan=False, allow_infinity=False) | st.integers(-99, 99)
rooms = st.integers(-(2**63) - 1, 2**63) | st.sampled_from([2.0, 2.5, 1e18])
odd = st.sampled_from([None, "", "x", True, 1, 1.5, 1e39, 1e400, -0.0, [], {}, "\ud800", 10**400])
houses = st.tuples(ages | odd, rooms | odd, st.text(max_size=3) | odd, st.booleans() | odd)
good = st.tuples(ages, st.integers(-9, 9), st.text(max_size=3), st.booleans())
rows = st.lists(
    st.one_of(good, good, houses).flatmap(
        lambda values: st.sampled_from([list(values), dict(zip(NAMES, values, strict=True))])
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=150, deadline=None)
@given(rows)
def test_both_ways_say_the_same(columns: Model, value: Any) -> None:
    body = json.dumps({"instances": value}).encode()

    def attempt(way: Any) -> Any:
        try:
            return repr(way().tolist())  # which tells 1 from 1.0 and True
        except RequestError as error:
            return str(error)

    expected = attempt(lambda: slow_rows(parsed(body, "")["instances"], columns, limits()))
    got = attempt(lambda: read(body, columns))
    assert as_floats(got) == as_floats(expected)


def as_floats(text: str) -> str:
    """The first value of a row as a float, as it becomes one anyway."""
    return re.sub(r"(\[\[|\], \[)(-?\d+),", r"\1\2.0,", text)


@pytest.mark.parametrize(
    ("text", "is_fast"),
    [
        (json.dumps([HOUSE, [*HOUSE.values()]]), True),
        (json.dumps([HOUSE | {"rooms": 2.0}]), False),
        (json.dumps([HOUSE | {"age": -1}]), True),
        (json.dumps([HOUSE | {"age": None}]), False),
        (json.dumps([HOUSE | {"more": 1}]), False),
        (json.dumps([HOUSE | {"rooms": 2**63}]), False),
        ('[{"age":-0,"rooms":2,"city":"rome","paid":true}]', False),
        ("[]", False),
    ],
)
def test_what_fits_is_read_the_fast_way(text: str, is_fast: bool, columns: Model) -> None:
    assert went_fast(instances(text), columns) is is_fast
    assert went_fast(large(instances(text)), columns) is is_fast


def test_many_rows_are_read_in_the_event_loop_unless_one_does_not_fit(columns: Model) -> None:
    many = [HOUSE] * 400
    text = json.dumps(many)
    assert len(text) > LARGEST_IN_LOOP
    assert len(message(instances(text)).rows(columns, limits(400, in_loop=True))) == 400
    with pytest.raises(TooLarge):
        read(instances(text), columns, max_rows=399)
    with pytest.raises(Slow):
        message(instances(json.dumps([*many, HOUSE | {"age": "x"}]))).rows(
            columns, limits(401, in_loop=True)
        )


def test_a_column_may_have_any_name(tmp_path: Path) -> None:
    names = ['the "city"', "née\n", "__proto__"]
    path = tmp_path / "model.onnx"
    nodes = [helper.make_node("Identity", [name], [f"out{n}"]) for n, name in enumerate(names)]
    inputs = [tensor(name, ["n", 1], TensorProto.STRING) for name in names]
    outputs = [tensor(f"out{n}", ["n", 1], TensorProto.STRING) for n in range(3)]
    save_graph(path, nodes, inputs, outputs, [], None)
    row = dict(zip(names, "abc", strict=True))
    assert read(instances(json.dumps([row])), Model.open(path)).tolist() == [["a", "b", "c"]]
