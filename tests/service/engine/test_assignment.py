from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from service.engine.assignment import RECORD, Assignment, assignment_of
from service.engine.model import Model
from service.engine.providers import CPU, CUDA
from service.errors import ModelError
from tests.support.foreign_models import FLOAT, graph, info, node, save

ROOT = Path(__file__).parents[3]
COMMITTED = sorted(ROOT.glob("models/*/*/model.onnx"))


def gelu() -> onnx.ModelProto:
    """A product with a bias, and GELU as exporters write it: seven nodes, and two fusions."""
    steps = [
        ("MatMul", "x", "w", "product"),
        ("Add", "product", "b", "sum"),
        ("Div", "sum", "root", "scaled"),
        ("Erf", "scaled", "erf"),
        ("Add", "erf", "one", "more"),
        ("Mul", "sum", "more", "twice"),
        ("Mul", "twice", "half", "y"),
    ]
    model = graph(
        [node(operator, names, [out]) for operator, *names, out in steps],
        [info("x", FLOAT, ["n", 4])],
        [info("y", FLOAT, ["n", 4])],
        w=np.ones((4, 4), np.float32),
        b=np.ones(4, np.float32),
        root=np.float32(2**0.5),
        one=np.float32(1),
        half=np.float32(0.5),
    )
    model.opset_import[0].version = 17  # GELU is no operator yet: it is fused late
    return model


def normalised() -> onnx.ModelProto:
    """An operator that every device has, before one that only the CPU has."""
    model = graph(
        [
            node("Relu", ["x"], ["above"]),
            node("Normalizer", ["above"], ["y"], domain="ai.onnx.ml", norm="L2"),
        ],
        [info("x", FLOAT, ["n", 4])],
        [info("y", FLOAT, ["n", 4])],
    )
    model.opset_import.append(onnx.helper.make_opsetid("ai.onnx.ml", 3))
    return model


@pytest.mark.parametrize("path", COMMITTED, ids=[str(each.parent)[-9:] for each in COMMITTED])
def test_on_the_cpu_every_node_runs_there_and_none_fell_back(path: Path) -> None:
    assignment = Model.open(path).assignment
    (count,) = assignment.nodes.values()
    assert assignment == Assignment({CPU: count}, {})
    assert 0 < count <= len(onnx.load(path).graph.node)
    assert str(assignment) == f"{count} of {count} nodes on cpu"


def test_the_report_has_neither_the_nodes_of_the_file_nor_those_that_run(tmp_path: Path) -> None:
    """So it is said as a share; this fails when ONNX Runtime reports what runs."""
    model, final = gelu(), tmp_path / "final.onnx"
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry(RECORD, "1")
    options.optimized_model_filepath = str(final)
    session = ort.InferenceSession(model.SerializeToString(), options, providers=[CPU])
    (reported,) = assignment_of(session).nodes.values()
    ran = len(onnx.load(final).graph.node)
    assert len(model.graph.node) > reported > ran


def test_what_is_recorded_changes_nothing_of_what_runs(tmp_path: Path) -> None:
    final = []
    for record in "01":
        path = tmp_path / f"{record}.onnx"
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.add_session_config_entry(RECORD, record)
        options.optimized_model_filepath = str(path)
        ort.InferenceSession(gelu().SerializeToString(), options, providers=[CPU])
        final.append(path.read_bytes())
    assert final[0] == final[1]


def test_a_graph_without_a_node_runs_where_it_was_to() -> None:
    empty = Assignment({CUDA: 0, CPU: 0}, {})
    assert (empty.provider, str(empty)) == (CUDA, "0 of 0 nodes on cuda")


def test_many_operators_are_not_all_named() -> None:
    fallen = {f"Op{number}": 20 - number for number in range(11)}
    text = str(Assignment({CUDA: 5, CPU: sum(fallen.values())}, fallen))
    assert text.startswith("5 of 170 nodes on cuda, 165 on the CPU: Op0 (20), Op1 (19), ")
    assert text.endswith(", Op7 (13), 3 more")


@pytest.mark.gpu
def test_cuda_runs_what_it_has_and_says_what_it_has_not(tmp_path: Path) -> None:
    path = save(tmp_path, "normalised", normalised())
    model = Model.open(path, device="cuda")
    assert model.assignment == Assignment({CUDA: 1, CPU: 1}, {"Normalizer": 1})
    assert (model.device, model.provider) == ("cuda", CUDA)
    rows = np.array([[3, 0, -1, 4]], np.float32)
    np.testing.assert_allclose(model.run([rows])[0], [[0.6, 0, 0, 0.8]], rtol=1e-5)


@pytest.mark.gpu
def test_where_falling_back_is_refused_cuda_opens_only_what_runs_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"1 of 2 nodes on cuda, 1 on the CPU: Normalizer$"):
        Model.open(save(tmp_path, "normalised", normalised()), device="cuda", may_fall_back=False)
    model = Model.open(save(tmp_path, "gelu", gelu()), device="cuda", may_fall_back=False)
    assert not model.assignment.fallen


@pytest.mark.gpu
@pytest.mark.parametrize("path", COMMITTED, ids=[str(each.parent)[-9:] for each in COMMITTED])
def test_the_models_pass_their_self_tests_on_cuda(path: Path) -> None:
    model = Model.open(path, device="cuda")
    model.self_test()
    assert model.assignment.nodes[CUDA] > 0
