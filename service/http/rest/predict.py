"""POST /predict, and every route that takes rows, from body to reply.

head -> said; body -> message -> model -> rows -> (the model runs) -> outputs -> reply
"""

from functools import partial
from typing import Any

from msgspec import Struct
from numpy.typing import NDArray

from service.batching import Outputs
from service.catalog.served import ServedModel
from service.entrance.services import Services
from service.formats.images.decode import check_takes_images
from service.formats.message import Message
from service.formats.reply_size import check_size, times
from service.http.procedure import Read
from service.http.reply import Reply
from service.http.request import Request
from service.http.rest.dialect import Dialect, Said, writer_of
from service.inference import Call, Slowly, Work, work_of_rows


class Rows(Struct, frozen=True):
    """The steps of a request that holds rows (http/procedure.py)."""

    dialect: Dialect

    def said(self, request: Request) -> Said:
        """Return what the head says of the body. Raises InvalidInput, UnsupportedMediaType."""
        return self.dialect.said(request)

    def read(self, services: Services, call: Call, said: Said, body: bytes) -> Read:
        """Take a body apart, find its model, and read its rows. Raises RequestError."""
        message = said.format.read(body, self.dialect.fields, said.content_type)
        name, version = self.dialect.model_of(said.model, message.fields)
        version = said.query.version_beside(version)
        served = services.inference.model_of_rows(call, name, version)
        if message.needs_images or self.dialect.needs_images:
            check_takes_images(served.model, served.name)
        prepare = said.query.prepare
        rows = services.bodies.quick_rows(message, served.model, prepare)
        if rows is not None:
            return _work(served, rows, services.settings.most_reply_bytes)
        return Slowly(served, partial(_read, services, call, served, message, prepare))

    def reply(self, said: Said, work: Work, outputs: Outputs, request_id: bytes) -> Reply:
        """Write what the model answered."""
        return self.dialect.reply(said, work.served, outputs)


async def _read(
    services: Services, call: Call, served: ServedModel, message: Message, prepare: bool
) -> Work:
    rows = await services.bodies.slow_rows(message, served.model, prepare, call.deadline)
    return _work(served, rows, services.settings.most_reply_bytes)


def _work(served: ServedModel, rows: NDArray[Any], most_bytes: int) -> Work:
    """Return the work for rows (n, ...). Raises TooLarge for a reply of more than `most_bytes`."""
    size = times(len(rows), writer_of(served).bytes_of_row)
    check_size(size, most_bytes, len(rows), "instances")
    return work_of_rows(served, rows, size)


predict = Rows(Dialect())
