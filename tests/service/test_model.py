import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from toys import save_bounded, save_graph, save_mean, save_toy, tensor, toy_answer, toy_card

from service.card import Example
from service.errors import InferenceFailed, InvalidCard, ModelError, SelfTestFailed, StartupError
from service.model import Model, _quota, available_cpus


def test_rows_are_answered_as_the_formula_says(tmp_path: Path) -> None:
    model = Model.open(save_toy(tmp_path, card=toy_card()))
    rows = np.random.default_rng(0).uniform(0, 10, (33, 4)).astype(np.float32)
    (probabilities,) = model.run(rows)
    np.testing.assert_allclose(probabilities, toy_answer(rows), atol=1e-6)


def test_a_model_knows_what_one_row_is(tmp_path: Path) -> None:
    toy = Model.open(save_toy(tmp_path, card=toy_card()))
    assert (toy.row_size, toy.row_shape, toy.feature_names) == (4, (4,), ["a", "b", "c", "d"])
    mean = Model.open(save_mean(tmp_path))
    assert (mean.row_size, mean.row_shape, mean.feature_names) == (6, (2, 3), [])
    assert mean.provider == "CPUExecutionProvider"


def test_the_self_test_passes_for_right_and_fails_for_changed_weights(tmp_path: Path) -> None:
    Model.open(save_toy(tmp_path, card=toy_card())).self_test()
    changed = Model.open(save_toy(tmp_path, card=toy_card(), scale=1.001))
    with pytest.raises(SelfTestFailed, match=r"^example 'one': expected \[0\.923.* got \[0\.92"):
        changed.self_test()


def test_the_self_test_of_values_is_relative(tmp_path: Path) -> None:
    Model.open(save_mean(tmp_path)).self_test()


def test_the_self_test_looks_at_the_interval_too(tmp_path: Path) -> None:
    path = save_bounded(tmp_path)
    Model.open(path).self_test()
    model = onnx.load(path)
    margins = next(each for each in model.graph.initializer if each.name == "margins")
    margins.CopyFrom(numpy_helper.from_array(np.array([-1, 1.01], np.float32), "margins"))
    onnx.save(model, path)
    with pytest.raises(SelfTestFailed, match=r"expected \[6, 5, 7\] .* got \[6, 5, 7.01\]"):
        Model.open(path).self_test()


def test_a_model_without_card_is_tested_with_zeros(tmp_path: Path) -> None:
    Model.open(save_toy(tmp_path, card=None)).self_test()


def test_a_card_that_contradicts_the_graph_is_refused(tmp_path: Path) -> None:
    fewer = toy_card(
        features=toy_card().features[:3],
        examples=[Example(name="e", input=[1.0] * 3, output=[1.0, 0.0, 0.0])],
    )
    with pytest.raises(ModelError, match=r"input input: expected 3 numbers .* got shape \(4,\)"):
        Model.open(save_toy(tmp_path, card=fewer))
    more = toy_card(
        labels=["1", "2", "3", "4"],
        examples=[Example(name="e", input=[1.0] * 4, output=[1.0, 0.0, 0.0, 0.0])],
    )
    with pytest.raises(
        ModelError, match=r"expected outputs of shapes \[\(4,\)\] .* got probabilities \(3,\)"
    ):
        Model.open(save_toy(tmp_path, card=more))


def test_a_card_that_is_not_json_is_refused(tmp_path: Path) -> None:
    path = save_toy(tmp_path, card=toy_card())
    model = onnx.load(path)
    helper.set_model_props(model, {"torchlit.card": "{"})
    onnx.save(model, path)
    with pytest.raises(InvalidCard):
        Model.open(path)


def test_a_file_that_is_cut_off_is_refused_in_one_sentence(tmp_path: Path) -> None:
    path = save_toy(tmp_path, card=toy_card())
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ModelError, match=r"^model\.onnx: not a model that ONNX Runtime can open"):
        Model.open(path)


@pytest.mark.parametrize(
    ("shape", "dtype", "sentence"),
    [
        ([1, 4], TensorProto.FLOAT, r"expected an open batch dimension .* got \[1, 4\]"),
        (["batch", "wide"], TensorProto.FLOAT, "a fixed row shape"),
        (["batch", 4], TensorProto.STRING, r"expected a tensor of numbers, got tensor\(string\)"),
        ([], TensorProto.FLOAT, "expected a batch dimension, got a single number"),
    ],
)
def test_an_input_that_cannot_be_batched_is_refused(
    tmp_path: Path, shape: list[Any], dtype: int, sentence: str
) -> None:
    path = tmp_path / "model.onnx"
    nodes = [helper.make_node("Identity", ["input"], ["output"])]
    save_graph(
        path, nodes, [tensor("input", shape, dtype)], [tensor("output", shape, dtype)], [], None
    )
    with pytest.raises(ModelError, match=sentence):
        Model.open(path)


def test_two_inputs_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    inputs = [tensor("left", ["batch", 2]), tensor("right", ["batch", 2])]
    nodes = [helper.make_node("Add", ["left", "right"], ["sum"])]
    save_graph(path, nodes, inputs, [tensor("sum", ["batch", 2])], [], None)
    with pytest.raises(ModelError, match="expected one input, got 2: left, right"):
        Model.open(path)


def save_reciprocal(path: Path) -> Path:
    """1 / x: answers infinity for 0."""
    nodes = [helper.make_node("Reciprocal", ["input"], ["output"])]
    shape = ["batch", 1]
    save_graph(path, nodes, [tensor("input", shape)], [tensor("output", shape)], [], None)
    return path


def test_an_answer_that_is_not_finite_is_an_error(tmp_path: Path) -> None:
    model = Model.open(save_reciprocal(tmp_path / "model.onnx"))
    assert model.run(np.array([[4.0]], np.float32))[0].tolist() == [[0.25]]
    with pytest.raises(InferenceFailed, match="NaN or infinity"):
        model.run(np.array([[4.0], [0.0]], np.float32))


def test_an_error_of_onnx_runtime_is_not_shown_to_the_caller(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    save_graph(
        path,
        [helper.make_node("Gather", ["table", "input"], ["output"])],
        [tensor("input", ["batch"], TensorProto.INT64)],
        [tensor("output", ["batch"])],
        [numpy_helper.from_array(np.arange(3, dtype=np.float32), "table")],
        None,
    )
    model = Model.open(path)
    assert model.run(np.array([2], np.int64))[0].tolist() == [2.0]
    with pytest.raises(InferenceFailed, match=r"^the model failed on this input$") as error:
        model.run(np.array([9], np.int64))
    assert error.value.__cause__ is not None


def test_a_model_that_ignores_its_batch_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    nodes = [helper.make_node("ReduceSum", ["input"], ["output"], keepdims=1)]
    save_graph(path, nodes, [tensor("input", ["batch", 2])], [tensor("output", [1, 1])], [], None)
    model = Model.open(path)
    with pytest.raises(SelfTestFailed, match="2 rows of zeros: expected 2 rows, got shape"):
        model.measure(2)
    with pytest.raises(InferenceFailed, match="one row for each row"):
        model.run(np.zeros((2, 2), np.float32))


class Waiting:
    """A session on a machine that gives it no processor for a while, each time it runs."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.get_session_options = session.get_session_options

    def run(self, *arguments: Any) -> Any:
        time.sleep(0.005)
        return self._session.run(*arguments)


@pytest.mark.parametrize(("threads", "is_cheap"), [(1, True), (2, False)])
def test_a_busy_machine_makes_no_model_dear_that_runs_in_one_thread(
    tmp_path: Path, threads: int, is_cheap: bool
) -> None:
    model = Model.open(save_toy(tmp_path), threads=threads)
    model._session = Waiting(model._session)
    model.measure(64)
    assert model.is_cheap == is_cheap


def test_a_small_model_is_cheap(tmp_path: Path) -> None:
    model = Model.open(save_toy(tmp_path, card=toy_card()))
    model.measure(64)
    assert model.batch_seconds > 0
    model.batch_seconds = 0.0005
    assert model.is_cheap
    model.batch_seconds = 0.002
    assert not model.is_cheap


def test_cuda_refuses_to_start_without_a_gpu(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="TORCHLIT_DEVICE: expected cuda"):
        Model.open(save_toy(tmp_path, card=toy_card()), device="cuda")


def test_auto_falls_back_to_the_cpu(tmp_path: Path) -> None:
    model = Model.open(save_toy(tmp_path, card=toy_card()), device="auto")
    assert model.provider == "CPUExecutionProvider"


def test_the_cpu_quota_of_both_cgroup_versions_is_read(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("150000 100000\n")
    assert _quota(one, None) == 1.5
    one.write_text("max 100000\n")
    assert _quota(one, None) is None
    one.write_text("50000\n")
    two.write_text("100000\n")
    assert _quota(one, two) == 0.5
    one.write_text("-1\n")
    assert _quota(one, two) is None
    assert _quota(tmp_path / "absent", None) is None
    assert available_cpus() >= 1
