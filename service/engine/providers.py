"""Execution providers of ONNX Runtime. PROVIDERS is the table: to add one, write a line there, and
its device among those that TORCHLIT_DEVICE may be, or TORCHLIT_PROVIDER where it is a plug-in.
"""

import ctypes
import logging
import sys
from collections.abc import Callable
from functools import cache
from typing import Literal

import onnxruntime as ort
from msgspec import Struct

from service.engine import plugins
from service.errors import StartupError

logger = logging.getLogger("torchlit.model")

RUNTIME_VERSION: str = ort.__version__  # of ONNX Runtime
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


@cache
def driver_problem() -> str:
    """Say why NVIDIA's driver cannot be used, nothing if it can.

    ONNX Runtime would find out with each model, and report it on stderr in its own words.
    """
    if sys.platform != "linux":
        return ""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        return f"NVIDIA's driver is not here ({error})"
    return ""


def _nothing() -> str:
    return ""


class Provider(Struct, frozen=True):
    """An execution provider that torchlit chooses."""

    name: str  # ONNX Runtime's
    device: str  # what it is called where it is chosen
    kind: Literal["KIND_CPU", "KIND_GPU"] = "KIND_GPU"  # Triton's
    problem: Callable[[], str] = _nothing  # says why it cannot be used here, nothing if it can
    prepare: Callable[[], object] = _nothing  # what is needed before the first session
    package: str = ""  # of a plug-in: what pip installs; never taken unless it is asked for
    needs: str = ""  # of a plug-in: what a device of it is

    @property
    def setting(self) -> str:
        """The variable that asks for it."""
        return "TORCHLIT_PROVIDER" if self.package else "TORCHLIT_DEVICE"


PROVIDERS = (  # the first that can be used is taken
    # `preload_dlls` loads libraries that came as wheels; what is loaded is not loaded again.
    Provider(CUDA, "cuda", problem=lambda: driver_problem(), prepare=lambda: ort.preload_dlls()),
    Provider(
        "OpenVINOExecutionProvider",
        "openvino",
        package="onnxruntime-ep-openvino",
        needs="a processor, GPU or NPU of Intel",
    ),
    Provider(
        "NvTensorRTRTXExecutionProvider",
        "tensorrt-rtx",
        package="onnxruntime-ep-nv-tensorrt-rtx",
        needs="an RTX GPU of NVIDIA and its driver",
    ),
    Provider(
        "WebGpuExecutionProvider",
        "webgpu",
        package="onnxruntime-ep-webgpu",
        needs="a GPU and, on Linux, its driver for Vulkan with libvulkan.so.1",
    ),
    Provider(CPU, "cpu", "KIND_CPU"),
)


def provider_of(device: str) -> Provider:
    """Return the execution provider of a device, or of that name among the plug-ins."""
    return next(each for each in PROVIDERS if each.device == device)


def device_of(provider: str) -> str:
    """Return the device of an execution provider: "cpu", "cuda", or the provider's own name."""
    known = _named(provider)
    return known.device if known else provider


def kind_of(provider: str) -> Literal["KIND_CPU", "KIND_GPU"]:
    """Return what Triton calls the device of an execution provider."""
    known = _named(provider)
    if known and known.package and (devices := plugins.devices(provider)):
        return "KIND_GPU" if devices[0].device.type.name == "GPU" else "KIND_CPU"
    return known.kind if known else "KIND_CPU"


def _named(provider: str) -> Provider | None:
    return next((each for each in PROVIDERS if each.name == provider), None)


def plugin_devices(provider: str) -> list[ort.OrtEpDevice]:
    """Return what a session needs to run on a plug-in: its first device; nothing for others.

    WebGPU's takes one alone, and which of several the others would take is theirs to say.
    """
    known = _named(provider)
    return plugins.devices(provider)[:1] if known and known.package else []


def with_version(provider: str) -> str:
    """Return an execution provider, and the package and version of a plug-in, which has its own."""
    known = _named(provider)
    if known and known.package:
        return f"{provider} of {plugins.shown(known.package)}"
    return provider


def available() -> list[str]:
    """Return the execution providers that ONNX Runtime was built with."""
    names: list[str] = ort.get_available_providers()
    return names


def has_choice(device: str) -> bool:
    """Whether "auto" is the device, and models may run on another than the CPU."""
    return device == "auto" and choose_providers(device, available()) != [CPU]


def problem_of(provider: Provider) -> str:
    """Say why an execution provider cannot be used here, nothing if it can."""
    if provider.package:
        return plugins.problem(provider.package, provider.name, provider.needs)
    return provider.problem()


def choose_providers(device: str, available: list[str]) -> list[str]:
    """Return the execution providers to try, of those that ONNX Runtime was built with.

    device: that of one of them, or "auto", which takes no plug-in.
    Raises StartupError when that is one that cannot be used here.
    """
    chosen = []
    for each in PROVIDERS:
        is_asked = device == each.device
        if not is_asked and (device != "auto" or each.package):
            continue
        if not each.package and each.name not in available:
            continue
        if problem := problem_of(each):
            if is_asked:
                raise StartupError(f"{each.setting}: expected {device}, but {problem}")
            warn_once(f"{problem}: models run on the CPU")
        else:
            each.prepare()
            chosen.append(each.name)
    return chosen if CPU in chosen else [*chosen, CPU]


@cache
def warn_once(sentence: str) -> None:
    """Let the log warn of what is the same for every model."""
    logger.warning("%s", sentence)
