"""The Open Inference Protocol under /v2, but for inference itself, which is in infer.py.

Paths and bodies: https://github.com/kserve/open-inference-protocol (inference_rest.md) and, in
Triton's docs/protocol/, extension_model_repository.md, extension_model_configuration.md and
extension_statistics.md. Real clients read `ready` and `live` where the text leaves bodies open.
"""

import asyncio
from importlib.metadata import version as version_of
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Struct

from service.catalog.catalog import Catalog
from service.catalog.served import ServedModel
from service.engine.model import Model
from service.engine.providers import kind_of
from service.engine.spec import Tensor
from service.errors import InvalidInput, NotSupported
from service.formats.json_text import decoded
from service.formats.tensors import NAMES
from service.http.reply import Reply, json_reply
from service.http.request import Request
from service.http.services import Services
from service.http.v2.replies import (
    ConfigParameters,
    ConfiguredTensor,
    Duration,
    DynamicBatching,
    IndexEntry,
    InferenceStatistics,
    InstanceGroup,
    ModelConfig,
    ModelMetadata,
    ModelNames,
    ModelReady,
    ModelStatistics,
    ServerLive,
    ServerMetadata,
    ServerReady,
    Statistics,
    TensorMetadata,
    Text,
)
from service.metrics import Metrics, Reading, Total
from service.settings import Settings

PLATFORM = "onnxruntime_onnx"  # as Triton names it
EXTENSIONS = ("binary_tensor_data", "classification", "model_configuration", "statistics")
CONTROL = ("model_repository", "model_repository(unload_dependents)")
_NEVER = Duration(0, 0)


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
    extensions = EXTENSIONS + (() if _why_no_control(services.settings) else CONTROL)
    return json_reply(ServerMetadata("torchlit", version_of("torchlit"), [*extensions]))


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
    return json_reply(_metadata(services.catalog, _named(services, request)))


async def model_ready(services: Services, request: Request) -> Reply:
    """Answer GET /v2/models/{model}/ready, and the same of a version."""
    served = _named(services, request)
    is_ready = not served.why_not_ready
    return json_reply(ModelReady(served.name, is_ready), 200 if is_ready else 503)


async def model_config(services: Services, request: Request) -> Reply:
    """Answer GET /v2/models/{model}/config, and the same of a version."""
    return json_reply(_config(_named(services, request), services.settings))


async def statistics_of_all(services: Services, request: Request) -> Reply:
    """Answer GET /v2/models/stats."""
    catalog = services.catalog
    served = [each for name in catalog.names for each in _served(catalog, name)]
    return await asyncio.to_thread(_statistics, services.metrics, served)


async def statistics(services: Services, request: Request) -> Reply:
    """Answer GET /v2/models/{model}/stats, and the same of a version."""
    named = _named(services, request)
    served = [named] if "version" in request.values else _served(services.catalog, named.name)
    return await asyncio.to_thread(_statistics, services.metrics, served)


async def repository_index(services: Services, request: Request) -> Reply:
    """Answer POST /v2/repository/index."""
    body = await request.body(services.settings.max_body_bytes)
    wanted = decoded(body or b"{}", _index_request)
    entries = _index(services.catalog, services.reloader.unloaded)
    return json_reply([each for each in entries if each.state == "READY" or not wanted.ready])


async def load(services: Services, request: Request) -> Reply:
    """Answer POST /v2/repository/models/{model}/load."""
    for name in await _control_parameters(services, request):
        if name == "config" or name.startswith("file:"):
            raise InvalidInput(
                f"parameters.{name}: expected none: what is loaded is what the folder holds"
            )
    await services.reloader.load(request.values["model"])
    return json_reply({})


async def unload(services: Services, request: Request) -> Reply:
    """Answer POST /v2/repository/models/{model}/unload."""
    await _control_parameters(services, request)
    await services.reloader.unload(request.values["model"])
    return json_reply({})


async def _control_parameters(services: Services, request: Request) -> dict[str, Any]:
    if reason := _why_no_control(services.settings):
        raise NotSupported(f"loading and unloading of models is off: {reason}")
    body = await request.body(services.settings.max_body_bytes)
    return decoded(body or b"{}", _control_request).parameters or {}


def _named(services: Services, request: Request) -> ServedModel:
    return services.catalog.named(request.values["model"], request.values.get("version"))


def _why_no_control(settings: Settings) -> str:
    """Return why callers cannot load and unload models; empty if they can."""
    if not settings.model_control:
        return "set TORCHLIT_MODEL_CONTROL=true to allow it"
    if settings.workers > 1:
        return (
            f"it would reach one worker of {settings.workers}; change the models folder, which all "
            "of them follow"
        )
    return ""


def _served(catalog: Catalog, name: str) -> list[ServedModel]:
    return [each.served for each in catalog.versions[name] if each.served is not None]


def _metadata(catalog: Catalog, served: ServedModel) -> ModelMetadata:
    return ModelMetadata(
        served.name,
        [str(each.version) for each in _served(catalog, served.name)],
        PLATFORM,
        inputs=[_tensor(each) for each in served.model.inputs],
        outputs=[_tensor(each) for each in served.model.trial.outputs],
    )


def _tensor(tensor: Tensor) -> TensorMetadata:
    return TensorMetadata(tensor.name, NAMES[tensor.dtype], tensor.shown_shape)


def _config(served: ServedModel, settings: Settings) -> ModelConfig:
    """Return what Triton would say of the model, as far as load tools read it.

    `max_batch_size` is what one request may hold, 0 if it has no rows; `dims` are without them.
    """
    model = served.model
    config = ModelConfig(
        name=served.name,
        platform=PLATFORM,
        backend="onnxruntime",
        version_policy={"latest": {"num_versions": 1}},
        max_batch_size=settings.max_request_rows if model.is_batched else 0,
        input=[_configured(each, model) for each in model.inputs],
        output=[_configured(each, model) for each in model.trial.outputs],
        instance_group=[InstanceGroup(served.name, kind_of(model.provider), settings.workers)],
        default_model_filename="model.onnx",
        parameters=ConfigParameters(
            Text("rows" if model.is_batched else "requests"), Text(model.why_batching)
        ),
    )
    if model.is_batched:
        delay_us = round(settings.max_queue_delay_ms * 1000)
        config.dynamic_batching = DynamicBatching([model.largest_batch], delay_us)
    return config


def _configured(tensor: Tensor, model: Model) -> ConfiguredTensor:
    datatype = NAMES[tensor.dtype]
    data_type = "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}"
    return ConfiguredTensor(tensor.name, data_type, tensor.shown_shape[model.is_batched :])


def _statistics(metrics: Metrics, served: list[ServedModel]) -> Reply:
    """Return the reply about versions; in any thread, as there may be thousands of them."""
    reading = metrics.blocks.read()
    return json_reply(Statistics([_statistics_of(each, reading) for each in served]))


def _statistics_of(served: ServedModel, reading: Reading) -> ModelStatistics:
    """Return the statistics of a version since the service started, over all workers.

    The service takes no time of its own for inputs and outputs, and keeps none by batch size.
    """
    counted = served.metrics.statistics(reading)
    return ModelStatistics(
        name=served.name,
        version=str(served.version),
        last_inference=round(counted.last * 1000),
        inference_count=counted.rows,
        execution_count=counted.batches,
        inference_stats=InferenceStatistics(
            success=_duration(counted.succeeded),
            fail=_duration(counted.failed),
            queue=_duration(counted.queued),
            compute_input=_NEVER,
            compute_infer=_duration(counted.computed),
            compute_output=_NEVER,
            cache_hit=_NEVER,
            cache_miss=_NEVER,
        ),
    )


def _duration(total: Total) -> Duration:
    return Duration(total.count, round(total.seconds * 1e9))


def _index(catalog: Catalog, unloaded: dict[str, list[int]]) -> list[IndexEntry]:
    """Return every version there is, and why it does not serve if it does not."""
    entries: list[IndexEntry] = []
    for name in catalog.names:
        for each in catalog.versions[name]:
            version = UNSET if each.version is None else str(each.version)
            state: Literal["READY", "UNAVAILABLE"] = "READY" if each.served else "UNAVAILABLE"
            entries.append(IndexEntry(name, state, each.reason, version))
    for name, versions in unloaded.items():
        entries += [IndexEntry(name, "UNAVAILABLE", "unloaded", str(each)) for each in versions]
    return entries
