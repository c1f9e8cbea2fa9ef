"""The message of an inference request: the quick way reads what the plain one does, or nothing."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.engine.model import Model
from service.errors import InvalidInput
from service.formats.json_blocks import LONG
from service.formats.json_text import decoded
from service.formats.numbers import SMALL
from service.http.v2 import message
from tests.support.toys import save_toy


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model.open(save_toy(tmp_path_factory.mktemp("models")))


TEXTS = st.text(st.sampled_from('"data": []{},\\0'), max_size=12) | st.just("data")
NUMBERS = st.integers(-9, 9) | st.floats(-1e9, 1e9)
VALUES: st.SearchStrategy[Any] = st.recursive(
    NUMBERS | TEXTS | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
)
DATA = st.lists(NUMBERS, max_size=5) | st.lists(TEXTS, max_size=3) | VALUES
INPUTS = st.fixed_dictionaries(
    {
        "name": TEXTS,
        "shape": st.lists(st.integers(0, 9), max_size=3),
        "datatype": st.sampled_from(["FP32", "FP64", "INT64", "BYTES"]),
    },
    optional={"data": DATA, "parameters": st.dictionaries(TEXTS, VALUES, max_size=2)},
)
REQUESTS = st.fixed_dictionaries(
    {"inputs": st.lists(INPUTS, max_size=3)},
    optional={"id": TEXTS, "data": DATA, "x": VALUES, "parameters": st.just({"data": [1]})},
)


def read(body: bytes, way: Any) -> Any:
    """Return what a way makes of a body, its data as values; None if it leaves it to the other."""
    try:
        request = way(body)
    except InvalidInput:
        return None
    if request is not None:
        for each in request.inputs:
            if not isinstance(each.data, list):
                each.data = msgspec.json.decode(bytes(each.data))
    return request


def plain(body: bytes) -> Any:
    return decoded(body, message._request)


@settings(max_examples=60, deadline=None)
@given(request=REQUESTS, is_small=st.booleans(), pairs=st.lists(st.tuples(TEXTS, VALUES)))
def test_the_quick_way_reads_what_the_plain_one_does(
    request: dict[str, Any], is_small: bool, pairs: list[tuple[str, Any]]
) -> None:
    text = json.dumps(request)
    for name, value in pairs[:3]:  # names that come twice, too
        text = text[:-1] + f", {json.dumps(name)}: {json.dumps(value)}}}"
    body = text.encode() + b" " * (0 if is_small else SMALL)
    quick = read(body, message._quickly)
    if quick is not None:
        assert quick == read(body, plain)


@pytest.mark.parametrize(
    ("text", "is_quick"),
    [
        ('{"inputs":[{"name":"a","shape":[2],"datatype":"FP32","data":[1,2]}]}', True),
        ('{"inputs":[{"data" : [1,2],"name":"data","shape":[2],"datatype":"FP32"}]}', True),
        (
            '{"inputs":[{"name":"a","shape":[1],"datatype":"FP32","data":[1]},'
            '{"name":"b","shape":[1],"datatype":"FP64","data":[]}],"outputs":[{"name":"c"}]}',
            True,
        ),
        ('{"inputs":[{"name":"","shape":[2],"datatype":"FP32","data":[[1],[2]]}]}', False),
        ('{"inputs":[{"name":"","shape":[],"datatype":"FP32","data":0,"x":{"data":[1]}}]}', False),
        ('{"inputs":[{"name":"","shape":[],"datatype":"","d\\u0061ta":[2],"data":[1]}]}', False),
        ('{"inputs":[{"name":"a","shape":[1],"datatype":"FP32","data":[1],"data":[2]}]}', False),
        ('{"inputs":[{"name":"a","shape":[1],"datatype":"FP32"}],"data":[1]}', False),
    ],
)  # fmt: skip
def test_the_quick_way_takes_flat_lists_of_inputs_only(text: str, is_quick: bool) -> None:
    body = text.encode() + b" " * SMALL
    quick = message._quickly(body)
    assert (quick is not None) == is_quick
    assert quick is None or read(body, message._quickly) == read(body, plain)


def test_a_body_of_many_lists_is_not_cut_into_pieces() -> None:
    one = {"name": "a", "shape": [1], "datatype": "FP32", "data": [1]}
    body = json.dumps({"inputs": [one] * 17}).encode()
    assert message._quickly(body) is None
    assert len(message._quickly(json.dumps({"inputs": [one] * 16}).encode()).inputs) == 16


BOM = b"\xef\xbb\xbf"


@pytest.mark.parametrize("size", [0, SMALL, LONG])
def test_a_byte_order_mark_is_passed_over(size: int, toy: Model) -> None:
    numbers = {"name": "input", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}
    body = json.dumps({"inputs": [numbers]}).encode() + b" " * size
    for length in (None, b"%d" % len(BOM + body)):
        marked, behind = message.split(BOM + body + b"x" * bool(length), length, toy)
        assert bytes(behind) == b"x" * bool(length)
        assert [bytes(each.data) for each in marked.inputs] == [b"[1, 2, 3, 4]"]
    with pytest.raises(InvalidInput, match=r"got: JSON is malformed: invalid character \(byte 0\)"):
        message.split(BOM + BOM + body, None, toy)


@pytest.mark.parametrize("text", ["-0", "[1]", '"a"', "null"])
def test_data_that_no_float_holds_is_left_as_it_was_sent(text: str) -> None:
    kind = "FP32" if text == "-0" else "INT64"
    body = b'{"inputs":[{"name":"a","shape":[1],"datatype":"%b","data":[%b]}]}' % (
        kind.encode(),
        text.encode(),
    )
    request, _ = message.split(body, None, None)
    assert bytes(request.inputs[0].data) == b"[%b]" % text.encode()


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        ({"id": "a\n" * 40_000}, "id: expected at most 65536 bytes, got "),
        ({"parameters": {"x": [0] * 99_999}}, "parameters: expected at most 65536 bytes, got "),
        ({"outputs": [{"name": "x"}] * 9999}, "outputs: expected at most 65536 bytes, got "),
        ({"inputs": [{}] * 99_999}, "inputs[0]: object missing required field `name`"),
        ({"inputs": [{"datatype": ""}] * 4097}, "inputs: expected at most 4096"),
        ({"inputs": 7}, "inputs: expected `array`, got `int`"),
        ({}, "body: object missing required field `inputs`"),
    ],
)
def test_a_long_request_is_long_by_its_data_only(request_: dict[str, Any], sentence: str) -> None:
    one = {"name": "a", "shape": [1], "datatype": "FP32", "data": [[1]]}
    body = json.dumps({"inputs": [one]} | request_ if request_ else {}).encode() + b" " * LONG
    with pytest.raises(InvalidInput) as raised:
        message.split(body, None, None)
    assert str(raised.value).startswith(sentence)


def test_the_shape_of_a_long_request_is_short() -> None:
    one = {"name": "a", "shape": [1] * 99_999, "datatype": "FP32", "data": [1]}
    with pytest.raises(InvalidInput, match=r"^shape: expected at most 65536 bytes, got "):
        message.split(json.dumps({"inputs": [one]}).encode() + b" " * LONG, None, None)


def test_long_data_of_any_form_is_found() -> None:
    for data in (["a]"] * 90_000, [[0] * 300] * 500, [0] * 200_000):
        one = {"name": "a", "shape": [1], "datatype": "FP32", "data": data}
        for more in ({}, {"id": "\n"}):
            request, _ = message.split(json.dumps({"inputs": [one], **more}).encode(), None, None)
            assert json.loads(bytes(request.inputs[0].data)) == data


@pytest.mark.parametrize("length", [b"9" * 5000, b"-1", b"x", b""])
def test_a_length_that_is_none_is_refused_in_words(length: bytes, toy: Model) -> None:
    body = b" " * (LONG + 1)
    message.is_long(body, length, toy)
    with pytest.raises(InvalidInput, match=r"^Inference-Header-Content-Length: expected a whole"):
        message.split(body, length, toy)
