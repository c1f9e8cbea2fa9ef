#!/usr/bin/env bash
# opentelemetry-sdk 1.45.2 with opentelemetry-exporter-otlp-proto-http 1.45.2 (Linux, Python 3.11)
#
# TracerProvider.force_flush(timeout_millis) of a BatchSpanProcessor does not keep to its time: where a
# collector accepts the connection and answers nothing, it returns when the exporter has given up on all
# spans that wait. OTEL_EXPORTER_OTLP_TIMEOUT, which bounds one try, is read in seconds; the
# specification of OpenTelemetry has it in milliseconds, so its usual value of 10000 is almost three hours.
#
# Expected: force_flush(100) returns after a tenth of a second, and with OTEL_EXPORTER_OTLP_TIMEOUT=2 all
# tries are over after some milliseconds.
# Seen: with 1,200 spans, which are three batches, and that timeout it took 6.0 s: 2 s for each.
#
# Who is hurt: a server that flushes at its end: its supervisor kills it before the time is over, and
# what stood behind the flush is never done.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
    opentelemetry-sdk==1.45.2 opentelemetry-exporter-otlp-proto-http==1.45.2
cd "$work"

OTEL_EXPORTER_OTLP_TIMEOUT=2 "$work/venv/bin/python" - <<'PY'
import socket
import time

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

with socket.create_server(("127.0.0.1", 0)) as silent:
    endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}/v1/traces"
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    tracer = provider.get_tracer("finding")
    for _ in range(1200):
        tracer.start_span("work").end()
    start = time.monotonic()
    provider.force_flush(100)
    took = time.monotonic() - start
print(f"force_flush(100) took {took:.1f} s")
assert took > 1.5
PY
