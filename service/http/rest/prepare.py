"""POST /prepare/{model}: images as the model sees them, for pages to show and callers to keep."""

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.catalog.served import ServedModel
from service.entrance.services import Services
from service.formats.predictions import encode
from service.formats.registry import FORM, IMAGE, JSON
from service.http.reply import Reply
from service.http.request import Request
from service.http.rest.dialect import Dialect
from service.http.rest.predict import Rows
from service.inference import Slowly

LARGEST_IN_LOOP = 4096  # numbers of a reply that is written in the event loop


_ROWS = Rows(Dialect(needs_images=True, formats=(JSON, IMAGE, FORM), is_strict=True))


async def prepare(services: Services, request: Request) -> Reply:
    """Answer what can be sent to /predict as it is. Raises RequestError."""
    said = _ROWS.said(request)
    body = await request.body(services.settings.max_body_bytes)
    work = _ROWS.read(services, request.call, said, body)
    with work.served as served:
        if isinstance(work, Slowly):
            work = await work.finish()
        (rows,) = work.inputs
        if rows.size <= LARGEST_IN_LOOP:
            return _reply(served, rows)
        write = partial(_reply, served, rows)
        return await services.bodies.in_thread(write, request.call.deadline)


def _reply(served: ServedModel, rows: NDArray[Any]) -> Reply:
    """Write rows (n, ...) as nested lists; a row at a time, as nobody else runs meanwhile."""
    shape = (len(rows), *served.model.row_shape)
    begin = encode({"model": served.name, "version": served.version})[:-1]
    instances = b",".join(encode(each.tolist()) for each in _integers(rows).reshape(shape))
    return Reply([begin + b',"instances":[' + instances + b"]}"])


def _integers(rows: NDArray[Any]) -> NDArray[Any]:
    """Return rows as whole numbers where they are such grey values: 7 and not 7.0."""
    grey = np.clip(rows, 0, 255).astype(np.uint8)
    return grey if np.array_equal(grey, rows) else rows
