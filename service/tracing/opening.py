"""OpenTelemetry's SDK, as its own variables say: sampler, resource, exporter, propagators."""

import contextlib
import os
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.propagate import get_global_textmap
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter

from service.tracing.environment import CONSOLE, LINKS, destination, exporters
from service.tracing.sending import Sending, hush
from service.tracing.spans import Tracing


def open_tracing(environ: Mapping[str, str]) -> Tracing:
    """Return what traces the requests of this process. Raises what OpenTelemetry does.

    It has threads, which a forked process would lack.
    """
    # The SDK's own end waits for as long as the collector may take, at the end of the process.
    provider = TracerProvider(
        resource=_resource(), span_limits=_limits(environ), shutdown_on_exit=False
    )
    for name in exporters(environ):
        exporter: SpanExporter = ConsoleSpanExporter() if name == CONSOLE else OTLPSpanExporter()
        sending = Sending(exporter, destination(name, environ))
        provider.add_span_processor(BatchSpanProcessor(sending))
    tracing = Tracing(provider, get_global_textmap())
    hush()
    return tracing


def _limits(environ: Mapping[str, str]) -> SpanLimits:
    """Return the SDK's limits, but that a batch may have a link to each of its requests."""
    return SpanLimits(max_links=None if LINKS in environ else SpanLimits.UNSET)


def _resource() -> Resource:
    """Return who sends the spans; what the variables say counts more."""
    ours: dict[str, str | int] = {"service.name": "torchlit", "process.pid": os.getpid()}
    with contextlib.suppress(PackageNotFoundError):  # it runs from a folder
        ours["service.version"] = version("torchlit")
    return Resource.create(Resource(ours).merge(OTELResourceDetector().detect()).attributes)
