"""What the routes below /v2 answer, but for inference; the OpenAPI document describes it by these.

The names of the fields are the protocol's, and Triton's.
"""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

Whole = Annotated[int, Meta(ge=0)]
Size = Annotated[int, Meta(ge=-1)]


class ServerMetadata(Struct):
    """The server."""

    name: str
    version: str
    extensions: list[str]


class ServerLive(Struct):
    """That the process runs."""

    live: bool


class ServerReady(Struct):
    """Whether every model that must answer does."""

    live: bool
    ready: bool


class ModelNames(Struct):
    """The models that answer."""

    models: list[str]


class ModelReady(Struct):
    """That a model answers."""

    name: str
    ready: bool


class TensorMetadata(Struct):
    """An input or output; -1 is an open size."""

    name: str
    datatype: str
    shape: list[Size]


class ModelMetadata(Struct):
    """Inputs and outputs of a model."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ConfiguredTensor(Struct):
    """An input or output, its sizes without the rows."""

    name: str
    data_type: Annotated[str, Meta(pattern="^TYPE_")]
    dims: list[Size]


class InstanceGroup(Struct):
    """How many run, and on what."""

    name: str
    kind: Literal["KIND_CPU", "KIND_GPU"]
    count: Whole


class Text(Struct):
    """A parameter."""

    string_value: str


class ConfigParameters(Struct):
    """Whether rows of several requests share a run, and why or why not; which file it is, and where
    its nodes run.
    """

    batching: Text
    batching_reason: Text
    sha256: Text  # of the .onnx
    nodes: Text
    weights_sha256: Text | UnsetType = UNSET  # of files of weights, in lines as sha256sum has them


class DynamicBatching(Struct):
    """How batches form."""

    preferred_batch_size: list[Whole]
    max_queue_delay_microseconds: Whole


class ModelConfig(Struct):
    """What Triton would say of a model, as far as load tools read it."""

    name: str
    platform: str
    backend: str
    version_policy: dict[str, Any]
    max_batch_size: Annotated[int, Meta(ge=0, description="rows of one request; 0: it has none")]
    input: list[ConfiguredTensor]
    output: list[ConfiguredTensor]
    instance_group: list[InstanceGroup]
    default_model_filename: str
    parameters: ConfigParameters
    dynamic_batching: DynamicBatching | UnsetType = UNSET


class Duration(Struct):
    """How often, and how long in all."""

    count: Whole
    ns: Whole


class InferenceStatistics(Struct):
    """Where the time of requests went."""

    success: Duration
    fail: Duration
    queue: Duration
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration
    cache_hit: Duration
    cache_miss: Duration


class ModelStatistics(Struct, kw_only=True):
    """The statistics of a version since the service started, over all workers."""

    name: str
    version: str
    last_inference: Annotated[int, Meta(ge=0, description="milliseconds since 1970; 0: never")]
    inference_count: Annotated[int, Meta(ge=0, description="rows")]
    execution_count: Annotated[int, Meta(ge=0, description="batches")]
    inference_stats: InferenceStatistics
    response_stats: dict[str, Any] = {}
    batch_stats: list[dict[str, Any]] = []
    memory_usage: list[dict[str, Any]] = []


class Statistics(Struct):
    """The statistics of versions."""

    model_stats: list[ModelStatistics]


class IndexEntry(Struct):
    """A version that there is, and why it does not serve if it does not."""

    name: str
    state: Literal["READY", "UNAVAILABLE"]
    reason: str
    version: str | UnsetType = UNSET


REPLIES = (
    *(ServerMetadata, ServerLive, ServerReady, ModelNames, ModelReady, ModelMetadata),
    *(ModelConfig, Statistics, IndexEntry),
)
