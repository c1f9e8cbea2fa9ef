import base64
import json
import math
from typing import Any

import msgspec
import numpy as np
import pytest

from service.engine.model import Model
from service.errors import InvalidInput, TooLarge
from service.formats import json_lines
from service.formats.json_lines import NOTHING_KEPT, JsonRows
from service.formats.lines import Row
from tests.support import drawings
from tests.support.bodies import file_rows, limits, told

FOUR = [1.0, 2.0, 3.0, 4.0]
NAMED = {"a": 1, "b": 2, "c": 3, "d": 4}
B64 = base64.b64encode(drawings.png(np.arange(6).reshape(2, 3))).decode()


def text(*values: Any) -> bytes:
    return b"".join(json.dumps(each).encode() + b"\n" for each in values)


def read(body: bytes, model: Model, **changes: Any) -> Any:
    message = json_lines.read(body, frozenset(), "application/jsonlines")
    assert message.fields == {}
    return message.rows(model, limits(**changes))


# A body.


def test_a_body_has_an_instance_in_each_line(toy: Model) -> None:
    rows = read(b"\xef\xbb\xbf[1,2,3,4]\r\n\n" + text(NAMED), toy)
    assert (rows.dtype, rows.tolist()) == (np.float32, [FOUR, FOUR])


def test_minus_zero_keeps_its_sign(toy: Model) -> None:
    row = read(b"[-0, 0, -0.0, 1]", toy)[0]
    assert [math.copysign(1, each) for each in row] == [-1, 1, -1, 1]


def test_lines_and_rows_are_limited(toy: Model) -> None:
    assert len(read(text(FOUR, FOUR), toy, max_rows=2)) == 2
    with pytest.raises(TooLarge, match="at most 2 in one request, got 3"):
        read(text(FOUR, FOUR, FOUR), toy, max_rows=2)
    with pytest.raises(TooLarge, match="at most 2 rows in one request, got 5 lines"):
        read(b"\n" * 5, toy, max_rows=2)


# A file.


def test_each_line_of_a_file_is_an_instance(toy: Model) -> None:
    content = text(FOUR, NAMED) + b"\n  \n" + text(7, [1]) + b"{"
    rows = file_rows(JsonRows, content, toy)
    assert rows.kept_names == []
    first, second, *bad = told(rows)
    assert (first, second) == ((1, FOUR), (2, FOUR))
    assert [line for line, _ in bad] == [5, 6, 7]
    for (line, why), got in zip(bad, ("got 7", "got a list of 1", "expected JSON"), strict=True):
        assert isinstance(why, str)
        assert why.startswith(f"line {line}: expected ")
        assert got in why


def test_a_line_that_is_too_long_is_a_bad_row(toy: Model) -> None:
    content = text(FOUR) + b"[" + b" " * 200 + b"1,2,3,4]\n" + text(FOUR)
    assert told(file_rows(JsonRows, content, toy, longest=100)) == [
        (1, FOUR),
        (2, "line 2: expected at most 100 bytes, got more"),
        (3, FOUR),
    ]


def test_images_are_read_one_by_one(mean: Model) -> None:
    content = text({"b64": B64, "id": 7}, [0, 1, 2, 3, 4, 5], {"b64": "?"})
    first, second, bad = file_rows(JsonRows, content, mean, keep=True)
    assert isinstance(first, Row)
    assert isinstance(second, Row)
    assert (list(first.values), bytes(first.kept)) == ([0, 1, 2, 3, 4, 5], b'{"id":7}')
    assert (list(second.values), second.kept) == ([0, 1, 2, 3, 4, 5], NOTHING_KEPT)
    assert told([bad])[0][1].startswith("line 3.b64: expected a PNG or JPEG image in base64, got")
    large, small = told(file_rows(JsonRows, text({"b64": B64}, [0] * 6), mean, max_image_pixels=5))
    assert str(large[1]).startswith("line 1.b64: expected ")
    assert str(large[1]).endswith(" of at most 5 pixels, got 3 x 2")
    assert small == (2, [0] * 6)


def test_other_fields_are_kept_if_asked_for_and_else_unknown(toy: Model) -> None:
    content = text(NAMED | {"id": [7]}, FOUR)
    first, second = file_rows(JsonRows, content, toy, keep=True)
    assert isinstance(first, Row)
    assert isinstance(second, Row)
    assert (first.values, msgspec.json.decode(first.kept)) == (FOUR, {"id": [7]})
    assert (second.values, second.kept) == (FOUR, NOTHING_KEPT)
    assert told(file_rows(JsonRows, content, toy)) == [
        (1, 'line 1: "id": unknown field; --keep copies such fields'),
        (2, FOUR),
    ]


@pytest.mark.parametrize(
    ("value", "got"),
    [
        (r'"\ud800"', "half of a surrogate pair"),
        (r'{"\udc00": 1}', "half of a surrogate pair"),
        ("NaN", "NaN, or a number beyond float64"),
        ("[1e400]", "NaN, or a number beyond float64"),
    ],
)
def test_a_kept_field_that_cannot_be_copied_is_a_bad_row(toy: Model, value: str, got: str) -> None:
    good = '{"a": 1, "b": 2, "c": 3, "d": 4, "id": "\u00e9", "n": 12345678901234567890}\n'
    content = good + good.replace('"id"', f'"x": {value}, "id"') + good
    first, bad, last = file_rows(JsonRows, content.encode(), toy, keep=True)
    assert told([bad]) == [
        (2, f"line 2: expected other fields that can be copied, got {got}"),
    ]
    for line, each in ((1, first), (3, last)):
        assert isinstance(each, Row)
        assert each.line == line
        assert json.loads(bytes(each.kept)) == {"id": "\u00e9", "n": 12345678901234567890}


def test_instances_of_other_models_are_refused(same: dict[str, Model]) -> None:
    with pytest.raises(InvalidInput, match=r"^line 1: expected a list of 4 numbers, got an object"):
        read(text(NAMED), same["float32"])
