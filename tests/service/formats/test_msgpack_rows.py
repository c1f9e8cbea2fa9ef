"""MessagePack says what JSON says: msgspec's encoder writes it, and JSON is the oracle."""

import base64
import io
import json
import tracemalloc
from datetime import UTC
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.engine.model import Model
from service.errors import InvalidInput, RequestError, TooLarge
from service.formats import json_fast, msgpack_rows
from service.formats.lines import Bad, Options, Row, Tape
from service.formats.message import Slow
from service.formats.msgpack_rows import MsgpackRows
from service.settings import Settings
from tests.support import drawings
from tests.support.bodies import FIELDS, file_rows, limits, told
from tests.support.toys import serving

encode = msgspec.msgpack.encode

FOUR = [1.0, 2.0, 3.0, 4.0]
NAMED = {"a": 1, "b": 2, "c": 3, "d": 4}
PNG = drawings.png(np.arange(6).reshape(2, 3))
B64 = {"b64": base64.b64encode(PNG).decode()}


def read(body: bytes, model: Model, **changes: Any) -> Any:
    message = msgpack_rows.read(body, FIELDS, "application/msgpack")
    return message.rows(model, limits(**changes))


def what_becomes_of(value: Any, model: Model, *, as_json: bool, **changes: Any) -> Any:
    """Return type and bytes of the rows of a body, or the sentence of its refusal."""
    try:
        if as_json:
            message = json_fast.read(json.dumps(value).encode(), FIELDS)
            rows = message.rows(model, limits(**changes))
        else:
            rows = read(encode(value), model, **changes)
        return rows.dtype, rows.shape, rows.tobytes()
    except RequestError as error:
        sentence = str(error)
        return type(error), sentence.replace("a MessagePack map", "a JSON object")


def same_as_json(value: Any, model: Model, **changes: Any) -> Any:
    """Hold what becomes of a body against what becomes of it as JSON; return that."""
    found, expected = (
        what_becomes_of(value, model, as_json=as_json, **changes) for as_json in (False, True)
    )
    assert found == expected
    return found


# A body.


@pytest.mark.parametrize(
    "instances",
    [
        [[1, 2, 3, 4]],
        [[1.5, -2.25, 1e-30, 3e38]],
        [[-1, -33, -129, -40_000]],
        [[127, 128, 65_536, 2**40]],
        [[-0.0, 0.0, -(2**40), 2**64 - 1]],
        [NAMED],
        [{"d": -0.0, "c": 3.0, "b": 2, "a": 1}],
        [[1, 2, 3, 4], NAMED, [4, 3, 2, 1]],
        [[1, 2, 3, 4]] * 40,
    ],
)
def test_rows_are_those_of_json(instances: list[Any], toy: Model) -> None:
    dtype, shape, _ = same_as_json({"instances": instances}, toy)
    assert (dtype, shape) == (np.float32, (len(instances), 4))


@pytest.mark.parametrize(
    "instance",
    [[0, 1, 2, 3, 4, 5], [[0, 1, 2], [3, 4, 5]], [[0.5, -1, 2], [3, 4e5, -0.0]], B64],
)
def test_images_are_flat_nested_or_base64_as_in_json(instance: Any, mean: Model) -> None:
    _, shape, _ = same_as_json({"instances": [instance, [0] * 6]}, mean)
    assert shape == (2, 6)


def test_an_image_may_be_its_bytes(mean: Model) -> None:
    rows = read(encode({"instances": [PNG, [0, 1, 2, 3, 4, 5], B64]}), mean)
    assert rows.tolist() == [[0, 1, 2, 3, 4, 5]] * 3
    for data, sentence in (
        (b"", "instances[1]: expected a PNG or JPEG image, got nothing"),
        (b"GIF8", "instances[1]: expected a PNG or JPEG image, got a GIF"),
    ):
        with pytest.raises(InvalidInput) as raised:
            read(encode({"instances": [PNG, data]}), mean)
        assert str(raised.value) == sentence
    with pytest.raises(TooLarge, match=r"^instances\[0\]: .* of at most 5 pixels, got 3 x 2$"):
        read(encode({"instances": [PNG]}), mean, max_pixels=5)


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"instances": None},
        {"instances": []},
        {"instances": {}},
        {"instances": "abcd"},
        {"instances": [1]},
        {"instances": [[]]},
        {"instances": [[1, 2, 3]]},
        {"instances": [[1, 2, 3, 4, 5]]},
        {"instances": [[1, "2", 3, 4]]},
        {"instances": [[1, 2, None, 4]]},
        {"instances": [[1, 2, 3, True]]},
        {"instances": [[1, [2], 3, 4]]},
        {"instances": [[1, 2, 1e39, 4]]},
        {"instances": [{"a": 1}]},
        {"instances": [NAMED | {"e": 5}]},
        {"instances": [NAMED | {"d": "wide"}]},
        {"instances": [FOUR] * 11},
        {"instances": [*[FOUR] * 10, {"a": 1}]},
        {"instances": [FOUR], "instance": 1},
        {"instances": [FOUR], "zzz": 1},
        [1],
        7,
        "x",
        None,
    ],
)
def test_what_does_not_fit_is_said_as_of_json(value: Any, toy: Model) -> None:
    kind, _ = same_as_json(value, toy, max_rows=10)
    assert issubclass(kind, InvalidInput | TooLarge)


anything = st.recursive(
    st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.integers(-9, 9)
    | st.booleans()
    | st.none()
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=3),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.sampled_from(["a", "b", "c", "d", "e"]), inner, max_size=5)
    ),
    max_leaves=12,
)
rows_of_four = st.lists(
    st.lists(st.integers(-(2**63), 2**64 - 1) | st.floats(), min_size=4, max_size=4), max_size=3
)


@settings(max_examples=100, deadline=None)
@given(instances=anything | rows_of_four | st.lists(anything, max_size=3))
def test_whatever_is_sent_is_what_it_is_as_json(instances: Any, toy: Model) -> None:
    if not any(word in repr(instances) for word in ("nan", "inf")):  # JSON has neither
        same_as_json({"instances": instances}, toy)


@pytest.mark.parametrize(
    "whole", [2**53 + 1, -(2**63), 2**63 - 1, 2**64 - 1, 2**53 * 1.0, 1.5, 3.0, -1, 127, 128]
)
def test_whole_numbers_are_exact_or_refused_as_in_json(
    whole: float, same: dict[str, Model]
) -> None:
    for kind in ("int8", "int64", "uint64"):
        same_as_json({"instances": [[whole, 0, 0, 0]]}, same[kind])


def test_a_float_may_be_one_of_four_bytes(toy: Model) -> None:
    body = b"\x81\xa9instances\x91\x94" + b"\xca\x3f\xc0\x00\x00" * 4
    assert read(body, toy).tolist() == [[1.5] * 4]


def test_what_stands_beside_the_instances_is_said() -> None:
    content = {"model": "toy", "instances": [], "version": 3}
    message = msgpack_rows.read(encode(content), FIELDS, "application/msgpack")
    assert message.fields == {"model": "toy", "version": 3}
    assert not message.needs_images


TIMESTAMP, EXTENSION = b"\xd6\xff\x00\x00\x00\x01", b"\xd4\x05x"


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", 'body: expected a MessagePack map {"model": ..., "instances": [...]}, got nothing'),
        (encode({"instances": [FOUR]})[:-1], "body: expected MessagePack, got: "),
        (encode({"instances": [FOUR]}) + b"\x01", "body: expected MessagePack, got: "),
        (b"\xc1", "body: expected MessagePack, got: "),
        (b"\x81\xa1\xff\x01", "body: expected MessagePack, got: "),  # a key that is not UTF-8
        (b"\x81\x80\x01", "body: expected strings as the keys of the map"),
        (b"\x81\x91\x01\x01", "body: expected strings as the keys of the map"),
        (b"\x91" * 100_000 + b"\x01", "body: expected at most 1000 bytes of lists and maps, got "),
        (b"\xdd\xff\xff\xff\xff", "body: expected MessagePack, got: "),
        (b"\x81\x07\x01", "body: expected strings as the keys of the map"),
        (b"\x81\xc4\x01a\x01", "body: expected strings as the keys of the map"),
        (b"\x81\xa9instances\xc4\x02xx", "instances: expected a list of instances, got 2 bytes"),
        (b"\x81\xa9instances\x91\xc4\x02xx", "or an object of a, b, c, d, got 2 bytes"),
        (b"\x81\xa9instances\x91\x94\x01\x02\x03\xc4\x01x", "[0].d: expected a number, got 1 byte"),
        (b"\x81\xa9instances\x91" + TIMESTAMP, "a, b, c, d, got a value of type datetime"),
        (b"\x81\xa9instances\x91" + EXTENSION, "a, b, c, d, got a value of type Ext"),
        (
            b"\x81\xa9instances\x91\x94\x01\x02\x03" + EXTENSION,
            ".d: expected a number, got a value of type Ext",
        ),
        (b"\x81\xa9instances\x91\x84\x01\x01\x02\x02\x03\x03\x04\x04", '"1": unknown feature'),
        (
            b"\x81\xa9instances\x91" + encode({**NAMED, b"e": 5}),
            "instances[0]: \"b'e'\": unknown feature",
        ),
    ],
)
def test_what_json_has_not_is_refused(body: bytes, sentence: str, toy: Model) -> None:
    with pytest.raises(InvalidInput) as raised:
        read(body, toy)
    assert sentence in str(raised.value)
    assert len(str(raised.value)) < 200


FEW = b"\x90" * 100_000  # empty lists: 64 bytes each in memory


def many(count: int) -> bytes:
    """Return a list of so many empty lists."""
    return b"\xdd" + count.to_bytes(4) + FEW[:count]


@pytest.mark.parametrize(
    ("instances", "sentence"),
    [
        (many(100_000), "instances: expected at most 10 in one request, got 100000"),
        (b"\x92\x94\x01\x02\x03\x04" + many(99_000), "instances[1]: expected at most 10"),
        (b"\x91\x94\x01\x02\x03" + many(99_000), "instances[0]: expected at most 10"),
        (b"\x91\x81\xa3b64" + many(99_000), "instances[0]: expected at most 10"),
        (b"\x81\xa1x" + many(99_000), "instances: expected at most 1000 bytes of lists and maps, "),
    ],
)
@pytest.mark.parametrize("of_images", [False, True])
def test_what_no_row_can_be_is_refused_before_it_fills_the_memory(
    instances: bytes, sentence: str, of_images: bool, toy: Model, mean: Model
) -> None:
    body = b"\x81\xa9instances" + instances
    tracemalloc.start()
    try:
        with pytest.raises((InvalidInput, TooLarge)) as raised:
            read(body, mean if of_images else toy, max_rows=10)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    if not of_images:  # of which another row has six numbers
        assert str(raised.value).startswith(sentence)
    assert most < 5 * len(body)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"\x81\xa5model" + many(99_000), "model: expected at most 1000 bytes of lists and maps, "),
        (many(99_000), "body: expected at most 1000 bytes of lists and maps, got 99005"),
        (
            encode(dict.fromkeys(map(str, range(200)))),
            '"0": unknown field',
        ),
        (
            encode(dict.fromkeys(map(str, range(9000)))),
            "body: expected at most 1000 bytes of lists and maps, ",
        ),
        (b"\x81\xa5model" + b"\x91" * 3000 + b"\x01", "nested too deeply"),
    ],
)
def test_what_no_field_can_be_is_refused(body: bytes, sentence: str, toy: Model) -> None:
    with pytest.raises(InvalidInput) as raised:
        read(body, toy)
    assert sentence in str(raised.value)


def test_a_long_body_is_read_in_a_thread_and_a_long_list_is_refused_in_the_loop(toy: Model) -> None:
    long = encode({"instances": [FOUR] * 1000})
    with pytest.raises(Slow):
        read(long, toy, in_loop=True, max_rows=1000)
    with pytest.raises(
        TooLarge, match=r"^instances: expected at most 999 in one request, got 1000"
    ):
        read(long, toy, in_loop=True, max_rows=999)


@settings(max_examples=100, deadline=None)
@given(noise=st.binary(max_size=40))
def test_any_bytes_are_read_or_refused(noise: bytes, toy: Model) -> None:
    for body in (noise, b"\x81\xa9instances" + noise):
        try:
            read(body, toy)
        except RequestError:
            continue


# A file.


def split(content: bytes, model: Model, longest: int = 2**20) -> list[int]:
    """Return where each value of a file ends."""
    tape = Tape(io.BytesIO(content))
    options = Options(longest=longest, keep=False, max_image_pixels=10**6)
    return [tape.offset for _ in MsgpackRows(tape, model, options)]


values = st.recursive(
    st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.booleans()
    | st.none()
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
    | st.binary(max_size=300)
    | st.integers(0, 40).map(lambda size: msgspec.msgpack.Ext(5, bytes(size)))
    | st.datetimes(timezones=st.just(UTC)),
    lambda inner: (
        st.lists(inner, max_size=20)
        | st.dictionaries(st.text("abcd", max_size=40) | st.integers(-9, 300), inner, max_size=20)
    ),
    max_leaves=30,
)


@settings(max_examples=30, deadline=None)
@given(sequence=st.lists(values, max_size=6))
def test_a_file_is_split_where_the_encoder_put_the_boundaries(
    sequence: list[Any], toy: Model
) -> None:
    parts = [encode(each) for each in sequence]
    ends = np.cumsum([len(each) for each in parts]).tolist()
    assert split(b"".join(parts), toy) == ends


@pytest.mark.parametrize("size", [0, 1, 31, 32, 255, 256, 65_535, 65_536])
def test_values_of_all_sizes_are_split(size: int, toy: Model) -> None:
    few = min(size, 1000)  # of lists and maps: each has a value
    for value in ("x" * size, b"x" * size, [1] * few, dict.fromkeys(map(str, range(few)))):
        content = encode(value)
        assert split(content * 2 + b"\x01", toy) == [
            len(content),
            2 * len(content),
            2 * len(content) + 1,
        ]
    for value in ([1] * 65_536, msgspec.msgpack.Ext(7, bytes(size))):
        assert split(encode(value) + b"\x01", toy)[0] == len(encode(value))


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(value=values, data=st.data())
def test_a_file_that_is_cut_off_is_told(value: Any, data: st.DataObject, toy: Model) -> None:
    content = encode(value)
    size = data.draw(st.integers(0, len(content) - 1))
    rows = iter(file_rows(MsgpackRows, encode(FOUR) + content[:size], toy))
    assert next(rows) == Row(1, FOUR, next(iter(file_rows(MsgpackRows, encode(FOUR), toy))).kept)
    if size:
        with pytest.raises(InvalidInput) as raised:
            next(rows)
        assert str(raised.value) == "row 2: expected MessagePack, got a file that is cut off"
    else:
        assert list(rows) == []


def test_a_value_that_is_longer_than_allowed_is_told(toy: Model) -> None:
    for value in ("x" * 100, b"x" * 100, [1.5] * 12, list(range(100)), {"a" * 60: "b" * 50}):
        content = encode(FOUR) + encode(value)
        rows = iter(file_rows(MsgpackRows, content, toy, longest=100))
        next(rows)
        with pytest.raises(InvalidInput, match=r"^row 2: expected at most 100 bytes, got more$"):
            next(rows)
        longest = len(encode(value))
        assert len(list(file_rows(MsgpackRows, content, toy, longest=longest))) == 2
    # What says that it is so long is not believed: nothing of that size is asked for.
    for head in (b"\xdb", b"\xc6", b"\xdd", b"\xdf", b"\xc9"):
        with pytest.raises(InvalidInput, match=r"^row 1: expected "):
            list(file_rows(MsgpackRows, head + b"\xff" * 4, toy, longest=100))


def test_rows_are_those_of_json_lines(toy: Model, mean: Model) -> None:
    rows = file_rows(MsgpackRows, b"".join(map(encode, [FOUR, NAMED, [1], 7, FOUR])), toy)
    assert rows.kept_names == []
    one, two, *bad, five = told(rows)
    assert (one, two, five) == ((1, FOUR), (2, FOUR), (5, FOUR))
    for (row, why), got in zip(bad, ("got a list of 1", "got 7"), strict=True):
        assert str(why).startswith(f"row {row}: expected a list of 4 numbers")
        assert str(why).endswith(got)
    images = told(file_rows(MsgpackRows, encode(PNG) + encode(B64) + encode(b"GIF8"), mean))
    assert images == [
        (1, [0, 1, 2, 3, 4, 5]),
        (2, [0, 1, 2, 3, 4, 5]),
        (3, "row 3: expected a PNG or JPEG image, got a GIF"),
    ]


def test_what_is_no_value_is_a_bad_row_of_its_size(toy: Model) -> None:
    content = b"\xc1" + encode(FOUR) + b"\x81\x80\x01" + b"\xa1\xff" + encode(FOUR)
    rows = told(file_rows(MsgpackRows, content, toy))
    assert [row for row, numbers in rows if numbers == FOUR] == [2, 5]
    for row in (1, 3, 4):
        assert str(dict(rows)[row]).startswith(f"row {row}: expected MessagePack, got: ")


def test_other_fields_are_kept_as_json_says_them(toy: Model) -> None:
    fields = [
        {"id": [7, "\u00e4"]},
        {"raw": b"x"},
        {"time": msgspec.msgpack.Ext(5, b"x")},
        {9: 1},
        {"a_map": [{1: 2}]},
    ]
    content = b"".join(encode(NAMED | each) for each in fields)
    first, *others = file_rows(MsgpackRows, content, toy, keep=True)
    assert isinstance(first, Row)
    assert msgspec.json.decode(first.kept) == {"id": [7, "\u00e4"]}
    assert len(others) == 4
    for number, row in enumerate(others, 2):
        assert isinstance(row, Bad)
        assert row.why == (
            f"row {number}: expected other fields that can be copied, got bytes, or another type "
            "that JSON has not"
        )
    (bad,) = told(file_rows(MsgpackRows, content[: len(encode(NAMED | fields[0]))], toy))
    assert bad == (1, 'row 1: "id": unknown field; --keep copies such fields')


def test_reading_goes_on_where_it_was(toy: Model) -> None:
    parts = [encode([n, 2, 3, 4]) for n in range(5)]
    tape = Tape(io.BytesIO(b"".join(parts)))
    options = Options(longest=1000, keep=False, max_image_pixels=1)
    tape.pass_to(3, sum(map(len, parts[:3])))
    assert told(MsgpackRows(tape, toy, options)) == [(4, [3, 2, 3, 4]), (5, [4, 2, 3, 4])]


# End to end; what `score` does with it is in tests/service/commands/score.


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["/predict", "/predict/toy", "/invocations"])
async def test_the_service_answers_as_it_does_json(client: httpx.AsyncClient, path: str) -> None:
    content: Any = {"model": "toy", "instances": [FOUR, NAMED, [0.5, -1, 2e3, -0.0]]}
    expected = await client.post(path, json=content)
    assert len(expected.json()["predictions"]) == 3
    for sent in ("application/msgpack", "application/x-msgpack", "Application/vnd.MsgPack; v=5"):
        headers = {"content-type": sent}
        reply = await client.post(path, content=encode(content), headers=headers)
        assert (reply.status_code, reply.content) == (200, expected.content)
        refused = await client.post(path, content=b"\xc1", headers=headers)
        assert refused.status_code == 400
        assert refused.json()["error"].startswith("body: expected MessagePack, got: ")


@pytest.mark.anyio
async def test_many_rows_and_images_are_answered_too(client: httpx.AsyncClient) -> None:
    headers = {"content-type": "application/msgpack"}
    many = {"model": "toy", "instances": [[n, 2, 3, 4] for n in range(1000)]}
    images = {"model": "mean", "instances": [[0, 1, 2, 3, 4, 5], PNG, B64]}
    for content, length in ((many, 1000), (images, 3)):
        reply = await client.post("/predict", content=encode(content), headers=headers)
        assert len(reply.json()["predictions"]) == length
    assert reply.json()["predictions"] == [{"value": 2.5}] * 3
    expected = await client.post("/predict", json=many)
    reply = await client.post("/predict", content=encode(many), headers=headers)
    assert reply.content == expected.content


@pytest.mark.anyio
async def test_the_openapi_document_lists_it(models_dir: Any) -> None:
    async with serving(Settings(models_dir=models_dir)) as client:
        document = (await client.get("/schema/openapi.json")).json()
    for path in ("/predict", "/predict/toy", "/predict/mean", "/invocations"):
        content = document["paths"][path]["post"]["requestBody"]["content"]
        assert "application/msgpack" in content, path


HOUSE = {"age": 1.5, "rooms": 2, "city": "rome", "paid": True}


@pytest.mark.parametrize("city", ["rome", "r" * 100_000])
def test_columns_of_each_type_are_read(city: str, columns: Model) -> None:
    house = HOUSE | {"city": city}
    rows = read(encode({"instances": [house, [*house.values()]]}), columns)
    assert rows.tolist() == [[1.5, 2, city, True]] * 2


def test_a_large_instance_of_strings_holds_no_lists(columns: Model) -> None:
    instance = b"\x94\x01\x02\xa1x" + many(3000)
    with pytest.raises(InvalidInput, match=r"^instances\[0\]: expected at most \d+ bytes of lists"):
        read(b"\x81\xa9instances\x91" + instance, columns)


def test_rows_of_an_open_shape_are_read(any_width: Model) -> None:
    rows = [[[1, 2], [3, 4.5]], [[1] * 10_000, [2] * 10_000]]
    assert [row.tolist() for row in read(encode({"instances": rows}), any_width)] == rows
    with pytest.raises(InvalidInput, match=r"^instances\[0\]: expected at most \d+ bytes of lists"):
        read(b"\x81\xa9instances\x91\x92\x91\x01" + many(3000), any_width)
