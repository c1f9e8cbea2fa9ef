import math

import msgspec
import pytest

from service.errors import InvalidInput
from service.formats.json_text import decoded, parsed


class Point(msgspec.Struct):
    x: int
    name: str = ""
    others: list[int] = []


decoder = msgspec.json.Decoder(Point)


def test_json_becomes_objects_of_python() -> None:
    text = b'\xef\xbb\xbf{"a": [1, 2.5, true, null], "b": "\xc3\xa4"}'  # with a byte order mark
    assert parsed(text, "body") == {"a": [1, 2.5, True, None], "b": "\u00e4"}


def test_minus_zero_is_a_float_and_other_whole_numbers_are_none() -> None:
    numbers = parsed(b"[-0, 0, -1, -0.0, 9007199254740993]", "body")
    assert [type(each) for each in numbers] == [float, int, int, float, int]
    assert math.copysign(1, numbers[0]) == math.copysign(1, numbers[3]) == -1
    assert numbers[4] == 9007199254740993
    assert parsed(b'{"-0": "-0 "}', "body") == {"-0": "-0 "}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"", "expected JSON, got: Expecting value: line 1 column 1 (char 0)"),
        (b"[1] x", "expected JSON, got: Extra data: line 1 column 5 (char 4)"),
        (b'["\xff"]', "expected JSON in UTF-8, got byte 2 that is not"),
        (b"[" * 100_000, "expected JSON, got lists or objects nested too deeply"),
        (b"1" * 5000, "expected JSON, got a number of too many digits"),
    ],
)
def test_what_is_no_json_is_refused_with_its_place(text: bytes, sentence: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        parsed(text, "line 7")
    assert str(raised.value) == f"line 7: {sentence}"


def test_a_decoder_says_what_does_not_fit_and_where() -> None:
    for text in (b'{"x": 3}', b'\xef\xbb\xbf{"x": 3}'):  # with a byte order mark
        assert decoded(text, decoder) == decoded(memoryview(text), decoder) == Point(3)
    for text, sentence in (
        (b'{"x": "3"}', "x: expected `int`, got `str`"),
        (b'{"x": 1, "others": [1, null]}', "others[1]: expected `int`, got `null`"),
        (b"7", "body: expected `object`, got `int`"),
        (b"{}", "body: object missing required field `x`"),
        (b"{", "body: expected JSON, got: Input data was truncated"),
        (b'{"x": 1, "name": "\xff"}', "body: expected JSON in UTF-8, got something else"),
        (
            b'{"y": ' + b"[" * 100_000,
            "body: expected JSON, got lists or objects nested too deeply",
        ),
    ):
        with pytest.raises(InvalidInput) as raised:
            decoded(text, decoder)
        assert str(raised.value) == sentence
