"""Bodies that are images: one file, or a form of files."""

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote_to_bytes

import multipart
from numpy.typing import NDArray

from service.engine.model import Model
from service.errors import InvalidInput, TooLarge
from service.formats.images.decode import reader_for
from service.formats.message import LARGEST_IN_LOOP, Fields, Limits, Slow
from service.words import cut, shown

IMAGES = ("image/png", "image/jpeg")
FORM = "multipart/form-data"
# filename*, of RFC 8187, section 3.2: charset'language'name
_EXTENDED = re.compile(r""";\s*filename\*="?[\w-]+'[\w-]*'([^;\s"]+)""", re.IGNORECASE)


class ImageMessage:
    """A PNG or JPEG, or a form of them if there is a boundary. It can say nothing beside them."""

    needs_images = True

    def __init__(self, body: bytes, boundary: str | None = None) -> None:
        self.fields: Fields = {}
        self._body = body
        self._boundary = boundary

    def rows(self, model: Model, limits: Limits) -> NDArray[Any]:
        """Return the images as rows, in their order; see Message."""
        if limits.in_loop and len(self._body) > LARGEST_IN_LOOP:
            raise Slow
        reader = reader_for(model, limits)
        if reader is None:
            raise RuntimeError("a model that was checked takes no images. This is a bug.")
        if self._boundary is None:
            return model.rows_of([reader.read(self._body, "body")])
        files = _files(self._body, self._boundary, limits.max_rows)
        return model.rows_of([reader.read(data, where) for where, data in files])


def read_image(body: bytes, known: frozenset[str], content_type: str) -> ImageMessage:
    """Take a body that is an image. What the Content-Type says of PNG and JPEG is not relied on."""
    return ImageMessage(body)


def read_form(body: bytes, known: frozenset[str], content_type: str) -> ImageMessage:
    """Take a body that is a form. Raises InvalidInput for a boundary that is none."""
    boundary: str = multipart.parse_options_header(content_type)[1].get("boundary", "")
    if not 1 <= len(boundary) <= 70:  # RFC 2046, section 5.1.1
        expected = f"{FORM} with a boundary of 1 to 70 characters"
        raise InvalidInput(f"Content-Type: expected {expected}, got {shown(content_type)}")
    return ImageMessage(body, boundary)


def _files(body: bytes, boundary: str, max_rows: int) -> Iterator[tuple[str, bytes]]:
    """Yield the place and the content of each part of a form, one after the other.

    Raises InvalidInput, TooLarge.
    """
    count, where, data = 0, "", bytearray()
    try:
        with multipart.PushMultipartParser(
            # Names may come in any charset; as Latin-1 none is wrong.
            boundary,
            strict=True,
            max_segment_count=max_rows,
            header_charset="latin-1",
        ) as parser:
            for event in parser.parse(body):
                if isinstance(event, multipart.MultipartSegment):
                    count += 1
                    name = _name_of_file(event)
                    if name is None:
                        raise InvalidInput(
                            f"body: {_readable(event.name)}: expected a file, got a field; the "
                            f"model is named in the path, its version in the query"
                        )
                    where = f"file {count} ({_readable(name)})"
                    data = bytearray()
                elif event is None:
                    yield where, bytes(data)
                else:
                    data += event
    except multipart.ParserLimitReached as error:
        if count >= max_rows:
            raise TooLarge(f"body: expected at most {max_rows} files in one request") from error
        raise InvalidInput(f"body: expected {FORM}, got: {error}") from error
    except multipart.MultipartError as error:
        raise InvalidInput(f"body: expected {FORM}, got: {error}") from error
    if count == 0:
        raise InvalidInput("body: expected at least one file, got none")


def _name_of_file(part: multipart.MultipartSegment) -> str | None:
    """Return what a part of a form is called if it is a file; None for a field.

    A file has a name, or is of the media type of one: some clients give it no name.
    """
    if part.filename is not None:
        return str(part.filename)
    if found := _EXTENDED.search(part.header("Content-Disposition", "")):
        return unquote_to_bytes(found[1].encode("latin-1")).decode("latin-1")
    media_type = part.content_type or ""
    is_file = media_type.startswith("image/") or media_type == "application/octet-stream"
    return str(part.name) if is_file else None


def _readable(name: str) -> str:
    name = name.encode("latin-1", "replace").decode("utf-8", "replace")
    return cut(name)
