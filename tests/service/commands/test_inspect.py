"""`python -m service inspect`: what is told of a model, held against its file and its card."""

import json
import os
import re
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from service.__main__ import main
from service.card import METADATA_KEY, Card, Dataset
from service.commands.inspect import inspect, inspection, report
from service.errors import CannotInspect
from service.settings import Settings
from tests.support.classifiers import NUMBERS, save_classifier
from tests.support.processes import environment
from tests.support.toys import (
    save_bounded,
    save_graph,
    save_mean,
    save_same,
    save_sequenced,
    save_sum,
    save_toy,
    tensor,
    toy_card,
)

ROOT = Path(__file__).parents[3]
CUT_OFF = "not a model that ONNX Runtime can open: it is cut off, or no ONNX file ({size} bytes)"
COMMITTED = sorted(ROOT.glob("models/*/*/model.onnx"))


def text(folder: Path, model: str, **settings: Any) -> str:
    return "\n".join(report(inspection(model, Settings(models_dir=folder, **settings))))


def test_it_tells_what_the_card_says(models_dir: Path, capfd: pytest.CaptureFixture[str]) -> None:
    settings = Settings(models_dir=models_dir)
    assert inspect("toy", settings, as_json=False) == 0
    said = capfd.readouterr().out
    size = (models_dir / "toy/1/model.onnx").stat().st_size
    for line in (
        "toy/1: A toy.",
        "opens         yes, on cpu",
        "nodes         2 of 2 nodes on cpu",
        "self-test     passed: 1 examples answered as the card says",
        "runs          rows of several requests: rows of a trial had the same answers alone and in "
        "batches of up to 64",
        f"file          model.onnx, {size:,} bytes",
        "made by       an unknown producer; opset ai.onnx 20, ai.onnx.ml 3; IR 10",
        "inputs        input: float32 (?, 4)",
        "outputs       probabilities: float32 (?, 3)",
        "task          classification",
        "features      a  cm  0 to 10  mean 5  a",
        "              d  cm  0 to 10  mean 5  d",
        "labels        red, green, blue",
        "held out      accuracy 1",
        "data set      toy, made up",
        "              licence: MIT",
        "training      seed 0",
        "versions      torch none",
        "examples      one: [1, 2, 3, 4] gives red (0.924)",
    ):
        assert line in said.splitlines(), said
    assert "1 row 0.0" in said
    assert " 64 rows " in said
    assert "in the event loop" in said


@pytest.mark.parametrize("path", COMMITTED, ids=[str(each.parent)[-9:] for each in COMMITTED])
def test_what_json_says_is_in_the_file(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """ONNX's own reader is the oracle; the service reads with one of its own."""
    assert inspect(str(path), Settings(), as_json=True) == 0
    said = json.loads(capfd.readouterr().out)
    model = onnx.load(path)
    assert said["head"] == {
        "ir_version": model.ir_version,
        "opsets": {each.domain or "ai.onnx": each.version for each in model.opset_import},
        "producer": model.producer_name,
        "producer_version": model.producer_version,
    }
    assert [each["name"] for each in said["inputs"]] == [each.name for each in model.graph.input]
    assert [each["name"] for each in said["outputs"]] == [each.name for each in model.graph.output]
    (file,) = said["files"]
    content = path.read_bytes()
    assert file == {
        "name": "model.onnx",
        "bytes": len(content),
        "sha256": sha256(content).hexdigest(),
    }
    (card,) = (each.value for each in model.metadata_props if each.key == METADATA_KEY)
    assert Card.from_json(json.dumps(said["card"])) == Card.from_json(card)
    assert said["self_test"] == "passed"
    assert list(said["nodes"]) == ["CPUExecutionProvider"]
    assert said["fallback"] == {}
    assert said["batch_seconds"] > 0
    assert (said["batching"], said["max_batch_size"]) == ("rows", 64)
    assert said["why_batching"] == (
        "rows of a trial had the same answers alone and in batches of up to 64"
    )


def test_images_targets_and_intervals(tmp_path: Path) -> None:
    save_mean(tmp_path)
    save_bounded(tmp_path, targets=2)
    mean = text(tmp_path, "mean")
    assert "image         2 x 3, values 0 to 255\n              none\n" in mean
    assert "targets       mean  grey  mean of the pixels" in mean
    assert "ramp: [0, 1, 2, 3, 4, 5] gives [2.5]" in mean
    bounded = text(tmp_path, "bounded/1")
    assert "interval      meant to hold 90% of the true values" in bounded
    assert "e: [3, 3] gives [6, 6] in [5, 7, 5, 7]" in bounded
    assert (
        "outputs       value: float32 (?, 2)\n              interval: float32 (?, 2, 2)" in bounded
    )


def test_without_a_card_the_graph_is_told(tmp_path: Path) -> None:
    save_toy(tmp_path)
    save_sum(tmp_path)
    save_sequenced(tmp_path)
    save_same(tmp_path, ["batch", 2, None], TensorProto.STRING)
    toy = text(tmp_path, "toy")
    assert toy.startswith("toy/1: an ONNX file, no card\n")
    assert "self-test     none: only a card has examples to be tested by" in toy
    assert "takes         rows" in toy
    assert "task" not in toy
    assert "takes         no rows by way of /predict: it has 2 inputs" in text(tmp_path, "sum")
    save_same(tmp_path, [2, 3], name="fixed")
    fixed = text(tmp_path, "fixed")
    why = "the first dimension of input input is fixed at 2; an export with dynamic_shapes lets it"
    assert f"runs          each request by itself: {why} vary" in fixed
    assert f"takes         no rows by way of /predict: {why} vary" in fixed
    assert (
        "warning       output several is left out: no protocol carries seq(tensor(float))"
        in text(tmp_path, "sequenced")
    )
    same = text(tmp_path, "same")
    assert "input: string (?, 2, ?)" in same
    assert "cost          not measured: in a thread of its own, " in same


def test_what_a_file_without_a_card_says_of_classes_is_told(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    save_classifier(tmp_path, NUMBERS, is_swapped=True)
    said = text(tmp_path, "kinds")
    assert "answers       label, probability, probabilities\n" in said
    assert "labels        7, -1, 3\n" in said
    assert "warning       output label is not the label of the highest score in " in said
    save_classifier(tmp_path, are_margins=True, says_labels=False)
    said = text(tmp_path, "kinds")
    assert "answers       label, scores\nlabels        not known\nwarning       output prob" in said
    inspect("kinds", Settings(models_dir=tmp_path), as_json=True)
    found = json.loads(capfd.readouterr().out)
    assert found["classifier"]["are_probabilities"] is False
    assert len(found["warnings"]) == 1


def test_a_shape_that_the_file_does_not_say_is_any_and_outputs_are_told_as_seen(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    nodes = [helper.make_node("ArgMax", ["input"], ["label"], axis=1, keepdims=0)]
    ports = [tensor("input", ["batch", 4])], [tensor("label", [1], TensorProto.INT64)]
    save_graph(tmp_path / "seen/1/model.onnx", nodes, *ports, [], None)
    assert "outputs       label: int64 (?)" in text(tmp_path, "seen")
    path = save_same(tmp_path, [], name="any")
    model = onnx.load(path)
    for each in (*model.graph.input, *model.graph.output):
        each.type.tensor_type.ClearField("shape")
    onnx.save(model, path)
    any_shape = text(tmp_path, "any")
    assert "inputs        input: float32 of any shape" in any_shape
    assert "outputs       output: float32 of any shape" in any_shape
    assert "by itself: the file says no shape for input input" in any_shape
    inspect("any", Settings(models_dir=tmp_path), as_json=True)
    said = json.loads(capfd.readouterr().out)
    assert said["inputs"] == [{"name": "input", "dtype": "float32", "shape": None}]
    assert (said["batching"], said["max_batch_size"]) == ("requests", 1)


def test_one_that_fails_its_self_test_is_told_all_the_same(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    save_toy(tmp_path, card=toy_card(), scale=2)
    settings = Settings(models_dir=tmp_path)
    assert inspect("toy", settings, as_json=False) == 1
    said = capfd.readouterr().out
    assert "self-test     FAILED: example 'one': expected [0.9" in said
    assert "cost          not measured\n" in said
    assert "labels        red, green, blue" in said
    assert inspect("toy", settings, as_json=True) == 1
    answer = json.loads(capfd.readouterr().out)
    assert answer["self_test"].startswith("example 'one': expected")
    assert (answer["row_seconds"], answer["batch_seconds"]) == (None, None)
    assert answer["runs_in"] == ""


def test_fields_that_are_not_known_are_passed(tmp_path: Path) -> None:
    path = save_toy(tmp_path)
    fixed = b"\x99\x06" + bytes(8) + b"\x9d\x06" + bytes(4)  # of 64 and 32 bits, number 99
    path.write_bytes(fixed + path.read_bytes())
    assert inspection(str(path), Settings()).head.ir_version == 10


def test_what_a_file_says_cannot_play_tricks_on_the_terminal(tmp_path: Path) -> None:
    dataset = Dataset(name="x\n\x1b]0;gone\x07", source="s", sha256="0", licence="\u202eTIM")
    save_toy(tmp_path, card=toy_card(description="A \x1b[31mred\x1b[0m\rtoy.", dataset=dataset))
    said = text(tmp_path, "toy")
    assert all(each.isprintable() or each == "\n" for each in said)
    assert said.startswith(r"toy/1: A \x1b[31mred\x1b[0m\rtoy.")
    assert r"x\n\x1b]0;gone\x07, s" in said


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "expected an ONNX file, got an empty file"),
        (b"no model", CUT_OFF),
        ("cut", CUT_OFF),
    ],
)
def test_a_broken_file_is_one_sentence(tmp_path: Path, content: bytes | str, expected: str) -> None:
    path = save_toy(tmp_path, card=toy_card())
    path.write_bytes(path.read_bytes()[:-99] if isinstance(content, str) else content)
    for model in ("toy", str(path)):
        with pytest.raises(CannotInspect) as raised:
            inspection(model, Settings(models_dir=tmp_path))
        named = "toy/1" if model == "toy" else str(path)
        size = path.stat().st_size
        assert str(raised.value) == f"{named}: {expected.format(size=size)}"


def test_what_onnx_runtime_says_of_a_file_is_in_the_same_line(tmp_path: Path) -> None:
    path = save_toy(tmp_path)
    model = onnx.load(path)
    model.graph.node[0].input[1] = "nowhere"
    onnx.save(model, path)
    with pytest.raises(CannotInspect) as raised:
        inspection("toy", Settings(models_dir=tmp_path))
    assert re.fullmatch(
        r"toy/1: ONNX Runtime \S+ cannot open it \(.*'nowhere'.*\)",
        str(raised.value),
    )


def test_a_card_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    path = save_toy(tmp_path, card=toy_card())
    model = onnx.load(path)
    model.metadata_props[0].value = '{"task": "magic"}'
    onnx.save(model, path)
    with pytest.raises(CannotInspect) as raised:
        inspection("toy", Settings(models_dir=tmp_path))
    sentence = str(raised.value)
    assert sentence.startswith("toy/1: torchlit.card: Invalid enum value 'magic'")
    assert sentence.count("magic") == 1


def test_the_command_says_it_in_one_line_and_its_status(
    models_dir: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCHLIT_MODELS_DIR", str(models_dir))
    assert main(["inspect", "toi"]) == 1
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err == (
        f"torchlit: toi: no such model in {models_dir}, nor a file that ends in .onnx; "
        "did you mean toy?\n"
    )


def test_what_cannot_be_written_is_one_sentence_or_silence(
    models_dir: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCHLIT_MODELS_DIR", str(models_dir))
    reader, gone = os.pipe()
    os.close(reader)
    ours = os.dup(1)
    try:
        for command in (["inspect", "toy"], ["doctor"]):
            for file, expected in (
                (gone, (141, "")),
                (
                    os.open("/dev/full", os.O_WRONLY),
                    (1, "torchlit: stdout: cannot be written: No space left on device\n"),
                ),
            ):
                os.dup2(file, 1)
                assert (main(command), capfd.readouterr().err) == expected
            os.close(1)
            assert main(command) == 1
            assert capfd.readouterr().err.endswith("cannot be written: Bad file descriptor\n")
            os.close(file)
    finally:
        os.dup2(ours, 1)
        os.close(ours)
        os.close(gone)


def test_ctrl_c_waits_while_onnx_runtime_is_imported(models_dir: Path) -> None:
    """Else its parts in C make an ImportError of it, with a traceback."""
    code = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's & ignores it
        "class Finder:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name.startswith('onnxruntime.capi.onnxruntime_pybind11'):\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
        "from service.__main__ import main\n"
        "sys.exit(main(['inspect', 'toy']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(models_dir=models_dir) | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (130, "torchlit: interrupted\n")
