"""Bodies that hold pictures -> rows for a model: a picture, files of a form, base64 in JSON.

What is small is read where it stands. Everything else is read in a thread: one at a time, so that
memory is bounded, and the event loop waits for none.
"""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from time import perf_counter
from typing import Any, TypeAlias, TypeVar
from urllib.parse import parse_qsl

import multipart
from msgspec import Struct
from numpy.typing import NDArray

from service.catalog.served import ServedModel
from service.engine.model import Model
from service.errors import DeadlineExceeded, InvalidInput, TooLarge, UnsupportedMediaType
from service.formats import json_rows as inputs
from service.formats.images import decode as images
from service.formats.images.decode import Reader
from service.formats.images.ink import Pixels
from service.http.request import Incoming
from service.settings import Settings

IMAGES = ("image/png", "image/jpeg")
FORM = "multipart/form-data"
LARGEST_IN_LOOP = 8192  # bytes of a body that is read in the event loop

# Media types of bodies that hold pictures, by what they are called.
PICTURES = {each: each for each in (*IMAGES, FORM)} | {"image/jpg": "image/jpeg"}
_FIRST = frozenset({b"i", b"I", b"m", b"M"})  # letters of the media types there are

T = TypeVar("T")
Rows: TypeAlias = NDArray[Any]
Read: TypeAlias = Callable[[Model, Reader | None], Rows]  # None: it takes no pictures


class Query(Struct, frozen=True):
    """What the query of a request says: for bodies that can say nothing beside pictures."""

    version: int | None = None
    prepare: bool = True

    def version_beside(self, in_body: Any) -> Any:
        """Return the version. Raises InvalidInput when body and query say two."""
        if self.version is None:
            return in_body
        if in_body is not None and in_body != self.version:
            expected = f"{self.version} as in the query"
            raise InvalidInput(f"version: expected {expected}, got {inputs.shown(in_body)}")
        return self.version


NO_QUERY = Query()
PARAMETERS = frozenset({"version", "prepare"})


class Pictures:
    """Reads the bodies of requests that hold pictures."""

    def __init__(self, settings: Settings) -> None:
        self._max_rows = settings.max_request_rows
        self._max_pixels = settings.max_image_pixels
        self._thread = ThreadPoolExecutor(1, "pictures")  # it starts when it is needed
        images.ignore_warnings()

    async def of_files(
        self,
        request: Incoming,
        body: bytes,
        media_type: str,
        find: Callable[[], ServedModel],
        prepare: bool,
        deadline: float,
    ) -> tuple[ServedModel, Rows]:
        """Return the model that `find` gives, and the rows of a picture or a form of pictures.

        `deadline` is by `perf_counter`. Raises RequestError; cancelled when the caller leaves.
        """
        boundary = _boundary(request) if media_type == FORM else None

        def look_up() -> ServedModel:
            served = find()
            images.check_takes_pictures(served.model, served.name)
            return served

        def read(model: Model, reader: Reader | None) -> Rows:
            if reader is None:
                raise RuntimeError("a model that was checked takes no pictures. This is a bug.")
            if boundary is None:
                return _stacked([reader.read(body, "body")], model)
            files = _files(body, boundary, self._max_rows)
            return _stacked([reader.read(data, where) for where, data in files], model)

        is_small = len(body) <= LARGEST_IN_LOOP
        return await self.read(request, look_up, read, deadline, prepare, is_small)

    async def of_json(
        self,
        request: Incoming,
        body: bytes,
        known: frozenset[str],
        find: Callable[[], ServedModel],
        prepare: bool,
        deadline: float,
    ) -> tuple[ServedModel, Rows]:
        """Return the model that `find` gives, and the rows of a JSON body: pictures, lists or both.

        As `of_files` else.
        """

        def read(model: Model, reader: Reader | None) -> Rows:
            fields = inputs.parse_slowly(body, known)
            return inputs.slow_rows(fields, model, self._max_rows, reader)

        is_small = len(body) <= LARGEST_IN_LOOP
        return await self.read(request, find, read, deadline, prepare, is_small)

    async def read(
        self,
        request: Incoming,
        find: Callable[[], ServedModel],
        read: Read,
        deadline: float,
        prepare: bool = True,
        is_small: bool = False,
    ) -> tuple[ServedModel, Rows]:
        """Return a model and what `read` makes of a body for it, in a thread unless it `is_small`.

        The model is the one that serves when its rows are there.
        """
        while True:
            request.served = served = find()
            limits = images.Limits(
                max_pixels=self._max_pixels,
                max_pixels_in_all=self._max_pixels * images.AT_FULL_SIZE,
                deadline=deadline,
            )
            if is_small:
                try:
                    return served, read(served.model, _reader(served, limits, prepare, True))
                except images.Dear:
                    is_small = False
            reader = _reader(served, limits, prepare, False)
            rows = await self.in_thread(partial(read, served.model, reader), deadline)
            if find() is served:
                return served, rows

    async def in_thread(self, work: Callable[[], T], deadline: float) -> T:
        """Return what `work` does, one after the other; left out if its caller left or was late.

        Raises DeadlineExceeded, and whatever `work` raises.
        """

        try:
            async with asyncio.timeout(deadline - perf_counter()):
                return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except TimeoutError as error:
            raise DeadlineExceeded("the deadline passed before the pictures were read") from error

    def close(self) -> None:
        """Let nobody wait any more; what is being read goes on to its end."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def media_type_of(content_type: bytes) -> str | None:
    """Return which of IMAGES or FORM a Content-Type says, None for what is no image.

    What the header says of PNG and JPEG is not relied on. Raises UnsupportedMediaType for images
    of another kind.
    """
    if content_type[:1] not in _FIRST:
        return None
    text = content_type.decode("latin-1")
    named = text.partition(";")[0].strip().lower()
    if named in PICTURES:
        return PICTURES[named]
    if named.startswith("image/"):
        expected = f"{' or '.join(IMAGES)}, {FORM} or JSON"
        raise UnsupportedMediaType(f"Content-Type: expected {expected}, got {inputs.shown(text)}")
    return None


def query_of(request: Incoming) -> Query:
    """Return what the query says. Raises InvalidInput with what does not fit.

    Names that are not like ours are somebody else's: gateways add keys and the like.
    """
    query = request.scope["query_string"]
    if not query:
        return NO_QUERY
    said: dict[str, str] = {}
    for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if name not in PARAMETERS:
            if hint := inputs.did_you_mean(name, PARAMETERS, or_all=False):
                raise InvalidInput(f"query: {inputs.shown(name)}: unknown parameter{hint}")
            continue
        if name in said:
            raise InvalidInput(f"query: {name}: expected it once, got it again")
        said[name] = value
    version, prepare = said.get("version"), said.get("prepare", "auto")
    if version is not None and not (version.isascii() and version.isdigit() and len(version) < 10):
        got = inputs.shown(version)
        raise InvalidInput(f"version: expected a whole number from 1, got {got}")
    if prepare not in ("auto", "false"):
        raise InvalidInput(f"prepare: expected auto or false, got {inputs.shown(prepare)}")
    return Query(None if version is None else int(version), prepare == "auto")


def _reader(
    served: ServedModel, limits: images.Limits, prepare: bool, in_loop: bool
) -> Reader | None:
    image = images.image_of(served.model)
    if image is None:
        return None
    return Reader(image, limits, prepare=prepare, in_loop=in_loop)


def _stacked(rows: list[Pixels], model: Model) -> Rows:
    return model.rows_of(rows)


def _boundary(request: Incoming) -> str:
    text = request.headers[b"content-type"].decode("latin-1")
    boundary: str = multipart.parse_options_header(text)[1].get("boundary", "")
    if not 1 <= len(boundary) <= 70:  # RFC 2046, section 5.1.1
        expected = f"{FORM} with a boundary of 1 to 70 characters"
        raise InvalidInput(f"Content-Type: expected {expected}, got {inputs.shown(text)}")
    return boundary


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
                    if event.filename is None:
                        raise InvalidInput(
                            f"body: {_shown(event.name)}: expected a file, got a field; the model "
                            f"is named in the path, its version in the query"
                        )
                    where = f"file {count} ({_shown(event.filename)})"
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


def _shown(name: str) -> str:
    name = name.encode("latin-1", "replace").decode("utf-8", "replace")
    return name if len(name) <= 40 else f"{name[:40]}..."
