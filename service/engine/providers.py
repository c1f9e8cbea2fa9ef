"""Execution providers of ONNX Runtime. PROVIDERS is the table: to add one, write a line there, and
its device among those that TORCHLIT_DEVICE may be.
"""

import ctypes
import logging
import sys
from collections.abc import Callable
from functools import cache
from typing import Literal

import onnxruntime as ort
from msgspec import Struct

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
    device: str
    kind: Literal["KIND_CPU", "KIND_GPU"] = "KIND_GPU"  # Triton's
    problem: Callable[[], str] = _nothing  # says why it cannot be used here, nothing if it can
    prepare: Callable[[], object] = _nothing  # what is needed before the first session


PROVIDERS = (  # the first that can be used is taken
    # `preload_dlls` loads libraries that came as wheels; what is loaded is not loaded again.
    Provider(CUDA, "cuda", problem=lambda: driver_problem(), prepare=lambda: ort.preload_dlls()),
    Provider(CPU, "cpu", "KIND_CPU"),
)
_BY_NAME = {each.name: each for each in PROVIDERS}


def device_of(provider: str) -> str:
    """Return the device of an execution provider: "cpu", "cuda", or the provider's own name."""
    return _BY_NAME[provider].device if provider in _BY_NAME else provider


def kind_of(provider: str) -> Literal["KIND_CPU", "KIND_GPU"]:
    """Return what Triton calls the device of an execution provider."""
    return _BY_NAME[provider].kind if provider in _BY_NAME else "KIND_CPU"


def available() -> list[str]:
    """Return the execution providers that ONNX Runtime was built with."""
    names: list[str] = ort.get_available_providers()
    return names


def has_choice(device: str) -> bool:
    """Whether "auto" is the device, and models may run on another than the CPU."""
    return device == "auto" and choose_providers(device, available()) != [CPU]


def choose_providers(device: str, available: list[str]) -> list[str]:
    """Return the execution providers to try, of those that ONNX Runtime was built with.

    device: that of one of them, or "auto".
    Raises StartupError when that is one that cannot be used here.
    """
    chosen = []
    for each in PROVIDERS:
        if device not in ("auto", each.device) or each.name not in available:
            continue
        if problem := each.problem():
            if device == each.device:
                raise StartupError(f"TORCHLIT_DEVICE: expected {device}, but {problem}")
            warn_once(f"{problem}: models run on the CPU")
        else:
            each.prepare()
            chosen.append(each.name)
    return chosen if CPU in chosen else [*chosen, CPU]


@cache
def warn_once(sentence: str) -> None:
    """Let the log warn of what is the same for every model."""
    logger.warning("%s", sentence)
