"""What holds of the messages of every format."""

import base64
import json
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest

from service.engine.model import Model
from service.errors import TooLarge
from service.formats.message import LARGEST_IN_LOOP, Limits, Slow
from service.formats.registry import CSV, FORM, FORMATS, IMAGE, JSON, JSON_LINES, MSGPACK, Format
from tests.support import drawings
from tests.support.bodies import FIELDS, limits

ROW = [0, 1, 2, 3, 4, 5]
PNG = drawings.png(np.reshape(ROW, (2, 3)))
B64 = {"b64": base64.b64encode(PNG).decode()}


def json_body(count: int) -> bytes:
    return json.dumps({"instances": [B64] * count}).encode()


def csv_body(count: int) -> bytes:
    return b'"0",1,2,3,4,5\n' * count


def json_lines_body(count: int) -> bytes:
    return (json.dumps(B64).encode() + b"\n") * count


def msgpack_body(count: int) -> bytes:
    return msgspec.msgpack.encode({"instances": [PNG] * count})


def image_body(count: int) -> bytes:
    """Return an image; one of many bytes for many rows."""
    noise = drawings.png(np.random.default_rng(0).integers(0, 256, (200, 200)))
    return PNG if count == 1 else noise


def form_body(count: int) -> bytes:
    head = b'--b\r\nContent-Disposition: form-data; name="f"; filename="x.png"\r\n\r\n'
    return (head + PNG + b"\r\n") * count + b"--b--\r\n"


BODIES: list[tuple[Format, Callable[[int], bytes]]] = [
    (JSON, json_body),
    (CSV, csv_body),
    (JSON_LINES, json_lines_body),
    (MSGPACK, msgpack_body),
    (IMAGE, image_body),
    (FORM, form_body),
]
of_all = pytest.mark.parametrize(
    ("format", "body"), BODIES, ids=[format.name for format, _ in BODIES]
)
CONTENT_TYPE = "multipart/form-data; boundary=b"


def test_these_are_all_formats() -> None:
    assert tuple(format for format, _ in BODIES) == FORMATS


@of_all
def test_what_is_small_is_read_in_the_loop(
    format: Format, body: Callable[[int], bytes], mean: Model
) -> None:
    message = format.read(body(1), FIELDS, CONTENT_TYPE)
    assert message.fields == {}
    rows = message.rows(mean, limits(in_loop=True))
    assert (rows.dtype, rows.tolist()) == (np.float32, [ROW])


@of_all
def test_what_takes_long_is_left_to_a_thread_and_read_there(
    format: Format, body: Callable[[int], bytes], mean: Model
) -> None:
    content = body(LARGEST_IN_LOOP // 14 + 1)
    assert len(content) > LARGEST_IN_LOOP
    message = format.read(content, FIELDS, CONTENT_TYPE)
    with pytest.raises(Slow):
        message.rows(mean, limits(10_000, in_loop=True))
    found = message.rows(mean, limits(10_000))
    again: Any = format.read(content, FIELDS, CONTENT_TYPE).rows(mean, limits(10_000))
    np.testing.assert_array_equal(found, again)
    assert found.shape == (1 if format is IMAGE else LARGEST_IN_LOOP // 14 + 1, 6)


@of_all
def test_only_images_need_a_model_of_images(
    format: Format, body: Callable[[int], bytes], mean: Model
) -> None:
    message = format.read(body(1), FIELDS, CONTENT_TYPE)
    assert message.needs_images == (format in (IMAGE, FORM))


@pytest.mark.parametrize("count", [4, 5])
def test_the_number_of_instances_is_limited(count: int) -> None:
    limits = Limits(4, 1, 1, deadline=0)
    if count <= 4:
        limits.check_count(count)
        return
    with pytest.raises(TooLarge) as raised:
        limits.check_count(count)
    assert str(raised.value) == "instances: expected at most 4 in one request, got 5"
