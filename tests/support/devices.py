"""ONNX Runtime with a device that this machine may lack: what runs is the CPU's own session."""

import sys
from collections.abc import Collection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnxruntime as ort
import pytest

from service.engine import plugins
from service.engine.assignment import RECORD
from service.engine.providers import CPU, CUDA

REFUSED = (
    "[ONNXRuntimeError] : 1 : FAIL : This session contains graph nodes that are assigned to the "
    "default CPU EP, but fallback to CPU EP has been explicitly disabled by the user."
)


class Fail(Exception):
    """What ONNX Runtime raises of a model; of a provider it raises RuntimeError."""


def _refuses(options: ort.SessionOptions) -> bool:
    try:
        said: str = options.get_session_config_entry("session.disable_cpu_ep_fallback")
    except RuntimeError:  # it was not set
        return False
    return said == "1"


class Gpu:
    """A device that other programs share, of CUDA or of a plug-in."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, provider: str = CUDA) -> None:
        self.trouble = ""  # raised where its execution provider is made
        self.run_trouble = ""
        self.lacks: Collection[str] = ()  # operators
        self.opened: list[bool] = []  # of each session, whether it refuses nodes on the CPU
        session = ort.InferenceSession
        gpu = self

        class Session:
            def __init__(
                self,
                path: Path,
                options: ort.SessionOptions,
                *,
                providers: list[str] | None,
                enable_fallback: int = 1,
            ) -> None:
                refuses = _refuses(options)
                gpu.opened.append(refuses)
                assert options.has_providers() == (providers is None)  # names would win, in silence
                providers = providers or [provider]
                assert not (refuses and CPU in providers)  # ONNX Runtime: conflicting configuration
                self.providers = providers if CPU in providers else [*providers, CPU]
                if gpu.trouble and provider in providers:
                    if not enable_fallback:
                        raise RuntimeError(gpu.trouble)
                    self.providers = [CPU]  # and a line on stdout
                if refuses:
                    options = ort.SessionOptions()
                    options.add_session_config_entry(RECORD, "1")
                names = None if options.has_providers() else [CPU]
                self._session = session(path, options, providers=names)
                parts = self.get_provider_graph_assignment_info()
                if refuses and any(each.ep_name == CPU for each in parts):
                    raise Fail(REFUSED)

            def __getattr__(self, name: str) -> Any:
                return getattr(self._session, name)

            def get_providers(self) -> list[str]:
                return self.providers

            def get_provider_graph_assignment_info(self) -> list[Any]:
                return [
                    SimpleNamespace(
                        ep_name=CPU if node.op_type in gpu.lacks else self.providers[0],
                        get_nodes=lambda node=node: [node],
                    )
                    for part in self._session.get_provider_graph_assignment_info()
                    for node in part.get_nodes()
                ]

            def run(self, *arguments: Any) -> Any:
                if gpu.run_trouble and provider in self.providers:
                    raise RuntimeError(gpu.run_trouble)
                return self._session.run(*arguments)

        monkeypatch.setattr("onnxruntime.InferenceSession", Session)
        monkeypatch.setattr("onnxruntime.get_available_providers", lambda: [provider, CPU])
        monkeypatch.setattr("onnxruntime.preload_dlls", lambda: None)
        monkeypatch.setattr("service.engine.providers.driver_problem", lambda: "")


def install_plugin(
    monkeypatch: pytest.MonkeyPatch, module: str = "onnxruntime_ep_webgpu", *, devices: int = 1
) -> list[str]:
    """Let a plug-in's package be there; return the names it is registered under, as they come.

    Its device is that of the CPU, which any session takes.
    """
    registered: list[str] = []
    package = SimpleNamespace(get_library_path=lambda: "/lib.so")
    monkeypatch.setitem(sys.modules, module, package)
    monkeypatch.setattr(plugins, "_REGISTERED", set())
    monkeypatch.setattr(
        "onnxruntime.register_execution_provider_library",
        lambda name, path: registered.append(name),
    )
    cpu = ort.get_ep_devices()[:1]
    monkeypatch.setattr(plugins, "devices", lambda name: cpu * devices)
    return registered
