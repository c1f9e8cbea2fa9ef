"""What is said of the server and its models, whatever protocol carries it, as replies.py has it.

https://github.com/kserve/open-inference-protocol and, in Triton's docs/protocol/,
extension_model_repository.md, extension_model_configuration.md and extension_statistics.md.
"""

from collections.abc import Iterable
from importlib.metadata import version as version_of
from typing import Literal

from msgspec import UNSET

from service.catalog.catalog import Catalog
from service.catalog.served import ServedModel
from service.checksums import line_of
from service.engine.model import Model
from service.engine.providers import kind_of
from service.engine.spec import Tensor
from service.errors import InvalidInput, NotSupported
from service.formats.tensors import NAMES
from service.metrics import Metrics, Reading, Total
from service.settings import Settings
from service.v2.replies import (
    ConfigParameters,
    ConfiguredTensor,
    Duration,
    DynamicBatching,
    IndexEntry,
    InferenceStatistics,
    InstanceGroup,
    ModelConfig,
    ModelMetadata,
    ModelStatistics,
    ServerMetadata,
    Statistics,
    TensorMetadata,
    Text,
)

PLATFORM = "onnxruntime_onnx"  # as Triton names it
EXTENSIONS = ("binary_tensor_data", "classification", "model_configuration", "statistics")
CONTROL = ("model_repository", "model_repository(unload_dependents)")
_NEVER = Duration(0, 0)


def why_no_control(settings: Settings) -> str:
    """Return why callers cannot load and unload models; empty if they can."""
    if not settings.model_control:
        return "set TORCHLIT_MODEL_CONTROL=true to allow it"
    if settings.workers > 1:
        return (
            f"it would reach one worker of {settings.workers}; change the models folder, which all "
            "of them follow"
        )
    return ""


def check_control(settings: Settings) -> None:
    """Raise NotSupported where callers cannot load and unload models."""
    if reason := why_no_control(settings):
        raise NotSupported(f"loading and unloading of models is off: {reason}")


def check_load(parameters: Iterable[str]) -> None:
    """Raise InvalidInput for parameters that bring a model along."""
    for name in parameters:
        if name == "config" or name.startswith("file:"):
            raise InvalidInput(
                f"parameters.{name}: expected none: what is loaded is what the folder holds"
            )


def server_metadata(settings: Settings) -> ServerMetadata:
    """Return what is said of the server."""
    extensions = EXTENSIONS + (() if why_no_control(settings) else CONTROL)
    return ServerMetadata("torchlit", version_of("torchlit"), [*extensions])


def served_versions(catalog: Catalog, name: str) -> list[ServedModel]:
    """Return the versions of a model that answer."""
    return [each.served for each in catalog.versions[name] if each.served is not None]


def metadata(catalog: Catalog, served: ServedModel) -> ModelMetadata:
    """Return the inputs and outputs of a model."""
    return ModelMetadata(
        served.name,
        [str(each.version) for each in served_versions(catalog, served.name)],
        PLATFORM,
        inputs=[_tensor(each) for each in served.model.inputs],
        outputs=[_tensor(each) for each in served.model.trial.outputs],
    )


def _tensor(tensor: Tensor) -> TensorMetadata:
    return TensorMetadata(tensor.name, NAMES[tensor.dtype], tensor.shown_shape)


def config_of(served: ServedModel, settings: Settings) -> ModelConfig:
    """Return what Triton would say of the model, as far as load tools read it.

    `max_batch_size` is what one request may hold, 0 if it has no rows; `dims` are without them.
    """
    model = served.model
    weights = [line_of(each.name, each.sha256) for each in model.files[1:]]
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
            Text("rows" if model.is_batched else "requests"),
            Text(model.why_batching),
            Text(model.files[0].sha256),
            Text(str(model.assignment)),
            Text("\n".join(weights)) if weights else UNSET,
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


def counted_versions(catalog: Catalog, name: str, version: str | None) -> list[ServedModel]:
    """Return those whose statistics are wanted: of all models, of a model, or one.

    An empty name is all of them. Raises NotFound, Unavailable.
    """
    if not name:
        return [each for known in catalog.names for each in served_versions(catalog, known)]
    named = catalog.named(name, version)
    return served_versions(catalog, name) if version is None else [named]


def statistics_of(metrics: Metrics, served: list[ServedModel]) -> Statistics:
    """Return what is said of versions; in any thread, as there may be thousands of them."""
    reading = metrics.blocks.read()
    return Statistics([_statistics_of(each, reading) for each in served])


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


def index_of(
    catalog: Catalog, unloaded: dict[str, list[int]], *, only_ready: bool
) -> list[IndexEntry]:
    """Return every version there is, and why it does not serve if it does not."""
    entries: list[IndexEntry] = []
    for name in catalog.names:
        for each in catalog.versions[name]:
            version = UNSET if each.version is None else str(each.version)
            state: Literal["READY", "UNAVAILABLE"] = "READY" if each.served else "UNAVAILABLE"
            entries.append(IndexEntry(name, state, each.reason, version))
    for name, versions in unloaded.items():
        entries += [IndexEntry(name, "UNAVAILABLE", "unloaded", str(each)) for each in versions]
    return [each for each in entries if each.state == "READY" or not only_ready]
