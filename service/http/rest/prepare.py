"""POST /prepare/{model}: pictures as the model sees them, for pages to show and callers to keep."""

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.catalog.catalog import ModelRepository
from service.catalog.served import ServedModel
from service.errors import NotFound, UnsupportedMediaType
from service.formats import json_rows as inputs
from service.formats.images import decode as images
from service.http.pictures import FORM, IMAGES, Pictures, media_type_of, query_of
from service.http.request import Incoming, Parts, encode
from service.http.rest.predict import look_up, model_name, name_below
from service.settings import Settings

PREPARE = "/prepare"
# What JSON is called, also by clients that were not told to call it anything.
JSON_TYPES = ("application/json", "application/octet-stream", "application/x-www-form-urlencoded")
LARGEST_IN_LOOP = 4096  # numbers of a reply that is written in the event loop


class Prepare:
    """Answers POST /prepare/{model}."""

    def __init__(self, models: ModelRepository, pictures: Pictures, settings: Settings) -> None:
        self._models = models
        self._timeout_s = settings.request_timeout_s
        self._max_body_bytes = settings.max_body_bytes
        self._parser = inputs.BodyParser()
        self._pictures = pictures

    async def respond(self, request: Incoming, start: float) -> Parts:
        """Return the reply's body: what can be sent to /predict as it is.

        Raises RequestError; cancelled when the caller leaves.
        """
        path = request.scope["path"]
        in_path = name_below(PREPARE, path)
        if in_path is None:
            raise NotFound(f"{path}: no such path; it is {PREPARE}/{{model}}")
        request.check_is_post()
        media_type = _media_type(request)
        deadline = start + request.timeout_s(self._timeout_s)
        query = query_of(request)
        body = await request.body(self._max_body_bytes)
        if media_type is None:
            fields = self._parser.parse(body)
            name = model_name(fields.get("model"), in_path)
            version = query.version_beside(fields.get("version"))
            find = partial(self._look_up, name, version)
            find()  # while what the parser gave lives
            del fields  # the parser is free again before anything waits
            served, rows = await self._pictures.of_json(
                request, body, inputs.FIELDS, find, query.prepare, deadline
            )
        else:
            find = partial(self._look_up, in_path, query.version)
            served, rows = await self._pictures.of_files(
                request, body, media_type, find, query.prepare, deadline
            )
        if rows.size <= LARGEST_IN_LOOP:
            return _reply(served, rows)
        return await self._pictures.in_thread(partial(_reply, served, rows), deadline)

    def _look_up(self, name: Any, version: Any) -> ServedModel:
        served = look_up(self._models, name, version)
        images.check_takes_pictures(served.model, served.name)
        return served


def is_prepare(path: str) -> bool:
    """Whether this is /prepare, or a path below it."""
    return path == PREPARE or path.startswith(PREPARE + "/")


def _media_type(request: Incoming) -> str | None:
    """Return the media type of a body that holds pictures, None for JSON.

    Raises UnsupportedMediaType for any other.
    """
    sent = request.headers.get(b"content-type", b"")
    media_type = media_type_of(sent)
    text = sent.decode("latin-1")
    if media_type is None and text and text.partition(";")[0].strip().lower() not in JSON_TYPES:
        expected = f"{' or '.join(IMAGES)}, {FORM} or JSON"
        raise UnsupportedMediaType(f"Content-Type: expected {expected}, got {inputs.shown(text)}")
    return media_type


def _reply(served: ServedModel, rows: NDArray[Any]) -> Parts:
    """Write rows (n, ...) as nested lists; a row at a time, as nobody else runs meanwhile."""
    shape = (len(rows), *served.model.row_shape)
    begin = encode({"model": served.name, "version": served.version})[:-1]
    instances = b",".join(encode(each.tolist()) for each in _whole(rows).reshape(shape))
    return [begin + b',"instances":[' + instances + b"]}"]


def _whole(rows: NDArray[Any]) -> NDArray[Any]:
    """Return rows as whole numbers where they are such grey values: 7 and not 7.0."""
    grey = np.clip(rows, 0, 255).astype(np.uint8)
    return grey if np.array_equal(grey, rows) else rows
