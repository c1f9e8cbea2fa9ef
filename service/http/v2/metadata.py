"""The Open Inference Protocol under /v2, but for inference itself, which is in infer.py.

Paths and bodies: https://github.com/kserve/open-inference-protocol (inference_rest.md) and, in
Triton's docs/protocol/, extension_model_repository.md, extension_model_configuration.md and
extension_statistics.md. Real clients read `ready` and `live` where the text leaves bodies open.
"""

from importlib.metadata import version as version_of
from typing import Any

import msgspec
from litestar import Request, Response, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath
from msgspec import Struct

from service.catalog.catalog import ModelRepository
from service.catalog.served import ServedModel
from service.engine.model import Model
from service.engine.providers import CUDA
from service.engine.spec import Tensor
from service.errors import InvalidInput, NotSupported
from service.formats.json_rows import decoded
from service.formats.tensors import NAMES
from service.metrics import Total
from service.settings import Settings

Json = dict[str, Any]

PLATFORM = "onnxruntime_onnx"  # as Triton names it
EXTENSIONS = ("binary_tensor_data", "classification", "model_configuration", "statistics")
CONTROL = ("model_repository", "model_repository(unload_dependents)")
MODEL = "/v2/models/{model:str}"
VERSION = MODEL + "/versions/{version:str}"
_NEVER = Total(0, 0.0)


class IndexRequest(Struct):
    """What of the repository is asked for."""

    ready: bool = False


class ControlRequest(Struct):
    """How a model is to be loaded or unloaded."""

    parameters: dict[str, Any] | None = None


_index_request = msgspec.json.Decoder(IndexRequest)
_control_request = msgspec.json.Decoder(ControlRequest)


def route_handlers(models: ModelRepository, settings: Settings) -> list[HTTPRouteHandler]:
    """Return the handlers of all paths below /v2 but those of inference."""

    extensions = EXTENSIONS + (() if _why_no_control(settings) else CONTROL)
    metadata = {"name": "torchlit", "version": version_of("torchlit"), "extensions": extensions}

    @get("/v2", sync_to_thread=False)
    def server_metadata() -> Json:
        return metadata

    @get("/v2/health/live", sync_to_thread=False)
    def server_live() -> Json:
        return {"live": True}

    @get("/v2/health/ready", sync_to_thread=False)
    def server_ready() -> Response[Json]:
        is_ready = models.is_ready and not models.draining
        content = {"live": True, "ready": is_ready}
        return Response(content, status_code=200 if is_ready else 503)

    @get("/v2/models", sync_to_thread=False)
    def list_models() -> Json:
        return {"models": [name for name in models.names if models.default(name)]}

    @get([MODEL, VERSION], sync_to_thread=False)
    def model_metadata(model: FromPath[str], version: FromPath[str | None] = None) -> Json:
        return _metadata(models, models.named(model, version))

    @get([MODEL + "/ready", VERSION + "/ready"], sync_to_thread=False)
    def model_ready(model: FromPath[str], version: FromPath[str | None] = None) -> Json:
        return {"name": models.named(model, version).name, "ready": True}

    @get([MODEL + "/config", VERSION + "/config"], sync_to_thread=False)
    def model_config(model: FromPath[str], version: FromPath[str | None] = None) -> Json:
        return _config(models.named(model, version), settings)

    @get("/v2/models/stats", sync_to_thread=False)
    def statistics_of_all() -> Json:
        served = [each for name in models.names for each in _served(models, name)]
        return {"model_stats": [_statistics(each) for each in served]}

    @get([MODEL + "/stats", VERSION + "/stats"], sync_to_thread=False)
    def statistics(model: FromPath[str], version: FromPath[str | None] = None) -> Json:
        named = models.named(model, version)
        served = _served(models, model) if version is None else [named]
        return {"model_stats": [_statistics(each) for each in served]}

    @post("/v2/repository/index", status_code=200)
    async def repository_index(request: Request[Any, Any, Any]) -> list[Json]:
        asked = decoded(await request.body() or b"{}", _index_request)
        entries = _index(models)
        return [each for each in entries if each["state"] == "READY" or not asked.ready]

    @post("/v2/repository/models/{model:str}/load", status_code=200)
    async def load(request: Request[Any, Any, Any], model: FromPath[str]) -> Json:
        _check_control(settings)
        asked = decoded(await request.body() or b"{}", _control_request)
        for name in asked.parameters or {}:
            if name == "config" or name.startswith("file:"):
                raise InvalidInput(
                    f"parameters.{name}: expected none: what is loaded is what the folder holds"
                )
        await models.load(model)
        return {}

    @post("/v2/repository/models/{model:str}/unload", status_code=200)
    async def unload(request: Request[Any, Any, Any], model: FromPath[str]) -> Json:
        _check_control(settings)
        decoded(await request.body() or b"{}", _control_request)
        await models.unload(model)
        return {}

    return [
        *(server_metadata, server_live, server_ready, list_models, model_metadata, model_ready),
        *(model_config, statistics_of_all, statistics, repository_index, load, unload),
    ]


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


def _check_control(settings: Settings) -> None:
    if reason := _why_no_control(settings):
        raise NotSupported(f"loading and unloading of models is off: {reason}")


def _served(models: ModelRepository, name: str) -> list[ServedModel]:
    return [each.served for each in models.versions[name] if each.served is not None]


def _metadata(models: ModelRepository, served: ServedModel) -> Json:
    return {
        "name": served.name,
        "versions": [str(each.version) for each in _served(models, served.name)],
        "platform": PLATFORM,
        "inputs": [_tensor(each) for each in served.model.inputs],
        "outputs": [_tensor(each) for each in served.model.trial.outputs],
    }


def _tensor(tensor: Tensor) -> Json:
    return {"name": tensor.name, "datatype": NAMES[tensor.dtype], "shape": tensor.shown_shape}


def _config(served: ServedModel, settings: Settings) -> Json:
    """Return what Triton would say of the model, as far as load tools read it.

    `max_batch_size` is what one request may hold, 0 if it has no rows; `dims` are without them.
    """
    model = served.model
    config: Json = {
        "name": served.name,
        "platform": PLATFORM,
        "backend": "onnxruntime",
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": settings.max_request_rows if model.is_batched else 0,
        "input": [_configured(each, model) for each in model.inputs],
        "output": [_configured(each, model) for each in model.trial.outputs],
        "instance_group": [
            {
                "name": served.name,
                "kind": "KIND_GPU" if model.provider == CUDA else "KIND_CPU",
                "count": settings.workers,
            }
        ],
        "default_model_filename": "model.onnx",
        "parameters": {
            "batching": {"string_value": "rows" if model.is_batched else "requests"},
            "batching_reason": {"string_value": model.why_batching},
        },
    }
    if model.is_batched:
        config["dynamic_batching"] = {
            "preferred_batch_size": [model.largest_batch],
            "max_queue_delay_microseconds": round(settings.max_queue_delay_ms * 1000),
        }
    return config


def _configured(tensor: Tensor, model: Model) -> Json:
    datatype = NAMES[tensor.dtype]
    return {
        "name": tensor.name,
        "data_type": "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}",
        "dims": tensor.shown_shape[model.is_batched :],
    }


def _statistics(served: ServedModel) -> Json:
    """Return the statistics of a version since the service started, over all workers.

    The service takes no time of its own for inputs and outputs, and keeps none by batch size.
    """
    counted = served.metrics.statistics()
    return {
        "name": served.name,
        "version": str(served.version),
        "last_inference": round(counted.last * 1000),
        "inference_count": counted.rows,
        "execution_count": counted.batches,
        "inference_stats": {
            "success": _duration(counted.succeeded),
            "fail": _duration(counted.failed),
            "queue": _duration(counted.queued),
            "compute_input": _duration(_NEVER),
            "compute_infer": _duration(counted.computed),
            "compute_output": _duration(_NEVER),
            "cache_hit": _duration(_NEVER),
            "cache_miss": _duration(_NEVER),
        },
        "response_stats": {},
        "batch_stats": [],
        "memory_usage": [],
    }


def _duration(total: Total) -> Json:
    return {"count": total.count, "ns": round(total.seconds * 1e9)}


def _index(models: ModelRepository) -> list[Json]:
    """Return every version there is, and why it does not serve if it does not."""
    entries: list[Json] = []
    for name in models.names:
        for each in models.versions[name]:
            entry: Json = {"name": name}
            if each.version is not None:
                entry["version"] = str(each.version)
            state = "UNAVAILABLE" if each.served is None else "READY"
            entries.append(entry | {"state": state, "reason": each.reason})
    for name, versions in models.unloaded.items():
        for version in versions:
            entry = {"name": name, "version": str(version), "state": "UNAVAILABLE"}
            entries.append(entry | {"reason": "unloaded"})
    return entries
