"""POST /prepare/{model}: images as the model sees them, for pages to show and callers to keep."""

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.catalog.served import ServedModel
from service.formats.images.decode import check_takes_images
from service.formats.predictions import encode
from service.formats.registry import FORM, IMAGE, JSON
from service.http.reply import Reply
from service.http.request import Request
from service.http.rest.dialect import Dialect
from service.http.rest.predict import answer_rows
from service.http.services import Services

LARGEST_IN_LOOP = 4096  # numbers of a reply that is written in the event loop


async def _prepared(
    services: Services, request: Request, served: ServedModel, rows: NDArray[Any]
) -> Reply:
    """Return what can be sent to /predict as it is."""
    check_takes_images(served.model, served.name)
    if rows.size <= LARGEST_IN_LOOP:
        return _reply(served, rows)
    return await services.bodies.in_thread(partial(_reply, served, rows), request.call.deadline)


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


prepare = partial(
    answer_rows, dialect=Dialect(show=_prepared, formats=(JSON, IMAGE, FORM), is_strict=True)
)
