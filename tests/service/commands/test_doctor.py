"""`python -m service doctor`: each thing that can be wrong is found, told, and nothing changed."""

import errno
import http.server
import json
import os
import resource
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import pytest

from service.__main__ import main
from service.catalog import opening
from service.catalog.folder import Contents, Found
from service.commands import doctor, doctor_models, health
from service.commands.doctor import examine, scan_all
from service.commands.doctor_models import Finding
from service.engine import providers
from service.errors import InvalidSetting, ModelError, StartupError
from service.settings import Settings
from service.settings import machine as resources
from service.settings.machine import Resources
from tests.support.classifiers import save_classifier
from tests.support.devices import Gpu, install_plugin
from tests.support.foreign_models import linear, outside, save
from tests.support.processes import environment, running
from tests.support.toys import save_dear, save_same, save_sum, save_toy, toy_card

KEY = "0123456789abcdef-secret"


def any_routes(_: Settings) -> None:
    """Find nothing wrong with the routes that settings name."""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as other:
        return int(other.getsockname()[1])


def found(**settings: object) -> list[Finding]:
    """What is found with these settings, and a port that is free."""
    environ = environment(**{"port": 0} | settings) | {doctor.TELEMETRY: "1"}
    return list(scan_all(environ, any_routes))


def wrong(findings: list[Finding]) -> list[tuple[str, str]]:
    assert all(bool(each.advice) for each in findings if each.state == "wrong")
    return [(each.topic, each.text) for each in findings if each.state == "wrong"]


def told(findings: list[Finding], topic: str) -> str:
    return "; ".join(each.text for each in findings if each.topic == topic)


def test_all_is_well(models_dir: Path, capfd: pytest.CaptureFixture[str]) -> None:
    environ = environment(models_dir=models_dir, port=free_port())
    assert examine(environ | {doctor.TELEMETRY: "1"}, any_routes, as_json=False) == 0
    said = capfd.readouterr().out.splitlines()
    assert said[-1] == "all is well"
    assert not [line for line in said if line.startswith("WRONG")]
    for text in (
        "ok     python: 3.",
        "numpy ",
        "CPUs with ",
        "CPUExecutionProvider",
        "ok     telemetry: off (ORT_DISABLE_TELEMETRY=1)",
        f"ok     settings: TORCHLIT_PORT={environ['TORCHLIT_PORT']}, TORCHLIT_MODELS_DIR=",
        f"ok     models: 2 in {models_dir}",
        "ok     model mean/1: self-test passed, sha256 ",
        ", 64 rows in 0.",
        " on cpu, in the event loop",
        f"ok     port: 127.0.0.1:{environ['TORCHLIT_PORT']} is free",
        "ok     open files: 4224 needed at most, ",
        "ok     counters: in memory, as there is one worker",
    ):
        assert any(text in line for line in said), (text, said)


def test_each_setting_that_does_not_fit_is_told_and_the_rest_used(models_dir: Path) -> None:
    findings = found(models_dir=models_dir, workers="many", prot=1, drain_s=3)
    assert wrong(findings) == [
        ("settings", "TORCHLIT_PROT: no such setting; did you mean TORCHLIT_PORT?"),
        (
            "settings",
            "TORCHLIT_WORKERS: expected a whole number from 1 to 256, or auto, got 'many'",
        ),
    ]
    assert f"TORCHLIT_MODELS_DIR={models_dir}, TORCHLIT_DRAIN_S=3.0" in told(findings, "settings")
    environ = {"TORCHLIT_A:B": "1", "TORCHLIT_MODELS_DIR": str(models_dir)}
    assert wrong(list(scan_all(environ, any_routes))) == [
        ("settings", "TORCHLIT_A:B: no such setting; did you mean TORCHLIT_WATCH?")
    ]
    environ = environment(models_dir=models_dir, port="") | {"PORT": str(port := free_port())}
    assert f"TORCHLIT_PORT={port} (PORT)" in told(list(scan_all(environ, any_routes)), "settings")


def test_a_route_that_hides_another_is_told_and_the_rest_used(models_dir: Path) -> None:
    def check_routes(settings: Settings) -> None:
        if settings.predict_route == "/models/x":
            variable = "TORCHLIT_PREDICT_ROUTE"
            raise InvalidSetting(f"{variable}: expected another", variable)

    for variable in ("TORCHLIT_PREDICT_ROUTE", "AIP_PREDICT_ROUTE"):
        environ = environment(models_dir=models_dir, port=0, drain_s=3) | {variable: "/models/x"}
        findings = list(scan_all(environ, check_routes))
        assert wrong(findings) == [("settings", "TORCHLIT_PREDICT_ROUTE: expected another")]
        text = told(findings, "settings")
        assert text.endswith("TORCHLIT_DRAIN_S=3.0")
        assert "/models/x" not in text
        environ[variable] = "/free"
        findings = list(scan_all(environ, check_routes))
        assert wrong(findings) == []
        assert "TORCHLIT_PREDICT_ROUTE=/free" in told(findings, "settings")


@pytest.mark.parametrize("as_json", [False, True])
def test_keys_are_never_told(
    models_dir: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], as_json: bool
) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{KEY}-of-file\n")
    for settings in (
        {"api_keys": KEY},
        {"api_keys": f"{KEY},short"},
        {"api_keys_file": file},
        {"api_keys_file": KEY},  # as it happens
    ):
        environ = environment(models_dir=models_dir, port=free_port(), **settings)
        examine(environ, any_routes, as_json=as_json)
    said = capfd.readouterr()
    assert KEY not in said.out + said.err
    assert "short" not in said.out
    assert "TORCHLIT_API_KEYS=(not shown)" in said.out
    assert "API keys: 1" in said.out
    assert "expected keys of at least 16 ASCII characters" in said.out
    assert "cannot be read: No such file" in said.out


def test_models_that_do_not_serve_are_told_with_the_reason(tmp_path: Path) -> None:
    save_toy(tmp_path, card=toy_card())
    save_toy(tmp_path, 2, card=toy_card(), scale=2)
    save_toy(tmp_path, 3).write_bytes(b"no model")
    save_toy(tmp_path, 4).unlink()
    (tmp_path / "toy/new").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "lost+found").mkdir()
    save_sum(tmp_path)
    findings = found(models_dir=tmp_path, default_model="other", versions="all sum=1 gone=1")
    problems = dict(wrong(findings))
    assert problems.pop("model toy/2").startswith("example 'one': expected [")
    assert problems == {
        "model toy/3": "not a model that ONNX Runtime can open: it is cut off, or no ONNX file "
        "(8 bytes)",
        "models": "TORCHLIT_DEFAULT_MODEL: expected one of empty, sum, toy, got 'other'",
        "model empty": "empty: expected a version folder such as empty/1/model.onnx, got none",
        "model toy/4": "cannot be read: No such file or directory",
    }
    assert told(findings, "model toy/1").startswith("self-test passed")
    assert told(findings, "model toy").startswith("'new' is no version: expected a whole number")
    assert "folder 'lost+found' is passed over" in told(findings, "models")
    assert "no card" in told(findings, "model sum/1")
    assert "only by way of /v2, as it has 2 inputs" in told(findings, "model sum/1")
    assert "'gone': no such model" in told(findings, "models")
    findings = found(models_dir=tmp_path, versions="toy=1")
    assert told(findings, "model toy/2") == "left out by TORCHLIT_VERSIONS"


def test_weights_that_do_not_hold_are_told(tmp_path: Path) -> None:
    save_toy(tmp_path / "models", card=toy_card())
    save_toy(tmp_path / "models", 2).write_bytes(b"no model")
    folder, file = tmp_path / "models", tmp_path / "split"
    findings = found(models_dir=folder, split="toy=1:9,2:1 gone=1:1")
    problems = [text for topic, text in wrong(findings) if topic == "split"]
    assert problems == [
        "TORCHLIT_SPLIT: 'gone': expected one of the models toy",
        "TORCHLIT_SPLIT: toy=1:9,2:1: expected versions that are ready (1), got 2",
    ]
    file.write_text("toy=1:1,2:0")
    findings = found(models_dir=folder, split="gone=1:1", split_file=file)
    assert told(findings, "split") == "TORCHLIT_SPLIT_FILE: toy=1:1,2:0"
    file.write_text("toy=1")
    findings = found(models_dir=folder, split_file=file)
    assert "line 1: expected weights such as" in told(findings, "split")


def test_advice_is_that_of_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("my model/1", "empty"):
        (tmp_path / name).mkdir(parents=True)
    save_toy(tmp_path, 1).unlink()
    save_toy(tmp_path, 2).write_bytes(b"")
    path = save_toy(tmp_path, 3)
    check_readable = opening.check_readable

    def refuse(file: Path) -> None:
        if file == path:
            raise ModelError("model.onnx: cannot be read: Permission denied")
        check_readable(file)

    monkeypatch.setattr(opening, "check_readable", refuse)  # root may read all
    advice = {
        each.topic: each.advice for each in found(models_dir=tmp_path) if each.state == "wrong"
    }
    assert advice == {
        "model my model": "rename it, or remove the folder",
        "model empty": "put a model there as empty/1/model.onnx, or remove the folder",
        "model toy/1": f"put a model there as {tmp_path}/toy/1/model.onnx, or remove the folder",
        "model toy/2": f"replace or remove {tmp_path}/toy/2/model.onnx",
        "model toy/3": f"let this user read {path}",
    }
    unreadable = Contents({"toy": Found(None, "toy: cannot be read")}, [])
    monkeypatch.setattr(doctor_models, "scan", lambda *_: unreadable)
    (finding,) = (each for each in found(models_dir=tmp_path) if each.state == "wrong")
    assert (finding.text, finding.advice) == (
        "toy: cannot be read",
        "let this user read the folder",
    )


def test_a_model_that_the_log_warns_of_is_noted(tmp_path: Path) -> None:
    save_classifier(tmp_path, are_margins=True)
    (finding,) = (each for each in found(models_dir=tmp_path) if each.topic == "model kinds/1")
    assert finding.state == "note"
    assert "; output probabilities has no probabilities: a trial saw " in finding.text


def test_a_model_that_cannot_be_measured_is_noted(tmp_path: Path) -> None:
    save_same(tmp_path, ["batch", None])
    (finding,) = (each for each in found(models_dir=tmp_path) if each.topic == "model same/1")
    assert finding.state == "note"
    assert "not measured on cpu, in a thread of its own" in finding.text
    assert "inf" not in finding.text


def test_what_is_approved_is_told(models_dir: Path) -> None:
    said = found(models_dir=models_dir)
    digest = sha256((models_dir / "toy/1/model.onnx").read_bytes()).hexdigest()
    assert told(said, "pins") == "no SHA256SUMS: any file is opened"
    assert f"self-test passed, sha256 {digest}, 64 rows in" in told(said, "model toy/1")
    sums = models_dir / "SHA256SUMS"
    sums.write_text(f"{'0' * 64}  toy/1/model.onnx\n")
    said = found(models_dir=models_dir, pins="required")
    assert told(said, "pins") == f"1 digest in {sums}, TORCHLIT_PINS=required"
    text = f"expected sha256 0000000000000000... as SHA256SUMS says, got {digest[:16]}..."
    assert told(said, "model toy/1").startswith(text)
    assert ("model toy/1", told(said, "model toy/1")) in wrong(said)
    (advice,) = (each.advice for each in said if each.topic == "model toy/1")
    assert advice == "see which files they are: `python -m service pin --check toy/1`"
    sums.write_text(f"{digest}  models/toy/1/model.onnx\n")
    (pins,) = (each for each in found(models_dir=models_dir) if each.topic == "pins")
    assert (pins.state, pins.advice) == ("note", "`python -m service pin` lists all models")
    assert pins.text.endswith("folder of models, got 'models/toy/1/model.onnx'")
    sums.write_text("none")
    trouble, *models = wrong(found(models_dir=models_dir))
    assert trouble[0] == "pins"
    assert "SHA256SUMS: line 1: expected 64" in trouble[1]
    assert not models


def test_digests_of_weights_are_told_too(tmp_path: Path) -> None:
    save(tmp_path, "linear", outside(linear(), tmp_path / "linear/1", w="w.bin"))
    own, weights = (
        sha256((tmp_path / "linear/1" / name).read_bytes()).hexdigest()
        for name in ("model.onnx", "w.bin")
    )
    text = told(found(models_dir=tmp_path), "model linear/1")
    assert f", sha256 {own}, {weights} of w.bin, " in text


def test_a_dear_model_is_told_where_it_would_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_dear(tmp_path, side=600)
    monkeypatch.setattr(resources, "available", lambda: Resources(2, None, None))
    one = told(found(models_dir=tmp_path), "model dear/1")
    two = told(found(models_dir=tmp_path, workers=2), "model dear/1")
    assert one.endswith("in a thread of its own, 2 cores; runs 6 of 6 nodes on cpu")
    assert "in a thread of its own, 1 core; " in two


def test_no_models_folder(tmp_path: Path) -> None:
    ((topic, text),) = wrong(found(models_dir=tmp_path / "absent"))
    assert topic == "models"
    assert text.endswith("absent: expected a folder of models, got: No such file or directory")


def test_memory_for_fewer_workers(models_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "available", lambda: Resources(4, 1.5, 2**28))
    findings = found(models_dir=models_dir, workers=3)
    text = "about 480 MiB are needed for workers: 3, there are 256 MiB"
    assert wrong(findings) == [("machine", text)]
    (advice,) = (each.advice for each in findings if each.state == "wrong")
    assert advice == "give it 480 MiB, or set TORCHLIT_WORKERS=1"
    assert "4 CPUs with a quota of 1.5, memory with a limit of 256 MiB" in told(findings, "machine")
    monkeypatch.setattr(resources, "available", lambda: Resources(4, 1.5, 2**30))
    findings = found(models_dir=models_dir, workers=3)
    assert wrong(findings) == []
    assert "3 workers share the CPUs of 1; TORCHLIT_WORKERS=auto" in told(findings, "machine")
    physical = Resources(8, None, None, 2**27)  # no limit, and not more than that
    monkeypatch.setattr(resources, "available", lambda: physical)
    (finding,) = (each for each in found(models_dir=models_dir) if each.state == "wrong")
    assert finding.text == "about 160 MiB are needed for workers: 1, there are 128 MiB"
    assert finding.advice == "give it 160 MiB"


def test_cuda_that_is_not_here(models_dir: Path) -> None:
    findings = found(models_dir=models_dir, device="cuda")
    ((topic, text),) = wrong(findings)  # once, not for each model
    assert topic == "CUDA"
    assert text.startswith("TORCHLIT_DEVICE is cuda, but ")
    assert "self-test passed" in told(findings, "model toy/1")
    assert wrong(found(models_dir=models_dir)) == []


@pytest.mark.parametrize("system", ["linux", "darwin"])
def test_a_driver_is_told_of_only_where_it_can_be_looked_for(
    models_dir: Path, monkeypatch: pytest.MonkeyPatch, system: str
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(providers, "driver_problem", lambda: "")
    text = told(found(models_dir=models_dir), "CUDA")
    assert ("NVIDIA's driver is here" in text) == (system == "linux")


def test_a_model_that_runs_on_the_cpu_though_cuda_could_be_used(
    models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_models, "why_no_cuda", lambda _: "")
    (advice, *_) = (
        each.advice
        for each in found(models_dir=models_dir, device="cuda")
        if each.topic == "model toy/1"
    )
    assert advice.startswith("CUDA's libraries may be missing")


def test_a_plug_in_that_cannot_be_used_is_told_once(
    models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_plugin(monkeypatch, "onnxruntime_ep_openvino", devices=0)
    findings = found(models_dir=models_dir, provider="openvino")
    ((topic, text),) = wrong(findings)
    assert (topic, text[:38]) == ("provider", "TORCHLIT_PROVIDER is openvino, but onn")
    assert "self-test passed" in told(findings, "model toy/1")


def test_what_falls_back_is_told_of_each_model(
    models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = Gpu(monkeypatch, "WebGpuExecutionProvider")
    gpu.lacks = ["Softmax"]
    install_plugin(monkeypatch)
    findings = found(models_dir=models_dir, provider="webgpu")
    assert told(findings, "provider") == "webgpu can be used"
    assert "; runs 1 of 2 nodes on webgpu, 1 on the CPU: Softmax" in told(findings, "model toy/1")
    assert "of 2 nodes on webgpu, 1" not in told(findings, "model mean/1")
    assert wrong(findings) == []
    refused = found(models_dir=models_dir, provider="webgpu", fallback="refuse")
    ((topic, text),) = wrong(refused)
    assert (topic, text.partition(",")[0]) == ("model toy/1", "TORCHLIT_FALLBACK is refuse")
    assert "set TORCHLIT_FALLBACK=warn to serve it all the same" in [
        each.advice for each in refused
    ]
    gpu.trouble = "Failed to get a WebGPU adapter"
    (first, *_) = wrong(found(models_dir=models_dir, provider="webgpu"))
    assert first[0] == "model mean/1"
    assert first[1].endswith("cannot run on it here: Failed to get a WebGPU adapter")


def test_whether_others_may_call_without_a_key_is_noted(models_dir: Path) -> None:
    findings = found(models_dir=models_dir, host="0.0.0.0")
    assert told(findings, "access") == "no API key: all who reach 0.0.0.0 may call"
    assert "only this machine" in told(found(models_dir=models_dir), "access")


def test_packages_that_are_missing(models_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PACKAGES", ("numpy", "not-there"))
    monkeypatch.setattr(doctor_models, "RUNTIMES", ("numpy", "onnx"))  # two at once
    problems = wrong(found(models_dir=models_dir))
    assert problems[0] == ("packages", "not installed: not-there")
    assert problems[1][0] == "ONNX Runtime"
    assert problems[1][1].endswith("both are installed in the same place")


def test_without_onnx_runtime_all_else_is_told(
    models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [
        each for each in sys.modules if each.startswith(("service.engine.", "onnxruntime"))
    ]:
        monkeypatch.delitem(sys.modules, name)
    names = ("commands.inspect", "catalog.opening", "formats.json_rows")
    for name in (f"service.{each}" for each in names):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    findings = found(models_dir=models_dir)
    assert [topic for topic, _ in wrong(findings)] == [
        "ONNX Runtime",
        "model mean/1",
        "model toy/1",
    ]


def test_telemetry_that_was_switched_on_is_noted(models_dir: Path) -> None:
    environ = environment(models_dir=models_dir, port=0) | {doctor.TELEMETRY: "0"}
    (finding,) = (each for each in scan_all(environ, any_routes) if each.topic == "telemetry")
    assert (finding.state, finding.advice) == ("note", "set ORT_DISABLE_TELEMETRY=1")


@pytest.mark.parametrize(
    ("variables", "state", "text"),
    [
        ({}, "well", "off"),
        ({"OTEL_TRACES_EXPORTER": "none"}, "well", "off"),
        (
            {"OTEL_TRACES_EXPORTER": "zipkin"},
            "wrong",
            "OTEL_TRACES_EXPORTER: expected otlp, console or none, got 'zipkin'",
        ),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://me:secret@collector:4318"},
            "well",
            "spans go to http://collector:4318/v1/traces",
        ),
    ],
)
def test_where_spans_go_is_told(
    models_dir: Path, variables: dict[str, str], state: str, text: str
) -> None:
    if text.startswith("spans go"):
        pytest.importorskip("opentelemetry.exporter.otlp", reason="the extra otel is not here")
    known = environment(models_dir=models_dir, port=0)
    clean = {name: value for name, value in known.items() if not name.startswith("OTEL_")}
    (finding,) = (
        each for each in scan_all(clean | variables, any_routes) if each.topic == "traces"
    )
    assert (finding.state, finding.text) == (state, text)
    assert bool(finding.advice) == (state == "wrong")


@pytest.mark.slow
def test_a_service_that_is_there_is_told_and_not_disturbed(
    models_dir: Path, tmp_path: Path
) -> None:
    cells = tmp_path / "cells"
    protected = {"api_keys": KEY, "protect_health": True}
    with running(models_dir=models_dir, **protected) as service:
        port = service.url.rpartition(":")[2]
        findings = found(models_dir=models_dir, port=port, **protected)
        assert wrong(findings) == []
        assert (
            told(findings, "port") == f"127.0.0.1:{port}: torchlit 0.1.0 serves there and is ready"
        )
        (finding,) = (
            each for each in found(models_dir=models_dir, port=port) if each.topic == "port"
        )
        assert finding.state == "note"
        assert finding.text.endswith("serves there and wants another API key")
        assert service.stop() == 0
    cells.mkdir()
    (cells / "worker-0.cells").write_bytes(b"of a service that runs")
    findings = found(models_dir=models_dir, metrics_dir=cells, workers=2)
    assert told(findings, "counters").startswith(f"{cells} can be written")
    assert (cells / "worker-0.cells").read_bytes() == b"of a service that runs"
    assert os.listdir(cells) == ["worker-0.cells"]


class Other(http.server.BaseHTTPRequestHandler):
    """Answers each request; how, its server says."""

    def do_GET(self) -> None:
        status, content = self.server.answer  # type: ignore[attr-defined]  # set below
        self.send_response(status)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def answering(status: int, content: bytes) -> Iterator[int]:
    """Answer everything with that; yield the port."""
    with http.server.HTTPServer(("127.0.0.1", 0), Other) as server:
        server.answer = status, content  # type: ignore[attr-defined]  # read above
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("status", "content", "text"),
    [
        (200, b"<html>", "is taken by something else, which says 200"),
        (404, b"{}", "is taken by something else, which says 404"),
        (200, b'{"status": "ok", "models": []}', "is taken by something else, which says 200"),
        (200, b'{"status": "ready"}', "is taken by something else, which says 200"),
        (401, b'{"message": "No API key found"}', "is taken by something else, which says 401"),
        (404, b'{"status": "ready", "models": {}}', "something else, which says 404"),
        (503, b'{"status": "draining", "models": {}}', "torchlit is not ready: {"),
    ],
)
def test_whoever_else_has_the_port_is_told(
    models_dir: Path, status: int, content: bytes, text: str
) -> None:
    with answering(status, content) as port:
        ((topic, said),) = wrong(found(models_dir=models_dir, port=port))
    assert topic == "port"
    assert text in said


def test_a_version_is_told_only_if_it_is_ours(models_dir: Path) -> None:
    with answering(200, b'{"status": "ready", "models": {}, "name": "x", "version": "2"}') as port:
        findings = found(models_dir=models_dir, port=port)
    assert told(findings, "port") == f"127.0.0.1:{port}: torchlit serves there and is ready"


def test_a_port_that_says_nothing_or_cannot_be_taken(
    models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "TIMEOUT_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert wrong(found(models_dir=models_dir, port=port)) == [
            ("port", f"127.0.0.1:{port} is taken by something that gives no answer (timed out)")
        ]
    (problem,) = wrong(found(models_dir=models_dir, host="192.0.2.1", port=free_port()))
    assert "192.0.2.1" in problem[1]


@pytest.mark.parametrize("host", ["a..b", "foo bar"])
def test_a_host_that_is_no_name_is_told(models_dir: Path, host: str) -> None:
    findings = found(models_dir=models_dir, host=host, port=1)
    (finding,) = (each for each in findings if each.state == "wrong")
    assert (finding.topic, finding.text.count("cannot listen on")) == ("port", 1)
    assert finding.advice.startswith("set TORCHLIT_HOST to an address of this machine")


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EACCES, "set TORCHLIT_PORT to one from 1024"),
        (errno.EADDRINUSE, "end the program that has it"),
        (errno.EADDRNOTAVAIL, "set TORCHLIT_HOST to an address of this machine"),
    ],
)
def test_why_the_port_cannot_be_taken_has_its_advice(
    models_dir: Path, monkeypatch: pytest.MonkeyPatch, number: int, advice: str
) -> None:
    def refuse(settings: Settings) -> None:
        raise StartupError("no") from OSError(number, os.strerror(number))

    monkeypatch.setattr(doctor, "bind", refuse)
    findings = found(models_dir=models_dir, port=free_port())
    (finding,) = (each for each in findings if each.state == "wrong")
    assert finding.advice.startswith(advice)


def test_a_port_of_the_other_family_is_asked_and_taken(models_dir: Path) -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as other:
        port = other.getsockname()[1]
    findings = found(models_dir=models_dir, host="::1", port=port)
    assert told(findings, "port") == f"::1:{port} is free"


def test_too_few_open_files(models_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (100, 1000))
    findings = found(models_dir=models_dir)
    text = "TORCHLIT_MAX_CONNECTIONS=4096 need 4224, 1000 are allowed"
    assert wrong(findings) == [("open files", text)]
    assert "TORCHLIT_MAX_CONNECTIONS=872" in findings[-2].advice
    assert wrong(found(models_dir=models_dir, max_connections=872)) == []


def test_a_metrics_folder_that_cannot_be_written(
    models_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    for workers in (1, 2):
        folder = tmp_path / "file/x"
        ((topic, text),) = wrong(found(models_dir=models_dir, metrics_dir=folder, workers=workers))
        assert topic == "counters"
        assert text == f"{folder}: cannot be written: Not a directory"
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = told(found(models_dir=models_dir, workers=2), "counters").partition(" ")[0]
    assert folder == str(tmp_path)  # the one that the service takes
    folder = tmp_path / "not/yet"
    text = told(found(models_dir=models_dir, metrics_dir=folder, workers=2), "counters")
    assert text.startswith(f"{folder} can be written")
    assert not (tmp_path / "not").exists()


def test_a_folder_that_may_not_be_looked_into_is_told(
    models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `Path.exists` raises then; root may look into all, so it is played."""

    def refuse(path: Path, **_: object) -> os.stat_result:
        if "locked" in str(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return os.stat(path)

    monkeypatch.setattr(Path, "stat", refuse)
    findings = found(models_dir=models_dir, api_keys_file="/locked/keys", protect_metrics=True)
    assert "TORCHLIT_API_KEYS_FILE=(not shown)" in told(findings, "settings")
    found(models_dir=models_dir, metrics_dir="/locked/cells", workers=2)


def test_the_command_has_json_and_a_status(
    models_dir: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, value in environment(models_dir=models_dir, port=0, drainn_s=1).items():
        monkeypatch.setenv(name, value)
    assert main(["doctor", "--json"]) == 1
    said = json.loads(capfd.readouterr().out)
    assert said["ok"] is False
    assert [each for each in said["findings"] if each["state"] == "wrong"] == [
        {
            "topic": "settings",
            "state": "wrong",
            "text": "TORCHLIT_DRAINN_S: no such setting; did you mean TORCHLIT_DRAIN_S?",
            "advice": "correct or unset TORCHLIT_DRAINN_S",
        }
    ]
    monkeypatch.delenv("TORCHLIT_DRAINN_S")
    assert main(["doctor", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["ok"] is True


def test_settings_by_default_are_told_as_such() -> None:
    assert Settings() == Settings.from_env({})
    finding = next(each for each in scan_all({}, any_routes) if each.topic == "settings")
    assert finding.text == "those by default"
