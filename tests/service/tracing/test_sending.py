"""What the log says when nobody takes spans."""

import logging
import socket
from collections.abc import Sequence

import pytest

pytest.importorskip("opentelemetry.sdk.trace", reason="the extra otel is not here")

import requests
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from service.tracing import sending
from service.tracing.sending import Heard, Sending
from tests.support.spans import Kept

LOST = "spans are lost until http://x takes them, and requests are answered as before: "


class Refusing(SpanExporter):
    """An exporter that logs as OpenTelemetry's does, until it takes spans."""

    def __init__(self, *said: object) -> None:
        self.takes = False
        self._said = said

    def export(self, spans: object) -> SpanExportResult:
        if self.takes:
            return SpanExportResult.SUCCESS
        said, *args = self._said
        record = logging.LogRecord("x", logging.ERROR, "", 0, str(said), tuple(args), None)
        sending.HEARD.emit(record)
        return SpanExportResult.FAILURE


def spans() -> Sequence[ReadableSpan]:
    kept = Kept()
    trace = kept.tracing.begin("x", {}, {})
    assert trace is not None
    trace.end({}, "", 1e9)
    return kept.all()


def refused_url() -> str:
    with socket.socket() as closed:  # it does not listen
        closed.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{closed.getsockname()[1]}/v1/traces"


def test_spans_that_are_lost_are_one_line_and_that_it_is_over_another(
    caplog: pytest.LogCaptureFixture,
) -> None:
    kept, refusing = spans(), Refusing("refused")
    sender = Sending(refusing, "http://x")
    for refusing.takes in (True, False, False, True, True):
        sender.export(kept)
    assert caplog.messages == [LOST + "refused", "http://x takes spans again; 4 were lost"]


def test_the_reason_is_what_stands_at_the_bottom(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(requests.ConnectionError) as raised:
        requests.post(refused_url(), timeout=9)
    transient = "Transient error %s encountered while exporting %s batch, retrying in %.2fs."
    failed = "Failed to export %s batch code: %s, reason: %s"
    for logged, reason in (
        ((transient, raised.value, "spans", 1.0), "[Errno 111] Connection refused"),
        ((transient, "Service Unavailable", "spans", 1.0), "Service Unavailable"),
        (
            (failed, "spans", 404, "Not Found"),
            "Failed to export spans batch code: 404, reason: Not",
        ),
    ):
        caplog.clear()
        Sending(Refusing(*logged), "http://x").export(spans())
        (said,) = caplog.messages
        assert said.startswith(LOST + reason)


def test_a_collector_that_is_gone_is_told_however_short_the_timeout(
    caplog: pytest.LogCaptureFixture,
) -> None:
    exporter = OTLPSpanExporter(refused_url(), timeout=0.5)  # shorter than until the next try
    logging.getLogger("opentelemetry").addHandler(sending.HEARD)
    try:
        Sending(exporter, "http://x").export(spans())
    finally:
        logging.getLogger("opentelemetry").removeHandler(sending.HEARD)
    (said,) = [each for each in caplog.messages if each.startswith("spans are lost")]
    assert said == LOST + "Failed to export spans batch due to timeout, max retries or shutdown."


def test_an_exporter_that_raises_loses_spans_too(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(SpanExporter):
        def export(self, _: object) -> SpanExportResult:
            raise BrokenPipeError

    assert Sending(Broken(), "http://x").export(spans()) is SpanExportResult.FAILURE
    assert caplog.messages == [LOST + "BrokenPipeError"]


def test_a_full_queue_is_one_line_unless_spans_are_lost_anyway(
    caplog: pytest.LogCaptureFixture,
) -> None:
    full = logging.LogRecord("x", logging.WARNING, "", 0, "Queue full, dropping Span.", (), None)
    heard = Heard()
    heard.is_losing = True
    heard.handle(full)
    assert not caplog.messages
    heard.is_losing = False
    heard.handle(full)
    heard.handle(full)
    assert caplog.messages == ["spans come faster than they are taken: the oldest are lost"]
