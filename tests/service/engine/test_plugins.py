import sys
from types import SimpleNamespace

import pytest

from service.engine import plugins
from service.engine.providers import (
    CPU,
    PROVIDERS,
    choose_providers,
    kind_of,
    plugin_devices,
    problem_of,
    provider_of,
    with_version,
)
from service.errors import StartupError
from tests.support.devices import install_plugin

WEBGPU = "WebGpuExecutionProvider"
PLUGINS = [each for each in PROVIDERS if each.package]


def refusal(device: str) -> str:
    with pytest.raises(StartupError) as raised:
        choose_providers(device, [CPU])
    return str(raised.value)


@pytest.mark.parametrize("provider", PLUGINS, ids=[each.device for each in PLUGINS])
def test_a_plug_in_that_is_not_installed_is_named_for_pip(
    provider: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    device, package = provider.device, provider.package  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, package.replace("-", "_"), None)  # an import of it fails
    assert refusal(device) == (
        f"TORCHLIT_PROVIDER: expected {device}, but it is not installed: pip install {package}"
    )


def test_a_library_that_cannot_be_loaded_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime's own words, without its code and the path."""
    package = SimpleNamespace(get_library_path=lambda: "/nowhere/lib.so")
    monkeypatch.setitem(sys.modules, "onnxruntime_ep_nv_tensorrt_rtx", package)
    said = refusal("tensorrt-rtx")
    assert said.startswith("TORCHLIT_PROVIDER: expected tensorrt-rtx, but ONNX Runtime ")
    assert said.endswith(
        " does not take onnxruntime-ep-nv-tensorrt-rtx: /nowhere/lib.so: cannot open shared object "
        "file: No such file or directory"
    )


def test_a_version_that_does_not_fit_says_which_would(monkeypatch: pytest.MonkeyPatch) -> None:
    install_plugin(monkeypatch)

    def refuse(*_: str) -> None:
        raise Exception(  # as the library of onnxruntime-ep-webgpu 0.4.0 does
            '[ONNXRuntimeError] : 1 : FAIL : ORT runtime version "1.24.1" is below the minimum '
            'required version "1.24.4".'
        )

    monkeypatch.setattr("onnxruntime.register_execution_provider_library", refuse)
    assert refusal("webgpu").endswith(
        ' does not take onnxruntime-ep-webgpu: ORT runtime version "1.24.1" is below the minimum '
        'required version "1.24.4"'
    )


def test_a_package_that_lacks_its_library_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> str:
        raise FileNotFoundError("OpenVINO EP plugin library not found")

    package = SimpleNamespace(get_library_path=absent)
    monkeypatch.setitem(sys.modules, "onnxruntime_ep_openvino", package)
    assert refusal("openvino").endswith(": OpenVINO EP plugin library not found")


def test_a_library_that_offers_no_device_says_what_it_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registered = install_plugin(monkeypatch, "onnxruntime_ep_openvino", devices=0)
    for _ in range(2):
        assert refusal("openvino") == (
            "TORCHLIT_PROVIDER: expected openvino, but onnxruntime-ep-openvino offers no device on "
            "this machine: it needs a processor, GPU or NPU of Intel"
        )
    assert registered == ["onnxruntime-ep-openvino"]  # twice would be refused


def test_a_plug_in_is_registered_once_and_only_where_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registered = install_plugin(monkeypatch, devices=3)
    assert choose_providers("auto", [CPU]) == choose_providers("cpu", [CPU]) == [CPU]
    assert registered == []
    for _ in range(2):
        assert choose_providers("webgpu", [CPU]) == [WEBGPU, CPU]
    assert registered == ["onnxruntime-ep-webgpu"]
    assert len(plugin_devices(WEBGPU)) == 1
    assert plugin_devices(CPU) == []
    assert kind_of(WEBGPU) == "KIND_CPU"  # as is the device that was offered
    assert problem_of(provider_of("webgpu")) == ""
    monkeypatch.setattr(plugins, "version", lambda package: "0.4.0")
    assert with_version(WEBGPU) == f"{WEBGPU} of onnxruntime-ep-webgpu 0.4.0"
    assert with_version(CPU) == CPU


def test_what_fails_in_a_package_itself_is_not_taken_for_its_absence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(name: str) -> object:
        raise ModuleNotFoundError("No module named 'other'", name="other")

    monkeypatch.setattr(plugins.importlib, "import_module", fail)
    assert "does not take onnxruntime-ep-webgpu: No module named 'other'" in refusal("webgpu")
