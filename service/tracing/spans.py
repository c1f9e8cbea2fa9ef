"""A request that is traced: what happened to it, when, and the spans that say so.

    POST /predict/{model}     the server's span, as the protocol's own conventions name it
      receive                 until its rows are handed over
      queue                   until their batch begins; none of rows that run where they stand
      batch                   one for all whose rows ran together, with a link to each of them
      compute                 with a link to that batch
      encode                  until its reply is written

While it is answered only the times are noted. The spans are made when that is done: each takes
OpenTelemetry 17 us. What a sampler does not want is not noted either.
"""

import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from time import perf_counter, time_ns
from typing import TypeAlias

from msgspec import Struct
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import Getter, TextMapPropagator
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import (
    Link,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    set_span_in_context,
)

from service.batching import Entry, Timing
from service.tracing.sending import HEARD

logger = logging.getLogger("torchlit.tracing")

FLUSH_S = 1.5  # at the end, for what waits to be sent
MOST_RUNS = 64  # that a request has spans of: rows that differ in shape run one by one

Headers: TypeAlias = Mapping[bytes, bytes]
Attributes: TypeAlias = Mapping[str, str | int]

MODEL, VERSION = "torchlit.model.name", "torchlit.model.version"
ROWS, OUTCOME, ID = "torchlit.rows", "torchlit.outcome", "torchlit.request.id"
BATCHES = "torchlit.batches"
BATCH_ROWS, BATCH_REQUESTS = "torchlit.batch.rows", "torchlit.batch.requests"
ERROR = "error.type"
TRACESTATE = b"tracestate"


def with_all_state(
    headers: dict[bytes, bytes], pairs: Iterable[tuple[bytes, bytes]]
) -> dict[bytes, bytes]:
    """Return headers with the whole of `tracestate`, of which the pairs may have several.

    https://www.w3.org/TR/trace-context/, section 3.3.1.
    """
    if TRACESTATE not in headers:
        return headers
    return headers | {TRACESTATE: b",".join(each for name, each in pairs if name == TRACESTATE)}


class HeaderGetter(Getter[Headers]):
    """Reads headers for OpenTelemetry."""

    def get(self, carrier: Headers, key: str) -> list[str] | None:
        """Return the values of a header."""
        value = carrier.get(key.lower().encode("latin-1"))
        return None if value is None else [value.decode("latin-1")]

    def keys(self, carrier: Headers) -> list[str]:
        """Return the names of all."""
        return [each.decode("latin-1") for each in carrier]


_GETTER = HeaderGetter()
_NONE = Context()


class Tracing:
    """Begins the traces of a process, and sends their spans."""

    def __init__(self, provider: TracerProvider, propagator: TextMapPropagator) -> None:
        self._provider = provider
        self.tracer = provider.get_tracer("torchlit")
        self._propagator = propagator
        self._fields = frozenset(each.lower().encode() for each in propagator.fields)

    def begin(self, name: str, attributes: Attributes, headers: Headers) -> "Trace | None":
        """Begin with a request; None if the sampler does not want it."""
        context = _NONE
        if not self._fields.isdisjoint(headers):
            context = self._propagator.extract(headers, _NONE, _GETTER)
        start, start_ns = perf_counter(), time_ns()
        span = self.tracer.start_span(
            name, context, SpanKind.SERVER, attributes, start_time=start_ns
        )
        return Trace(self, span, start, start_ns) if span.is_recording() else None

    def close(self) -> None:
        """Send what waits, for as long as FLUSH_S."""
        # The SDK waits for 30 s, whatever its variables say.
        ending = threading.Thread(target=self._provider.shutdown, name="spans", daemon=True)
        ending.start()
        ending.join(FLUSH_S)
        if ending.is_alive() and not HEARD.is_losing:
            logger.warning("spans are lost that nobody took within %g s", FLUSH_S)


class Run(Struct, frozen=True):
    """Rows that ran; times in seconds by `perf_counter`."""

    since: float
    start: float
    seconds: float
    batch: "Batch | None"  # None: where their caller stood


class Batch:
    """Rows of several requests that ran together; its span is made when one of them needs it."""

    __slots__ = ("_first", "_links", "_made", "_numbers", "_seconds", "start")

    def __init__(
        self, traces: Sequence["Trace"], numbers: Attributes, start: float, seconds: float
    ) -> None:
        """numbers: what is known of it."""
        self._first = traces[0].scale
        self._links = [Link(each.context) for each in traces]
        self._numbers = numbers
        self.start = start
        self._seconds = seconds
        self._made: SpanContext | None = None

    @property
    def numbers(self) -> Attributes:
        """What is known of it."""
        return self._numbers

    def link(self) -> Link:
        """Return a link to its span, which stands in the trace of the first request in it."""
        if self._made is None:
            end = self.start + self._seconds
            self._made = self._first.span("batch", self.start, end, self._numbers, self._links)
        return Link(self._made)


class Scale:
    """Where the spans of a trace stand: below the server's, at times of the day."""

    __slots__ = ("_parent", "_tracing", "_zero_ns")

    def __init__(self, tracing: Tracing, span: Span, start: float, start_ns: int) -> None:
        """The same instant by perf_counter, and in ns since 1970."""
        self._tracing = tracing
        self._parent = set_span_in_context(span, _NONE)
        self._zero_ns = start_ns - int(start * 1e9)

    def ns(self, seconds: float) -> int:
        """Return a time of `perf_counter` in ns since 1970."""
        return self._zero_ns + int(seconds * 1e9)

    def span(
        self,
        name: str,
        start: float,
        end: float,
        attributes: Attributes | None = None,
        links: Sequence[Link] = (),
    ) -> SpanContext:
        """Make a span that is over; return what others link to."""
        made = self._tracing.tracer.start_span(
            name, self._parent, attributes=attributes, links=links, start_time=self.ns(start)
        )
        made.end(self.ns(end))
        return made.get_span_context()


class Trace(Timing):
    """What happens to a request, noted by all who answer it, until its `end`.

    Rows whose caller has left run nevertheless: that is shown when they have.
    """

    __slots__ = (
        *("_attributes", "_batch", "_batches", "_computed", "_ended", "_has_waited", "_received"),
        *("_runs", "_span", "_start", "context", "ends_when_cancelled", "scale"),
    )

    def __init__(self, tracing: Tracing, span: Span, start: float, start_ns: int) -> None:
        super().__init__()
        self._span = span
        self._start = start
        self.context = span.get_span_context()
        self.scale = Scale(tracing, span, start, start_ns)
        self._attributes: dict[str, str | int] = {}
        self._received: float | None = None
        self._runs: list[Run] = []
        self._batch: Batch | None = None  # the last
        self._batches = 0
        self._computed = 0.0  # when the last of them was
        self._has_waited = False  # whether there is a span of it
        self._ended: float | None = None
        # Whether being counted as cancelled is the last that happens to it.
        self.ends_when_cancelled = False

    @property
    def traceparent(self) -> bytes:
        """The server's span, as W3C's header says it."""
        it = self.context
        return b"00-%032x-%016x-%02x" % (it.trace_id, it.span_id, it.trace_flags)

    def add(self, attributes: Attributes) -> None:
        """Note what more is known of it."""
        self._attributes |= attributes

    def handed_over(self, rows: int) -> None:
        """Note that so many rows are read."""
        if self._received is None:  # not yet for all of them, or a part
            self._received = perf_counter()
            self._attributes[ROWS] = rows

    def note(self, since: float, start: float, seconds: float, batch: Sequence[Entry]) -> None:
        """Note a batch that held rows of it."""
        super().note(since, start, seconds, batch)
        self._computed = start + seconds
        self._batches += 1
        if self._batches > MOST_RUNS:
            return
        if batch and (self._batch is None or self._batch.start != start):
            traces = [each.timing for each in batch if isinstance(each.timing, Trace)]
            numbers = {BATCH_ROWS: sum(each.size for each in batch), BATCH_REQUESTS: len(batch)}
            shared = Batch(traces, numbers, start, seconds)
            for each in traces:
                each._batch = shared
        run = Run(since, start, seconds, self._batch if batch else None)
        if self._ended is not None:
            self._show(run)
        else:
            self._runs.append(run)

    def dropped(self, since: float) -> None:
        """Note that rows waited for nothing."""
        if not self._has_waited:
            self._has_waited = True
            self.scale.span("queue", since, self._ended or perf_counter())

    def counted(self, model: str | None, version: int | None, outcome: str) -> None:
        """Note how it is counted, and for which model, if one is known."""
        if model is not None and version is not None:
            self._attributes |= {MODEL: model, VERSION: str(version)}
        self._attributes[OUTCOME] = outcome
        if outcome == "cancelled" and self.ends_when_cancelled:
            self.end({}, outcome, perf_counter())

    @property
    def outcome(self) -> str:
        """How it was counted; nothing if it was not."""
        return str(self._attributes.get(OUTCOME, ""))

    def end(self, attributes: Attributes, error: str, at: float) -> None:
        """Note what the protocol says of its end, and when that was; make the spans.

        error: of which kind, if it is one to the protocol's conventions. The first end counts.
        """
        if self._ended is not None:
            return
        self._ended = at
        self.scale.span("receive", self._start, at if self._received is None else self._received)
        for run in self._runs:
            self._show(run)
        if self._runs and self.outcome == "ok":
            self.scale.span("encode", min(at, self._computed), at)
        self._runs.clear()
        if self._batches > 1:
            self._attributes[BATCHES] = self._batches
        self._span.set_attributes({**self._attributes, **attributes})
        if error:
            self._span.set_attribute(ERROR, error)
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end(self.scale.ns(at))

    def _show(self, run: Run) -> None:
        if run.batch is None:
            self.scale.span("compute", run.start, run.start + run.seconds)
            return
        if not self._has_waited:
            self._has_waited = True
            self.scale.span("queue", run.since, run.start)
        link, end = run.batch.link(), run.start + run.seconds
        self.scale.span("compute", run.start, end, run.batch.numbers, [link])
