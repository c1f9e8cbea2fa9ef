"""What a trial sees, and what it costs."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from service.engine import file
from service.engine.model import Model
from service.engine.spec import Tensor, spec_of
from service.engine.trial import Trial, try_out
from service.engine.trial_runner import TRIAL_BYTES, give_back_free_memory
from tests.support.foreign_models import (
    FLOAT,
    FOREIGN,
    INT64,
    STRING,
    graph,
    info,
    linear,
    node,
    save,
    session,
    weights,
)
from tests.support.toys import save_columns, save_toy

ROWS = info("x", FLOAT, ["n", 4]), info("y", FLOAT, ["n", 4])


def tried(path: Path, max_batch_size: int = 64, one_session: Any = None) -> Trial:
    said = file.read(path)
    opened = one_session or session(path)
    return try_out(opened, spec_of(opened, said.graph), said, max_batch_size)


@pytest.mark.parametrize("name", FOREIGN)
def test_rows_are_batched_only_if_they_are_independent(name: str, tmp_path: Path) -> None:
    assert tried(save(tmp_path, name, FOREIGN[name].model)).is_batched is FOREIGN[name].is_batched


@pytest.mark.parametrize("name", ["time_first", "pairs", "detector", "attention", "columns"])
def test_the_verdict_is_the_same_each_time_and_for_any_number_of_threads(
    name: str, tmp_path: Path
) -> None:
    path = save(tmp_path, name, FOREIGN[name].model)
    models = [Model.open(path, threads=threads) for threads in (1, 1, 2, 4)]
    assert len({(each.is_batched, each.why_batching, each.why_no_rows) for each in models}) == 1


@pytest.mark.parametrize("most", [1, 2, 3, 5, 64, 1000])
def test_the_largest_batch_is_tried(most: int, tmp_path: Path) -> None:
    class Counting:
        """A session that notes how many rows it runs."""

        def __init__(self, inner: Any) -> None:
            self._inner = inner
            self.rows: list[int] = []

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

        def run(self, names: Any, feed: Any, options: Any = None) -> Any:
            self.rows.append(len(feed["x"]))
            return self._inner.run(names, feed, options)

    path = save(tmp_path, "column", FOREIGN["column"].model)
    counting = Counting(session(path))
    seen = tried(path, most, counting)
    assert seen.is_batched
    assert seen.largest_batch == most
    assert max(counting.rows) == max(most, 3)


def test_rows_that_mix_only_in_large_batches_are_found_out(tmp_path: Path) -> None:
    """From the fifth row on it adds something to all rows."""
    model = graph(
        [
            node("Shape", ["x"], ["rows"], start=0, end=1),
            node("Sub", ["rows", "four"], ["more"]),
            node("Max", ["more", "none"], ["above"]),
            node("Cast", ["above"], ["extra"], to=FLOAT),
            node("Add", ["x", "extra"], ["y"]),
        ],
        [ROWS[0]],
        [ROWS[1]],
        four=np.array([4]),
        none=np.array([0]),
    )
    seen = tried(save(tmp_path, "late", model))
    assert not seen.is_batched
    assert "of 64 has another answer than alone" in seen.why


def test_answers_that_are_all_the_same_show_nothing(tmp_path: Path) -> None:
    model = graph(
        [node("Equal", ["x", "never"], ["is"]), node("Cast", ["is"], ["y"], to=FLOAT)],
        [ROWS[0]],
        [ROWS[1]],
        never=np.float32(0.123),
    )
    seen = tried(save(tmp_path, "constant", model))
    assert (seen.is_batched, seen.answers_rows) == (False, True)
    assert seen.why == "all rows of a trial had the same answer, which shows nothing"


def test_a_row_that_is_answered_otherwise_each_time_is_not_batched(tmp_path: Path) -> None:
    noise = [node("RandomNormalLike", ["x"], ["r"]), node("Add", ["x", "r"], ["y"])]
    seen = tried(save(tmp_path, "noisy", graph(noise, [ROWS[0]], [ROWS[1]])))
    assert (seen.is_batched, seen.why) == (False, "the same row gets other answers each time")


def test_rounding_is_no_dependence_and_a_hundredth_is(tmp_path: Path) -> None:
    """Each row plus a share of the mean of all rows."""

    def leaky(share: float) -> Trial:
        model = graph(
            [
                node("ReduceMean", ["x", "first"], ["mean"], keepdims=1),
                node("Mul", ["mean", "share"], ["leak"]),
                node("Add", ["x", "leak"], ["y"]),
            ],
            [ROWS[0]],
            [ROWS[1]],
            first=np.array([0]),
            share=np.float32(share),
        )
        return tried(save(tmp_path, "leaky", model))

    assert leaky(1e-7).is_batched
    assert not leaky(1e-2).is_batched


@pytest.mark.parametrize("shape", [["n", None], ["n", "wide"], [None, 13]])
def test_an_inner_size_that_only_the_weights_know_is_found(
    shape: list[Any], tmp_path: Path
) -> None:
    """As skl2onnx writes FloatTensorType([None, None]): one width works, all others fail."""
    model = graph(
        [node("MatMul", ["x", "w"], ["y"])],
        [info("x", FLOAT, shape)],
        [info("y", FLOAT, [None, 3])],
        w=weights(13, 3),
    )
    assert tried(save(tmp_path, "wide", model)).is_batched


def test_an_input_that_no_trial_row_fits_is_served_but_not_batched(tmp_path: Path) -> None:
    """Places from 200 to 299 of a table: no row of the trial is among them."""
    model = graph(
        [
            node("Sub", ["x", "start"], ["place"]),
            node("Gather", ["table", "place"], ["y"]),
        ],
        [info("x", INT64, ["n"])],
        [info("y", FLOAT, ["n", 2])],
        start=np.array(200),
        table=weights(100, 2),
    )
    path = save(tmp_path, "far", model)
    seen = tried(path)
    assert (seen.is_batched, seen.row_s) == (False, None)
    assert seen.why.startswith("no row of a trial could be run: Gather: indices element out of")
    assert seen.failure
    opened = Model.open(path)
    assert (opened.is_fast, opened.why_no_rows) == (False, "")
    np.testing.assert_array_equal(opened.run([np.array([203])])[0], weights(100, 2)[3:4])


def large_images(side: int) -> Any:
    return graph(
        [
            node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1]),
            node("Relu", ["a"], ["b"]),
            node("GlobalAveragePool", ["b"], ["c"]),
            node("Flatten", ["c"], ["y"]),
        ],
        [info("x", FLOAT, ["n", 3, side, side])],
        [info("y", FLOAT, ["n", 8])],
        w=weights(8, 3, 3, 3),
    )


@pytest.mark.slow
@pytest.mark.parametrize("side", [400, 1200, 1500, 20_000])
def test_a_trial_of_large_rows_takes_little_memory(side: int, tmp_path: Path) -> None:
    """Of a GB or ten. The last has rows of 4.8 GB, which are not even made.

    One run in ten took 250 MB of side 1500, and side 1200 takes 314 MB each time: a run is stopped
    between two operations, and one of them may take as much as all before it.
    """
    path = save(tmp_path, "large", large_images(side))
    opened = session(path)
    give_back_free_memory()  # what other tests left would be taken first, and not be seen
    with Path("/proc/self/clear_refs").open("w") as clear:
        clear.write("5")  # the peak begins anew
    before = _kilobytes("VmRSS")
    tried(path, 64, opened)
    assert (_kilobytes("VmHWM") - before) * 1024 < 2 * TRIAL_BYTES


def _kilobytes(what: str) -> int:
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(what))


def endless(tmp_path: Path) -> Path:
    """A loop of a billion rounds, whatever it is given."""
    body = helper.make_graph(
        [node("Identity", ["go"], ["on"]), node("Add", ["sum", "one"], ["more"])],
        "body",
        [info("i", INT64, []), info("go", TensorProto.BOOL, []), info("sum", FLOAT, ["n", 4])],
        [info("on", TensorProto.BOOL, []), info("more", FLOAT, ["n", 4])],
        [numpy_helper.from_array(np.float32(1), "one")],
    )
    loop = node("Loop", ["many", "", "x"], ["y"], body=body)
    return save(tmp_path, "endless", graph([loop], [ROWS[0]], [ROWS[1]], many=np.array(10**9)))


@pytest.mark.slow
def test_a_run_without_end_is_stopped(tmp_path: Path) -> None:
    threads = threading.active_count()
    path = endless(tmp_path)
    seen = tried(path)  # else this test would have no end
    assert not seen.is_batched
    assert seen.why == "to try rows together takes more than 0.8 s or 192 MiB"
    assert (seen.row_s, seen.takes_zeros) == (None, False)
    assert threading.active_count() == threads


def test_times_are_known_only_where_sizes_are(tmp_path: Path) -> None:
    for name, is_known in (("column", True), ("cache", False), ("time_first", False)):
        seen = tried(save(tmp_path, name, FOREIGN[name].model))
        assert (seen.row_s is not None, seen.batch_s is not None) == (is_known, is_known)


def test_outputs_are_described_as_they_were_seen(tmp_path: Path) -> None:
    def outputs(name: str) -> list[tuple[int, ...]]:
        return [each.shape for each in tried(save(tmp_path, name, FOREIGN[name].model)).outputs]

    assert outputs("label_of_one") == [(-1,), (-1, 4)]
    assert outputs("column") == [(-1, 1)]
    assert outputs("pairs") == [(-1, -1)]
    assert outputs("detector") == [(-1, 2)]
    any_rank = tried(save(tmp_path, "any", FOREIGN["of_any_rank"].model)).outputs
    assert any_rank == [Tensor("y", np.float32, (), has_shape=False)]


def test_a_trial_leaves_no_memory_behind(tmp_path: Path) -> None:
    path = save(tmp_path, "large", large_images(700))
    opened = session(path)
    opened.run(None, {"x": np.zeros((1, 3, 700, 700), np.float32)})
    give_back_free_memory()
    before = _kilobytes("VmRSS")
    tried(path, 64, opened)
    give_back_free_memory()  # what NumPy freed is none that the session keeps
    assert (_kilobytes("VmRSS") - before) / 1024 < 64


@pytest.mark.parametrize("first", ["n", 2])
def test_a_model_in_training_mode_is_unsteady(first: Any, tmp_path: Path) -> None:
    """Each run changes the statistics by which the next is answered (ONNX Runtime 1.31)."""
    names = ["scale", "bias", "mean", "var"]
    model = graph(
        [node("BatchNormalization", ["x", *names], ["y", "m", "v"], training_mode=1)],
        [info("x", FLOAT, [first, 4])],
        [info("y", FLOAT, [first, 4])],
        **{name: np.full(4, name in ("scale", "var"), np.float32) for name in names},
    )
    seen = tried(save(tmp_path, "training", model))
    assert (seen.is_steady, seen.is_batched) == (False, False)


@pytest.mark.parametrize("name", FOREIGN)
def test_other_models_are_steady(name: str, tmp_path: Path) -> None:
    assert tried(save(tmp_path, name, FOREIGN[name].model)).is_steady


class Short:
    """A session that cannot run several rows, as there is too little memory now."""

    said = "Failed to allocate memory for requested buffer of size 4096"
    most_rows = 1

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def run(self, names: Any, feed: Any, options: Any = None) -> Any:
        if len(feed["x"]) > self.most_rows:
            raise RuntimeError(self.said)
        return self._inner.run(names, feed, options)


class ShortOnGpu(Short):
    said = "CUDA failure 2: out of memory"

    def get_providers(self) -> list[str]:
        return ["CUDAExecutionProvider"]


class ShortOfThreads(Short):
    said = "pthread_create failed: Resource temporarily unavailable"


class Wrong(Short):
    said = "the shapes do not fit"


@pytest.mark.parametrize(
    ("kind", "most_rows", "is_short"),
    [
        (Short, 1, True),
        (Short, 8, True),
        (ShortOfThreads, 1, True),
        (ShortOnGpu, 1, True),
        (ShortOnGpu, 8, False),  # so the largest batch is found there
        (Wrong, 1, False),
        (Short, 64, False),
    ],
)
def test_what_was_short_in_a_trial_is_noted(
    kind: type[Short], most_rows: int, is_short: bool, tmp_path: Path
) -> None:
    path = save(tmp_path, "linear", linear())
    machine = kind(session(path))
    machine.most_rows = most_rows
    assert tried(path, one_session=machine).is_short == is_short


def test_what_wants_more_than_a_trial_may_use_is_no_passing_trouble(tmp_path: Path) -> None:
    """ONNX Runtime's own words, for 4 TB."""
    x, y = info("x", FLOAT, ["n", 1]), info("y", FLOAT, ["n", None])
    model = graph([node("Expand", ["x", "size"], ["y"])], [x], [y], size=np.array([1, 2**40]))
    seen = tried(save(tmp_path, "huge", model))
    assert "Failed to allocate memory" in seen.failure
    assert not seen.is_short


def narrow_tree() -> onnx.ModelProto:
    """A tree that answers 1 between two neighbouring large numbers, and 0 elsewhere."""
    tree = helper.make_node(
        "TreeEnsembleRegressor",
        ["x"],
        ["y"],
        domain="ai.onnx.ml",
        n_targets=1,
        nodes_treeids=[0] * 5,
        nodes_nodeids=[*range(5)],
        nodes_featureids=[0] * 5,
        nodes_modes=["BRANCH_LEQ", "LEAF", "BRANCH_LEQ", "LEAF", "LEAF"],
        nodes_values=[77_000.0, 0, 78_000.0, 0, 0],
        nodes_truenodeids=[1, 0, 3, 0, 0],
        nodes_falsenodeids=[2, 0, 4, 0, 0],
        target_ids=[0] * 3,
        target_nodeids=[1, 3, 4],
        target_treeids=[0] * 3,
        target_weights=[0.0, 1.0, 0.0],
    )
    model = graph([tree], [info("x", FLOAT, ["n", 1])], [info("y", FLOAT, ["n", 1])])
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    return model


def test_rows_are_made_of_what_trees_branch_at(tmp_path: Path) -> None:
    """Others would all have the same answer, which shows nothing."""
    seen = tried(save(tmp_path, "tree", narrow_tree()))
    assert seen.is_batched, seen.why


def strict(known: dict[str, Any], kind: int = STRING) -> onnx.ModelProto:
    """Two columns of words or whole numbers, each of which must be one of those that it knows."""
    categories = "cats_strings" if kind == STRING else "cats_int64s"
    nodes = []
    for name, words in known.items():
        hot, domain = f"{name}_hot", "ai.onnx.ml"
        nodes += [
            helper.make_node(
                "OneHotEncoder", [name], [hot], domain=domain, zeros=0, **{categories: words}
            ),
            node("Squeeze", [hot, "one"], [f"{name}_flat"]),
        ]
    nodes.append(node("Concat", ["colour_flat", "size_flat"], ["y"], axis=1))
    inputs = [info(name, kind, ["n", 1]) for name in known]
    model = graph(nodes, inputs, [info("y", FLOAT, ["n", 5])], one=np.array([1]))
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    return model


def test_rows_are_made_of_the_words_that_a_file_knows(tmp_path: Path) -> None:
    """Of others none could be run."""
    known = {"colour": ["red", "green"], "size": ["S", "M", "L"]}
    seen = tried(save(tmp_path, "words", strict(known)))
    assert seen.is_batched, seen.why


def test_columns_have_an_example_that_is_answered(tmp_path: Path) -> None:
    assert tried(save_columns(tmp_path)).example == (0, 0, "", False)
    known = {"colour": ["red", "green"], "size": ["S", "M", "L"]}
    assert tried(save(tmp_path, "words", strict(known))).example == ("red", "S")
    codes = {"colour": [7, 8], "size": [9, 7, 8]}
    assert tried(save(tmp_path, "codes", strict(codes, INT64))).example == (7, 7)
    assert tried(save_toy(tmp_path)).example == ()


def test_rows_are_made_of_the_whole_numbers_that_encoders_know(tmp_path: Path) -> None:
    seen = tried(save(tmp_path, "codes", strict({"colour": [7, 8], "size": [9, 7, 8]}, INT64)))
    assert seen.is_batched, seen.why
