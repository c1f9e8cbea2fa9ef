"""POST /predict, and every route that takes rows, from body to reply.

body -> message -> model, held -> rows -> outputs -> reply
"""

from functools import partial

from service.http.query import query_of
from service.http.reply import Reply
from service.http.request import Request
from service.http.rest.dialect import Dialect
from service.http.services import Services


async def answer_rows(services: Services, request: Request, dialect: Dialect) -> Reply:
    """Answer a request that holds rows. Raises RequestError; cancelled when the caller leaves."""
    call, query = request.call, query_of(request)
    format, content_type = dialect.format_of(request.headers.get(b"content-type"))
    body = await request.body(services.settings.max_body_bytes)
    message = format.read(body, dialect.fields, content_type)
    name, version = dialect.model_of(request, message.fields)
    version = query.version_beside(version)
    with services.inference.model_of_rows(call, name, version) as served:
        rows = services.bodies.quick_rows(message, served, query.prepare)
        if rows is None:  # it takes too long for the event loop
            rows = await services.bodies.slow_rows(message, served, query.prepare, call.deadline)
        if dialect.show is not None:
            return await dialect.show(services, request, served, rows)
        outputs = await services.inference.rows(call, rows)
        return dialect.reply(request, served, outputs)


predict = partial(answer_rows, dialect=Dialect())
