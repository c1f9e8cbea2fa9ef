import errno
from pathlib import Path
from typing import Any

import pytest

from service.catalog.opening import facts, open_tested, open_untested, warnings, where
from service.errors import InferenceFailed, ModelError, OutOfResources, SelfTestFailed, StartupError
from service.settings import Settings
from service.settings.verdicts import Verdicts
from tests.support.classifiers import save_classifier
from tests.support.devices import Gpu, install_plugin
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


def test_what_a_file_says_wrongly_is_warned_of(tmp_path: Path) -> None:
    margins = open_untested(save_classifier(tmp_path, are_margins=True), "x", Settings(), 1)
    assert list(warnings(margins, Settings())) == margins.trial.doubts != []
    plain = open_untested(save_classifier(tmp_path), "x", Settings(), 1)
    assert list(warnings(plain, Settings())) == []


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
            "service.engine.model.read_contents",
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


FULL = "CUDA failure 2: out of memory ; GPU=0 ; hostname=x ; expr=cudaMalloc"
ON_CPU = "there is not enough memory on the GPU; it runs on the CPU instead"


@pytest.mark.parametrize("where", ["trouble", "run_trouble"])
def test_where_the_gpu_is_full_a_model_runs_on_the_cpu_and_may_do_better_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    path = save_toy(tmp_path, card=toy_card())
    gpu = Gpu(monkeypatch)
    setattr(gpu, where, FULL)
    model = open_tested(path, "toy", Settings(), 1)
    assert model.device == "cpu"
    assert model.short_of.endswith(ON_CPU)
    assert any(sentence.startswith(model.short_of) for sentence in warnings(model, Settings()))
    with pytest.raises(OutOfResources):
        open_tested(path, "toy", Settings(device="cuda"), 1)
    setattr(gpu, where, "")
    again = open_tested(path, "toy", Settings(), 1)
    assert (again.device, again.short_of) == ("cuda", "")


def test_a_gpu_that_cannot_be_used_at_all_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_toy(tmp_path, card=toy_card())
    Gpu(monkeypatch).trouble = "CUDA failure 35: CUDA driver version is insufficient"
    model = open_tested(path, "toy", Settings(), 1)
    assert (model.device, model.short_of) == ("cpu", "")
    with pytest.raises(StartupError, match="ONNX Runtime cannot run on it here"):
        open_tested(path, "toy", Settings(device="cuda"), 1)


def test_where_all_memory_is_short_nothing_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Gpu(monkeypatch)

    def fail(*_: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr("service.catalog.opening.check_readable", fail)
    with pytest.raises(OutOfResources, match=NO_MEMORY):
        open_tested(save_toy(tmp_path), "toy", Settings(), 1)


SHARES = "runs 1 of 2 nodes on cuda, 1 on the CPU: Softmax"


@pytest.mark.parametrize(
    ("settings", "is_warned_of"),
    [
        (Settings(device="cuda"), True),
        (Settings(device="cuda", fallback="allow"), False),
        (Settings(), False),  # auto: nobody asked for CUDA
    ],
)
def test_nodes_that_fell_back_are_in_one_line_of_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Settings, is_warned_of: bool
) -> None:
    Gpu(monkeypatch).lacks = ["Softmax"]
    model = open_tested(save_toy(tmp_path, card=toy_card()), "toy", settings, 1)
    assert (model.device, model.assignment.fallen) == ("cuda", {"Softmax": 1})
    assert [SHARES in facts(model, settings), SHARES in warnings(model, settings)] == [
        not is_warned_of,
        is_warned_of,
    ]


def test_what_runs_on_the_device_is_in_the_log_and_nothing_is_of_a_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_toy(tmp_path, card=toy_card())
    model = open_tested(path, "toy", Settings(), 1)
    assert not [each for each in facts(model, Settings()) if "nodes" in each]
    Gpu(monkeypatch)
    model = open_tested(path, "toy", Settings(device="cuda"), 1)
    assert "runs 2 of 2 nodes on cuda" in facts(model, Settings(device="cuda"))


def test_a_model_none_of_whose_nodes_runs_on_the_device_is_said_to_run_on_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Gpu(monkeypatch).lacks = ["MatMul", "Softmax"]
    model = open_tested(save_toy(tmp_path), "toy", Settings(device="cuda"), 1)
    assert (model.device, model.provider) == ("cpu", "CPUExecutionProvider")
    (line,) = warnings(model, Settings(device="cuda"))
    assert line == "runs 0 of 2 nodes on cuda, 2 on the CPU: MatMul, Softmax"


@pytest.mark.parametrize("chosen", [{"device": "cuda"}, {"provider": "webgpu"}])
def test_where_falling_back_is_refused_the_operators_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chosen: dict[str, Any]
) -> None:
    path = save_toy(tmp_path)
    gpu = Gpu(monkeypatch)
    device = "cuda"
    if "provider" in chosen:
        gpu = Gpu(monkeypatch, "WebGpuExecutionProvider")
        install_plugin(monkeypatch)
        device = "webgpu"
    gpu.lacks = ["Softmax"]
    settings = Settings(fallback="refuse", **chosen)
    with pytest.raises(ModelError) as raised:
        open_tested(path, "toy", settings, 1)
    assert str(raised.value) == (
        f"model.onnx: TORCHLIT_FALLBACK is refuse, but it would run 1 of 2 nodes on {device}, "
        "1 on the CPU: Softmax"
    )
    gpu.lacks = []
    gpu.opened.clear()
    assert (
        open_tested(path, "toy", settings, 1).assignment.nodes[
            "CUDAExecutionProvider" if device == "cuda" else "WebGpuExecutionProvider"
        ]
        == 2
    )
    assert set(gpu.opened) == {True}


def test_a_plug_in_that_cannot_open_a_session_stops_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = Gpu(monkeypatch, "WebGpuExecutionProvider")
    registered = install_plugin(monkeypatch)
    path = save_toy(tmp_path, card=toy_card())
    settings = Settings(provider="webgpu")
    model = open_tested(path, "toy", settings, 1)
    assert (model.device, registered) == ("webgpu", ["onnxruntime-ep-webgpu"])
    gpu.trouble = (
        "/onnxruntime_src/onnxruntime/core/session/x.cc:71 virtual Y onnxruntime::Create(const Z&) "
        "Error creating execution provider: [ONNXRuntimeError] : 11 : EP_FAIL : "
        "/onnxruntime_src/onnxruntime/core/w.cc:136 onnxruntime::Init(const C&)::<lambda()> "
        "result == S::Success was false. Failed to get a WebGPU adapter: No supported adapters. "
    )
    with pytest.raises(StartupError) as raised:
        open_tested(path, "toy", settings, 1)
    assert str(raised.value) == (
        "TORCHLIT_PROVIDER: expected webgpu, but ONNX Runtime cannot run on it here: "
        "Failed to get a WebGPU adapter: No supported adapters."
    )
