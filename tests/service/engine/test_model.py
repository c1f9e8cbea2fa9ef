import re
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from msgspec.structs import replace
from onnx import TensorProto, helper, numpy_helper

from service.card import Example
from service.engine.contents import read_contents
from service.engine.file import ModelFile
from service.engine.model import FAST_BATCH_S, Model, Stop, check_finite
from service.engine.session import open_session
from service.engine.spec import Spec, spec_of
from service.engine.trial import try_out
from service.errors import (
    InferenceFailed,
    InvalidCard,
    ModelError,
    SelfTestFailed,
    StartupError,
    UnknownValue,
)
from tests.support.foreign_models import FLOAT, STRING, counting, graph, info, save
from tests.support.toys import (
    WEIGHTS,
    save_bounded,
    save_dear,
    save_fussy,
    save_graph,
    save_mean,
    save_picky,
    save_same,
    save_sequenced,
    save_sum,
    save_toy,
    tensor,
    toy_answer,
    toy_card,
)

AS_ALONE = "rows of a trial had the same answers alone and in batches of up to"
NO_COLUMNS = "it has 2 inputs, and left holds more than one value of a row"
FIXED = (
    "the first dimension of input input is fixed at %d; an export with dynamic_shapes lets it vary"
)


def parts(path: Path) -> tuple[Any, Spec, ModelFile]:
    """Return what `Model.open` makes of a file before it is tried."""
    contents = read_contents(path)
    file = contents.file
    session = open_session(contents, device="cpu", threads=1)
    return session, spec_of(session, file.graph), file


def test_rows_are_answered_as_the_formula_says(tmp_path: Path) -> None:
    model = Model.open(save_toy(tmp_path, card=toy_card()))
    rows = np.random.default_rng(0).uniform(0, 10, (33, 4)).astype(np.float32)
    (probabilities,) = model.run([rows])
    np.testing.assert_allclose(probabilities, toy_answer(rows), atol=1e-6)


def test_a_model_knows_what_one_row_is(tmp_path: Path) -> None:
    toy = Model.open(save_toy(tmp_path, card=toy_card()))
    assert (toy.row_size, toy.row_shape, toy.column_names) == (4, (4,), ["a", "b", "c", "d"])
    mean = Model.open(save_mean(tmp_path))
    assert (mean.row_size, mean.row_shape, mean.column_names) == (6, (2, 3), [])
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


def test_a_model_without_card_is_tried_all_the_same(tmp_path: Path) -> None:
    model = Model.open(save_toy(tmp_path, card=None), max_batch_size=16)
    model.self_test()
    assert (model.is_batched, model.why_batching) == (True, f"{AS_ALONE} 16")
    assert (model.largest_batch, model.trial.failure) == (16, "")


def test_a_card_that_contradicts_the_graph_is_refused(tmp_path: Path) -> None:
    fewer = toy_card(
        features=toy_card().features[:3],
        examples=[Example(name="e", input=[1.0] * 3, output=[1.0, 0.0, 0.0])],
    )
    with pytest.raises(ModelError, match=r"input input: expected 3 numbers .* got shape \(-1, 4\)"):
        Model.open(save_toy(tmp_path, card=fewer))
    more = toy_card(
        labels=["1", "2", "3", "4"],
        examples=[Example(name="e", input=[1.0] * 4, output=[1.0, 0.0, 0.0, 0.0])],
    )
    with pytest.raises(
        ModelError,
        match=r"expected outputs of shapes \[\(-1, 4\)\] .* got probabilities \(-1, 3\)",
    ):
        Model.open(save_toy(tmp_path, card=more))


def test_a_card_of_rows_needs_a_graph_that_takes_them(tmp_path: Path) -> None:
    sentence = (
        "^expected an input for each feature of the card, but it has 2 inputs, and left holds "
    )
    with pytest.raises(ModelError, match=sentence):
        Model.open(save_sum(tmp_path, toy_card()))


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
    sentence = (
        r"^model\.onnx: not a model that ONNX Runtime can open: it is cut off, or no ONNX file "
        r"\(200 bytes\)$"
    )
    with pytest.raises(ModelError, match=sentence):
        Model.open(path)


def test_several_inputs_are_taken_in_the_order_of_the_graph(tmp_path: Path) -> None:
    model = Model.open(save_sum(tmp_path), max_batch_size=8)
    model.self_test()
    assert [(each.name, each.dtype, each.shape) for each in model.inputs] == [
        ("left", np.float32, (-1, 2)),
        ("right", np.float32, (-1, 2)),
    ]
    assert (model.is_batched, model.is_fast, model.why_no_rows) == (True, True, NO_COLUMNS)
    left, right = np.random.default_rng(0).uniform(0, 9, (2, 5, 2)).astype(np.float32)
    np.testing.assert_array_equal(model.run([left, right])[0], left + right)


@pytest.mark.parametrize(
    ("shape", "dtype", "example", "is_batched", "why_no_rows"),
    [
        (["batch", 4], TensorProto.FLOAT, [[1, 2, 3, 4]], True, ""),
        ([None, 4], TensorProto.INT16, [[1, 2, 3, 4]], True, ""),
        (["batch"], TensorProto.DOUBLE, [1, 2], True, ""),
        ([1, 4], TensorProto.FLOAT, [[1, 2, 3, 4]], False, ""),
        ([3, 1], TensorProto.FLOAT, [[1], [2], [3]], False, FIXED % 3),
        ([1], TensorProto.FLOAT, [7], False, FIXED % 1),
        ([], TensorProto.FLOAT, 5, False, "input input is a single number, without rows"),
        (["batch", "wide"], TensorProto.FLOAT, [[1, 2]], True, ""),
        ([1, "wide"], TensorProto.FLOAT, [[1, 2, 3]], False, ""),
        (["batch", 2], TensorProto.STRING, [["a", "\u00e9"]], True, ""),
        (["batch", 2], TensorProto.BOOL, [[True, False]], True, ""),
    ],
)
def test_what_is_no_batch_of_rows_is_served_all_the_same(
    tmp_path: Path, shape: list[Any], dtype: int, example: Any, is_batched: bool, why_no_rows: str
) -> None:
    model = Model.open(save_same(tmp_path, shape, dtype), max_batch_size=8)
    model.self_test()
    assert (model.trial.failure, model.trial.takes_zeros) == ("", True)
    assert (model.is_batched, model.why_no_rows) == (is_batched, why_no_rows)
    assert model.largest_batch == (8 if is_batched else 1)
    given = np.array(example, model.input.dtype)
    (answer,) = model.run([given])
    assert answer.shape == given.shape
    assert answer.tolist() == example


def test_inputs_whose_first_dimensions_differ_are_no_batch(tmp_path: Path) -> None:
    """As many answers as queries look like rows; but each depends on all keys."""
    path = tmp_path / "model.onnx"
    inputs = [tensor("queries", ["queries", 2]), tensor("keys", ["keys", 2])]
    nodes = [helper.make_node("Gemm", ["queries", "keys"], ["scores"], transB=1)]
    save_graph(path, nodes, inputs, [tensor("scores", ["queries", "keys"])], [], None)
    model = Model.open(path)
    model.self_test()
    assert model.trial.takes_zeros
    assert (model.is_batched, model.why_batching) == (
        False,
        "the first dimensions of its inputs have different names: keys, queries",
    )
    queries, keys = np.ones((1, 2), np.float32), np.ones((3, 2), np.float32)
    assert model.run([queries, keys])[0].tolist() == [[2, 2, 2]]


def test_a_graph_with_one_answer_for_all_rows_is_no_batch(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    nodes = [helper.make_node("ReduceSum", ["input"], ["output"], keepdims=1)]
    save_graph(path, nodes, [tensor("input", ["batch", 2])], [tensor("output", [1, 1])], [], None)
    model = Model.open(path)
    model.self_test()
    why = "output output: the answer to 2 rows of a trial has shape (1, 1)"
    assert (model.is_batched, model.why_batching, model.why_no_rows) == (False, why, why)
    assert not model.trial.answers_rows
    assert model.run([np.ones((3, 2), np.float32)])[0].tolist() == [[6]]


def save_centred(folder: Path) -> Path:
    """Write a model that takes the mean of all rows from each."""
    path = folder / "model.onnx"
    nodes = [
        helper.make_node("ReduceMean", ["input", "axes"], ["mean"], keepdims=1),
        helper.make_node("Sub", ["input", "mean"], ["output"]),
    ]
    rows = [tensor("input", ["batch", 2])], [tensor("output", ["batch", 2])]
    save_graph(path, nodes, *rows, [numpy_helper.from_array(np.array([0]), "axes")], None)
    return path


def test_a_graph_in_which_rows_change_each_other_is_no_batch(tmp_path: Path) -> None:
    """As many answers as rows, but each is that of all: callers would get each other's."""
    model = Model.open(save_centred(tmp_path))
    assert (model.is_batched, model.largest_batch) == (False, 1)
    assert re.fullmatch(
        r"output output: row \d of 2 has another answer than alone by .+: rows depend on .+ other",
        model.why_batching,
    )
    assert (model.trial.answers_rows, model.why_no_rows) == (True, "")
    together = model.run([np.array([[1, 2], [3, 6]], np.float32)])
    assert together[0].tolist() == [[-1, -2], [1, 2]]


def test_a_verdict_of_a_person_counts_where_the_shapes_allow_it(tmp_path: Path) -> None:
    centred, fixed = save_centred(tmp_path), save_same(tmp_path, [1, 2])
    model = Model.open(centred, batching="rows", max_batch_size=16)
    assert (model.is_batched, model.largest_batch) == (True, 16)
    assert model.why_batching.startswith("TORCHLIT_BATCHING says rows, though output output: row ")
    model = Model.open(centred, batching="requests")
    assert (model.is_batched, model.why_batching) == (False, "TORCHLIT_BATCHING says requests")
    model = Model.open(save_toy(tmp_path), batching="requests")
    why = f"TORCHLIT_BATCHING says requests, though {AS_ALONE} 64"
    assert (model.is_batched, model.largest_batch, model.why_batching) == (False, 1, why)
    model = Model.open(save_toy(tmp_path), batching="rows")
    assert (model.is_batched, model.why_batching) == (True, "TORCHLIT_BATCHING says rows")
    model = Model.open(fixed, batching="rows")
    why = f"TORCHLIT_BATCHING says rows, but {FIXED % 1}"
    assert (model.is_batched, model.largest_batch, model.why_batching) == (False, 1, why)


@pytest.mark.parametrize("least", [0, 1])  # zeros have an answer, or none
def test_a_graph_that_only_says_that_it_answers_each_row_is_no_batch(
    tmp_path: Path, least: float
) -> None:
    model = Model.open(save_picky(tmp_path, least=least))
    assert model.inputs[0].shape[0] == model.outputs[0].shape[0] == -1
    assert not model.is_batched
    assert not model.trial.answers_rows
    assert re.fullmatch(
        r"output output: the answer to \d rows? of a trial has shape \(\d, 3\)", model.why_no_rows
    )
    assert len(model.run([np.array([[2, 2, 2, 2], [-1, 0, 0, 0]], np.float32)])[0]) == 1


def test_rows_that_no_trial_has_may_get_no_answer(tmp_path: Path) -> None:
    """It is for the batcher to see: who is alone gets what the model says."""
    model = Model.open(save_picky(tmp_path, least=-1e9))
    assert model.is_batched
    assert len(model.run([np.ones((2, 4), np.float32)])[0]) == 2
    assert len(model.run([np.array([[1, 1, 1, 1], [-2e9, 1, 1, 1]], np.float32)])[0]) == 1


def test_a_card_of_rows_needs_an_answer_for_each(tmp_path: Path) -> None:
    model = Model.open(save_picky(tmp_path, toy_card(), least=1))
    assert not model.is_batched
    sentence = (
        "^expected an answer for each row as the card says, but output output: the answer to 1 row "
        r"of a trial has shape \(0, 3\)$"
    )
    with pytest.raises(SelfTestFailed, match=sentence):
        model.self_test()


def test_a_model_answers_what_is_left_of_its_outputs(tmp_path: Path) -> None:
    model = Model.open(save_sequenced(tmp_path))
    model.self_test()
    assert model.left_out == {"several": "seq(tensor(float))"}
    (copy,) = model.run([np.array([[0, 1], [1, 0]], np.float32)])
    assert copy.tolist() == [[0, 1], [1, 0]]


def save_product(path: Path, shape: list[Any]) -> Path:
    """Write a product with a matrix of 4 x 3 whose input has this shape."""
    weights = numpy_helper.from_array(WEIGHTS, "weights")
    nodes = [
        helper.make_node("Reshape", ["input", "four"], ["rows"]),
        helper.make_node("MatMul", ["rows", "weights"], ["output"]),
    ]
    four = numpy_helper.from_array(np.array([-1, 4], np.int64), "four")
    output = tensor("output", ["batch", 3])
    save_graph(path, nodes, [tensor("input", shape)], [output], [weights, four], None)
    return path


@pytest.mark.parametrize(
    ("shape", "takes_zeros", "is_open_inside", "why"),
    [
        # 5 numbers make no row of 4, 8 make two
        (["batch", "wide"], False, True, "the answer to 1 row of a trial has shape (2, 3)"),
        (["batch", 3], False, False, "no row of a trial could be run: "),
        (["batch", 4, "deep"], True, True, "the answer to 1 row of a trial has shape (5, 3)"),
    ],
)
def test_what_a_request_costs_that_no_trial_tells_is_not_known(
    tmp_path: Path, shape: list[Any], takes_zeros: bool, is_open_inside: bool, why: str
) -> None:
    model = Model.open(save_product(tmp_path / "model.onnx", shape), max_batch_size=8)
    model.self_test()
    assert (model.trial.takes_zeros, model.is_open_inside) == (takes_zeros, is_open_inside)
    assert (model.is_batched, why in model.why_batching) == (False, True)
    assert (model.batch_s, model.row_s) == (None, None)
    assert (model.is_fast, model.max_rows_in_loop) == (False, 0)


def test_what_a_batch_of_rows_of_any_size_costs_is_not_known(tmp_path: Path) -> None:
    model = Model.open(save_same(tmp_path, ["batch", "wide"]))
    assert model.is_batched
    assert (model.batch_s, model.row_s) == (None, None)
    assert (model.is_fast, model.max_rows_in_loop) == (False, 0)


def test_a_model_that_could_not_be_tried_answers_what_fits(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    squares = numpy_helper.from_array(np.arange(4, dtype=np.float32) ** 2, "squares")
    nodes = [  # there is something from 6 on, and the numbers of a trial are 0 and 1
        helper.make_node("Sub", ["input", "beyond"], ["place"]),
        helper.make_node("Gather", ["squares", "place"], ["output"]),
    ]
    input = tensor("input", ["batch", 1], TensorProto.INT64)
    beyond = numpy_helper.from_array(np.int64(10), "beyond")
    save_graph(path, nodes, [input], [tensor("output", ["batch", 1])], [squares, beyond], None)
    model = Model.open(path)
    model.self_test()
    assert model.trial.failure
    assert model.why_batching == f"no row of a trial could be run: {model.trial.failure}"
    assert (model.is_batched, model.why_no_rows) == (False, "")
    assert (model.is_fast, model.max_rows_in_loop) == (False, 0)
    assert model.run([np.array([[12], [13]])])[0].tolist() == [[4], [9]]


def test_an_answer_that_is_not_finite_is_for_the_caller_to_check(tmp_path: Path) -> None:
    model = Model.open(save_fussy(tmp_path))
    finite = model.run([np.array([[11.0]], np.float32)])
    assert finite[0].tolist() == [[0.25]]
    both = model.run([np.array([[11.0], [7.0]], np.float32)])
    assert both[0].tolist() == [[0.25], [np.inf]]
    check_finite(finite)
    with pytest.raises(InferenceFailed, match="NaN or infinity"):
        check_finite(both)


@pytest.mark.parametrize(
    ("dtype", "value"), [(TensorProto.STRING, "nan"), (TensorProto.INT64, 2**60)]
)
def test_only_floats_can_be_not_finite(tmp_path: Path, dtype: int, value: Any) -> None:
    model = Model.open(save_same(tmp_path, ["batch"], dtype))
    check_finite(model.run([np.array([value], model.input.dtype)]))


def test_an_error_of_onnx_runtime_is_not_shown_to_the_caller(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    save_graph(
        path,
        [helper.make_node("Gather", ["table", "input"], ["output"], name="look")],
        [tensor("input", ["batch"], TensorProto.INT64)],
        [tensor("output", ["batch"])],
        [numpy_helper.from_array(np.arange(3, dtype=np.float32), "table")],
        None,
    )
    model = Model.open(path)
    assert model.run([np.array([2], np.int64)])[0].tolist() == [2.0]
    with pytest.raises(InferenceFailed, match=r"^the model failed on this input$") as error:
        model.run([np.array([4711], np.int64)])
    assert "4711" in str(error.value.__cause__)
    assert error.value.reason == 'ONNX Runtime: INVALID_ARGUMENT in Gather "look"'


def test_a_small_model_is_fast(tmp_path: Path) -> None:
    session, spec, file = parts(save_toy(tmp_path))
    trial = try_out(session, spec, file, 64)
    assert trial.batch_s is not None
    assert 0 < trial.batch_s < FAST_BATCH_S
    for batch_s, why_slow, is_fast in (
        (0.0005, "", True),
        (0.002, "", False),
        (None, "", False),
        (0.0005, "it has strings", False),
    ):
        seen = replace(trial, batch_s=batch_s, row_s=0.0001)
        model = Model(session, None, spec, seen, why_slow=why_slow)
        assert model.is_fast == is_fast
        assert model.max_rows_in_loop == (0 if why_slow else 10)


@pytest.mark.parametrize(("side", "threads"), [(8, 1), (600, 2)])
def test_only_a_model_that_is_slow_gets_several_threads(
    tmp_path: Path, side: int, threads: int
) -> None:
    path = save_dear(tmp_path, side=side)
    assert Model.open(path, threads=2).threads == threads
    assert Model.open(path, threads=2, only_slow_in_threads=False).threads == 2


def test_cuda_refuses_to_start_without_a_gpu(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="TORCHLIT_DEVICE: expected cuda"):
        Model.open(save_toy(tmp_path, card=toy_card()), device="cuda")


def test_auto_falls_back_to_the_cpu(tmp_path: Path) -> None:
    model = Model.open(save_toy(tmp_path, card=toy_card()), device="auto")
    assert model.provider == "CPUExecutionProvider"


def test_a_model_in_training_mode_runs_as_it_is_written(tmp_path: Path) -> None:
    """ONNX Runtime's optimizations let each run change the statistics of the next."""
    names = ["scale", "bias", "mean", "var"]
    model = graph(
        [helper.make_node("BatchNormalization", ["x", *names], ["y", "m", "v"], training_mode=1)],
        [tensor("x", ["n", 3])],
        [tensor("y", ["n", 3])],
        **{name: np.full(3, name in ("scale", "var"), np.float32) for name in names},
    )
    opened = Model.open(save(tmp_path, "training", model), threads=2)
    assert (opened.trial.is_steady, opened.trial.is_optimized, opened.is_batched) == (
        True,
        False,
        False,
    )
    rows = np.random.default_rng(0).normal(5, 2, (8, 3)).astype(np.float32)
    expected = (rows - rows.mean(0)) / np.sqrt(rows.var(0) + 1e-5)
    for _ in range(3):
        np.testing.assert_allclose(opened.run([rows])[0], expected, atol=1e-4)
    assert Model.open(save_toy(tmp_path, card=toy_card())).trial.is_optimized


def test_a_run_is_stopped_from_another_thread_and_the_next_is_not(tmp_path: Path) -> None:
    model = Model.open(save(tmp_path, "counting", counting()))
    stop = Stop()
    timer = threading.Timer(0.05, stop.set)
    timer.start()
    with pytest.raises(InferenceFailed):
        model.run([np.array([10**9])], stop)  # a minute of rounds or more
    timer.join()
    stop.clear()
    assert model.run([np.array([7])], stop)[0].tolist() == [7]


def test_an_example_that_does_not_end_fails_the_self_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(_: Model, inputs: object, stop: Stop) -> object:
        while not stop.options.terminate:
            time.sleep(0.001)
        raise InferenceFailed("the model failed on this input")

    model = Model.open(save_toy(tmp_path, card=toy_card()))
    monkeypatch.setattr("service.engine.model.LONGEST_EXAMPLE_S", 0.01)
    monkeypatch.setattr(Model, "run", run)
    with pytest.raises(SelfTestFailed, match=r"^example 'one': it ran for more than 0\.01 s$"):
        model.self_test()


def test_a_value_that_an_encoder_does_not_know_is_the_callers(tmp_path: Path) -> None:
    encoder = helper.make_node(
        "OneHotEncoder", ["x"], ["y"], domain="ai.onnx.ml", zeros=0, cats_strings=["red", "green"]
    )
    made = graph([encoder], [info("x", STRING, ["n", 1])], [info("y", FLOAT, ["n", 1, 2])])
    made.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    model = Model.open(save(tmp_path, "colours", made))
    known = np.array([["green"], ["red"]], object)
    assert model.run([known])[0].tolist() == [[[0, 1]], [[1, 0]]]
    sentence = "^expected values that the model knows: its OneHotEncoder got one, in one of 2 "
    with pytest.raises(UnknownValue, match=sentence):
        model.run([np.array([["green"], ["pink"]], object)])
