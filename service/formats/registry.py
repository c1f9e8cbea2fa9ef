"""THE list of formats: what a body or a file of rows may be, by media type and by suffix.

To add one, write its file beside this one, a `Format` here, and its name in FORMATS: HTTP, `score`,
the OpenAPI document and docs/formats.md follow. What its `read` returns is in message.py.
"""

from collections.abc import Callable
from typing import TypeAlias

import multipart
from msgspec import Struct

from service.engine.model import Model
from service.errors import UnsupportedMediaType
from service.formats import csv_rows, json_bodies, json_lines, msgpack_rows
from service.formats.images import bodies
from service.formats.lines import Options, Rows, Tape
from service.formats.message import Message
from service.words import shown

# The body, the fields that may stand beside the instances, and the Content-Type.
Read: TypeAlias = Callable[[bytes, frozenset[str], str], Message]


class Format(Struct, frozen=True):
    """How rows are written."""

    name: str
    media_types: tuple[str, ...]
    read: Read  # takes a body apart. Raises InvalidInput
    suffixes: tuple[str, ...] = ()  # of files
    rows: Callable[[Tape, Model, Options], Rows] | None = None  # of a file; None: `score` has none
    description: str = ""  # of a body, for documents
    is_text: bool = False  # whether documents can show an example of it

    @property
    def named(self) -> tuple[str, ...]:
        """The media types to tell people of: one, but for images."""
        return bodies.IMAGES if self.read is bodies.read_image else self.media_types[:1]


JSON = Format(
    "json",
    ("application/json",),
    json_bodies.read,
    description='{"model"?, "version"?, "instances": [...]}',
    is_text=True,
)
CSV = Format(
    "csv",
    (
        "text/csv",
        "application/csv",
        "text/x-csv",
        "application/x-csv",
        "text/comma-separated-values",
        *csv_rows.TABS,
    ),
    csv_rows.read,
    (".csv",),
    csv_rows.CsvRows,
    "A line for each instance; a header may name the columns",
    is_text=True,
)
JSON_LINES = Format(
    "jsonl",
    (
        "application/jsonlines",
        "application/x-ndjson",
        "application/jsonl",
        "application/x-jsonlines",
        "application/x-jsonl",
        "application/ndjson",
        "application/json-lines",
        "text/jsonl",
    ),
    json_lines.read,
    (".jsonl", ".ndjson"),
    json_lines.JsonRows,
    "An instance in each line",
    is_text=True,
)
MSGPACK = Format(
    "msgpack",
    ("application/msgpack", "application/x-msgpack", "application/vnd.msgpack"),
    msgpack_rows.read,
    (".msgpack",),
    msgpack_rows.MsgpackRows,
    "The same object in MessagePack",
)
IMAGE = Format(
    "image", (*bodies.IMAGES, "image/jpg"), bodies.read_image, description="A PNG or JPEG"
)
FORM = Format("form", (bodies.FORM,), bodies.read_form, description="One image or more, as files")

FORMATS = (JSON, CSV, JSON_LINES, MSGPACK, IMAGE, FORM)

# They say nothing of what a body is: clients send them unless told otherwise.
_UNTOLD = ("", "application/octet-stream", "application/x-www-form-urlencoded")
_BY_MEDIA_TYPE = {each: format for format in FORMATS for each in format.media_types}
_BY_MEDIA_TYPE |= dict.fromkeys(_UNTOLD, JSON)
BY_SUFFIX = {each: format for format in FORMATS for each in format.suffixes}


def format_of(
    content_type: str, allowed: tuple[Format, ...] = FORMATS, *, is_strict: bool
) -> Format:
    """Return the format that a Content-Type says; JSON where it says none that is allowed.

    is_strict: raise UnsupportedMediaType for those that are not; else for other images alone, where
    images are allowed.
    """
    media_type = media_type_of(content_type)
    format = _BY_MEDIA_TYPE.get(media_type)
    if format in allowed:
        return format
    is_other_image = format is None and media_type.startswith("image/")
    if is_strict or (is_other_image and IMAGE in allowed):
        names = [name for each in allowed for name in each.named]
        expected = " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))
        raise UnsupportedMediaType(f"Content-Type: expected {expected}, got {shown(content_type)}")
    return JSON


def media_type_of(content_type: str) -> str:
    """Return the media type that a header says, in lower case and without its parameters."""
    name: str = multipart.parse_options_header(content_type)[0]
    return name
