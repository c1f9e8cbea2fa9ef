"""A long message taken apart is the message that it was."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import InvalidInput, RequestError, TooLarge
from service.grpc.messages import ModelInferRequest
from service.grpc.outline import MOST_FIELDS, outline
from tests.support.grpc_client import infer_request


def test_a_message_taken_apart_is_the_same() -> None:
    arrays = np.arange(6, dtype=np.float32).reshape(1, 6), np.array([["a"]], np.object_)
    request = infer_request("toy", *arrays, names=("a", "b"), model_version="2", id="7")
    parts = outline(request.SerializeToString())
    assert (parts.name, parts.version) == ("toy", "2")
    assert [bytes(each) for each in parts.raw] == list(request.raw_input_contents)
    del request.raw_input_contents[:]
    assert ModelInferRequest.FromString(parts.rest) == request


@pytest.mark.parametrize(
    "data",
    [
        b"\x2a\x00" * (MOST_FIELDS + 1),  # inputs
        b"\x2a\x80\x80\x04" + b"\x22\x00" * 2**15,  # parameters of one
    ],
)
def test_many_small_fields_are_refused_before_they_are_parsed(data: bytes) -> None:
    with pytest.raises(TooLarge, match="expected at most 16384 fields"):
        outline(data)


GROUP = b"\xa3\x06\x08\x01\xab\x06\x3a\x01x\xac\x06\xa4\x06"  # 100, in it 1, 101 and 7


@pytest.mark.parametrize("unknown", [b"\x08\x07", b"\x10\x07", b"\x28\x07", GROUP])
def test_what_protobuf_does_not_know_is_left_to_it(unknown: bytes) -> None:
    request = infer_request("toy", np.ones((1, 4), np.float32), model_version="2")
    parts = outline(request.SerializeToString() + unknown)
    assert (parts.name, parts.version) == ("toy", "2")
    assert [bytes(each) for each in parts.raw] == list(request.raw_input_contents)
    del request.raw_input_contents[:]
    assert parts.rest == request.SerializeToString() + unknown


@pytest.mark.parametrize("data", [b"\x0b", b"\x0a\x05ab", b"\xff" * 11, b"\x0a\x01\xff"])
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput, match="expected a ModelInferRequest"):
        outline(data)


@given(st.binary(max_size=200))
def test_whatever_comes_is_taken_apart_or_refused(data: bytes) -> None:
    try:
        parts = outline(data)
    except RequestError:
        return
    contents = [each for each in parts.contents if each is not None]
    assert len(parts.rest) + sum(map(len, [*parts.raw, *contents])) <= len(data)


def test_typed_contents_are_cut_out_unless_they_are_unusual() -> None:
    request = ModelInferRequest(model_name="toy", id="7")
    for name in "ab":
        request.inputs.add(name=name, datatype="FP32", shape=[2]).contents.fp32_contents.extend(
            [1, 2]
        )
    twice = b"\x2a\x06\x2a\x01\x00\x2a\x01\x00"  # an input with contents and contents
    request.inputs.add(name="c", shape=[2])
    parts = outline(request.SerializeToString() + twice)
    assert parts.contents[2:] == [None, None]
    assert [bytes(each or b"") for each in parts.contents[:2]] == [
        each.contents.SerializeToString() for each in request.inputs[:2]
    ]
    for each in request.inputs:
        each.ClearField("contents")
    assert parts.rest == request.SerializeToString() + twice
