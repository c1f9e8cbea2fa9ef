"""Why requests fail, in the log."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from service.logs.failures import Failures
from service.logs.lines import TextFormatter
from service.settings import Settings
from tests.support.onnx_graphs import save
from tests.support.toys import body, save_fussy, serving, tensor

MODEL = "model toy version 1: it failed"


class Seconds:
    """Lets a second pass when told to."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []

    def later(self, function: Callable[..., None], *arguments: Any) -> None:
        self.waiting.append(lambda: function(*arguments))

    def pass_one(self) -> None:
        waiting, self.waiting = self.waiting, []
        for each in waiting:
            each()


def raised(number: int) -> ZeroDivisionError:
    try:
        if number:
            raise ZeroDivisionError("here")
        raise ZeroDivisionError("there")
    except ZeroDivisionError as error:
        return error


def test_a_kind_is_logged_immediately_and_then_once_a_second_with_a_count(
    caplog: pytest.LogCaptureFixture,
) -> None:
    seconds = Seconds()
    failures = Failures(seconds.later)
    for _ in range(204):
        failures.log(MODEL)
    assert caplog.messages == [MODEL]
    seconds.pass_one()
    assert caplog.messages == [MODEL, f"{MODEL} (203 more in 1 s)"]
    failures.log(MODEL)
    seconds.pass_one()
    assert caplog.messages[2:] == [f"{MODEL} (1 more in 1 s)"]
    seconds.pass_one()  # in which nothing failed
    assert not seconds.waiting
    failures.log(MODEL)
    assert caplog.messages[3:] == [MODEL]
    assert {record.levelno for record in caplog.records} == {logging.ERROR}


def test_one_kind_holds_no_other_back(caplog: pytest.LogCaptureFixture) -> None:
    seconds = Seconds()
    failures = Failures(seconds.later)
    for sentence in ("a", "b", "a"):
        failures.log(sentence)
    assert caplog.messages == ["a", "b"]
    seconds.pass_one()
    assert caplog.messages[2:] == ["a (1 more in 1 s)"]


def test_bugs_are_of_one_kind_if_they_are_raised_in_one_place(
    caplog: pytest.LogCaptureFixture,
) -> None:
    seconds = Seconds()
    failures = Failures(seconds.later)
    for path, number in (("/a", 0), ("/b", 0), ("/c", 1)):
        failures.log_bug(path, raised(number))
    first, second = caplog.messages
    assert first.startswith("/a: this is a bug\nTraceback (most recent call last):\n")
    assert second.startswith("/c: this is a bug\n")
    seconds.pass_one()
    assert caplog.messages[2:] == ["/a: this is a bug (1 more in 1 s)"]


def test_a_bug_is_told_with_its_causes_and_without_values(caplog: pytest.LogCaptureFixture) -> None:
    secret = "471147"
    try:
        try:
            int(secret + "x")
        except ValueError as error:
            raise KeyError(secret) from error
    except KeyError as error:
        Failures(Seconds().later).log_bug("/a", error)
    assert "ValueError\n\nthen\n\nTraceback" in caplog.text
    assert 'int(secret + "x")' in caplog.text
    assert caplog.messages[0].endswith("\nKeyError")
    assert "471147" not in caplog.text.replace('secret = "471147"', "")


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["/predict", "/v2/models/fussy/infer"])
async def test_an_answer_of_infinity_says_why_with_the_id_of_its_request(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    save_fussy(tmp_path)
    content = body("fussy", [[7]])
    if path != "/predict":
        content = (
            b'{"inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 1], "data": [7]}]}'
        )
    caplog.handler.setFormatter(TextFormatter())
    async with serving(Settings(models_dir=tmp_path)) as client:
        caplog.clear()
        for _ in range(3):
            reply = await client.post(path, content=content, headers={"x-request-id": "r7"})
            assert reply.status_code == 500
    (line,) = caplog.text.splitlines()
    assert line.endswith(
        "ERROR torchlit.failures: model fussy version 1: the model answered NaN or infinity for "
        "this input: ask /v2 in binary [request_id=r7]"
    )


@pytest.mark.anyio
async def test_what_a_caller_sent_is_not_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    node = helper.make_node("Gather", ["table", "input"], ["output"], name="look")
    ids = tensor("input", ["batch", 1], TensorProto.INT64)
    outputs = [tensor("output", ["batch", 1])]
    save(tmp_path, "look", [node], [ids], outputs, table=np.ones(9000, np.float32))
    async with serving(Settings(models_dir=tmp_path)) as client:
        caplog.clear()
        reply = await client.post("/predict", content=body("look", [[471147]]))
    assert (reply.status_code, reply.json()) == (500, {"error": "the model failed on this input"})
    assert caplog.messages == [
        'model look version 1: ONNX Runtime: INVALID_ARGUMENT in Gather "look"'
    ]
    assert "471147" not in caplog.text
