"""Requests that Schemathesis makes of the service's own document, and replies held against it.

Each status, content type, header and body is to be as the document says; what fits is to be
answered, and what does not fit is to be refused. schemathesis.toml says what is checked, fitting.py
what the document cannot say.
"""

import re
from pathlib import Path

import httpx
import pytest
from onnx import TensorProto

from tests.support.clients import counted
from tests.support.processes import running, schemathesis
from tests.support.toys import save_bounded, save_mean, save_pictured, save_same, save_sum

PREDICT_ROUTE = "/v1/endpoints/1/deployedModels/2:predict"  # as fitting.py knows it
HEALTH_ROUTE = "/v1/endpoints/1/deployedModels/2"
HERE = Path(__file__).parent
ROOT = HERE.parents[3]


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    """Models of named features, of two inputs, and of whole numbers without a card."""
    folder = tmp_path / "models"
    save_pictured(folder)
    save_sum(folder)
    save_same(folder, ["batch", 2], TensorProto.INT64)
    return folder


def conforms(url: str, *options: str) -> int:
    """Let Schemathesis ask the service; return how many requests that were. Fail on findings."""
    config = ["--config-file", str(HERE / "schemathesis.toml")]
    printed = schemathesis(ROOT, *config, "run", url + "/schema/openapi.json", *options)
    found = re.search(r"^ +(\d+) generated, \1 passed$", printed, re.M)
    assert found is not None, printed
    return int(found[1])


def answered(url: str, model: str) -> float:
    """Return how many requests a model has answered with 200."""
    metrics = httpx.get(url + "/metrics").text
    return counted(metrics, "torchlit_requests_total", f'model="{model}",outcome="ok"')


@pytest.mark.slow
def test_the_service_is_as_its_document_says(models_dir: Path) -> None:
    with running(models_dir=models_dir) as service:
        assert conforms(service.url, "--phases=examples,coverage") > 1000
        for model in ("toy", "sum", "same"):
            assert answered(service.url, model) > 10


@pytest.mark.slow
@pytest.mark.parametrize("phases", ["examples,coverage", "fuzzing"])
def test_what_platforms_ask_is_as_its_document_says(models_dir: Path, phases: str) -> None:
    save_mean(models_dir)
    routes = {"predict_route": PREDICT_ROUTE, "health_route": HEALTH_ROUTE}
    with running(models_dir=models_dir, default_model="toy", **routes) as service:
        only = "--include-path-regex=^/(invocations|ping|execution-parameters|v1/|predict$)"
        assert conforms(service.url, f"--phases={phases}", "--max-examples=200", only) > 200
        for model in ("toy", "mean"):
            assert answered(service.url, model) > 10


@pytest.mark.slow
def test_the_service_is_as_its_document_says_for_long(models_dir: Path) -> None:
    save_mean(models_dir)
    save_bounded(models_dir)
    with running(models_dir=models_dir) as service:
        phases = "--phases=examples,coverage,fuzzing,stateful"
        assert conforms(service.url, phases, "--max-examples=60") > 3000
        for model in ("toy", "sum", "same", "mean", "bounded"):
            assert answered(service.url, model) > 30


@pytest.mark.slow
def test_models_that_come_and_go_are_as_the_document_says(models_dir: Path) -> None:
    with running(models_dir=models_dir, model_control="true") as service:
        only = "--include-path-regex=^/(v2/(repository|health|models$)|models|health|metrics)"
        phases = "--phases=coverage,fuzzing,stateful"
        assert conforms(service.url, phases, "--max-examples=100", only) > 500
