"""When spans are wanted, and what keeps them from being sent."""

import logging
import os
import subprocess
import sys
from importlib import metadata

import pytest

from service import tracing
from service.tracing import is_wanted, why_not
from service.tracing.environment import ENDPOINTS, EXPORTER, destinations

INSTALLED = pytest.mark.skipif(
    not [*metadata.distributions(name="opentelemetry-exporter-otlp-proto-http")],
    reason="the extra otel is not here",
)
ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "mine", "OTEL_TRACES_SAMPLER": "always_on"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, False),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://collector:4318"}, False),
        (ENDPOINT, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "Console"}, True),
        (ENDPOINT | {"OTEL_TRACES_EXPORTER": "none"}, False),
        (ENDPOINT | {"OTEL_SDK_DISABLED": "TRUE"}, False),
        (ENDPOINT | {"OTEL_SDK_DISABLED": "no"}, True),
    ],
)
def test_spans_are_wanted_where_it_is_said_where_they_go(
    environ: dict[str, str], wanted: bool
) -> None:
    assert is_wanted(environ) == wanted


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        (
            {"OTEL_TRACES_EXPORTER": "otlp,zipkin"},
            "OTEL_TRACES_EXPORTER: expected otlp, console or none, got 'zipkin'",
        ),
        (
            ENDPOINT | {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "OTEL_EXPORTER_OTLP_PROTOCOL: expected http/protobuf, got 'grpc'",
        ),
        pytest.param(
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "me:secret@collector:4318"},
            "OTEL_EXPORTER_OTLP_ENDPOINT: expected http://HOST:PORT or https://HOST:PORT, got "
            "'collector:4318'",
            marks=INSTALLED,
        ),
        pytest.param(
            ENDPOINT | {"OTEL_PROPAGATORS": "tracecontext, b4"},
            "OTEL_PROPAGATORS: expected baggage or tracecontext, got 'b4'",
            marks=INSTALLED,
        ),
        pytest.param(
            ENDPOINT | {"OTEL_BSP_MAX_QUEUE_SIZE": "10"},
            "OTEL_BSP_MAX_QUEUE_SIZE: expected at least OTEL_BSP_MAX_EXPORT_BATCH_SIZE (512), "
            "got 10",
            marks=INSTALLED,
        ),
        pytest.param(
            ENDPOINT | {"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "4096"},
            "OTEL_BSP_MAX_QUEUE_SIZE: expected at least OTEL_BSP_MAX_EXPORT_BATCH_SIZE (4096), "
            "got 2048",
            marks=INSTALLED,
        ),
    ],
)
def test_what_cannot_be_done_is_said(environ: dict[str, str], sentence: str) -> None:
    assert why_not(environ) == sentence
    assert tracing.opened(environ) is None


@pytest.mark.parametrize(
    ("environ", "where"),
    [
        ({}, "http://localhost:4318/v1/traces"),
        (ENDPOINT, "http://collector:4318/v1/traces"),
        (ENDPOINT | {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://b/x"}, "https://b/x"),
        (
            {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://me:secret@b:1/x?key=secret"},
            "https://b:1/x",
        ),
        (ENDPOINT | {"OTEL_TRACES_EXPORTER": "console"}, "the console"),
        (
            ENDPOINT | {"OTEL_TRACES_EXPORTER": "console,otlp"},
            "the console, http://collector:4318/v1/traces",
        ),
    ],
)
def test_where_they_go_is_said_without_secrets(environ: dict[str, str], where: str) -> None:
    assert destinations(environ) == where


@INSTALLED
def test_they_go_where_the_library_sends_them(monkeypatch: pytest.MonkeyPatch) -> None:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    for each in (*ENDPOINTS, EXPORTER):
        monkeypatch.delenv(each, raising=False)
    assert destinations({}) == OTLPSpanExporter()._endpoint
    for each in ("http://collector:1/", "http://collector:1/a"):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", each)
        assert destinations(os.environ) == OTLPSpanExporter()._endpoint


@INSTALLED
@pytest.mark.parametrize(
    "more",
    [
        {"OTEL_PROPAGATORS": ""},
        {"OTEL_PROPAGATORS": "baggage, None, b4"},  # it reads no further
        {"OTEL_PROPAGATORS": "baggage,tracecontext"},
        {"OTEL_BSP_MAX_QUEUE_SIZE": "512"},
        {"OTEL_BSP_MAX_QUEUE_SIZE": "many"},  # the library takes its default
    ],
)
def test_what_can_be_done_is_not_refused(more: dict[str, str]) -> None:
    assert why_not(ENDPOINT | more) == ""


def test_the_extra_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", missing)
    assert why_not(ENDPOINT) == (
        "OTEL_EXPORTER_OTLP_ENDPOINT is set, and the extra otel is not installed: "
        "pip install opentelemetry-sdk opentelemetry-exporter-otlp-proto-http"
    )
    assert tracing.opened(ENDPOINT) is None


@INSTALLED
def test_what_the_library_does_not_take_is_no_reason_not_to_serve(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from service.tracing import opening

    def refused(*_: object, **__: object) -> None:
        raise ValueError("max_queue_size must be a positive integer.")

    monkeypatch.setattr(opening, "TracerProvider", refused)
    with caplog.at_level(logging.WARNING):
        assert tracing.opened(ENDPOINT) is None
    assert caplog.messages == ["no traces are sent: max_queue_size must be a positive integer."]


@INSTALLED
def test_so_is_what_the_library_reads_when_it_is_imported() -> None:
    variable = "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT"
    program = "import os; from service.tracing import opened; print(opened(os.environ))"
    environ = os.environ | ENDPOINT | {variable: "many"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environ, capture_output=True, text=True
    )
    assert done.stdout == "None\n"
    assert done.stderr == (
        f"no traces are sent: {variable} must be a non-negative integer but got many\n"
    )
