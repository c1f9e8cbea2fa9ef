"""What goes into a model and comes out of it, as its graph says."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from service.engine import file
from service.engine.spec import Spec, Tensor, spec_of
from service.errors import ModelError
from tests.support.foreign_models import FLOAT, FOREIGN, graph, info, node, save, session
from tests.support.toys import save_same, save_sequenced, save_zipped, tensor

FIXED = (
    "the first dimension of input input is fixed at %d; an export with dynamic_shapes lets it vary"
)


def spec(path: Path) -> Spec:
    return spec_of(session(path), file.read(path).graph)


def described(folder: Path, model: onnx.ModelProto) -> Spec:
    return spec(save(folder, "model", model))


def test_inputs_and_outputs_are_in_the_order_of_the_graph(tmp_path: Path) -> None:
    found = described(tmp_path, FOREIGN["columns"].model)
    assert found.inputs == [Tensor("age", np.float32, (-1, 1)), Tensor("sex", np.object_, (-1, 1))]
    assert found.outputs == [Tensor("y", np.float32, (-1, 2))]
    assert found.has_strings


@pytest.mark.parametrize(
    ("shape", "why", "is_open_inside", "is_closed", "is_fixed_at_one"),
    [
        (["batch", 4], "", False, False, False),
        ([None, 4], "", False, False, False),
        (["batch"], "", False, False, False),
        (["batch", "wide"], "", True, False, False),
        ([1, 4], FIXED % 1, False, True, True),
        ([1, "wide"], FIXED % 1, True, False, True),
        ([3, 1], FIXED % 3, False, True, False),
        ([1], FIXED % 1, False, True, False),
        ([], "input input is a single number, without rows", False, True, False),
    ],
)
def test_the_shape_of_an_input_says_whether_there_are_rows(
    tmp_path: Path,
    shape: list[Any],
    why: str,
    is_open_inside: bool,
    is_closed: bool,
    is_fixed_at_one: bool,
) -> None:
    found = spec(save_same(tmp_path, shape))
    assert found.why_no_batch == why
    assert found.is_open_inside == is_open_inside
    assert found.is_closed == is_closed
    assert found.is_fixed_at_one == is_fixed_at_one


def test_a_file_that_says_no_shape_says_nothing_of_rows(tmp_path: Path) -> None:
    """ONNX Runtime alone shows it as that of a single number."""
    found = described(tmp_path, FOREIGN["of_any_rank"].model)
    assert found.inputs == [Tensor("x", np.float32, (), has_shape=False)]
    assert found.why_no_batch == "the file says no shape for input x"
    assert (found.is_open_inside, found.is_closed) == (True, False)
    assert found.inputs[0].shown_shape == [-1]
    scalar = described(tmp_path, FOREIGN["with_scalar"].model).inputs[1]
    assert (scalar.has_shape, scalar.shown_shape) == (True, [])


@pytest.mark.parametrize(
    ("first", "second", "shown"),
    [("n", "n", ""), (None, None, ""), ("n", "m", "m, n"), ("n", None, "none, n")],
)
def test_first_dimensions_of_one_batch_have_one_name(
    tmp_path: Path, first: str | None, second: str | None, shown: str
) -> None:
    inputs = [info("a", FLOAT, [first, 2]), info("b", FLOAT, [second, 2])]
    model = graph(
        [node("Concat", ["a", "b"], ["y"], axis=0)], inputs, [info("y", FLOAT, [None, 2])]
    )
    why = f"the first dimensions of its inputs have different names: {shown}" if shown else ""
    assert described(tmp_path, model).why_no_batch == why


def test_outputs_that_are_no_tensors_are_left_out(tmp_path: Path) -> None:
    found = spec(save_sequenced(tmp_path))
    assert [each.name for each in found.outputs] == ["output"]
    assert found.left_out == {"several": "seq(tensor(float))"}
    assert not found.has_strings
    assert spec(save_zipped(tmp_path)).has_strings  # in the maps


def test_a_model_whose_outputs_are_all_left_out_is_refused_by_name(tmp_path: Path) -> None:
    sentence = "expected an output that is a tensor of numbers, .* got .*several.*seq"
    with pytest.raises(ModelError, match=sentence):
        spec(save_sequenced(tmp_path, only_sequence=True))


def test_an_input_that_is_no_tensor_is_refused_by_name(tmp_path: Path) -> None:
    several = helper.make_tensor_sequence_value_info("several", TensorProto.FLOAT, [2])
    nodes = [node("SequenceLength", ["several"], ["count"])]
    model = graph(nodes, [several], [tensor("count", [], TensorProto.INT64)])
    sentence = r"^several: expected a tensor of numbers, booleans or strings, got seq\(tensor\(flo"
    with pytest.raises(ModelError, match=sentence):
        described(tmp_path, model)


def test_a_graph_without_inputs_is_refused(tmp_path: Path) -> None:
    model = graph(
        [node("Identity", ["one"], ["y"])], [], [info("y", FLOAT, [1])], one=np.float32([1])
    )
    with pytest.raises(ModelError, match="expected an input, got a graph that has none"):
        described(tmp_path, model)
