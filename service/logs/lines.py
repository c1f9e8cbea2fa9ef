"""Log lines, to stderr: text for people, or one JSON object a line for machines.

Each has the id of the request that was being answered. No body is ever logged.
"""

import logging
import logging.config
from datetime import UTC, datetime

import msgspec

from service.logs.request_id import logged_fields
from service.logs.stderr import Stderr
from service.settings import Settings

ACCESS = logging.getLogger("torchlit.access")


def configure(settings: Settings) -> None:
    """Log the service's own lines from `log_level` on, and every library's warnings."""
    formatter = {"text": TextFormatter, "json": JsonFormatter}[settings.log_format]
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"line": {"()": formatter}},
            "handlers": {"stderr": {"()": Stderr, "formatter": "line"}},
            "root": {"level": "WARNING", "handlers": ["stderr"]},
            "loggers": {
                "torchlit": {"level": settings.log_level.upper()},
                "uvicorn.error": {"level": "ERROR"},  # it warns of each request that is not HTTP
            },
        }
    )


class TextFormatter(logging.Formatter):
    """`2026-01-31 12:00:00,000 INFO torchlit.worker: ... [request_id=...]`."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the line, with the ids of the request at its end."""
        ids = " ".join(f"{name}={value}" for name, value in logged_fields().items())
        line = super().formatMessage(record)
        return f"{line} [{ids}]" if ids else line


class JsonFormatter(logging.Formatter):
    """`{"time", "level", "logger", "message", "request_id"?, "error"?, ...}`, UTC."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; what was passed as `extra={"fields": {...}}` is part of it."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= logged_fields() | getattr(record, "fields", {})
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


def access(method: str, path: str, status: int, seconds: float) -> None:
    """Log one reply. The path comes from the caller, so what is not printable is escaped."""
    _access({"method": method, "path": path, "status": status}, seconds)


def access_grpc(path: str, code: str, seconds: float) -> None:
    """Log the end of a call of gRPC; `code` is the name of its status."""
    _access({"method": "POST", "path": path, "grpc_status": code}, seconds)


def _access(fields: dict[str, object], seconds: float) -> None:
    method, path, status = fields.values()
    shown = str(path).encode("unicode_escape").decode()
    message = f"{method} {shown} {status} in {1000 * seconds:.2f} ms"
    ACCESS.info("%s", message, extra={"fields": fields | {"seconds": round(seconds, 6)}})
