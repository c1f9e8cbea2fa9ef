"""Clients that generators write of the OpenAPI document: they predict and infer."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import Process
from tests.system.programs.asked import ROWS, check_outputs, check_predictions
from tests.system.programs.programs import PYTHON, run

pytestmark = pytest.mark.programs

HERE = Path(__file__).parent
# What openapi-python-client knows not: these bodies, and images without a schema.
PASSED_OVER = {"Unsupported content type", "Missing schema", "Cannot parse response"}


@pytest.fixture
def document(service: Process, tmp_path: Path) -> Path:
    path = tmp_path / "openapi.json"
    path.write_bytes(service.get("/schema/openapi.json").content)
    return path


def check_calls(by: str, url: str, written: Path) -> str:
    """Let a program call a service by a client in a folder; return the sentence of a refusal."""
    rows = json.dumps(ROWS.tolist()).encode()
    printed = run(PYTHON, HERE / by, url, stdin=rows, PYTHONPATH=str(written))
    said: dict[str, Any] = json.loads(printed)
    assert len(said["predict"]) == len(said["infer"]) == 3
    for reply in said["predict"]:
        check_predictions(reply)
    for reply in said["infer"]:
        check_outputs(reply)
    refused: str = said["refused"]
    return refused


def test_openapi_python_client(service: Process, document: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.yml"
    config.write_text("post_hooks: []\n")  # it would format what it wrote
    places = ["--path", document, "--output-path", tmp_path / "written", "--config", config]
    printed = run("openapi-python-client", "generate", "--meta", "none", *places).decode()
    warnings = re.findall(r"^WARNING parsing .*\n\n(\w+ \w+ \w*)", printed, re.M)
    assert {each.strip() for each in warnings} <= PASSED_OVER
    assert "schema /components" not in printed  # that could not be read
    refused = check_calls("by_python_client.py", service.url, tmp_path)
    assert refused.startswith("instances[0]: expected a list of 4 numbers or an object of a, b, c")


def test_openapi_generator(service: Process, document: Path, tmp_path: Path) -> None:
    written = ["-o", tmp_path, "--package-name", "written"]
    run("openapi-generator-cli", "generate", "-g", "python", "-i", document, *written)
    refused = check_calls("by_openapi_generator.py", service.url, tmp_path)
    assert "inputs" in refused
