"""In what one route for rows differs from another: POST /predict, and those that change it."""

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from service.batching import Outputs
from service.catalog.served import ServedModel
from service.entrance.version import version_headers
from service.errors import InvalidInput
from service.formats.message import Fields
from service.formats.predictions import Writer, writer
from service.formats.registry import FORMATS, JSON, Format, format_of
from service.http.query import Query, query_of
from service.http.reply import Reply
from service.http.request import Request
from service.words import shown

FIELDS = frozenset({"model", "version", "instances"})


class Said(Struct, frozen=True):
    """What the head of a request says."""

    format: Format
    content_type: str
    query: Query
    model: str | None  # in the path
    accept: bytes


def named(in_path: str | None, fields: Fields) -> tuple[Any, Any]:
    """Return name and version. Raises InvalidInput when body and path say two models."""
    in_body = fields.get("model")
    if in_path is not None and in_body is not None and in_body != in_path:
        raise InvalidInput(f"model: expected {shown(in_path)} as in the path, got {shown(in_body)}")
    return in_body if in_path is None else in_path, fields.get("version")


def predicted(said: Said, served: ServedModel, outputs: Outputs) -> Reply:
    """Return the reply of /predict."""
    write = writer_of(served)
    return Reply([b"%b%b}" % (write.begin, write(outputs))])


def predictions_alone(said: Said, served: ServedModel, outputs: Outputs) -> Reply:
    """Return the predictions, and nothing beside them."""
    body = b'{"predictions":%b}' % writer_of(served)(outputs)
    return Reply([body], headers=version_headers(served))


def writer_of(served: ServedModel) -> Writer:
    """Return what writes the predictions of a model; it is made at the first request."""
    if served.writer is None:
        served.writer = writer(served.model, served.name, served.version)
    write: Writer = served.writer
    return write


class Dialect(Struct, frozen=True):
    """In what one route for rows differs from another."""

    fields: frozenset[str] = FIELDS  # that a body may have
    # Name and version, by what stands in the path and in the body.
    model_of: Callable[[str | None, Fields], tuple[Any, Any]] = named
    reply: Callable[[Said, ServedModel, Outputs], Reply] = predicted
    needs_images: bool = False  # whether the model has to take images
    formats: tuple[Format, ...] = FORMATS
    is_strict: bool = False  # whether other media types are refused
    json: Format = JSON  # of one of several ways (several.py): how it reads JSON

    def said(self, request: Request) -> Said:
        """Return what a head says. Raises InvalidInput, UnsupportedMediaType."""
        text = request.headers.get(b"content-type", b"").decode("latin-1")
        format = JSON if not text else format_of(text, self.formats, is_strict=self.is_strict)
        accept = request.headers.get(b"accept", b"*/*")
        lines = [*request.scope["headers"]]
        if len(lines) != len(request.headers):  # some name came twice
            accept = b", ".join(value for name, value in lines if name == b"accept") or accept
        return Said(format, text, query_of(request), request.values.get("model"), accept)
