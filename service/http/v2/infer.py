"""POST /v2/models/{model}/infer: the Open Inference Protocol, from body to reply.

    body -> model, held -> tensors -> outputs -> tensors -> reply

What is sent and answered: https://github.com/kserve/open-inference-protocol (inference_rest.md)
and, in Triton's docs/protocol/, extension_binary_data.md, extension_classification.md,
extension_parameters.md and extension_schedule_policy.md.
"""

from service.http.reply import Reply
from service.http.request import Request
from service.http.services import Services
from service.http.v2.inputs import count_rows, read_inputs
from service.http.v2.message import HEADER_LENGTH, check_parameters, split
from service.http.v2.outputs import infer_reply, wanted_outputs


async def infer(services: Services, request: Request) -> Reply:
    """Answer a request of tensors. Raises RequestError; cancelled when the caller leaves."""
    call, settings = request.call, services.settings
    body = await request.body(settings.max_body_bytes)
    name, version = request.values["model"], request.values.get("version")
    with services.inference.model(call, name, version) as served:
        message, binary = split(body, request.headers.get(HEADER_LENGTH), served.model)
        timeout_s = check_parameters(message.parameters or {})
        call.deadline = min(call.deadline, call.start + timeout_s)
        inputs = read_inputs(message.inputs, binary, served.model, settings.max_request_rows)
        rows = count_rows(inputs, served.model)
        wanted = wanted_outputs(message, served.model)
        outputs = await services.inference.tensors(call, inputs, rows)
        return infer_reply(served, message.id or request.id.decode(), wanted, outputs)
