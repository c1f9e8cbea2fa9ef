"""Calls of gRPC that are traced; in place of what does not trace. Probes are not traced.

Names and attributes: https://opentelemetry.io/docs/specs/semconv/rpc/grpc/ (release candidate).
"""

from collections.abc import Callable
from time import perf_counter

from service.entrance.traced import note_counted
from service.errors import RequestError
from service.grpc import heads
from service.grpc.calls import Calls, Out
from service.grpc.methods import INFER, METHODS, PROBES
from service.grpc.status import CODES, Code
from service.grpc.stream import Stream
from service.grpc.worker import Worker
from service.tracing.spans import ID, Trace, Tracing, with_all_state

_OTHER = "_OTHER"
_STATUS = "rpc.response.status_code"
# To the conventions the others are errors of the caller.
_ERRORS = frozenset({Code.DEADLINE_EXCEEDED, Code.UNIMPLEMENTED, Code.INTERNAL, Code.UNAVAILABLE})


class TracedCalls(Calls):
    """Answers the calls of a connection, and traces those that the sampler wants."""

    def __init__(
        self, tracing: Tracing, worker: Worker, out: Out, has_place: Callable[[], bool]
    ) -> None:
        super().__init__(worker, out, has_place)
        self._tracing = tracing

    def check_head(self, stream: Stream, headers: list[tuple[bytes, bytes]]) -> None:
        """As Calls has it."""
        if stream.path not in PROBES and heads.is_grpc(stream.headers):
            self._begin(stream, headers)
        super().check_head(stream, headers)

    def _begin(self, stream: Stream, headers: list[tuple[bytes, bytes]]) -> None:
        is_known = stream.path == INFER or stream.path in METHODS
        name = stream.path[1:] if is_known else _OTHER
        attributes: dict[str, str | int] = {"rpc.system.name": "grpc", "rpc.method": name}
        if not is_known:
            attributes["rpc.method_original"] = stream.path[1:]
        trace = self._tracing.begin(name, attributes, with_all_state(stream.headers, headers))
        if trace is not None:
            trace.add({ID: stream.request_id.decode()})
            stream.call.timing = trace
            stream.headers = stream.headers | {b"traceparent": trace.traceparent}

    def succeed(self, stream: Stream, parts: list[bytes | memoryview]) -> None:
        """As Calls has it."""
        at = perf_counter()
        super().succeed(stream, parts)
        _end(stream, Code.OK, at)

    def _refuse(self, stream: Stream, told: RequestError) -> None:
        at = perf_counter()
        super()._refuse(stream, told)
        _count(stream, told.outcome)
        _end(stream, CODES[type(told)], at)

    def cancel(self, stream: Stream) -> None:
        """As Calls has it."""
        _count(stream, "cancelled")
        _end(stream, Code.CANCELLED, perf_counter())
        super().cancel(stream)


def _count(stream: Stream, outcome: str) -> None:
    if isinstance(stream.call.timing, Trace):
        note_counted(stream.call.timing, stream.call, outcome)


def _end(stream: Stream, code: Code, at: float) -> None:
    if isinstance(stream.call.timing, Trace):
        error = code.name if code in _ERRORS else ""
        stream.call.timing.end({_STATUS: code.name}, error, at)
