"""Why ONNX Runtime does not open a file, in one sentence that says what to do."""

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from service.engine.model import Model
from service.engine.session import short, what_failed
from service.errors import ModelError
from tests.support.foreign_models import (
    FLOAT,
    STRING,
    graph,
    info,
    linear,
    node,
    outside,
    save,
    weights,
)


def identity(op: str = "Identity", kind: int = FLOAT, **attributes: object) -> onnx.ModelProto:
    made = node(op, ["x"], ["y"], **attributes)
    return graph([made], [info("x", kind, ["n"])], [info("y", kind, ["n"])])


def with_ir(version: int) -> onnx.ModelProto:
    model = identity()
    model.ir_version = version
    return model


def with_opset(version: int, domain: str = "") -> onnx.ModelProto:
    model = identity()
    if domain:
        model.opset_import.append(helper.make_opsetid(domain, version))
    else:
        model.opset_import[0].version = version
    return model


def custom() -> onnx.ModelProto:
    model = identity("Magic", domain="my.company")
    model.opset_import.append(helper.make_opsetid("my.company", 1))
    return model


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (with_ir(99), r"IR version 99 is too new: ONNX Runtime 1\.\S+ opens \d+ at most; export"),
        (with_opset(99), r"opset 99 of ai.onnx is too new: ONNX Runtime \S+ opens \d+ at most"),
        (with_opset(99, "ai.onnx.ml"), r"opset 99 of ai.onnx.ml is too new"),
        (custom(), r"the operator Magic of my.company, which ONNX Runtime \S+ has not; libraries"),
        (identity("Magic"), r"the operator Magic, which opset 20 of ONNX Runtime \S+ has not"),
        (
            identity("StringNormalizer", STRING, case_change_action="LOWER", locale="xx_YY.UTF-8"),
            r"it needs the locale xx_YY.UTF-8, .* localedef -i xx_YY -f UTF-8 xx_YY.UTF-8\)",
        ),
        (identity("Sin", TensorProto.BFLOAT16), r"cannot open it$"),
    ],
    ids=["ir", "opset", "opset-ml", "custom", "unknown", "locale", "type"],
)
def test_the_reason_is_named(model: onnx.ModelProto, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=sentence) as error:
        Model.open(save(tmp_path, "some", model))
    assert error.value.__cause__ is not None
    assert "/" not in str(error.value)  # no path of this machine


@pytest.mark.parametrize("name", ["weights.bin", "deep/er/w", "./w.bin", "a/../w.bin"])
def test_weights_of_any_name_are_used(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "linear" / "1"
    (folder / "a").mkdir(parents=True)
    model = Model.open(save(tmp_path, "linear", outside(linear(), folder, w=name)))
    rows = np.ones((2, 4), np.float32)
    (answer,) = model.run([rows])
    np.testing.assert_allclose(answer, rows @ weights(4, 3) + weights(3), rtol=1e-6)
    assert model.is_batched


def test_weights_that_are_overwritten_or_cut_short_change_no_answer(tmp_path: Path) -> None:
    folder = tmp_path / "linear" / "1"
    model = Model.open(save(tmp_path, "linear", outside(linear(), folder, w="w.bin", b="b.bin")))
    rows = np.ones((1, 4), np.float32)
    (before,) = model.run([rows])
    with (folder / "w.bin").open("r+b") as file:
        file.write(b"\0" * 16)
        file.truncate(20)
    (after,) = model.run([rows])
    np.testing.assert_array_equal(before, after)


def branching(folder: Path) -> onnx.ModelProto:
    """An `If` whose branches have their weights in a file."""

    def branch(name: str) -> onnx.GraphProto:
        large = numpy_helper.from_array(np.full(3000, 7, np.float32), f"{name}_w")
        made = helper.make_graph(
            [node("Gather", [f"{name}_w", "place"], [f"{name}_y"])],
            name,
            [],
            [info(f"{name}_y", FLOAT, ["n"])],
            [large],
        )
        tensor = made.initializer[0]
        (folder / "w.bin").write_bytes(tensor.raw_data)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="w.bin")
        return made

    return graph(
        [
            node("ReduceSum", ["x"], ["sum"], keepdims=0),
            node("Greater", ["sum", "zero"], ["is"]),
            node("ArgMax", ["x"], ["place"], axis=1, keepdims=0),
            node("If", ["is"], ["y"], then_branch=branch("a"), else_branch=branch("b")),
        ],
        [info("x", FLOAT, ["n", 2])],
        [info("y", FLOAT, ["n"])],
        zero=np.float32(0),
    )


def test_weights_of_graphs_inside_nodes_are_no_map_of_a_file(tmp_path: Path) -> None:
    """ONNX Runtime maps them: a file that is cut short would end the process."""
    folder = tmp_path / "branching" / "1"
    folder.mkdir(parents=True)
    path = save(tmp_path, "branching", branching(folder))
    model = Model.open(path)
    assert str(folder) not in Path("/proc/self/maps").read_text()
    (folder / "w.bin").write_bytes(np.zeros(3000, np.float32).tobytes())
    assert model.run([np.ones((1, 2), np.float32)])[0].tolist() == [7]


def test_what_is_said_of_a_run_holds_no_names_of_source_files() -> None:
    said = (
        "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running Reshape node. "
        "Name:'r' Status Message: /onnxruntime_src/onnxruntime/core/reshape_helper.h:91 "
        "onnxruntime::ReshapeHelper::ReshapeHelper(const onnxruntime::TensorShape&, bool) "
        "the shapes do not fit.\nand more"
    )
    assert short(RuntimeError(said)) == "Reshape: the shapes do not fit. and more"
    assert re.fullmatch(r"x{160}\.\.\.", short(RuntimeError("x" * 500)))


ERROR = "[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : "
RUNNING = f"{ERROR}Non-zero status code returned while running Gather node. Name:"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"{RUNNING}'a' Status Message: idx=4711", 'in Gather "a"'),
        (f"{RUNNING}'' Status Message: idx=4711", "in Gather"),
        (f"{RUNNING}'it's \n' Status Message: 4711", 'in Gather "it\'s \\n"'),
        (f"{RUNNING}'a' Status Message: 4711' Status Message: 4711", 'in Gather "a"'),
        (f"{ERROR}Got invalid dimensions for input: x: 4711", ""),
        (f"4711 {RUNNING}'a' Status Message: 4711", "RuntimeError"),
        ("4711", "RuntimeError"),
    ],
)
def test_what_failed_in_a_run_is_said_without_values(text: str, reason: str) -> None:
    told = reason
    if "Error" not in reason:
        told = f"ONNX Runtime: INVALID_ARGUMENT {reason}".strip()
    assert what_failed(RuntimeError(text)) == told
