import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from service.engine.model import Model
from service.errors import InvalidInput, TooLarge
from tests.support.bodies import instances, large, read, went_fast
from tests.support.drawings import png
from tests.support.toys import save_graph, save_same, tensor

FOUR = [[1.0, 2.0, 3.0, 4.0]]


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
        (
            "[[1,2,null,4]]",
            "instances[0].c: expected a number, got null: the model ",
        ),
        ("[[1,2,3,true]]", "instances[0].d: expected a number, got true"),
        (
            "[[1,2,3,4],[1,NaN,3,4]]",
            "instances[1].b: expected a number, got NaN, which ",
        ),
        ("[[1,2,3,-Infinity]]", "instances[0].d: expected a number, got -Infinity, which JSON "),
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
        with pytest.raises(InvalidInput, match=r"\[0\]\.input: expected a (whole )?number"):
            read(instances(text), model)


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


HOUSE = {"age": 1.5, "rooms": 2, "city": "rome", "paid": True}


@pytest.mark.parametrize(
    "instance",
    [HOUSE, [*HOUSE.values()], dict(reversed(HOUSE.items())), HOUSE | {"rooms": 2.0}],
)
@pytest.mark.parametrize("size", [str, large])
def test_columns_of_each_type_are_read_by_name_or_in_order(
    instance: Any, size: Callable[[str], str], columns: Model
) -> None:
    rows = read(size(instances(json.dumps([instance, [0, -1, "", False]]))), columns)
    assert (rows.dtype, rows.shape) == (np.object_, (2, 4))
    assert rows.tolist() == [[1.5, 2, "rome", True], [0, -1, "", False]]
    price, town = columns.run(columns.inputs_of(rows))
    assert (price.tolist(), town.tolist()) == ([[113.5], [-1.0]], [["rome"], [""]])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"city": 3}, "instances[0].city: expected a string, got 3"),
        ({"city": None}, "instances[0].city: expected a string, got null"),
        ({"city": "\ud800"}, "instances[0].city: expected a string that has a form in UTF-8"),
        ({"paid": 1}, "instances[0].paid: expected true or false, got 1"),
        ({"paid": "true"}, 'instances[0].paid: expected true or false, got "true"'),
        ({"age": "3"}, 'instances[0].age: expected a number, got "3"'),
        ({"age": True}, "instances[0].age: expected a number, got true"),
        ({"age": 1e39}, "instances[0].age: expected a finite number that fits float32"),
        ({"rooms": 3.5}, "instances[0].rooms: expected a whole number from -9223372036854775808"),
        ({"rooms": None}, "instances[0].rooms: expected a number, got null"),
        ({"town": 1}, 'instances[0]: "town": unknown feature; expected age, city, paid, rooms'),
        ({"citi": 1}, 'instances[0]: "citi": unknown feature; did you mean city?'),
    ],
)
def test_a_value_of_another_type_is_refused_with_its_place(
    changes: dict[str, Any], sentence: str, columns: Model
) -> None:
    with pytest.raises(InvalidInput) as error:
        read(instances(json.dumps([HOUSE | changes])), columns)
    assert str(error.value).startswith(sentence)


@pytest.mark.parametrize(
    ("instance", "sentence"),
    [
        ({"age": 1}, "instances[0].rooms: expected a number, got no such field"),
        ({"age": 1, "rooms": 1}, "instances[0].city: expected a string, got no such field"),
        ([1, 2], "expected a list of 4 values or an object of age, rooms, city, paid, got a list"),
        ("rome", 'expected a list of 4 values or an object of age, rooms, city, paid, got "rome"'),
    ],
)
def test_a_row_that_lacks_a_column_is_refused(instance: Any, sentence: str, columns: Model) -> None:
    with pytest.raises(InvalidInput) as error:
        read(instances(json.dumps([instance])), columns)
    assert sentence in str(error.value)


@pytest.mark.parametrize(
    ("kind", "shape", "sent", "expected"),
    [
        (TensorProto.STRING, ["batch", 2], [["a", "b"], ["c", ""]], [["a", "b"], ["c", ""]]),
        (TensorProto.STRING, ["batch", 1], ["a", ["b"], {"input": "c"}], [["a"], ["b"], ["c"]]),
        (TensorProto.STRING, ["batch", 2, 1], [["a", "b"], [["c"], ["d"]]], None),
        (TensorProto.BOOL, ["batch", 2], [[True, False]], [[True, False]]),
        (TensorProto.BOOL, ["batch"], [True, [False]], [True, False]),
        (TensorProto.FLOAT, ["batch"], [1, 2.5, 3], [1, 2.5, 3]),
        (TensorProto.FLOAT, ["batch", 1], [1, 2.5, 3], [[1], [2.5], [3]]),
        (TensorProto.INT64, ["batch"], [1, 3.0, 2**53 + 1], [1, 3, 2**53 + 1]),
        (TensorProto.FLOAT16, ["batch", 2], [[1, 2.5]], [[1, 2.5]]),
    ],
)
@pytest.mark.parametrize("size", [str, large])
def test_a_single_input_of_any_type_is_read(
    kind: int,
    shape: list[Any],
    sent: Any,
    expected: Any,
    size: Callable[[str], str],
    tmp_path: Path,
) -> None:
    model = Model.open(save_same(tmp_path, shape, kind))
    rows = read(size(instances(json.dumps(sent))), model)
    assert (rows.dtype, rows.shape[1:]) == (model.input.dtype, model.input.shape[1:])
    assert expected is None or rows.tolist() == expected
    assert model.run([rows])[0].tolist() == rows.tolist()


IMAGE = png(np.random.default_rng(1).integers(0, 256, (40, 40)))
IMAGE += b"." * (1 + -len(IMAGE) % 3)  # what is behind it is not read, and has to be padded
B64 = base64.b64encode(IMAGE).decode()
URL_SAFE = base64.urlsafe_b64encode(IMAGE).decode()
LINES = base64.encodebytes(IMAGE).decode()


@pytest.mark.parametrize(
    "text",
    [
        B64.rstrip("="),
        URL_SAFE,
        URL_SAFE.rstrip("="),
        LINES.replace("\n", "\r\n"),
        LINES.replace("\n", "\r"),
        LINES.replace("\n", "\n  "),
        f"DATA:image/png;BASE64,{B64}",
        f"Data:;base64,{URL_SAFE}",
    ],
)
def test_base64_is_read_as_clients_write_it(text: str, mean: Model) -> None:
    assert "+" in B64 and "/" in B64 and B64.endswith("==")  # noqa: PT018
    rows = [read(instances(json.dumps([{"b64": each}])), mean).tolist() for each in (text, B64)]
    assert rows[0] == rows[1]


def test_a_list_of_bare_numbers_is_read_the_fast_way(tmp_path: Path) -> None:
    model = Model.open(save_same(tmp_path, ["batch"]))
    assert went_fast(large(instances("[1, 2.5, 3]")), model)
    for text in ("[1, [2], 3]", "[[1], 2]"):
        assert not went_fast(large(instances(text)), model)
