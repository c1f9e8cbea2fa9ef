"""One trace, as those who answer a request note it."""

from collections import Counter
from time import perf_counter

import numpy as np
import pytest

pytest.importorskip("opentelemetry.sdk.trace", reason="the extra otel is not here")

from service.batching import Entry, Timing
from service.tracing.spans import MOST_RUNS, Trace
from tests.support.spans import NOT_SAMPLED, SAMPLED, Kept


def begun(kept: Kept) -> Trace:
    trace = kept.tracing.begin("asked", {}, {})
    assert trace is not None
    return trace


def entry(timing: Timing | None, size: int = 1) -> Entry:
    waiter: object = None
    return Entry([np.zeros((size, 1))], size, None, waiter, 1e9, timing)  # type: ignore[arg-type]


def test_rows_that_run_after_their_caller_left_are_shown_all_the_same() -> None:
    kept = Kept()
    trace = begun(kept)
    now = perf_counter()
    trace.handed_over(1)
    trace.counted("toy", 1, "cancelled")
    trace.end({}, "cancelled", now + 1)
    batch = [entry(trace), entry(None, 3), entry(Timing())]
    trace.note(now, now + 0.5, 2.0, batch)
    (server,) = kept.servers()
    children = kept.below(server)
    assert sorted(children) == ["batch", "compute", "queue", "receive"]
    numbers = {"torchlit.batch.rows": 5, "torchlit.batch.requests": 3}
    assert children["batch"].attributes == children["compute"].attributes == numbers
    assert [each.context for each in children["batch"].links] == [server.context]


def test_the_first_end_counts_and_rows_run_one_by_one_are_not_too_many_spans() -> None:
    kept = Kept()
    trace = begun(kept)
    now = perf_counter()
    for n in range(MOST_RUNS + 5):
        trace.note(now + n, now + n, 0.5, ())
    trace.counted(None, None, "ok")
    trace.end({}, "", now + 100)
    trace.end({}, "failed", now + 200)
    (server,) = kept.servers()
    assert (server.attributes or {})["torchlit.batches"] == MOST_RUNS + 5
    assert len(kept.all()) == MOST_RUNS + 3  # and receive, and encode
    encode = kept.below(server)["encode"]
    assert encode.start_time == trace.scale.ns(now + MOST_RUNS + 4.5)  # when the last had run


def test_rows_whose_caller_left_are_not_too_many_spans_either() -> None:
    kept = Kept()
    trace = begun(kept)
    now = perf_counter()
    trace.end({}, "cancelled", now)
    for n in range(MOST_RUNS + 5):
        trace.note(now, now + n, 0.5, [entry(trace)])
    names = Counter(each.name for each in kept.all())
    assert (names["batch"], names["compute"]) == (MOST_RUNS, MOST_RUNS)


def test_headers_that_are_no_trace_begin_a_new_one() -> None:
    kept = Kept()
    wrong = [b"", b"00-x", SAMPLED.encode()[:-1], b"ff" + SAMPLED.encode()[2:], b"\xff" * 99]
    for each in wrong:
        headers = {b"traceparent": each, b"tracestate": b"\xff=,;" * 99, b"baggage": b"=;,\xff"}
        trace = kept.tracing.begin("asked", {}, headers)
        assert trace is not None
        trace.end({}, "", perf_counter())
    assert [each.parent for each in kept.servers()] == [None] * len(wrong)
    assert kept.tracing.begin("asked", {}, {b"traceparent": NOT_SAMPLED.encode()}) is None
