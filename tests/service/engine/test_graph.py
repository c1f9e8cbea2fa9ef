"""What the operations of a graph say before it runs."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from service.engine import file
from service.engine.graph import takes_missing_values, why_rows_mix
from service.engine.model import Model
from tests.support.foreign_models import (
    FLOAT,
    FOREIGN,
    INT64,
    STRING,
    counting,
    graph,
    info,
    node,
    save,
)

BOOL = TensorProto.BOOL
ROWS = info("x", FLOAT, ["n", 4]), info("y", FLOAT, ["n", 4])


def filtered() -> onnx.ModelProto:
    """The rows above zero, once more as many as there are."""
    return graph(
        [
            node("Greater", ["x", "zero"], ["above"]),
            node("NonZero", ["above"], ["places"]),
            node("ReduceSum", ["places"], ["sum"], keepdims=0),
            node("Cast", ["sum"], ["f"], to=FLOAT),
            node("Add", ["x", "f"], ["y"]),
        ],
        [ROWS[0]],
        [ROWS[1]],
        zero=np.float32(0),
    )


def repeated(*, by_values: bool) -> onnx.ModelProto:
    """An Expand, whose shape is that of the input, or is computed from what is in it."""
    shape = (
        [node("ReduceMax", ["x"], ["most"], keepdims=0), node("Cast", ["most"], ["k"], to=INT64)]
        if by_values
        else [node("Shape", ["x"], ["k"], start=0, end=1)]
    )
    return graph(
        [
            *shape,
            node("Reshape", ["k", "one"], ["size"]),
            node("Expand", ["ones", "size"], ["many"]),
            node("ReduceMin", ["many"], ["least"], keepdims=0),
            node("Add", ["x", "least"], ["y"]),
        ],
        [ROWS[0]],
        [ROWS[1]],
        one=np.array([1]),
        ones=np.ones(1, np.float32),
    )


def strings() -> onnx.ModelProto:
    return graph(
        [node("StringConcat", ["x", "x"], ["y"])],
        [info("x", STRING, ["n"])],
        [info("y", STRING, ["n"])],
    )


def in_a_function() -> onnx.ModelProto:
    """Operations in a function of the file's own, as the exporter of PyTorch writes modules."""
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]
    model = graph([node("found", ["x"], ["y"], domain="own")], [ROWS[0]], [info("y", INT64, None)])
    body = [node("NonZero", ["a"], ["b"])]
    model.functions.append(helper.make_function("own", "found", ["a"], ["b"], body, opsets[:1]))
    model.opset_import.append(opsets[1])
    return model


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (counting(), "it has the operator Loop"),
        (filtered(), "the size of what NonZero answers depends on values"),
        (repeated(by_values=True), "the size of what Expand answers depends on values"),
        (repeated(by_values=False), ""),
        (strings(), "it has strings"),
        (in_a_function(), "the size of what NonZero answers depends on values"),
        (FOREIGN["columns"].model, "it has strings"),
        (FOREIGN["detector"].model, "the size of what Compress answers depends on values"),
        (FOREIGN["image_of_any_size"].model, ""),
    ],
    ids=[
        "loop",
        "non-zero",
        "expand",
        "expand-shape",
        "strings",
        "function",
        "columns",
        "boxes",
        "cnn",
    ],
)
def test_what_costs_as_values_say_never_runs_in_the_event_loop(
    model: onnx.ModelProto, why: str, tmp_path: Path
) -> None:
    opened = Model.open(save(tmp_path, "some", model))
    assert opened.why_slow == why
    if why:
        assert (opened.is_fast, opened.max_rows_in_loop) == (False, 0)


def test_none_of_ours_costs_as_values_say() -> None:
    for path in (Path(__file__).parents[3] / "models").glob("*/*/model.onnx"):
        assert not Model.open(path).why_slow, path


def test_a_weight_that_is_listed_as_an_input_decides_no_size(tmp_path: Path) -> None:
    """Files of IR version 3 list every weight as an input too."""
    model = repeated(by_values=False)
    model.graph.input.append(info("one", INT64, [1]))
    opened = Model.open(save(tmp_path, "old", model))
    assert [each.name for each in opened.inputs] == ["x"]
    assert not opened.why_slow


@pytest.mark.parametrize(
    ("op", "attributes", "is_mixed"),
    [
        ("DynamicQuantizeLinear", {}, True),
        ("StringNormalizer", {"stopwords": ["a"]}, True),
        ("StringNormalizer", {"case_change_action": "LOWER"}, False),
        ("Softmax", {}, False),
    ],
)
def test_some_operations_are_known_to_mix_rows(
    op: str, attributes: dict[str, object], is_mixed: bool, tmp_path: Path
) -> None:
    model = graph([node(op, ["x"], ["y"], **attributes)], [ROWS[0]], [ROWS[1]])
    why = why_rows_mix(file.read(save(tmp_path, "some", model)))
    assert why.startswith(op) is is_mixed


def chosen(*, by_values: bool) -> onnx.ModelProto:
    """An If, whose condition is the sum of all rows, or how many there are."""

    def branch(op: str) -> onnx.GraphProto:
        return helper.make_graph([node(op, ["x"], [op])], op, [], [info(op, FLOAT, ["n", 4])])

    what = ("ReduceSum", ["x"]) if by_values else ("Size", ["x"])
    return graph(
        [
            node(*what, ["all"]),
            node("Cast", ["all"], ["f"], to=FLOAT),
            node("Squeeze", ["f"], ["sum"]),
            node("Greater", ["sum", "zero"], ["is_large"]),
            node("If", ["is_large"], ["y"], then_branch=branch("Neg"), else_branch=branch("Abs")),
        ],
        [ROWS[0]],
        [ROWS[1]],
        zero=np.float32(0),
    )


def halved(*, until: str) -> onnx.ModelProto:
    """A Loop that halves its rows: three times, or until the largest number is small."""
    end = [node("Identity", ["go"], ["on"])]
    if until == "small":
        end = [
            node("ReduceMax", ["rows"], ["most"], keepdims=0),  # of the turn before
            node("Greater", ["most", "one"], ["on"]),
        ]
    body = helper.make_graph(
        [node("Mul", ["rows", "half"], ["less"]), *end],
        "body",
        [info("i", INT64, []), info("go", BOOL, []), info("rows", FLOAT, ["n", 4])],
        [info("on", BOOL, []), info("less", FLOAT, ["n", 4])],
    )
    return graph(
        [node("Loop", ["three", "", "x"], ["y"], body=body)],
        [ROWS[0]],
        [ROWS[1]],
        three=np.int64(3),
        half=np.float32(0.5),
        one=np.float32(1),
    )


@pytest.mark.parametrize(
    ("model", "op"),
    [
        (chosen(by_values=True), "If"),
        (chosen(by_values=False), ""),
        (halved(until="small"), "Loop"),
        (halved(until="third"), ""),
    ],
    ids=["by values", "by size", "until small", "three times"],
)
def test_a_condition_that_values_of_all_rows_decide_mixes_them(
    model: onnx.ModelProto, op: str, tmp_path: Path
) -> None:
    path = save(tmp_path, "some", model)
    why = why_rows_mix(file.read(path))
    assert why.startswith(op)
    assert bool(why) is bool(op)
    opened = Model.open(path)
    assert opened.is_batched is not bool(op)
    assert not op or opened.why_batching == why


def tree(tracks: int, producer: str) -> onnx.ModelProto:
    """One branch, x[0] < 3, and where NaN goes."""
    numbers = {
        "nodes_treeids": [0, 0, 0],
        "nodes_nodeids": [0, 1, 2],
        "nodes_featureids": [0, 0, 0],
        "nodes_truenodeids": [1, 0, 0],
        "nodes_falsenodeids": [2, 0, 0],
        "nodes_missing_value_tracks_true": [tracks, 0, 0],
        "target_treeids": [0, 0],
        "target_nodeids": [1, 2],
        "target_ids": [0, 0],
    }
    made = graph(
        [
            helper.make_node(
                "TreeEnsembleRegressor",
                ["x"],
                ["y"],
                domain="ai.onnx.ml",
                nodes_modes=["BRANCH_LT", "LEAF", "LEAF"],
                nodes_values=[3.0, 0.0, 0.0],
                target_weights=[1.0, 2.0],
                n_targets=1,
                **numbers,
            )
        ],
        [ROWS[0]],
        [info("y", FLOAT, ["n", 1])],
    )
    made.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    made.producer_name = producer
    return made


@pytest.mark.parametrize(
    ("tracks", "producer", "takes_missing"),
    [(1, "skl2onnx", True), (0, "CatBoost", True), (0, "skl2onnx", False)],
)
def test_trees_take_missing_values_unless_a_converter_left_out_where_they_go(
    tracks: int, producer: str, takes_missing: bool, tmp_path: Path
) -> None:
    path = save(tmp_path, "tree", tree(tracks, producer))
    assert takes_missing_values(file.read(path), "x") is takes_missing
    assert Model.open(path).form.takes_missing is takes_missing


def test_an_imputer_is_nothing_to_what_goes_past_it(tmp_path: Path) -> None:
    """Trees that never learned where NaN goes would send it somewhere."""
    made = tree(0, "skl2onnx")
    imputer = helper.make_node(
        "Imputer",
        ["a"],
        ["known"],
        domain="ai.onnx.ml",
        imputed_value_floats=[0.0],
        replaced_value_float=float("nan"),
    )
    joined = node("Concat", ["known", "b"], ["x"], axis=1)
    made.graph.node.insert(0, imputer)
    made.graph.node.insert(1, joined)
    del made.graph.input[:]
    made.graph.input.extend([info(name, FLOAT, ["n", 1]) for name in ("a", "b")])
    path = save(tmp_path, "past", made)
    found = file.read(path)
    assert [takes_missing_values(found, name) for name in ("a", "b")] == [True, False]
    assert Model.open(path).trial.takes_missing == ("a",)
