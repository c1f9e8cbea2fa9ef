"""OpenTelemetry's SDK, as it is opened, and an OTLP receiver that gets what it sends."""

import logging
import os
import threading
from collections.abc import Iterator
from time import perf_counter

import pytest

pytest.importorskip("opentelemetry.sdk.trace", reason="the extra otel is not here")

from service.tracing.opening import open_tracing
from service.tracing.sending import LIBRARY
from tests.service.tracing.test_spans import entry
from tests.support.spans import collecting


@pytest.fixture(autouse=True)
def loud() -> Iterator[None]:
    """What the library logs is in the log again, afterwards."""
    yield
    logging.getLogger(LIBRARY).propagate = True
    logging.getLogger(LIBRARY).handlers.clear()


@pytest.mark.parametrize(("limit", "links"), [(None, 200), ("3", 3)])
def test_a_batch_has_a_link_to_each_of_its_requests_unless_a_limit_is_set(
    limit: str | None, links: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OTEL_SPAN_LINK_COUNT_LIMIT", raising=False)
    if limit is not None:
        monkeypatch.setenv("OTEL_SPAN_LINK_COUNT_LIMIT", limit)
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        tracing = open_tracing(os.environ)
        traces = [tracing.begin("asked", {}, {}) for _ in range(200)]
        now = perf_counter()
        batch = [entry(each) for each in traces]
        for trace in traces:
            assert trace is not None
            trace.note(now, now, 0.5, batch)
            trace.end({}, "", now + 1)
        tracing.close()
        for each in threading.enumerate():
            if each.name == "spans":  # it waits for no longer than FLUSH_S
                each.join()
    (made,) = [each for each in collector.spans if each.name == "batch"]
    assert (len(made.links), made.dropped_links_count) == (links, 200 - links)
