"""Fields that are read and written by hand, against the messages of the onnx package."""

from io import BytesIO

import onnx
import pytest
from onnx import helper

from service.engine.protobuf import Messages, message, whole_number


def of(content: bytes) -> tuple[Messages, range]:
    return Messages(BytesIO(content)), range(len(content))


def test_what_is_written_is_what_onnx_reads() -> None:
    written = message(1, "Łódź" * 50) + message(4, b"\0\xff") + whole_number(3, 2**40)
    read = onnx.AttributeProto.FromString(written)
    assert (read.name, read.s, read.i) == ("Łódź" * 50, b"\0\xff", 2**40)


@pytest.mark.parametrize("numbers", [[], [0], [1, -1, 2**63 - 1, -(2**63)]], ids=str)
def test_whole_numbers_are_read_packed_or_not(numbers: list[int]) -> None:
    attribute = helper.make_attribute("of", numbers, attr_type=onnx.AttributeProto.INTS)
    messages, place = of(attribute.SerializeToString())  # not packed, onnx.proto
    assert messages.integers(place, 8) == numbers
    tensor = onnx.TensorProto(int64_data=numbers)  # packed
    messages, place = of(tensor.SerializeToString())
    assert messages.integers(place, 7) == numbers


def test_each_field_is_where_it_says() -> None:
    node = helper.make_node("Identity", ["x"], ["y"], name="n").SerializeToString()
    messages, place = of(node)
    copied = BytesIO()
    for each in messages.each(place):
        messages.copy(each.place, copied)
    assert copied.getvalue() == node
    assert [each.number for each in messages.each(place)] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "content",
    [b"\x0a\x05abc", b"\x80", b"\x0b", b"\x08" + b"\xff" * 11, b"\x0d\0"],
    ids=["cut", "no end", "a group", "too long a number", "cut number"],
)
def test_what_is_no_message_is_no_message(content: bytes) -> None:
    messages, place = of(content)
    with pytest.raises(EOFError):
        messages.fields(range, place, 1)


def test_what_is_cut_off_is_not_copied() -> None:
    messages, _ = of(b"abc")
    with pytest.raises(EOFError):
        messages.copy(range(1, 5), BytesIO())
