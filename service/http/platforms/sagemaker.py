"""What SageMaker wants of a container: POST /invocations, GET /execution-parameters.

Sources, as of 2026: "Custom Inference Code with Hosting Services": POST /invocations in 60 s, GET
/ping in 2 s. "Common data formats for inference": CSV without a header, JSON, JSON Lines. "Custom
Inference Code with Batch Transform": GET /execution-parameters.

It does not say which model is meant, as an endpoint of theirs has one: it is the default model, or
the one that the body names. MLflow's server has the same path, for bodies of other fields.
"""

from service.entrance.services import Services
from service.http.platforms.accepted import accepted
from service.http.platforms.mlflow import mlflow
from service.http.reply import Reply, json_reply
from service.http.request import Request
from service.http.rest.dialect import Dialect
from service.http.rest.predict import Rows
from service.http.rest.replies import ExecutionParameters
from service.http.rest.several import Several
from service.settings import Settings

# Of batch transform: what it sends unless told otherwise, and the most of payload times requests
# together (API reference, "CreateTransformJob").
PAYLOAD_MB, MOST_MB = 6, 100
SHORTEST_LINE = 2  # bytes: a digit and the line's end


_own = Rows(Dialect(reply=accepted, is_strict=True))
invocations = Several(_own, (_own, mlflow))


async def show_execution_parameters(services: Services, request: Request) -> Reply:
    """Answer GET /execution-parameters."""
    return json_reply(execution_parameters(services.settings))


def execution_parameters(settings: Settings) -> ExecutionParameters:
    """Return how SageMaker's batch transform is to send, where its caller does not say.

    MULTI_RECORD fills each payload with as many lines as fit: more than one request may have,
    unless that limit was raised. Batches form from single records that come at the same time.
    """
    payload_mb = max(1, min(PAYLOAD_MB, settings.max_body_bytes // 2**20))
    fits = settings.max_request_rows * SHORTEST_LINE >= payload_mb * 2**20
    return ExecutionParameters(
        MOST_MB // payload_mb, "MULTI_RECORD" if fits else "SINGLE_RECORD", payload_mb
    )
