import itertools
import json
import math
import struct
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from numpy.typing import NDArray

from service.errors import InvalidInput
from service.formats import json_blocks, json_fast, tensors
from service.formats.numbers import Unfit

NUMBERS = [name for name, dtype in tensors.DATATYPES.items() if np.dtype(dtype).kind in "fiu"]
INTEGERS = [name for name, dtype in tensors.DATATYPES.items() if np.dtype(dtype).kind in "iu"]
IN_JSON = [name for name in tensors.DATATYPES if name != "FP16"]
SHAPES = st_numpy.array_shapes(min_dims=0, max_dims=4, min_side=1, max_side=4)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
# Formats of the struct module, which NumPy and our code have nothing to do with.
FORMATS = {
    "BOOL": "?",
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "FP16": "e",
    "FP32": "f",
    "FP64": "d",
}

SLOW = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
several = settings(max_examples=12, deadline=None, suppress_health_check=SLOW)
many = settings(max_examples=300, deadline=None, suppress_health_check=SLOW)


@st.composite
def arrays(draw: st.DrawFn, datatype: str, *, finite: bool = False) -> NDArray[Any]:
    """Return any array of a datatype."""
    shape = draw(SHAPES)
    if datatype == "BYTES":
        count = math.prod(shape)
        texts = draw(st.lists(TEXTS, min_size=count, max_size=count))
        return np.array([*texts, None], np.object_)[:-1].reshape(shape)
    elements = {"allow_nan": False, "allow_infinity": False} if finite else None
    if np.dtype(tensors.DATATYPES[datatype]).kind != "f":
        elements = None
    return draw(st_numpy.arrays(tensors.DATATYPES[datatype], shape, elements=elements))


def is_same(one: NDArray[Any], other: NDArray[Any]) -> bool:
    """Whether arrays are equal in shape, type and every bit."""
    if one.dtype == np.object_:
        return one.shape == other.shape and one.tolist() == other.tolist()
    same_form = (one.shape, one.dtype) == (other.shape, other.dtype)
    return same_form and one.tobytes() == other.tobytes()


@pytest.mark.parametrize("datatype", tensors.DATATYPES)
@several
@given(data=st.data())
def test_what_is_written_as_binary_is_read_again(datatype: str, data: st.DataObject) -> None:
    array = data.draw(arrays(datatype))
    written = bytes(tensors.as_binary(array))
    back = tensors.read_binary(memoryview(written), array.shape, datatype, "here")
    assert is_same(back, array)


@pytest.mark.parametrize("datatype", tensors.DATATYPES)
@several
@given(data=st.data(), offset=st.integers(0, 9))
def test_binary_data_is_read_wherever_it_lies(
    datatype: str, data: st.DataObject, offset: int
) -> None:
    array = data.draw(arrays(datatype))
    written = b"x" * offset + bytes(tensors.as_binary(array))
    back = tensors.read_binary(memoryview(written)[offset:], array.shape, datatype, "here")
    assert is_same(back, array)
    assert back.flags.aligned


@pytest.mark.parametrize("datatype", FORMATS)
@several
@given(data=st.data())
def test_binary_data_is_little_endian_and_row_major(datatype: str, data: st.DataObject) -> None:
    array = data.draw(arrays(datatype))
    expected = struct.pack(f"<{array.size}{FORMATS[datatype]}", *array.ravel().tolist())
    written = bytes(tensors.as_binary(array))
    if np.isnan(array.astype(np.float64)).any():  # struct writes NaN in one way only
        back = struct.unpack(f"<{array.size}{FORMATS[datatype]}", written)
        np.testing.assert_array_equal(np.array(back), array.ravel().astype(np.float64))
    else:
        assert written == expected


def test_strings_are_written_with_their_length_in_bytes() -> None:
    words = np.array([["a", ""], ["ä€", "\0"]], np.object_)
    expected = b"\1\0\0\0a" + b"\0\0\0\0" + b"\5\0\0\0\xc3\xa4\xe2\x82\xac" + b"\1\0\0\0\0"
    assert tensors.as_binary(words) == expected


def test_parts_of_arrays_are_written_row_by_row() -> None:
    array = np.arange(24, dtype=np.int32).reshape(4, 6)
    for part in (array[1:3], array[:, 2:5], array.T, array[::-1, ::2], array[:0]):
        assert bytes(tensors.as_binary(part)) == part.tobytes(order="C")


def test_binary_data_is_not_copied_where_it_lies_well() -> None:
    array = np.arange(1000, dtype=np.float64)
    written = tensors.as_binary(array)
    assert np.shares_memory(np.frombuffer(written, np.uint8), array)
    assert np.shares_memory(
        tensors.read_binary(memoryview(written), (1000,), "FP64", "here"), array
    )


@pytest.mark.parametrize("datatype", FORMATS)
@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 3), (0,), (2**40, 2**40)])
def test_binary_data_of_another_size_is_refused(datatype: str, shape: tuple[int, ...]) -> None:
    size = struct.calcsize(f"<{FORMATS[datatype]}")
    expected = math.prod(shape) * size
    for got in (0, 1, expected - 1, expected + 1, expected + size, 2 * expected):
        if got == expected or not 0 <= got < 1000:
            continue
        with pytest.raises(InvalidInput) as raised:
            tensors.read_binary(memoryview(bytes(got)), shape, datatype, "here")
        says = f"here: expected {expected} bytes as shape {list(shape)} of {datatype} says"
        assert str(raised.value) == f"{says}, got {got}"


@several
@given(st.lists(st.integers(0, 2), min_size=1, max_size=6))
def test_booleans_are_zeros_and_ones(numbers: list[int]) -> None:
    data = memoryview(bytes(numbers))
    if max(numbers) <= 1:
        back = tensors.read_binary(data, (len(numbers),), "BOOL", "here")
        assert back.tolist() == [number == 1 for number in numbers]
    else:
        with pytest.raises(InvalidInput) as raised:
            tensors.read_binary(data, (len(numbers),), "BOOL", "here")
        assert str(raised.value) == f"here: expected bytes of 0 and 1, got {max(numbers)}"


@several
@given(data=st.binary(max_size=40), count=st.integers(0, 4))
def test_any_bytes_are_strings_or_refused(data: bytes, count: int) -> None:
    try:
        back = tensors.read_binary(memoryview(data), (count,), "BYTES", "here")
    except InvalidInput:
        return
    assert back.shape == (count,)
    assert tensors.as_binary(back) == data  # nothing was left or made up


@several
@given(texts=st.lists(TEXTS, max_size=4), cut=st.integers(1, 30))
def test_strings_that_are_cut_are_refused(texts: list[str], cut: int) -> None:
    written = bytes(tensors.as_binary(tensors.strings(texts)))
    if cut > len(written):
        return
    with pytest.raises(InvalidInput, match=r"^here: "):
        tensors.read_binary(memoryview(written[:-cut]), (len(texts),), "BYTES", "here")


def slow(data: bytes, shape: tuple[int, ...], datatype: str) -> NDArray[Any] | str:
    """Return what `read` does where the fast way takes nothing."""

    def refuse(*_: object) -> None:
        raise Unfit

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_fast, "read_tensor", refuse)
        return read(data, shape, datatype)


def read(data: bytes, shape: tuple[int, ...], datatype: str) -> NDArray[Any] | str:
    """Return what becomes of data: an array, or the sentence of its refusal."""
    try:
        return tensors.read_json(msgspec.Raw(data), shape, datatype, "here")
    except InvalidInput as error:
        return str(error)


NUMERALS = st.one_of(
    st.integers(-300, 300).map(str),
    st.integers(-(2**70), 2**70).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.floats(width=32, allow_nan=False, allow_infinity=False).map(repr),
    st.sampled_from(
        [
            *("-0", "-0.0", "1.0", "1e2", "1E+2", "0.5", "1e-400", "1e400", "-1e400", "1" * 400),
            *("127", "128", "-128", "-129", "255", "256", "65535", "65536", "4294967295"),
            *("4294967296", "2147483647", "2147483648", "-2147483649", "9223372036854775807"),
            *("9223372036854775808", "-9223372036854775808", "-9223372036854775809"),
            *("18446744073709551615", "18446744073709551616", "9007199254740993", "1e19"),
            *("3.4028234663852886e38", "3.4028235e38", "3.5e38", "1e-46", "1.7976931348623157e308"),
            *("3.4028235677973362e38", "-3.4028235677973366e38", "1e200", "-0e0", " -0", "-0 "),
            *("9007199254740991.0", "9007199254740992.0", "-9007199254740993.0", "1e-05", "1e-0"),
            *("true", "false", "null", '"1"', '"["', "[]", "[1]", "{}", "255.0", "-0.5", "1e18"),
        ]
    ),
)
NESTS = st.recursive(
    NUMERALS, lambda inner: st.lists(inner, max_size=4).map(lambda each: f"[{', '.join(each)}]")
)


def nested_text(elements: list[str], shape: tuple[int, ...]) -> str:
    if not shape:
        return elements[0]
    size = len(elements) // shape[0]
    parts = [elements[place * size : (place + 1) * size] for place in range(shape[0])]
    return f"[{','.join(nested_text(each, shape[1:]) for each in parts)}]"


@pytest.mark.parametrize("datatype", IN_JSON)
@several
@given(text=NESTS, shape=SHAPES)
def test_the_fast_way_gives_what_the_slow_one_does(
    datatype: str, text: str, shape: tuple[int, ...]
) -> None:
    check_ways(text, shape, datatype)


@pytest.mark.parametrize("datatype", IN_JSON)
@several
@given(data=st.data(), shape=SHAPES, is_flat=st.booleans())
def test_the_fast_way_gives_what_the_slow_one_does_where_the_shape_fits(
    datatype: str, data: st.DataObject, shape: tuple[int, ...], is_flat: bool
) -> None:
    count = math.prod(shape)
    elements = data.draw(st.lists(NUMERALS, min_size=count, max_size=count))
    check_ways(
        f"[{','.join(elements)}]" if is_flat else nested_text(elements, shape), shape, datatype
    )


@pytest.mark.slow
@pytest.mark.parametrize("datatype", IN_JSON)
@many
@given(data=st.data(), shape=SHAPES)
def test_the_fast_way_gives_what_the_slow_one_does_in_many_trials(
    datatype: str, data: st.DataObject, shape: tuple[int, ...]
) -> None:
    count = math.prod(shape)
    fitting = st.lists(NUMERALS, min_size=count, max_size=count)
    text = data.draw(NESTS | fitting.map(lambda elements: nested_text(elements, shape)))
    check_ways(text, shape, datatype)


def check_ways(text: str, shape: tuple[int, ...], datatype: str) -> None:
    expected = slow(text.encode(), shape, datatype)
    got = read(text.encode(), shape, datatype)
    if isinstance(expected, str) or isinstance(got, str):
        assert got == expected, text
    else:
        assert is_same(got, expected), text
    in_blocks = read_in_blocks(text, shape, datatype)
    if isinstance(expected, str) or isinstance(in_blocks, str):
        assert str(in_blocks).startswith("here"), text
        assert isinstance(expected, str), text
    else:
        assert is_same(in_blocks, expected), text


def read_in_blocks(text: str, shape: tuple[int, ...], datatype: str) -> NDArray[Any] | str:
    """Return what becomes of data if it counts as long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensors, "LONG", 0)
        patch.setattr(json_blocks, "BLOCK", 8)
        return read(text.encode(), shape, datatype)


@pytest.mark.parametrize("datatype", IN_JSON)
@pytest.mark.parametrize("is_flat", [True, False])
def test_long_data_is_read_in_blocks(
    datatype: str, is_flat: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if datatype not in ("BOOL", "BYTES"):
        monkeypatch.setattr(tensors, "fitting", None)  # numbers are read as arrays
    value = {"BOOL": True, "BYTES": "a]b,[é"}.get(datatype, 7)
    nested = [[value] * 4] * 25_000
    flat = [value] * 100_000
    text = json.dumps(flat if is_flat else nested).encode()
    assert len(text) > tensors.LONG
    array = tensors.read_json(msgspec.Raw(text), (25_000, 4), datatype, "here")
    assert array.tolist() == nested
    assert array.dtype == tensors.DATATYPES[datatype]


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ([0] * 99_999, "here: expected 100000 elements as shape [100000] says, got 99999"),
        ([0] * 100_001, "here: expected 100000 elements as shape [100000] says, got 100001"),
        ([0] * 99_999 + ["x"], 'here[99999]: expected a number, got "x"'),
        ([0] * 99_999 + [1e39], "here[99999]: expected a finite number that fits float32"),
        ([[0]] * 99_999, "here: expected a list of 100000, got a list of 99999"),
        ([[0]] * 99_999 + [[0, 1]], "here[99999]: expected a list of 1, got a list of 2"),
        ([[0] * 200_000], "here[0]: expected 1 elements, got 200000"),
    ],
)
def test_what_does_not_fit_in_long_data_is_refused_with_its_place(
    value: list[Any], sentence: str
) -> None:
    shape = (100_000, 1) if isinstance(value[0], list) else (100_000,)
    got = read(json.dumps(value).replace(" ", "   ").encode(), shape, "FP32")
    assert str(got).startswith(sentence)


def test_a_shape_that_the_text_cannot_fill_takes_no_memory() -> None:
    data = json.dumps([0] * 200_000).encode()
    got = read(data, (2**31 - 1, 2**9), "FP64")
    assert str(got).endswith("got 200000")


@pytest.mark.parametrize("datatype", IN_JSON)
@several
@given(data=st.data(), is_flat=st.booleans())
def test_what_is_written_as_json_is_read_again(
    datatype: str, data: st.DataObject, is_flat: bool
) -> None:
    array = data.draw(arrays(datatype, finite=True))
    written = msgspec.json.encode(tensors.as_json(array) if is_flat else [array.tolist()])
    back = tensors.read_json(
        msgspec.Raw(written), array.shape if is_flat else (1, *array.shape), datatype, "here"
    )
    assert is_same(back.reshape(array.shape), array)


@pytest.mark.parametrize("datatype", INTEGERS)
@several
@given(number=st.integers(-(2**70), 2**70))
def test_whole_numbers_come_exact_or_are_refused(datatype: str, number: int) -> None:
    limits = np.iinfo(tensors.DATATYPES[datatype])
    for text in (f"{number}", f"[{number}]"):
        got = read(f"[{text}]".encode(), (1, 1), datatype)
        if limits.min <= number <= limits.max:
            assert not isinstance(got, str)
            assert got.tolist() == [[number]]
        else:
            place = "here[0][0]" if "[" in text else "here[0]"
            assert got == (
                f"{place}: expected a whole number from {limits.min} to {limits.max}, got {number}"
            )


def packed(text: str, datatype: str) -> bytes | None:
    """Return a number as the struct module writes it, None for one that it has no room for."""
    try:
        number = float(text)
        return struct.pack(f"<{FORMATS[datatype]}", number) if math.isfinite(number) else None
    except OverflowError:
        return None


EDGES = st.one_of(
    st.integers(-(2**130), 2**130).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.floats(3.40282e38, 3.40283e38).map(repr),
    st.floats(3.40282e38, 3.40283e38).map(lambda number: f"-{int(number)}"),
    st.sampled_from(["1e999", "-1e999", "-0", "-0.0", "0", "3.4028235e38", "1" * 400]),
)


@pytest.mark.parametrize("datatype", ["FP32", "FP64"])
@pytest.mark.parametrize("is_flat", [True, False])
@settings(max_examples=100, deadline=None)
@given(texts=st.lists(EDGES, min_size=2, max_size=2))
def test_numbers_come_as_the_nearest_that_there_is_or_are_refused(
    datatype: str, is_flat: bool, texts: list[str]
) -> None:
    data = ",".join(texts if is_flat else [f"[{each}]" for each in texts])
    expected = [packed(each, datatype) for each in texts]
    name = np.dtype(tensors.DATATYPES[datatype])
    for read_by in (slow, read):
        got = read_by(f"[{data}]".encode(), (2, 1), datatype)
        if None in expected:
            assert isinstance(got, str)
            place = f"here[{expected.index(None)}]{'' if is_flat else '[0]'}"
            assert got.startswith(f"{place}: expected a finite number that fits {name} (at most ")
        else:
            assert not isinstance(got, str)
            assert got.tobytes() == b"".join(each for each in expected if each)


both_ways = pytest.mark.parametrize("read_by", [slow, read])


@both_ways
@pytest.mark.parametrize(
    ("datatype", "text"),
    [
        ("FP32", "3.4028235e38"),  # as most languages print the largest
        ("FP32", "3.4028235677973362e38"),  # the last float64 that rounds to it
        ("FP64", "1.7976931348623158e308"),
        ("FP64", str(2**1024 - 2**970 - 1)),
    ],
)
def test_what_rounds_to_the_largest_number_is_taken(
    read_by: Callable[..., Any], datatype: str, text: str
) -> None:
    largest = np.finfo(tensors.DATATYPES[datatype]).max
    got = read_by(f"[{text},-{text},0]".encode(), (3,), datatype)
    assert got.tolist() == [largest, -largest, 0]


@both_ways
@pytest.mark.parametrize(
    ("datatype", "text"),
    [
        ("FP32", "3.4028235677973366e38"),  # halfway to what would be the next, and even
        ("FP32", str(2**128 - 2**103 - 1)),  # which float64 rounds to halfway
        ("FP32", "-1e200"),
        ("FP64", "1e999"),
        ("FP64", str(2**1024 - 2**970)),
        ("FP64", "-" + "1" * 400),
    ],
)
def test_what_rounds_to_infinity_is_refused(
    read_by: Callable[..., Any], datatype: str, text: str
) -> None:
    with np.errstate(over="ignore"):  # else NumPy's warning, an error here, would stop it too
        got = read_by(f"[0,{text}]".encode(), (2,), datatype)
    assert got.startswith("here[1]: expected a finite number that fits float")


@both_ways
@pytest.mark.parametrize("datatype", ["FP32", "FP64"])
@pytest.mark.parametrize("count", [4, 400])
def test_minus_zero_keeps_its_sign(read_by: Callable[..., Any], datatype: str, count: int) -> None:
    for text in ("-0", "-0.0", "-0e0", "-0E+5", " -0", "-0 ", "\n-0\t", "-1e-400"):
        for place in range(4):
            texts = ["0", "0.0", "1e-05", "-0.5"] * (count // 4)
            texts[place] = text
            expected = np.array([float(each) for each in texts], tensors.DATATYPES[datatype])
            flat, nested = f"[{','.join(texts)}]", f"[[{'],['.join(texts)}]]"
            assert is_same(read_by(flat.encode(), (count,), datatype), expected)
            assert is_same(
                read_by(nested.encode(), (count, 1), datatype), expected.reshape(count, 1)
            )


@both_ways
@pytest.mark.parametrize("datatype", INTEGERS)
def test_minus_zero_is_zero_where_whole_numbers_are_asked_for(
    read_by: Callable[..., Any], datatype: str
) -> None:
    for text in ("-0", "-0.0", "-0e5", " -0 "):
        assert read_by(f"[1,{text}]".encode(), (2,), datatype).tolist() == [1, 0]


@both_ways
def test_minus_zero_is_shown_as_it_may_be_written(read_by: Callable[..., Any]) -> None:
    assert read_by(b"[-0]", (1,), "BOOL") == "here[0]: expected true or false, got -0"
    assert read_by(b"[-0]", (1,), "BYTES") == "here[0]: expected a string, got -0"


@both_ways
@pytest.mark.parametrize(
    "text", ["9007199254740993.0", "9007199254740992.0", "-9007199254740992.0", "1e18"]
)
def test_a_float_that_may_be_rounded_is_no_whole_number(
    read_by: Callable[..., Any], text: str
) -> None:
    for data, shape, place in (("[1,{}]", (2,), "here[1]"), ("[[1],[{}]]", (2, 1), "here[1][0]")):
        sent = data.format(text).encode()
        assert read_by(sent, shape, "INT64") == (
            f"{place}: expected a whole number from -9223372036854775808 to 9223372036854775807, "
            "written without a fraction as floats are exact only below 2**53, "
            f"got {float(text)!r}"
        )
        assert read_by(sent, shape, "UINT64").startswith(f"{place}: expected a whole number from 0")
        assert read_by(sent, shape, "INT32") == (
            f"{place}: expected a whole number from -2147483648 to 2147483647, got {float(text)!r}"
        )


@both_ways
@pytest.mark.parametrize("datatype", ["INT64", "UINT64"])
def test_whole_numbers_may_be_written_with_a_fraction_below_2_to_the_53(
    read_by: Callable[..., Any], datatype: str
) -> None:
    got = read_by(b"[9007199254740993,9007199254740991.0,3.0,1e2]", (4,), datatype)
    assert got.tolist() == [9007199254740993, 9007199254740991, 3, 100]
    refused = read_by(b"[9007199254740993,1.5]", (2,), datatype)
    assert refused.startswith("here[1]: expected a whole number from ")
    assert refused.endswith(", got 1.5")


PAIRS = list(itertools.product(tensors.DATATYPES, tensors.DATATYPES))


def holds_all(sent: np.dtype[Any], wanted: np.dtype[Any]) -> bool:
    """Whether `wanted` is wider and has every value of `sent`, told by Python's own numbers."""
    if wanted.itemsize <= sent.itemsize:
        return False
    if sent.kind == "f":
        return wanted.kind == "f"
    low, high = int(np.iinfo(sent).min), int(np.iinfo(sent).max)
    if wanted.kind == "f":
        return high <= 2 ** (np.finfo(wanted).nmant + 1)
    return bool(np.iinfo(wanted).min <= low and high <= np.iinfo(wanted).max)


def values_of(datatype: str) -> NDArray[Any]:
    """Return the ends of a type, and values from all of its range."""
    dtype = np.dtype(tensors.DATATYPES[datatype])
    if datatype == "BYTES":
        return np.array(["", "1", "true"], np.object_)
    if datatype == "BOOL":
        return np.array([True, False])
    bits = np.random.default_rng(7).bytes(500 * dtype.itemsize)
    limits = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
    ends = np.array([limits.min, limits.max, 0, 1], dtype)
    all_over = np.frombuffer(bits, dtype)
    return np.concatenate([ends, all_over[np.isfinite(all_over)]])


@pytest.mark.parametrize(("sent", "wanted"), PAIRS)
def test_numbers_become_wider_only_where_none_is_lost(sent: str, wanted: str) -> None:
    array, dtype = values_of(sent), tensors.DATATYPES[wanted]
    wide = tensors.widened(array, dtype)
    if sent == wanted:
        assert wide is array
    elif sent in NUMBERS and wanted in NUMBERS and holds_all(array.dtype, np.dtype(dtype)):
        assert wide is not None
        assert wide.dtype == dtype
        if array.dtype.kind in "iu":
            assert [int(each) for each in wide] == array.tolist()
        else:
            np.testing.assert_array_equal(wide.astype(array.dtype), array)
    else:
        assert wide is None


def test_the_pairs_that_are_widened_are_these() -> None:
    found = {
        sent: [
            wanted
            for wanted, dtype in tensors.DATATYPES.items()
            if wanted != sent and tensors.widened(values_of(sent), dtype) is not None
        ]
        for sent in tensors.DATATYPES
    }
    assert found == {
        "BOOL": [],
        "UINT8": ["UINT16", "UINT32", "UINT64", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64"],
        "UINT16": ["UINT32", "UINT64", "INT32", "INT64", "FP32", "FP64"],
        "UINT32": ["UINT64", "INT64", "FP64"],
        "UINT64": [],
        "INT8": ["INT16", "INT32", "INT64", "FP16", "FP32", "FP64"],
        "INT16": ["INT32", "INT64", "FP32", "FP64"],
        "INT32": ["INT64", "FP64"],
        "INT64": [],
        "FP16": ["FP32", "FP64"],
        "FP32": ["FP64"],
        "FP64": [],
        "BYTES": [],
    }


BAD_JSON: list[tuple[bytes, tuple[int, ...], str, str]] = [
    # (data, shape, datatype, sentence)
    (b"[]", (1,), "FP32", "here: expected 1 elements as shape [1] says, got 0"),
    (b"[1,2]", (1,), "INT8", "here: expected 1 elements as shape [1] says, got 2"),
    (b"[[1,2,3],[4]]", (2, 2), "FP32", "here[0]: expected a list of 2, got a list of 3"),
    (b"[[1,2],[3]]", (2, 2), "FP64", "here[1]: expected a list of 2, got a list of 1"),
    (b"[[1,[2]],[3,4]]", (2, 2), "FP32", "here[0][1]: expected a number, got a list of 1"),
    (b"[[1],[2,3,4]]", (2, 2), "INT32", "here[0]: expected a list of 2, got a list of 1"),
    (b"[[1,[2],3],4]", (2, 2), "UINT8", "here[0]: expected a list of 2, got a list of 3"),
    (b"[[[1,2]],[[3,4]]]", (2, 2), "FP32", "here[0]: expected a list of 2, got a list of 1"),
    (b"[[[1],[2]],[[3],[4]]]", (2, 2), "FP32", "here[0][0]: expected a number, got a list of 1"),
    (b"[[1,2],null]", (2, 2), "FP32", "here[1]: expected a list of 2, got null"),
    (b"[[],[]]", (2, 2), "FP32", "here[0]: expected a list of 2, got a list of 0"),
    (b"5", (), "FP32", "here: expected a list of elements, got 5"),
    (b"[[5]]", (), "FP32", "here: expected a number, got a list of 1"),
    (b'["a","b"]', (1,), "BYTES", "here: expected 1 elements as shape [1] says, got 2"),
    (b'[["a"],"b"]', (2, 1), "BYTES", 'here[1]: expected a list of 1, got "b"'),
    (b"[[true],[0]]", (2, 1), "BOOL", "here[1][0]: expected true or false, got 0"),
    (b"[1]", (1,), "FP16", "here: FP16 has no form in JSON; use binary data"),
]


@pytest.mark.parametrize(("data", "shape", "datatype", "sentence"), BAD_JSON)
def test_json_that_does_not_fit_is_refused_with_its_place(
    data: bytes, shape: tuple[int, ...], datatype: str, sentence: str
) -> None:
    assert read(data, shape, datatype) == sentence


def test_what_was_refused_leaves_no_trace() -> None:
    for data, shape, datatype, _ in BAD_JSON * 3:
        read(data, shape, datatype)
        assert read(b"[[1,2],[3,4]]", (2, 2), "FP32").tolist() == [[1, 2], [3, 4]]


def classes(array: Any, most: int, labels: list[str], *, has_rows: bool = True) -> Any:
    return tensors.classified(np.array(array), most, labels, has_rows=has_rows).tolist()


def test_classes_are_the_highest_first_with_value_index_and_label() -> None:
    assert classes([[0.25, 0.5, 0.25], [3, 2, 1]], 2, ["red", "green", "blue"]) == [
        ["0.500000:1:green", "0.250000:0:red"],
        ["3.000000:0:red", "2.000000:1:green"],
    ]
    assert classes(np.array([[-5, 7]], np.int8), 5, ["only"]) == [["7:1", "-5:0:only"]]
    assert classes(np.array([[2**64 - 1, 0]], np.uint64), 1, []) == [[f"{2**64 - 1}:0"]]


def test_equal_classes_come_in_the_order_of_their_indices() -> None:
    assert classes([[1, 1, 1, 1]], 3, []) == [["1:0", "1:1", "1:2"]]


def test_classes_of_a_tensor_without_rows_are_one_list() -> None:
    assert classes([[0.0, 2.0], [3.0, 1.0]], 2, [], has_rows=False) == ["3.000000:2", "2.000000:1"]
    assert classes(1.5, 3, [], has_rows=False) == ["1.500000:0"]


def test_inner_dimensions_are_classes_too() -> None:
    assert classes(np.arange(8.0).reshape(2, 2, 2), 1, []) == [["3.000000:3"], ["7.000000:3"]]


def test_nan_is_never_the_highest() -> None:
    assert classes([[math.nan, 1.0, math.inf]], 3, []) == [["inf:2", "1.000000:1", "nan:0"]]


@several
@given(
    array=st_numpy.arrays(np.float32, (3, 5), elements=st.floats(-100, 100, width=32)),
    most=st.integers(1, 7),
)
def test_classes_agree_with_a_sort_by_hand(array: NDArray[np.float32], most: int) -> None:
    for row, found in zip(array.tolist(), classes(array, most, []), strict=True):
        expected = sorted(range(5), key=lambda index, row=row: (-row[index], index))[:most]
        assert found == [f"{row[index]:f}:{index}" for index in expected]
