"""POST /v2/models/{model}/infer: the Open Inference Protocol, from body to reply.

    body -> model, held -> tensors -> outputs -> tensors -> reply

What is sent and answered: https://github.com/kserve/open-inference-protocol (inference_rest.md)
and, in Triton's docs/protocol/, extension_binary_data.md, extension_classification.md,
extension_parameters.md and extension_schedule_policy.md.
"""

from functools import partial

from msgspec import Struct

from service.batching import Outputs
from service.catalog.served import ServedModel
from service.entrance.services import Services
from service.formats.reply_size import check_size
from service.http.procedure import Read
from service.http.reply import Reply
from service.http.request import Request
from service.http.v2.inputs import read_inputs
from service.http.v2.message import HEADER_LENGTH, is_long, split
from service.http.v2.outputs import infer_reply
from service.inference import Call, Slowly, Work, work_of_tensors
from service.settings import Settings
from service.v2.inputs import count_rows
from service.v2.outputs import reply_bytes, wanted_outputs
from service.v2.parameters import check_parameters, flag


class Said(Struct, frozen=True):
    """What the head of a request says."""

    model: str
    version: str | None
    header_length: bytes | None


class Infer(Struct, frozen=True):
    """The steps of a request that holds tensors (http/procedure.py)."""

    def said(self, request: Request) -> Said:
        """Return what the head says."""
        values = request.values
        return Said(values["model"], values.get("version"), request.headers.get(HEADER_LENGTH))

    def read(self, services: Services, call: Call, said: Said, body: bytes) -> Read:
        """Find the model, and read the tensors that are its inputs. Raises RequestError."""
        served = services.inference.model(call, said.model, said.version)
        settings = services.settings
        if is_long(body, said.header_length, served.model):
            work = partial(_work, call, served, said, body, settings)
            return Slowly(served, partial(services.bodies.in_thread, work, call.deadline))
        return _work(call, served, said, body, settings)

    def reply(self, said: Said, work: Work, outputs: Outputs, request_id: bytes) -> Reply:
        """Write the tensors that are wanted. Raises InferenceFailed for NaN in JSON."""
        message_id, wanted = work.asked
        return infer_reply(work.served, message_id or request_id.decode(), wanted, outputs)


def _work(call: Call, served: ServedModel, said: Said, body: bytes, settings: Settings) -> Work:
    """Return what a body wants of a model. Raises RequestError."""
    message, binary = split(body, said.header_length, served.model)
    is_binary = False
    if message.parameters:
        timeout_s = check_parameters(message.parameters)
        call.deadline = min(call.deadline, call.start + timeout_s)
        is_binary = bool(flag(message.parameters, "binary_data_output", "parameters"))
    max_rows, most_bytes = settings.max_request_rows, settings.most_reply_bytes
    inputs = read_inputs(message.inputs, binary, served.model, max_rows, call.deadline)
    rows = count_rows(inputs, served.model)
    wanted = wanted_outputs(message.outputs, served.model, is_binary)
    size = reply_bytes(wanted, served, rows)
    check_size(size, most_bytes, rows, "inputs")
    return work_of_tensors(served, inputs, rows, (message.id, wanted), size)


infer = Infer()
