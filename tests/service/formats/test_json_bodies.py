"""Long JSON bodies: the same rows and sentences as short ones, in little memory."""

import base64
import json
import random
import re
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.engine.model import Model
from service.errors import DeadlineExceeded, InvalidInput, RequestError, TooLarge
from service.formats import json_blocks, json_bodies
from service.formats.json_blocks import LONG
from service.formats.json_bodies import LongMessage
from service.formats.json_rows import slow_rows
from service.formats.json_text import parsed
from service.formats.message import Slow
from tests.service.formats.test_json_fast import anything, named_rows, rows_of_four
from tests.support.bodies import FIELDS, instances, limits
from tests.support.drawings import png
from tests.support.toys import save_same, save_seen


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A model of images of 28 x 28 pixels."""
    folder = tmp_path_factory.mktemp("seen")
    save_seen(folder)
    return Model.open(folder / "seen/1/model.onnx")


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A model of rows of 200,000 numbers."""
    return Model.open(save_same(tmp_path_factory.mktemp("wide"), ["batch", 200_000]))


def read(body: bytes | str, max_rows: int = 10**6) -> Any:
    message = json_bodies.read(body.encode() if isinstance(body, str) else body, FIELDS)
    assert isinstance(message, LongMessage)
    return message


def long(body: str) -> str:
    """Return a body that is long by spaces, within the instances if they are a list."""
    begin = re.search(r'"instances": ?\[', body)
    place = begin.end() if begin else len(body)
    return body[:place] + " " * LONG + body[place:]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(anything, min_size=1, max_size=3) | rows_of_four | named_rows,
    st.integers(20, 60),
    st.booleans(),
)
def test_blocks_say_the_same_of_any_instances(
    toy: Model, value: Any, block: int, is_cut: bool
) -> None:
    text = json.dumps(value)
    beside = "" if is_cut else '"model": [{}], '
    body = f'{{{beside}"instances": {text}}}'

    def attempt(way: Any) -> Any:
        try:
            return way().tobytes()
        except RequestError as error:
            return str(error)

    expected = attempt(lambda: slow_rows(parsed(text.encode(), ""), toy, limits()))
    if ("NaN" in text or "Infinity" in text) and not (is_cut and '"' not in text):
        return  # they are no JSON, and it is decoded as that
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_blocks, "BLOCK", block)
        patch.setattr(json_bodies._Instances, "check_large", lambda *_: None)  # has other words
        assert attempt(lambda: read(long(body)).rows(toy, limits())) == expected


def test_the_event_loop_does_not_read_them(toy: Model) -> None:
    message = read(long(instances("[[1,2,3,4]]")))
    with pytest.raises(Slow):
        message.rows(toy, limits(in_loop=True))
    assert message.rows(toy, limits()).tolist() == [[1, 2, 3, 4]]
    assert message.rows(toy, limits()).tolist() == [[1, 2, 3, 4]]  # again, too


@pytest.mark.parametrize(
    "beside",
    [
        '"model":"toy","version":2,',
        '"model":"to\\u0079","version":2,',
        '"version":2,"model":"toy",',
    ],
)
@pytest.mark.parametrize("text", ["[[1,2,3,4]]", '[{"a":1,"b":2,"c":3,"d":4}]', "[]", " [ [ 1 ] ]"])
def test_what_stands_beside_the_instances_is_read(beside: str, text: str) -> None:
    for body in (f'{{{beside}"instances":{text}}}', f'{{"instances":{text},{beside[:-1]}}}'):
        message = read(long(body))
        assert dict(message.fields) == {"model": "toy", "version": 2}


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("[1]", "body: expected `object`, got `array`"),
        ("{}", "instances: expected a list of instances, got no such field"),
        ('{"instances":[]}', "instances: expected at least one instance, got an empty list"),
        ('{"instances":"a"}', "instances: expected a list of instances, got a string"),
        ('{"instances":{}}', "instances: expected a list of instances, got an object"),
        ('{"instances":7}', "instances: expected a list of instances, got something else"),
        ('{"instances":[[1,2,3,4]],"modle":"a"}', '"modle": unknown field; did you mean model?'),
        ('{"instances":[[1,2,3,"]"]],"x":1}', '"x": unknown field; expected instances, model, '),
        ('{"instances":[[1,2,3,4]],"instances":7}', "instances: expected a list of instances"),
        ('{"instances":[[1,2,3,4]]', "body: expected JSON, got: "),
        ('{"instances":[[1,2,3,4],]}', "instances: expected JSON, got: Expecting value: byte 26"),
        ('{"instances":[[1,2,3,4]]]}', "instances: expected JSON, got: Expecting ',' "),
        ('{"instances":[[1,2,3,NaN]]}', "instances[0].d: expected a number, got NaN, "),
        ('{"instances":[[1,2,3]]}', "instances[0]: expected a list of 4 numbers or an object"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_its_place(toy: Model, body: str, sentence: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        json_bodies.read(long(body).encode(), FIELDS).rows(toy, limits())
    assert str(raised.value).startswith(sentence)


def test_a_field_beside_the_instances_is_short() -> None:
    body = json.dumps({"model": ["a"] * 99_999, "instances": [[1]]})
    with pytest.raises(InvalidInput, match=r"^model: expected at most 8192 bytes, got"):
        json_bodies.read(body.encode(), FIELDS)


def test_the_last_wrong_value_of_many_is_found(toy: Model) -> None:
    rows = [[1, 2, 3, 4]] * 30_000
    good = read(json.dumps({"instances": rows})).rows(toy, limits(30_000))
    assert good.shape == (30_000, 4)
    rows = [*rows[:-1], [1, 2, 3, "x"]]
    with pytest.raises(InvalidInput, match=r"^instances\[29999\]\.d: expected a number, got \"x\""):
        read(json.dumps({"instances": rows})).rows(toy, limits(30_000))
    with pytest.raises(TooLarge, match="at most 29999 in one request, got 30000"):
        read(json.dumps({"instances": rows[:-1] + rows[:1]})).rows(toy, limits(29_999))


def test_a_row_that_is_far_too_long_is_refused_by_a_count(toy: Model) -> None:
    many = ",".join(["0"] * 300_000)
    with pytest.raises(InvalidInput, match=r"^instances\[1\]: expected .*, got 300000 numbers"):
        read(f'{{"instances":[[1,2,3,4],[{many}]]}}').rows(toy, limits())
    fields = ",".join(f'"f{n}":0' for n in range(40_000))
    with pytest.raises(
        InvalidInput, match=r"^instances\[0\]: expected .*, got \d+ bytes of something"
    ):
        read(f'{{"instances":[{{{fields}}}]}}').rows(toy, limits())


def test_a_byte_order_mark_is_passed_over(toy: Model) -> None:
    for text in ("[[1,2,3,4]]", '[{"a":1,"b":2,"c":3,"d":4}]'):
        rows = read(b"\xef\xbb\xbf" + long(instances(text)).encode()).rows(toy, limits())
        assert rows.tolist() == [[1, 2, 3, 4]]


def test_the_deadline_ends_it(toy: Model) -> None:
    with pytest.raises(DeadlineExceeded):
        read(long(instances("[[1,2,3,4]]"))).rows(toy, limits(deadline=0.0))


@pytest.mark.parametrize("dtype", ["float16", "int64", "int8"])
def test_rows_of_whole_numbers_are_read_as_arrays(
    same: dict[str, Model], dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_bodies, "row_or_image", None)  # what would take each by itself
    rows: list[list[float]] = [[n % 120, 0, 1, -2] for n in range(40_000)]
    rows[7] = [1.0, 2e0, 3, -4]  # whole, too
    got = read(json.dumps({"instances": rows})).rows(same[dtype], limits(40_000))
    assert (got.dtype, got.tolist()) == (dtype, rows)


def test_images_in_long_bodies_are_read(seen: Model) -> None:
    pixels = np.random.default_rng(1).integers(0, 255, (28, 28)).astype(np.uint8)
    image = {"b64": base64.b64encode(png(pixels)).decode()}
    body = json.dumps({"instances": [image] * 300})
    rows = read(body).rows(seen, limits(300, max_pixels_in_all=10**9))
    assert len(rows) == 300
    assert (rows == rows[0]).all()


def body_of(kind: str) -> str:
    """Return a body of 2 to 4 MB."""
    if kind == "short":
        return '{"instances":[' + ",".join(["[0,0,0,0]"] * 400_000) + "]}"
    pick = random.Random(4)
    if kind == "named":
        rows: list[Any] = [{n: pick.uniform(0, 9) for n in "abcd"} for _ in range(30_000)]
    else:
        rows = [[pick.randint(0, 255) for _ in range(4)] for _ in range(200_000)]
    return json.dumps({"instances": rows})


@pytest.mark.parametrize("kind", [pytest.param("whole", marks=pytest.mark.slow), "short", "named"])
def test_reading_takes_less_than_four_times_the_body(toy: Model, kind: str) -> None:
    body = body_of(kind).encode()
    tracemalloc.start()
    try:
        json_bodies.read(body, FIELDS).rows(toy, limits(10**6))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * len(body)  # beside the body itself


def test_a_row_that_is_large_by_nature_is_read(wide: Model) -> None:
    row = [n % 7 for n in range(200_000)]
    for text in (json.dumps([row, row]), json.dumps([row, [*row[:-1], 1e39]])):
        message = read(f'{{"instances": {text}}}')
        if "e+39" in text:
            with pytest.raises(InvalidInput, match=r"^instances\[1\]\[199999\]: expected a finite"):
                message.rows(wide, limits())
        else:
            assert message.rows(wide, limits()).tolist() == [row, row]


@pytest.mark.parametrize("open_brackets", [100, 200_000])
def test_many_brackets_are_refused(toy: Model, open_brackets: int) -> None:
    text = "[" * open_brackets + "]" * open_brackets
    with pytest.raises(InvalidInput, match=r"^instances"):
        read(long(instances(f"[[1,2,3,4],{text}]"))).rows(toy, limits())


def test_strings_that_no_row_has_are_refused_before_they_are_decoded(toy: Model) -> None:
    for text in ("a" * 300_000, "\\n" * 200_000):
        with pytest.raises(InvalidInput, match=r"^instances\[0\]: .* bytes of something else"):
            read(f'{{"instances":[["{text}"]]}}').rows(toy, limits())


HOUSE = [1.5, 2, "rome, [", True]


@pytest.mark.parametrize("city", ["rome, [", "r" * 300_000])
def test_long_bodies_of_columns_are_read(city: str, columns: Model) -> None:
    house = [1.5, 2, city, True]
    named = dict(zip(columns.column_names, house, strict=True))
    rows = read(long(instances(json.dumps([house, named, house])))).rows(columns, limits())
    assert rows.tolist() == [house] * 3


def test_a_large_instance_of_strings_holds_no_lists(columns: Model) -> None:
    text = json.dumps([["x", 2, [{}] * 100_000, True]])
    with pytest.raises(InvalidInput, match=r"^instances\[0\]: .* bytes of something else$"):
        read(long(instances(text))).rows(columns, limits())


def test_long_bodies_of_an_open_shape_are_read(any_width: Model) -> None:
    rows = [np.full((2, width), width, np.float32) for width in (3, 30_000, 3, 200_000, 0)]
    text = json.dumps([each.tolist() for each in rows])
    for one, other in zip(read(long(instances(text))).rows(any_width, limits()), rows, strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(TooLarge, match="expected at most 4 in one request, got 5"):
        read(long(instances(text))).rows(any_width, limits(4))
    with pytest.raises(InvalidInput, match="expected at least one instance"):
        read(long(instances("[]"))).rows(any_width, limits())


def test_an_unknown_field_is_found_before_the_others_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(json_bodies, "_decoder", None)  # what would read them all
    fields = ",".join(f'"f{n}":0' for n in range(40_000))
    for start in ("", "\ufeff"):
        with pytest.raises(InvalidInput, match=r'^"f0": unknown field'):
            json_bodies.read(f"{start}{{{fields}}}".encode(), FIELDS)


def test_what_stands_beyond_the_rows_of_a_request_is_counted_alone(
    toy: Model, any_width: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_blocks, "BLOCK", 50)
    for model, row in ((toy, "[1,2,3,4]"), (any_width, "[[1],[2]]")):
        text = ",".join([row] * 4 + ["[7]"] * 96)
        with pytest.raises(TooLarge, match=r"at most 4 in one request, got 100$"):
            read(long(instances(f"[{text}]"))).rows(model, limits(4))
