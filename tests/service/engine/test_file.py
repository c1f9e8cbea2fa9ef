"""What is read of an .onnx file, against what the onnx package says of it."""

import contextlib
import os
from pathlib import Path

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from service.engine import file
from service.errors import ModelError
from tests.support.foreign_models import (
    FLOAT,
    FOREIGN,
    graph,
    info,
    linear,
    node,
    outside,
    save,
    weights,
)
from tests.support.toys import save_toy, toy_card

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("path", sorted((ROOT / "models").glob("*/*/model.onnx")), ids=str)
def test_our_own_files_say_what_onnx_says(path: Path) -> None:
    said, expected = file.read(path), onnx.load(path)
    assert said.ir_version == expected.ir_version
    assert said.opsets == {each.domain or "ai.onnx": each.version for each in expected.opset_import}
    assert (said.producer, said.producer_version) == (
        expected.producer_name,
        expected.producer_version,
    )
    nodes = expected.graph.node
    assert [each.op for each in said.graph.nodes] == [each.op_type for each in nodes]
    assert [each.inputs for each in said.graph.nodes] == [list(each.input) for each in nodes]
    assert [each.outputs for each in said.graph.nodes] == [list(each.output) for each in nodes]
    names = [[each.name for each in one.attribute] for one in nodes]
    assert [each.attributes for each in said.graph.nodes] == names
    assert said.graph.inputs == [each.name for each in expected.graph.input]
    assert said.graph.constants == {each.name for each in expected.graph.initializer}
    assert said.graph.sizes == {size for each in expected.graph.initializer for size in each.dims}
    assert said.weights == {}


def test_what_has_no_shape_is_told_from_a_scalar(tmp_path: Path) -> None:
    any_rank = file.read(save(tmp_path, "a", FOREIGN["of_any_rank"].model))
    assert any_rank.graph.without_shape == {"x", "y"}
    scalar = file.read(save(tmp_path, "b", FOREIGN["with_scalar"].model))
    assert scalar.graph.without_shape == set()


def test_graphs_inside_nodes_and_functions_are_read(tmp_path: Path) -> None:
    inner = helper.make_graph(
        [node("Neg", ["x"], ["z"])], "then", [], [info("z", FLOAT, ["n", 4])], []
    )
    model = graph(
        [
            node("If", ["is"], ["y"], then_branch=inner, else_branch=inner),
            node("twice", ["y"], ["t"], domain="own"),
        ],
        [info("x", FLOAT, ["n", 4]), info("is", TensorProto.BOOL, [])],
        [info("t", FLOAT, ["n", 4])],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]
    twice = helper.make_function(
        "own", "twice", ["a"], ["b"], [node("Add", ["a", "a"], ["b"])], opsets[:1]
    )
    model.functions.append(twice)
    model.opset_import.append(opsets[1])
    said = file.read(save(tmp_path, "inner", model))
    assert [each.op for each in said.graph.nodes[0].graphs[0].nodes] == ["Neg"]
    assert [each.op for each in said.functions["own", "twice"].nodes] == ["Add"]
    assert said.functions["own", "twice"].inputs == ["a"]


def test_weights_are_named_wherever_they_are(tmp_path: Path) -> None:
    folder = tmp_path / "linear" / "1"
    model = outside(linear(), folder, w="weights.bin", b="deep/er/b")
    said = file.read(save(tmp_path, "linear", model))
    assert said.weights == {"weights.bin": 48, "deep/er/b": 12}
    assert file.names_of(folder / "model.onnx") == ["model.onnx", "weights.bin", "deep/er/b"]


def test_several_tensors_of_one_file_need_all_its_bytes(tmp_path: Path) -> None:
    model = linear()
    onnx.save(
        model,
        tmp_path / "model.onnx",
        save_as_external_data=True,
        location="all.data",
        size_threshold=0,
    )
    said = file.read(tmp_path / "model.onnx")
    assert said.weights == {"all.data": (tmp_path / "all.data").stat().st_size}


def test_weights_in_an_attribute_and_in_a_sparse_tensor_are_named(tmp_path: Path) -> None:
    value = numpy_helper.from_array(weights(3), "value")
    model = graph(
        [node("Constant", [], ["c"], value=value), node("Add", ["x", "c"], ["y"])],
        [info("x", FLOAT, ["n", 3])],
        [info("y", FLOAT, ["n", 3])],
    )
    tensor = model.graph.node[0].attribute[0].t
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="c.bin")
    sparse = model.graph.sparse_initializer.add()
    sparse.values.CopyFrom(tensor)
    sparse.values.external_data[0].value = "s.bin"
    assert file.read(save(tmp_path, "odd", model)).weights == {"c.bin": 12, "s.bin": 12}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "got an empty file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "run `git lfs pull`"),
        (b"\x1f\x8b\x08\0", "compressed with gzip"),
        (b"PK\x03\x04", "a zip archive, as PyTorch saves"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras saves"),
        (b"\x18\0\0\0ORTM", "ONNX Runtime's own format"),
        (b"\xef\xbb\xbf\n<!DOCTYPE html><html>", "a page of HTML"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "a page of HTML or XML"),
        (b"\x80\x04\x95\x10", "a pickle of Python"),
        (b"not a model at all", "not a model that ONNX Runtime can open"),
        (b"{}", "not a model that ONNX Runtime can open"),
    ],
)
def test_what_is_no_onnx_file_is_said_to_be_what_it_is(
    tmp_path: Path, content: bytes, sentence: str
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=sentence):
        file.read(path)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.9, 0.999])
def test_a_file_that_is_cut_off_is_said_to_be(tmp_path: Path, share: float) -> None:
    path = save_toy(tmp_path, card=toy_card())
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ModelError, match="it is cut off, or no ONNX file"):
        file.read(path)


@given(st.data())
def test_a_file_with_wrong_bytes_is_read_or_refused(data: st.DataObject) -> None:
    """It never hangs and raises nothing else."""
    path = Path(os.environ["PYTEST_TMP"])
    content = bytearray(linear().SerializeToString())
    for _ in range(data.draw(st.integers(1, 5))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    with contextlib.suppress(ModelError):
        file.read(path)


@pytest.fixture(autouse=True)
def place_for_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_TMP", str(tmp_path / "bytes.onnx"))


def test_a_large_file_of_weights_beside_it_is_not_read(tmp_path: Path) -> None:
    """A copy that somebody left costs nothing: only what the graph names is a part of it."""
    path = save(tmp_path, "linear", linear())
    with path.with_name("model.onnx.bak").open("wb") as copy:
        copy.truncate(3 * 2**30)
    assert file.names_of(path) == ["model.onnx"]


def test_a_location_that_is_left_over_is_none(tmp_path: Path) -> None:
    """The weights are in the file itself, whatever else it says."""
    model = linear()
    model.graph.initializer[0].external_data.add(key="location", value="elsewhere.bin")
    assert file.read(save(tmp_path, "linear", model)).weights == {}


def test_how_long_weights_must_be_is_known_without_being_said(tmp_path: Path) -> None:
    model = outside(linear(), tmp_path / "linear" / "1", w="w.bin")
    kept = [each for each in model.graph.initializer[0].external_data if each.key != "length"]
    del model.graph.initializer[0].external_data[:]
    model.graph.initializer[0].external_data.extend(kept)
    assert file.read(save(tmp_path, "linear", model)).weights == {"w.bin": 48}


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.onnx")
    assert file.names_of(tmp_path / "model.onnx") == ["model.onnx"]
