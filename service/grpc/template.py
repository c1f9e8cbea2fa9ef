"""A ModelInferRequest that differs from one before only in the numbers of its input.

A program asks with the same names, datatypes and shapes again and again. What stands before the raw
contents is parsed and checked once then. A message of protobuf is its fields, one behind the other:
one that begins as another, and has as many bytes, says the same but for the last field.
"""

import weakref

from google.protobuf.message import DecodeError
from msgspec import Struct

from service.catalog.served import ServedModel
from service.engine.protobuf import head
from service.entrance.services import Services
from service.grpc import infer
from service.grpc.messages import ModelInferRequest
from service.grpc.outline import LONG
from service.inference import Call, Slowly, Work, work_of_tensors

_RAW = 7  # number of the field
MOST_TEMPLATES, LONGEST = 16, 1024  # of a connection, and bytes of what is kept for one


class Template(Struct, frozen=True):
    """What messages have in common, and what they say."""

    begin: bytes  # all but the raw contents
    name: str  # of the model
    version: str | None
    datatype: str
    shape: list[int]
    served: weakref.ref[ServedModel]  # for which this was checked
    rows: int
    asked: infer.Asked
    reply_bytes: int

    def read(self, services: Services, call: Call, data: bytes) -> Work | None:
        """Read a message of this length, as `infer.read` does; None if it is another.

        Raises RequestError.
        """
        if not data.startswith(self.begin):
            return None
        served = services.inference.model(call, self.name, self.version)
        if served is not self.served():
            return None
        raw = memoryview(data)[len(self.begin) :]
        (tensor,) = served.model.inputs
        inputs = [infer.array_of(raw, self.shape, self.datatype, tensor, "inputs[0]")]
        return work_of_tensors(served, inputs, self.rows, self.asked, self.reply_bytes)


class Templates:
    """Reads the messages of a connection."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._of_length: dict[int, Template] = {}

    def read(self, call: Call, data: bytes) -> Work | Slowly:
        """Read a message. Raises RequestError."""
        template = self._of_length.get(len(data))
        if template is not None:
            work = template.read(self._services, call, data)
            if work is not None:
                return work
        read = infer.read(self._services, call, data)
        if isinstance(read, Work) and (template := template_of(data, read)) is not None:
            if len(self._of_length) == MOST_TEMPLATES:
                self._of_length.clear()
            self._of_length[len(data)] = template
        return read


def template_of(data: bytes, work: Work) -> Template | None:
    """Return what other messages may have in common with one that was read; None if too little.

    Ids are another each time, and parameters have a meaning of their own.
    """
    if len(data) > LONG or len(work.inputs) != 1 or not work.asked.is_raw or work.asked.id:
        return None
    raw = ModelInferRequest.FromString(data).raw_input_contents[0]
    begin = data[: len(data) - len(raw)]
    if len(begin) > LONGEST:
        return None
    last = head(_RAW, len(raw))
    try:
        rest = ModelInferRequest.FromString(begin.removesuffix(last))
    except DecodeError:  # what looks like the head of a field is within another one
        return None
    if not begin.endswith(last) or rest.parameters:
        return None
    (sent,) = rest.inputs
    if sent.datatype == "BYTES":
        return None
    return Template(
        begin=begin,
        name=rest.model_name,
        version=rest.model_version or None,
        datatype=sent.datatype,
        shape=list(sent.shape),
        served=weakref.ref(work.served),
        rows=work.rows,
        asked=work.asked,
        reply_bytes=work.reply_bytes,
    )
