"""What is read and written of typed contents without protobuf is what protobuf makes of it."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import DeadlineExceeded, InvalidInput, RequestError
from service.formats.tensors import DATATYPES
from service.grpc import packed
from service.grpc.messages import InferTensorContents
from service.grpc.tensors import FIELDS, contents_of, read_contents

NUMBERS = [each for each in FIELDS if each != "BYTES"]


def numbers(datatype: str, count: int) -> Any:
    """Return numbers of any size, the largest and the smallest among them."""
    random, dtype = np.random.default_rng(count), DATATYPES[datatype]
    if datatype == "BOOL":
        return random.integers(0, 2, count).astype(np.bool_)
    if datatype in ("FP32", "FP64"):
        return random.normal(size=count).astype(dtype)
    limits: Any = np.iinfo(dtype)
    wide = random.integers(limits.min, limits.max, count, dtype, endpoint=True)
    array = wide >> random.integers(0, limits.bits, count).astype(dtype)
    array[:2] = [limits.min, limits.max][: len(array[:2])]
    return array


def message_of(array: Any, datatype: str) -> Any:
    contents = InferTensorContents()
    values = array.ravel().tolist()
    values = [each.encode() for each in values] if datatype == "BYTES" else values
    getattr(contents, FIELDS[datatype]).extend(values)
    return contents


def read(data: bytes, datatype: str, count: int) -> Any:
    return read_contents(memoryview(data), [count], datatype, "here", math.inf)


@pytest.mark.parametrize("count", [0, 1, 70_001])
@pytest.mark.parametrize("datatype", NUMBERS)
def test_numbers_are_those_of_protobuf_in_both_directions(datatype: str, count: int) -> None:
    array = numbers(datatype, count)
    data = message_of(array, datatype).SerializeToString()
    assert b"".join(contents_of(array, datatype)) == data
    got = read(data, datatype, count)
    assert got.dtype == array.dtype
    assert got.tobytes() == array.tobytes()


@pytest.mark.parametrize("texts", [[], [""], ["a", "", "Grüße 🚀", "x" * 300] * 600])
def test_strings_are_those_of_protobuf_in_both_directions(texts: list[str]) -> None:
    array = np.array(texts, np.object_)
    data = message_of(array, "BYTES").SerializeToString()
    assert b"".join(contents_of(array, "BYTES")) == data
    assert read(data, "BYTES", len(texts)).tolist() == texts


@pytest.mark.parametrize(
    ("datatype", "data"),
    [
        ("FP32", b"\x35\0\0\x80\x3f\x35\0\0\0\x40"),  # not packed
        ("FP32", b"\x32\x04\0\0\x80\x3f\x32\x04\0\0\0\x40"),  # in two blocks
        ("FP32", b"\x32\x04\0\0\x80\x3f\x35\0\0\0\x40"),  # both
        ("FP32", b"\x32\x04\0\0\x80\x3f\xa3\x06\xa4\x06"),  # and an unknown group
        ("FP64", b"\x3a\x00"),
        ("INT64", b"\x18\x01\x18\x02"),
        ("INT32", b"\x12\x0b\x80\x80\x80\x80\x08\xff\xff\xff\xff\xff\x01"),  # beyond 32 bits
        ("UINT32", b"\x22\x06\xff\xff\xff\xff\xff\x01"),
        ("UINT64", b"\x2a\x0a" + b"\xff" * 9 + b"\x7f"),  # beyond 64 bits
        ("BOOL", b"\x0a\x04\x02\x80\x01\x00"),
        ("BYTES", b"\x42\x01a\xa3\x06\xa4\x06"),
        ("BYTES", b"\x42\x01a\x08\x01"),
        ("FP32", b"\x32\x03\0\0\x80"),
        ("INT64", b"\x1a\x01\x80"),
        ("BYTES", b"\x42\x05a"),
        ("INT64", b"\x1a\x0b" + b"\x80" * 10 + b"\x01"),
    ],
)
def test_what_is_unusual_is_read_as_protobuf_does(datatype: str, data: bytes) -> None:
    try:
        values = getattr(InferTensorContents.FromString(data), FIELDS[datatype])
        expected = read_contents(
            InferTensorContents.FromString(data), [len(values)], datatype, "here", math.inf
        )
    except Exception:
        with pytest.raises(InvalidInput):
            read(data, datatype, 1)
        return
    assert read(data, datatype, len(values)).tolist() == expected.tolist()


@given(st.sampled_from(NUMBERS), st.binary(max_size=40))
def test_whatever_comes_is_read_as_protobuf_does_or_refused(datatype: str, block: bytes) -> None:
    number = InferTensorContents.DESCRIPTOR.fields_by_name[FIELDS[datatype]].number
    data = bytes((number << 3 | 2, len(block))) + block
    try:
        contents = InferTensorContents.FromString(data)
        count = len(getattr(contents, FIELDS[datatype]))
        expected = read_contents(contents, [count], datatype, "here", math.inf)
    except Exception:
        with pytest.raises(RequestError):
            read(data, datatype, 1)
        return
    assert read(data, datatype, count).tobytes() == expected.tobytes()


def test_another_field_is_refused_before_it_is_read() -> None:
    data = message_of(np.ones(3), "FP64").SerializeToString()
    sentence = "here: expected fp32_contents for FP32, got fp64_contents"
    with pytest.raises(InvalidInput, match=sentence):
        read(data, "FP32", 3)


def test_what_takes_long_ends_at_its_deadline() -> None:
    with pytest.raises(DeadlineExceeded):
        packed.numbers_in(memoryview(b"\x02" * 9), "int64_contents", 0.0)
