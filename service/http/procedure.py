"""The steps of a request that infers: the same on the two ways it can go.

    what the head says -> body -> work -> outputs -> reply

No step of a Procedure waits. `follow` is the ordinary way, a coroutine, which waits between them;
direct.py takes them without one.
"""

from functools import partial
from typing import Any, Protocol, TypeAlias

from service.batching import Outputs
from service.entrance.services import Services
from service.formats.reply_size import UNKNOWN, check_outputs, check_reply, is_large
from service.http.reply import Reply
from service.http.request import Request
from service.inference import Call, Slowly, Work

Read: TypeAlias = Work | Slowly


class Procedure(Protocol):
    """How requests of a route are read and answered."""

    def said(self, request: Request) -> Any:
        """Return what a head says, which the other steps get. Raises RequestError."""

    def read(self, services: Services, call: Call, said: Any, body: bytes) -> Read:
        """Find the model and read what it is to run. Raises RequestError."""

    def reply(self, said: Any, work: Work, outputs: Outputs, request_id: bytes) -> Reply:
        """Write the answer. Raises RequestError."""


async def follow(services: Services, request: Request, procedure: Procedure) -> Reply:
    """Answer a request. Raises RequestError; cancelled when the caller leaves."""
    said = procedure.said(request)
    body = await request.body(services.settings.max_body_bytes)
    work = procedure.read(services, request.call, said, body)
    del body  # it takes memory, while what was read of it waits
    with work.served:
        if isinstance(work, Slowly):
            work = await work.finish()
        request.hold(work.inputs)
        outputs = await services.inference.run(request.call, work)
        reply = partial(procedure.reply, said, work, outputs, request.id)
        if work.reply_bytes == UNKNOWN:
            check_outputs(outputs, services.settings.most_reply_bytes)
        if work.parts or is_large(outputs):
            written = await services.bodies.in_thread(reply, request.call.deadline)
        else:
            written = reply()
        if work.reply_bytes == UNKNOWN:
            check_reply(sum(map(len, written.body)), services.settings.most_reply_bytes)
        return written
