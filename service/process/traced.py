"""What a worker answers with: what traces requests, where that is wanted."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from litestar.types import ASGIApp

from service.http.app import App
from service.http.direct import Direct
from service.inference import Inference

if TYPE_CHECKING:  # it loads OpenTelemetry
    from service.tracing.spans import Tracing

MaybeTracing: TypeAlias = "Tracing | None"


def inference_of(tracing: MaybeTracing) -> type[Inference]:
    """Return what is the door to the models."""
    if tracing is None:
        return Inference
    from service.entrance.traced import TracedInference

    return TracedInference


def ways_of(app: App, tracing: MaybeTracing) -> tuple[ASGIApp, Direct]:
    """Return the two ways that requests of HTTP can go."""
    if tracing is None:
        return app, Direct(app)
    from service.http.traced import TracedApp, TracedDirect

    return TracedApp(app, tracing), TracedDirect(app, tracing)


def calls_of(tracing: MaybeTracing) -> Callable[..., Any]:
    """Return what makes the Calls of a connection; it loads gRPC."""
    from service.grpc.calls import Calls

    if tracing is None:
        return Calls
    from service.grpc.traced import TracedCalls

    return partial(TracedCalls, tracing)
