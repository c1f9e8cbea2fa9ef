"""What the log says when nobody takes spans."""

import logging

import pytest

pytest.importorskip("opentelemetry.sdk.trace", reason="the extra otel is not here")

from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from service.tracing import sending
from service.tracing.sending import Heard, Sending
from tests.support.spans import Kept


class Refusing(SpanExporter):
    """An exporter that logs as OpenTelemetry's does, until it takes spans."""

    def __init__(self) -> None:
        self.takes = False

    def export(self, spans: object) -> SpanExportResult:
        if self.takes:
            return SpanExportResult.SUCCESS
        record = logging.LogRecord("opentelemetry.x", logging.ERROR, "", 0, "refused", (), None)
        sending.HEARD.emit(record)
        return SpanExportResult.FAILURE


def test_spans_that_are_lost_are_one_line_and_that_it_is_over_another(
    caplog: pytest.LogCaptureFixture,
) -> None:
    kept, refusing = Kept(), Refusing()
    trace = kept.tracing.begin("x", {}, {})
    assert trace is not None
    trace.end({}, "", 1e9)
    sender = Sending(refusing)
    for refusing.takes in (True, False, False, True, True):
        sender.export(kept.all())
    assert caplog.messages == [
        "spans are lost until somebody takes them: refused",
        "spans are taken again; 4 were lost",
    ]


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
