"""In what one route for rows differs from another: POST /predict, and those that change it."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from msgspec import Struct
from numpy.typing import NDArray

from service.batching import Outputs
from service.catalog.served import ServedModel
from service.errors import InvalidInput
from service.formats.message import Fields
from service.formats.predictions import predictions
from service.formats.registry import FORMATS, JSON, Format, format_of
from service.http.reply import Reply, json_reply
from service.http.request import Request
from service.http.services import Services
from service.words import shown

FIELDS = frozenset({"model", "version", "instances"})

Rows: TypeAlias = NDArray[Any]


def named(request: Request, fields: Fields) -> tuple[Any, Any]:
    """Return name and version. Raises InvalidInput when body and path say two models."""
    in_path, in_body = request.values.get("model"), fields.get("model")
    if in_path is not None and in_body is not None and in_body != in_path:
        raise InvalidInput(f"model: expected {shown(in_path)} as in the path, got {shown(in_body)}")
    return in_body if in_path is None else in_path, fields.get("version")


def predicted(request: Request, served: ServedModel, outputs: Outputs) -> Reply:
    """Return the reply of /predict."""
    answers = predictions(served.model, outputs)
    return json_reply({"model": served.name, "version": served.version, "predictions": answers})


class Dialect(Struct, frozen=True):
    """In what one route for rows differs from another."""

    fields: frozenset[str] = FIELDS  # that a body may have
    model_of: Callable[[Request, Fields], tuple[Any, Any]] = named  # name and version, as said
    reply: Callable[[Request, ServedModel, Outputs], Reply] = predicted
    # Instead of that, and of a run: a reply that shows the rows.
    show: Callable[[Services, Request, ServedModel, Rows], Awaitable[Reply]] | None = None
    formats: tuple[Format, ...] = FORMATS
    is_strict: bool = False  # whether other media types are refused

    def format_of(self, content_type: bytes | None) -> tuple[Format, str]:
        """Return the format that a Content-Type says, and the text of it.

        Raises UnsupportedMediaType.
        """
        if content_type is None or content_type == b"application/json":
            return JSON, ""
        text = content_type.decode("latin-1")
        return format_of(text, self.formats, is_strict=self.is_strict), text
