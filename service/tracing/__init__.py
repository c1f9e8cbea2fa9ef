"""Traces: what happened to a request, as spans of OpenTelemetry. Only here it is imported.

environment  whether spans are wanted, and what keeps them from being sent; loads nothing
opening      OpenTelemetry's SDK, as its own variables say
sending      a collector that is gone holds nobody up, and is said once
spans        a request that is traced, and the spans that say what happened to it

Nothing of OpenTelemetry is loaded unless `opened` finds that spans are wanted. What traces a
request is handed in at the start, in place of what does not: http/traced.py, grpc/traced.py,
entrance/traced.py.
"""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from service.tracing.environment import destinations, is_wanted, why_not

if TYPE_CHECKING:  # the rest loads OpenTelemetry
    from service.tracing.spans import Tracing

__all__ = ["destinations", "is_wanted", "opened", "why_not"]

logger = logging.getLogger("torchlit.tracing")


def opened(environ: Mapping[str, str]) -> "Tracing | None":
    """Return what traces the requests of this process; None unless that is wanted, and can be.

    environ: that of this process, which OpenTelemetry reads too.
    """
    if not is_wanted(environ) or why_not(environ):
        return None
    try:
        from service.tracing.opening import open_tracing  # some variables are read by the import

        return open_tracing(environ)
    except Exception as error:  # of a variable that the SDK does not take: no reason not to serve
        logger.warning("no traces are sent: %s", error)
        return None
