"""A collector that takes no spans: said once, and that it takes them again.

OpenTelemetry sends spans in a thread, from a queue that drops the oldest when it is full. It logs
each try that failed, and each span that was dropped.
"""

import logging
import re
from collections.abc import Sequence
from time import monotonic

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

logger = logging.getLogger("torchlit.tracing")

LIBRARY = "opentelemetry"
FULL = "Queue full"  # begins what BatchProcessor logs then
FULL_EVERY_S = 60.0
# What OTLPSpanExporter logs before it tries once more: that is no reason.
TRANSIENT = re.compile(r"Transient error (.*) encountered while exporting .*", re.DOTALL)


class Sending(SpanExporter):
    """An exporter that says in one line when its spans begin to be lost, and when that ends."""

    def __init__(self, exporter: SpanExporter, where: str) -> None:
        """where: they go, as the log is to say it."""
        self._exporter = exporter
        self._where = where
        self._lost = 0  # since somebody took spans

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans; called in a thread."""
        HEARD.sentence = ""
        try:
            result = self._exporter.export(spans)
        except Exception as error:
            HEARD.sentence, result = why(error), SpanExportResult.FAILURE
        if result is SpanExportResult.SUCCESS:
            if self._lost:
                logger.warning("%s takes spans again; %d were lost", self._where, self._lost)
            self._lost = 0
        else:
            if not self._lost:
                logger.warning(
                    "spans are lost until %s takes them, and requests are answered as before: %s",
                    *(self._where, HEARD.sentence or "no reason is known"),
                )
            self._lost += len(spans)
        HEARD.is_losing = self._lost > 0
        return result

    def shutdown(self) -> None:
        """Send nothing any more."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Send what the exporter holds."""
        return self._exporter.force_flush(timeout_millis)


def why(error: BaseException) -> str:
    """Return what was at the bottom of it: `requests` puts three errors around a refusal."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return str(error) or type(error).__name__


class Heard(logging.Handler):
    """Hears what OpenTelemetry logs, in place of the log."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.sentence = ""  # the first since it was emptied
        self.is_losing = False  # whether the log says already that spans are lost
        self._said_full = -FULL_EVERY_S

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the first; say that spans come faster than they are taken."""
        args = record.args if isinstance(record.args, tuple) else ()
        record.args = tuple(why(e) if isinstance(e, BaseException) else e for e in args) or None
        sentence = TRANSIENT.sub(r"\1", record.getMessage())
        if not sentence.startswith(FULL):
            self.sentence = self.sentence or sentence
        elif not self.is_losing and monotonic() - self._said_full >= FULL_EVERY_S:
            self._said_full = monotonic()
            logger.warning("spans come faster than they are taken: the oldest are lost")


HEARD = Heard()


def hush() -> None:
    """Let nothing more that OpenTelemetry logs be in the log, by itself.

    A caller's header that is wrong (`baggage`) would be a line of it, too.
    """
    library = logging.getLogger(LIBRARY)
    library.propagate = False
    library.handlers = [HEARD]
