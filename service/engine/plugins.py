"""Plug-in execution providers: libraries in packages of their own, registered in each process."""

import importlib
import re
import threading
from importlib.metadata import PackageNotFoundError, version

import onnxruntime as ort

_REGISTERED: set[str] = set()  # packages whose library ONNX Runtime has taken in this process
_LOCK = threading.Lock()  # models are opened in threads
_FAILED_LOAD = re.compile(r"Failed to load library \S+ with error: ")


def devices(name: str) -> list[ort.OrtEpDevice]:
    """Return what the registered libraries offer for an execution provider."""
    return [each for each in ort.get_ep_devices() if each.ep_name == name]


def problem(package: str, name: str, needs: str) -> str:
    """Register a package's library once; say why its provider cannot be used, nothing if it can.

    needs: what a device of it is, in words.
    """
    with _LOCK:
        if package not in _REGISTERED and (why := _why_not_registered(package)):
            return why
        _REGISTERED.add(package)
    if not devices(name):
        return f"{shown(package)} offers no device on this machine: it needs {needs}"
    return ""


def _why_not_registered(package: str) -> str:
    module = package.replace("-", "_")
    try:
        path = importlib.import_module(module).get_library_path()
        ort.register_execution_provider_library(package, path)
    except Exception as error:  # the package's own, or ONNX Runtime's undocumented classes
        if isinstance(error, ModuleNotFoundError) and error.name == module:
            return f"it is not installed: pip install {package}"
        text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", " ".join(str(error).split()))
        said = _FAILED_LOAD.sub("", text).rstrip(".")
        return f"ONNX Runtime {ort.__version__} does not take {shown(package)}: {said}"
    return ""


def shown(package: str) -> str:
    """Return a package and its version."""
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:  # its module came in another way
        return package
