"""Attributes that are read by hand, against the messages of the onnx package."""

from io import BytesIO
from typing import Any

import pytest
from onnx import helper, numpy_helper

from service.engine.attributes import Attribute, attribute_of
from service.engine.protobuf import Messages, message
from tests.support.foreign_models import weights


class Counted(BytesIO):
    """A file that counts how often it is read."""

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        return super().read(size)


def read(content: bytes) -> tuple[Attribute, int]:
    file = Counted(content)
    return attribute_of(Messages(file), range(len(content))), file.reads


def of(name: str, value: Any) -> Attribute:
    return read(helper.make_attribute(name, value).SerializeToString())[0]


def test_millions_of_values_are_passed_over() -> None:
    for name, value in (("nodes_nodeids", 7), ("nodes_hitrates", 0.5), ("nodes_modes", "LEAF")):
        _, few = read(helper.make_attribute(name, [value] * 10).SerializeToString())
        found, many = read(helper.make_attribute(name, [value] * 10_000).SerializeToString())
        assert found == Attribute(name)
        assert few == many
    _, most = read(helper.make_attribute("nodes_values", [0.5] * 1000).SerializeToString())
    found, many = read(helper.make_attribute("nodes_values", [0.5] * 9000).SerializeToString())
    assert many <= most + 10
    assert len(found.numbers) == 1000


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("classlabels_strings", ["Łódź", "b"], Attribute(labels=["Łódź", "b"])),
        ("classlabels_int64s", [-1, 1], Attribute(labels=[-1, 1])),
        ("cats_strings", ["a", "Łódź"], Attribute(words=["a", "Łódź"])),
        ("nodes_values", [0.5, -2.0], Attribute(numbers=[0.5, -2.0])),
        ("nodes_missing_value_tracks_true", [0, 0], Attribute()),
        ("nodes_missing_value_tracks_true", [0, 1], Attribute(tracks_missing=True)),
        ("nodes_modes", ["classlabels_strings"], Attribute()),
    ],
    ids=str,
)
def test_values_that_tell_something_are_read(name: str, value: Any, expected: Attribute) -> None:
    expected.name = name
    assert of(name, value) == expected


def test_packed_values_are_read_as_well() -> None:
    """As writers of onnx.proto3 have them."""
    floats = message(1, "nodes_values") + message(7, b"\0\0\0?\0\0\0\xc0")
    assert read(floats)[0].numbers == [0.5, -2.0]
    for content, expected in ((b"\0\0", False), (b"\0\1", True)):
        ints = message(1, "nodes_missing_value_tracks_true") + message(8, content)
        assert read(ints)[0].tracks_missing is expected


def test_tensors_and_graphs_are_found() -> None:
    tensor = numpy_helper.from_array(weights(2))
    graph = helper.make_graph([], "inner", [], [])
    for value, parts in (
        (tensor, "tensors"),
        ([tensor, tensor], "tensors"),
        (graph, "graphs"),
        ([graph], "graphs"),
    ):
        attribute = helper.make_attribute("of", value)
        content = attribute.SerializeToString()
        found = getattr(read(content)[0], parts)
        kind = type(value[0] if isinstance(value, list) else value)
        count = len(value) if isinstance(value, list) else 1
        assert len(found) == count
        for place in found:
            assert kind.FromString(content[place.start : place.stop]) in (tensor, graph)
