"""Execution providers of ONNX Runtime: which there are, and which device each is."""

import ctypes
import logging
import sys
from functools import cache

import onnxruntime as ort

from service.errors import StartupError

logger = logging.getLogger("torchlit.model")

RUNTIME_VERSION: str = ort.__version__  # of ONNX Runtime
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_DEVICES = {CPU: "cpu", CUDA: "cuda"}


def device_of(provider: str) -> str:
    """Return the device of an execution provider: "cpu", "cuda", or the provider's own name."""
    return _DEVICES.get(provider, provider)


def available() -> list[str]:
    """Return the execution providers that ONNX Runtime was built with."""
    names: list[str] = ort.get_available_providers()
    return names


def choose_providers(device: str, available: list[str]) -> list[str]:
    """Return the execution providers to try, of those that ONNX Runtime was built with.

    Raises StartupError when `device` is "cuda" and there is no driver.
    """
    if device == "cpu" or CUDA not in available:
        return [CPU]
    if problem := driver_problem():
        if device == "cuda":
            raise StartupError(f"TORCHLIT_DEVICE: expected cuda, but {problem}")
        _warn_once(f"{problem}: models run on the CPU")
        return [CPU]
    ort.preload_dlls()  # those that came as wheels; what is loaded is not loaded again
    return [CUDA, CPU]


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


@cache
def _warn_once(sentence: str) -> None:
    logger.warning("%s", sentence)
