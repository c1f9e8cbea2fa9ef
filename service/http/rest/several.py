"""A route whose JSON may be of several kinds: the fields of a body say which one it is."""

from msgspec import Struct
from msgspec.structs import replace

from service.batching import Outputs
from service.entrance.services import Services
from service.errors import InvalidInput, UnknownField
from service.formats.json_rows import unknown_field
from service.formats.registry import JSON
from service.http.procedure import Read
from service.http.reply import Reply
from service.http.request import Request
from service.http.rest.dialect import Said
from service.http.rest.predict import Rows
from service.inference import Call, Slowly, Work
from service.words import quoted


class Several(Struct, frozen=True):
    """The steps of a request that holds rows in one of several ways (http/procedure.py)."""

    own: Rows  # which says what a head says, and reads all but JSON
    of_json: tuple[Rows, ...]  # the first that knows all fields of a body reads it

    def said(self, request: Request) -> Said:
        """Return what the head says of the body. Raises InvalidInput, UnsupportedMediaType."""
        return self.own.said(request)

    def read(self, services: Services, call: Call, said: Said, body: bytes) -> Read:
        """Take a body apart, find its model, and read its rows. Raises RequestError."""
        if said.format is not JSON:
            return _answered_by(self.own, self.own.read(services, call, said, body))
        unknown = []
        for way in self.of_json:
            try:
                json = way.dialect.json
                as_said = said if json is JSON else replace(said, format=json)
                read = way.read(services, call, as_said, body)
            except UnknownField as error:
                unknown.append(error.field)
            else:
                return _answered_by(way, read)
        raise self._fits_none(unknown)

    def _fits_none(self, unknown: list[str]) -> InvalidInput:
        """Return the error that each of the ways has a field in a body that it does not know."""
        known = frozenset[str]().union(*(way.dialect.fields for way in self.of_json))
        for field in unknown:
            if field not in known:
                return unknown_field(field, known)
        got = f"{quoted(unknown[0])} and {quoted(unknown[-1])}"
        return InvalidInput(f"body: expected the fields of one protocol, got {got}")

    def reply(self, said: Said, work: Work, outputs: Outputs, request_id: bytes) -> Reply:
        """Write what the model answered, as it was wanted."""
        way: Rows = work.asked
        return way.reply(said, work, outputs, request_id)


def _answered_by(way: Rows, read: Read) -> Read:
    """Return what was read, to be answered in the same way."""
    if isinstance(read, Slowly):
        finish = read.finish

        async def finish_and_note() -> Work:
            work = await finish()
            work.asked = way
            return work

        return Slowly(read.served, finish_and_note)
    read.asked = way
    return read
