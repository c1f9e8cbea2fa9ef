"""KServe's own client asks a running service; what it gives is compared with NumPy."""

import itertools
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from tests.support.processes import running
from tests.support.toys import save_same, save_sum, save_toy, toy_answer, toy_card

ROOT = Path(__file__).parents[3]
PYTHON = ROOT / ".venv/kserve/bin/python"
ROWS = np.random.default_rng(0).uniform(0, 10, (5, 4)).astype(np.float32)

pytestmark = pytest.mark.kserve


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("models")
    save_toy(folder, card=toy_card())
    save_sum(folder)
    save_same(folder, ["batch", 2], TensorProto.INT64, name="whole")
    save_same(folder, ["batch", 2], TensorProto.STRING, name="words")
    save_same(folder, ["batch", 2], TensorProto.FLOAT16, name="half")
    with running(models_dir=folder) as service:
        yield service.url


def ask(url: str, *questions: dict[str, Any]) -> dict[str, Any]:
    """Return what client.py says."""
    done = subprocess.run(
        [PYTHON, Path(__file__).with_name("client.py"), url],
        input=json.dumps(questions),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def tensor(name: str, datatype: str, data: Any) -> dict[str, Any]:
    array = np.array(data)
    return {"name": name, "datatype": datatype, "shape": array.shape, "data": array.tolist()}


def test_probes_and_metadata_are_as_the_client_reads_them(url: str) -> None:
    said = ask(url)
    assert said["probes"] == {"live": True, "ready": True, "toy": True, "nobody": False}
    metadata = said["metadata"]
    assert metadata["/v2/models"]["models"] == ["half", "sum", "toy", "whole", "words"]
    assert metadata["/v2/models/toy"]["inputs"] == [
        {"name": "input", "datatype": "FP32", "shape": [-1, 4]}
    ]


def test_any_form_of_inputs_and_outputs_gives_the_same_answer(url: str) -> None:
    """JSON or binary inputs; outputs as they come by default, as all are asked for, as each is."""
    asked: list[dict[str, Any]] = [
        {},
        {"parameters": {"binary_data_output": True}},
        {"outputs": [{"name": "probabilities"}]},
        {"outputs": [{"name": "probabilities", "parameters": {"binary_data": True}}]},
    ]
    questions = [
        {"model": "toy", "inputs": [tensor("input", "FP32", ROWS)], "binary_inputs": binary} | more
        for binary, more in itertools.product((False, True), asked)
    ]
    answers = ask(url, *questions)["answers"]
    for answer in answers:
        assert answer["model"] == "toy"
        np.testing.assert_allclose(answer["outputs"]["probabilities"], toy_answer(ROWS), atol=1e-6)
    json_, binary = "application/json", "application/octet-stream"
    assert [each["content_type"] for each in answers] == [json_, binary, json_, binary] * 2


@pytest.mark.parametrize("binary", [False, True])
def test_two_inputs_are_told_apart(url: str, binary: bool) -> None:
    left, right = ROWS[:, :2], ROWS[:, 2:]
    inputs = [tensor("right", "FP32", right), tensor("left", "FP32", left)]
    question = {"model": "sum", "inputs": inputs, "binary_inputs": binary, "id": "a-request"}
    (answer,) = ask(url, question)["answers"]
    assert answer["id"] == "a-request"
    np.testing.assert_array_equal(np.float32(answer["outputs"]["sum"]), left + right)


def test_each_datatype_comes_back_as_it_was_sent(url: str) -> None:
    whole = [[2**62 + 1, -(2**53) - 1], [0, -1]]
    words = [["", "Zürich"], ["日本", "a\n\x00b"]]
    half = [[0.5, 65504.0], [-0.0, 6e-8]]
    binary_output = {"parameters": {"binary_data_output": True}}
    questions = [
        {"model": model, "inputs": [tensor("input", datatype, data)], "binary_inputs": binary}
        | more
        for model, datatype, data in (("whole", "INT64", whole), ("words", "BYTES", words))
        for binary in (False, True)
        for more in ({}, binary_output)
    ]
    sent_half = tensor("input", "FP16", np.float16(half))
    questions.append(
        {"model": "half", "inputs": [sent_half], "binary_inputs": True} | binary_output
    )
    answers = ask(url, *questions)["answers"]
    outputs = [answer["outputs"]["output"] for answer in answers]
    assert outputs == [whole] * 4 + [words] * 4 + [np.float16(half).tolist()]
    datatypes = [answer["datatypes"]["output"] for answer in answers]
    assert datatypes == ["INT64"] * 4 + ["BYTES"] * 4 + ["FP16"]


def test_an_error_is_the_sentence_of_the_service(url: str) -> None:
    rows = tensor("input", "FP32", ROWS[:, :3])
    wrong = {"model": "toy", "inputs": [rows], "binary_inputs": True}
    half = tensor("input", "FP16", [[1.0, 2.0]])
    questions = [
        wrong,
        wrong | {"model": "nobody"},
        {"model": "half", "inputs": [half], "binary_inputs": True},  # its answer as JSON
    ]
    errors = [answer["error"] for answer in ask(url, *questions)["answers"]]
    assert errors[0].startswith("inputs[0].shape: expected [-1, 4] for input input")
    assert "'400 Bad Request'" in errors[0]
    assert errors[1].startswith("model: expected one of half, sum, toy, whole, words; got 'nobody'")
    assert "'404 Not Found'" in errors[1]
    assert "FP16 has no form in JSON" in errors[2]


def test_the_client_of_grpc_gets_the_same_answers(url: str) -> None:
    done = subprocess.run(
        [PYTHON, Path(__file__).with_name("grpc_client.py"), url.removeprefix("http://")],
        input=json.dumps(ROWS.tolist()),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["probes"] == {"live": True, "ready": True, "toy": True, "nobody": False}
    for answer in said["answers"]:
        assert answer["id"] == "7"
        assert np.abs(np.array(answer["output"]) - toy_answer(ROWS)).max() < 1e-6
    code, sentence = said["unknown"]
    assert code == "NOT_FOUND"
    assert sentence.startswith("model: expected one of ")
