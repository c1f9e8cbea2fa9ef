import errno
from pathlib import Path
from typing import Any

import pytest

from service.catalog.opening import open_tested, open_untested, where
from service.errors import InferenceFailed, ModelError, OutOfResources, SelfTestFailed
from service.settings import Settings
from service.settings.verdicts import Verdicts
from tests.support.toys import save_dear, save_toy, toy_card


def test_a_model_is_opened_as_the_settings_say_and_tested(tmp_path: Path) -> None:
    path = save_toy(tmp_path, card=toy_card())
    settings = Settings(max_batch_size=7, batching=Verdicts("toy=requests"))
    batched, alone = (open_tested(path, name, settings, 1) for name in ("other", "toy"))
    assert (batched.is_batched, batched.largest_batch) == (True, 7)
    assert (alone.is_batched, alone.largest_batch) == (False, 1)


def test_one_that_fails_its_self_test_opens_untested(tmp_path: Path) -> None:
    path = save_toy(tmp_path, card=toy_card(), scale=2)
    with pytest.raises(SelfTestFailed, match=r"^example 'one': expected "):
        open_tested(path, "toy", Settings(), 1)
    assert open_untested(path, "toy", Settings(), 1).card == toy_card()


def test_what_cannot_be_read_is_told_before_onnx_runtime_sees_it(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"^model\.onnx: cannot be read: No such file"):
        open_untested(tmp_path / "model.onnx", "x", Settings(), 1)


def test_where_a_model_runs_is_said(tmp_path: Path) -> None:
    fast = open_tested(save_toy(tmp_path), "toy", Settings(), 2)
    assert where(fast) == "in the event loop"
    path = save_dear(tmp_path, side=600)
    for threads, said in ((1, "1 core"), (2, "2 cores")):
        slow = open_tested(path, "dear", Settings(), threads)
        assert where(slow) == f"in a thread of its own, {said}"


NO_MEMORY = "there is not enough memory to open it"


def failed_run(text: str) -> Exception:
    error = InferenceFailed("the model failed on this input")
    error.__cause__ = RuntimeError(text)
    return error


@pytest.mark.parametrize(
    ("where", "error", "sentence"),
    [
        ("service.catalog.opening.check_readable", MemoryError(), f"model.onnx: {NO_MEMORY}"),
        ("onnxruntime.InferenceSession", MemoryError(), f"model.onnx: {NO_MEMORY}"),
        (
            "service.engine.model.read",
            OSError(errno.EMFILE, "Too many open files"),
            "model.onnx: cannot be read: Too many open files",
        ),
        (
            "onnxruntime.InferenceSession",
            RuntimeError("std::bad_alloc"),
            f"model.onnx: {NO_MEMORY}",
        ),
        (
            "onnxruntime.InferenceSession",
            RuntimeError("BFCArena::AllocateRawInternal Failed to allocate memory for requested"),
            f"model.onnx: {NO_MEMORY}",
        ),
        (
            "onnxruntime.InferenceSession",
            RuntimeError("CUDA failure 2: out of memory ; GPU=0 ; hostname=x ; expr=cudaMalloc"),
            "model.onnx: there is not enough memory on the GPU",
        ),
        (
            "onnxruntime.InferenceSession",
            RuntimeError("pthread_create failed, error code: 11 error msg: Resource temporarily"),
            "model.onnx: no thread can be started for it",
        ),
        (
            "threading.Thread.start",
            RuntimeError("can't start new thread"),
            "no thread can be started to try it",
        ),
        (
            "service.engine.model.Model.run",
            failed_run("Failed to allocate memory"),
            f"example 'one': {NO_MEMORY}",
        ),
    ],
)
def test_what_is_short_now_is_said_and_is_not_the_fault_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, error: Exception, sentence: str
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    path = save_toy(tmp_path, card=toy_card())
    monkeypatch.setattr(where, fail)
    with pytest.raises(OutOfResources) as raised:
        open_tested(path, "toy", Settings(), 1)
    assert str(raised.value) == sentence
    monkeypatch.undo()
    assert open_tested(path, "toy", Settings(), 1).is_fast
