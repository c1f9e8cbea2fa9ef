"""The Open Inference Protocol under /v2, but for inference itself, which is in infer.py.

Paths and bodies: https://github.com/kserve/open-inference-protocol (inference_rest.md) and, in
Triton's docs/protocol/, extension_model_repository.md, extension_model_configuration.md and
extension_statistics.md. Real clients read `ready` and `live` where the text leaves bodies open.
"""

import asyncio
from typing import Any

import msgspec
from msgspec import Struct

from service.catalog.served import ServedModel
from service.entrance.services import Services
from service.formats.json_text import decoded
from service.http.reply import Reply, json_reply
from service.http.request import Request
from service.metrics import Metrics
from service.v2 import metadata as v2
from service.v2.replies import ModelNames, ModelReady, ServerLive, ServerReady


class IndexRequest(Struct):
    """What of the repository is wanted."""

    ready: bool = False


class ControlRequest(Struct):
    """How a model is to be loaded or unloaded."""

    parameters: dict[str, Any] | None = None


_index_request = msgspec.json.Decoder(IndexRequest)
_control_request = msgspec.json.Decoder(ControlRequest)


async def server_metadata(services: Services, request: Request) -> Reply:
    """Answer GET /v2."""
    return json_reply(v2.server_metadata(services.settings))


async def server_live(services: Services, request: Request) -> Reply:
    """Answer GET /v2/health/live."""
    return json_reply(ServerLive(True))


async def server_ready(services: Services, request: Request) -> Reply:
    """Answer GET /v2/health/ready."""
    is_ready = services.is_ready
    return json_reply(ServerReady(True, is_ready), 200 if is_ready else 503)


async def list_names(services: Services, request: Request) -> Reply:
    """Answer GET /v2/models."""
    catalog = services.catalog
    return json_reply(ModelNames([name for name in catalog.names if catalog.default(name)]))


async def model_metadata(services: Services, request: Request) -> Reply:
    """Answer GET /v2/models/{model}, and the same of a version."""
    return json_reply(v2.metadata(services.catalog, _named(services, request)))


async def model_ready(services: Services, request: Request) -> Reply:
    """Answer GET /v2/models/{model}/ready, and the same of a version."""
    served = _named(services, request)
    is_ready = not served.why_not_ready
    return json_reply(ModelReady(served.name, is_ready), 200 if is_ready else 503)


async def model_config(services: Services, request: Request) -> Reply:
    """Answer GET /v2/models/{model}/config, and the same of a version."""
    return json_reply(v2.config_of(_named(services, request), services.settings))


async def statistics_of_all(services: Services, request: Request) -> Reply:
    """Answer GET /v2/models/stats."""
    return await _statistics(services, "", None)


async def statistics(services: Services, request: Request) -> Reply:
    """Answer GET /v2/models/{model}/stats, and the same of a version."""
    return await _statistics(services, request.values["model"], request.values.get("version"))


async def _statistics(services: Services, name: str, version: str | None) -> Reply:
    served = v2.counted_versions(services.catalog, name, version)
    return await asyncio.to_thread(_statistics_reply, services.metrics, served)


def _statistics_reply(metrics: Metrics, served: list[ServedModel]) -> Reply:
    return json_reply(v2.statistics_of(metrics, served))


async def repository_index(services: Services, request: Request) -> Reply:
    """Answer POST /v2/repository/index."""
    body = await request.body(services.settings.max_body_bytes)
    wanted = decoded(body or b"{}", _index_request)
    unloaded = services.reloader.unloaded
    return json_reply(v2.index_of(services.catalog, unloaded, only_ready=wanted.ready))


async def load(services: Services, request: Request) -> Reply:
    """Answer POST /v2/repository/models/{model}/load."""
    v2.check_load(await _control_parameters(services, request))
    await services.reloader.load(request.values["model"])
    return json_reply({})


async def unload(services: Services, request: Request) -> Reply:
    """Answer POST /v2/repository/models/{model}/unload."""
    await _control_parameters(services, request)
    await services.reloader.unload(request.values["model"])
    return json_reply({})


async def _control_parameters(services: Services, request: Request) -> dict[str, Any]:
    v2.check_control(services.settings)
    body = await request.body(services.settings.max_body_bytes)
    return decoded(body or b"{}", _control_request).parameters or {}


def _named(services: Services, request: Request) -> ServedModel:
    return services.catalog.named(request.values["model"], request.values.get("version"))
