"""Lists of maps and of tensors become tensors; ONNX Runtime alone, on the file, is the oracle."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from service.engine.contents import Contents, read_contents
from service.engine.model import Model
from service.engine.plain_outputs import with_plain_outputs
from service.errors import ModelError
from tests.support.foreign_models import FLOAT, counting, node, outside, save, session, weights
from tests.support.toys import save_sequenced, save_toy, tensor

ROWS = weights(7, 4)


def maps(name: str, key: int = TensorProto.STRING) -> onnx.ValueInfoProto:
    kind = helper.make_map_type_proto(key, helper.make_tensor_type_proto(FLOAT, []))
    return helper.make_value_info(name, helper.make_sequence_type_proto(kind))


def sequence(name: str, shape: Any = None) -> onnx.ValueInfoProto:
    return helper.make_tensor_sequence_value_info(name, FLOAT, shape)


def zipped(source: str, name: str, **labels: Any) -> onnx.NodeProto:
    return node("ZipMap", [source], [name], domain="ai.onnx.ml", **labels)


def model_of(
    nodes: list[onnx.NodeProto], outputs: list[onnx.ValueInfoProto], **changes: Any
) -> onnx.ModelProto:
    """Return a model of one product, `scores` (n, 3), and what is done with it."""
    inner = helper.make_graph(
        [node("MatMul", ["x", "w"], ["scores"]), *nodes],
        "graph",
        [tensor("x", ["n", 4])],
        outputs,
        [numpy_helper.from_array(weights(4, 3), "w")],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 2)]
    return helper.make_model(inner, **({"opset_imports": opsets, "ir_version": 9} | changes))


def plain(path: Path) -> Contents:
    return with_plain_outputs(read_contents(path))


def arrays(path: Path) -> tuple[Model, dict[str, NDArray[Any]]]:
    """Return the model, and what it answers to ROWS."""
    model = Model.open(path)
    return model, dict(zip([each.name for each in model.outputs], model.run([ROWS]), strict=True))


@pytest.mark.parametrize(
    ("key", "labels"),
    [
        (TensorProto.INT64, {"classlabels_int64s": [7, -1, 2**40]}),
        (TensorProto.STRING, {"classlabels_strings": ["no", "Łódź", ""]}),
    ],
    ids=["numbers", "texts"],
)
def test_maps_become_the_array_that_they_were_made_of(
    tmp_path: Path, key: int, labels: dict[str, list[Any]]
) -> None:
    outputs = [maps("p", key), tensor("scores", ["n", 3])]
    path = save(tmp_path, "zipped", model_of([zipped("scores", "p", **labels)], outputs))
    (expected,) = session(path).run(["p"], {"x": ROWS})
    model, answers = arrays(path)
    assert model.left_out == {}
    assert [(each.name, each.shape) for each in model.outputs] == [
        ("p", (-1, 3)),
        ("scores", (-1, 3)),
    ]
    names = next(iter(labels.values()))
    assert plain(path).file.labels == {"p": names}
    assert answers["p"].dtype == np.float32
    np.testing.assert_array_equal(answers["p"], [[row[name] for name in names] for row in expected])
    assert model.is_batched
    assert model.is_fast  # no operation of lists is left


def test_maps_of_labels_that_are_not_known_have_a_column_for_each(tmp_path: Path) -> None:
    many = [f"{number:0300}" for number in range(4000)]  # more than are read
    nodes = [
        node("MatMul", ["scores", "wide"], ["y"]),
        zipped("y", "p", classlabels_strings=many),
    ]
    model = model_of(nodes, [maps("p")])
    model.graph.initializer.append(numpy_helper.from_array(weights(3, 4000), "wide"))
    opened, answers = arrays(save(tmp_path, "wide", model))
    assert answers["p"].shape == (7, 4000)
    assert opened.trial.outputs[0].shape == (-1, 4000)


def test_a_list_of_tensors_becomes_an_output_for_each(tmp_path: Path) -> None:
    nodes = [
        node("Slice", ["scores", "from", "to", "axis"], ["two"]),
        node("SequenceConstruct", ["scores", "two", "x"], ["several"]),
    ]
    model = model_of(nodes, [sequence("several", ["n", 3]), tensor("two", ["n", 2])])
    for name, number in {"from": 1, "to": 3, "axis": 1}.items():
        model.graph.initializer.append(numpy_helper.from_array(np.array([number]), name))
    path = save(tmp_path, "several", model)
    (expected,) = session(path).run(["several"], {"x": ROWS})
    opened, answers = arrays(path)
    assert list(answers) == ["several_0", "several_1", "several_2", "two"]
    assert [each.shape for each in opened.trial.outputs] == [(-1, 3), (-1, 2), (-1, 4), (-1, 2)]
    for number, array in enumerate(expected):
        np.testing.assert_array_equal(answers[f"several_{number}"], array)


def test_names_that_are_taken_are_not_given_again(tmp_path: Path) -> None:
    nodes = [
        node("Identity", ["scores"], ["several_0"]),
        node("SequenceConstruct", ["scores"], ["several"]),
    ]
    outputs = [sequence("several"), tensor("several_0", ["n", 3])]
    model, answers = arrays(save(tmp_path, "taken", model_of(nodes, outputs)))
    assert list(answers) == ["several_0"]
    assert model.left_out == {"several": "seq(tensor(float))"}


def test_a_list_that_another_operation_takes_stays_as_it_is(tmp_path: Path) -> None:
    nodes = [
        node("SequenceConstruct", ["scores", "scores"], ["several"]),
        node("SequenceLength", ["several"], ["count"]),
    ]
    outputs = [sequence("several"), tensor("count", [], TensorProto.INT64)]
    path = save(tmp_path, "used", model_of(nodes, outputs))
    assert Model.open(path).left_out == {"several": "seq(tensor(float))"}


def test_what_is_said_of_a_list_elsewhere_is_said_no_more(tmp_path: Path) -> None:
    labels = {"classlabels_int64s": [0, 1, 2]}
    model = model_of([zipped("scores", "p", **labels)], [maps("p", TensorProto.INT64)])
    model.graph.value_info.extend([maps("p", TensorProto.INT64), tensor("scores", ["n", 3])])
    path = save(tmp_path, "said", model)
    rewritten = onnx.load_from_string(plain(path).own)
    onnx.checker.check_model(rewritten, full_check=True)
    assert [each.name for each in rewritten.graph.value_info] == ["scores"]
    del model.graph.value_info[0]
    assert rewritten.graph.node[1] == node("Identity", ["scores"], ["p"])
    for changed in (rewritten, model):
        del changed.graph.node[1], changed.graph.output[:]
    assert rewritten == model  # nothing else is another


def test_a_file_with_no_operator_of_onnx_itself_gets_its_identity(tmp_path: Path) -> None:
    """CatBoost's files import ai.onnx.ml alone."""
    nodes = [
        node("Scaler", ["x"], ["y"], domain="ai.onnx.ml", offset=[1.0], scale=[2.0]),
        zipped("y", "p", classlabels_int64s=[1, 2, 3, 4]),
    ]
    inner = helper.make_graph(nodes, "g", [tensor("x", ["n", 4])], [maps("p", TensorProto.INT64)])
    opsets = [helper.make_opsetid("ai.onnx.ml", 2)]
    model = helper.make_model(inner, opset_imports=opsets, ir_version=3)
    path = save(tmp_path, "trees", model)
    onnx.checker.check_model(onnx.load_from_string(plain(path).own), full_check=True)
    _, answers = arrays(path)
    np.testing.assert_array_equal(answers["p"], (ROWS - 1) * 2)


@pytest.mark.parametrize("is_inside", [False, True], ids=["of the graph", "of a graph in a node"])
def test_weights_in_other_files_are_found(tmp_path: Path, is_inside: bool) -> None:
    labels = {"classlabels_int64s": [0, 1, 2]}
    outputs = [maps("p", TensorProto.INT64), tensor("y", ["n", 3])]
    model = model_of(
        [zipped("scores", "p", **labels), node("Add", ["scores", "b"], ["y"])], outputs
    )
    folder = tmp_path / "far" / "1"
    if is_inside:
        bias = helper.make_graph(
            [node("Identity", ["inner"], ["b_"])],
            "b",
            [],
            [tensor("b_", [3])],
            [numpy_helper.from_array(weights(3), "inner")],
        )
        model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
        model.graph.node.insert(0, node("If", ["yes"], ["b"], then_branch=bias, else_branch=bias))
        for graph in [each.g for each in model.graph.node[0].attribute]:
            only = onnx.ModelProto(graph=graph)
            graph.CopyFrom(outside(only, folder, inner="b.bin").graph)
    else:
        model.graph.initializer.append(numpy_helper.from_array(weights(3), "b"))
    path = save(tmp_path, "far", outside(model, folder, w="w.bin"))
    expected, y = session(path).run(["p", "y"], {"x": ROWS})
    _, answers = arrays(path)
    np.testing.assert_array_equal(answers["p"], [list(row.values()) for row in expected])
    np.testing.assert_array_equal(answers["y"], y)


def test_only_files_with_such_lists_are_rewritten(tmp_path: Path) -> None:
    toy, sequenced = save_toy(tmp_path), save_sequenced(tmp_path)
    for path in (toy, sequenced, save(tmp_path, "loop", counting())):
        contents = read_contents(path)
        assert with_plain_outputs(contents) is contents


def test_a_list_of_nothing_is_left_to_onnx_runtime(tmp_path: Path) -> None:
    nothing = helper.make_value_info("s", helper.make_sequence_type_proto(onnx.TypeProto()))
    model = model_of([node("SequenceConstruct", ["scores"], ["s"])], [nothing])
    path = save(tmp_path, "nothing", model)
    contents = read_contents(path)
    assert with_plain_outputs(contents) is contents
    with pytest.raises(ModelError, match=r"^model.onnx: "):
        Model.open(path)


def test_the_rewritten_bytes_are_not_kept(tmp_path: Path) -> None:
    labels = {"classlabels_int64s": [0, 1, 2]}
    model = model_of([zipped("scores", "p", **labels)], [maps("p", TensorProto.INT64)])
    opened = Model.open(save(tmp_path, "kept", model))
    assert opened._session._model_bytes is None
