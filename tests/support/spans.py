"""Spans of OpenTelemetry: kept in memory, or sent by OTLP to a collector that keeps them."""

import asyncio
import gzip
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk.trace", reason="the extra otel is not here")
pytest.importorskip("opentelemetry.exporter.otlp", reason="the extra otel is not here")

from opentelemetry.propagate import get_global_textmap
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased

from service.tracing.spans import Tracing
from tests.support.sockets import Listening

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = f"00-{TRACE}-{SPAN}-01"
NOT_SAMPLED = f"00-{TRACE}-{SPAN}-00"


async def until(is_so: Callable[[], object]) -> None:
    """Wait for what the other side does."""
    async with asyncio.timeout(10):
        while not is_so():
            await asyncio.sleep(0.005)


def queued_rows(service: Listening) -> float:
    """Return how many rows of toy wait."""
    return float(service.app.services.metrics.models["toy", "1"]._queue_rows[0])


class Kept:
    """What traces, and the spans that came of it."""

    def __init__(self, *, is_sampling: bool = True) -> None:
        sampler = ParentBased(ALWAYS_ON if is_sampling else ALWAYS_OFF)
        provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        self._exporter = InMemorySpanExporter()
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracing = Tracing(provider, get_global_textmap())

    def all(self) -> Sequence[ReadableSpan]:
        return self._exporter.get_finished_spans()

    def clear(self) -> None:
        self._exporter.clear()

    def servers(self) -> list[ReadableSpan]:
        """Return the spans of requests, in the order in which they ended."""
        return [each for each in self.all() if each.kind.name == "SERVER"]

    def below(self, server: ReadableSpan) -> dict[str, ReadableSpan]:
        """Return the children of a span, by name, in the order of their times."""
        found = [each for each in self.all() if each.parent == server.context]
        return {each.name: each for each in sorted(found, key=lambda each: each.start_time or 0)}


class Collector:
    """An OTLP receiver over HTTP, on a port of its own."""

    def __init__(self) -> None:
        self.spans: list[Any] = []  # of OTLP
        self.resources: list[dict[str, Any]] = []  # of each request
        self.headers: list[dict[str, str]] = []
        self.status = 200
        self._lock = threading.Lock()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                if collector.status == 200:
                    collector.take(body, {k.lower(): v for k, v in self.headers.items()})
                self.send_response(collector.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Be quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def take(self, body: bytes, headers: dict[str, str]) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        with self._lock:
            self.headers.append(headers)
            for each in request.resource_spans:
                self.resources.append(attributes(each.resource))
                for scope in each.scope_spans:
                    self.spans += scope.spans

    def servers(self) -> list[Any]:
        return [each for each in self.spans if each.kind == each.SPAN_KIND_SERVER]

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@contextmanager
def collecting() -> Iterator[Collector]:
    collector = Collector()
    try:
        yield collector
    finally:
        collector.close()


def attributes(message: Any) -> dict[str, Any]:
    """Return the attributes of a message of OTLP."""
    return {
        each.key: getattr(each.value, each.value.WhichOneof("value")) for each in message.attributes
    }
