"""What the routes that are read answer, as JSON; the OpenAPI document describes it by these."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from service.card import LAST_VERSION, Card

_INT64 = Meta(ge=1, le=LAST_VERSION, extra_json_schema={"format": "int64"})
Number = Annotated[int, _INT64]  # of a version
Count = Annotated[int, Meta(ge=1)]
WhyNoRows = Annotated[str, Meta(description="Why only /v2 takes what it takes")]
_NODES = "How many nodes of the graph run on each execution provider"
_FALLBACK = "Operators that the first provider has not: how many of their nodes run on the CPU"


class Batching(Struct):
    """Whether rows of several requests share a run, and why or why not."""

    of: Literal["rows", "requests"]
    largest_batch: Count
    reason: str


class Classifier(Struct):
    """What a classifier says of a row: a label, and a number for each."""

    labels: Annotated[Sequence[str | int], Meta(description="None if they are not known")]
    answers: Literal["probabilities", "scores"]


class Column(Struct):
    """A value of a row that is an input of its own."""

    name: str
    type: Literal["number", "integer", "string", "boolean"]
    takes_missing: bool
    example: Annotated[
        float | int | str | bool | None,
        Meta(description="Answered beside those of the others; null if none is known"),
    ]


class Plot(Struct):
    """A plot of a model's training, one that its card lists."""

    title: str
    url: Annotated[str, Meta(extra_json_schema={"format": "uri-reference"})]


class File(Struct):
    """A file that a version was opened from: the .onnx, or weights that it names."""

    name: str
    bytes: int
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class ModelVersion(Struct):
    """A version of a model; the last fields of one that serves only."""

    version: Number | None
    state: Literal["ready", "failed"]
    reason: str | UnsetType = UNSET
    why_no_rows: (
        Annotated[str, Meta(description="Why only /v2 takes what it takes")] | UnsetType
    ) = UNSET
    files: list[File] | UnsetType = UNSET
    provider: str | UnsetType = UNSET
    device: str | UnsetType = UNSET
    nodes: Annotated[dict[str, int], Meta(description=_NODES)] | UnsetType = UNSET
    fallback: Annotated[dict[str, int], Meta(description=_FALLBACK)] | UnsetType = UNSET
    batching: Batching | UnsetType = UNSET
    columns: list[Column] | UnsetType = UNSET
    classifier: Classifier | UnsetType = UNSET
    card: Card | UnsetType | None = UNSET
    pictures: list[Plot] | UnsetType = UNSET


class Model(Struct):
    """A model and its versions."""

    model: str
    default_version: Number | None
    versions: list[ModelVersion]
    split: (
        Annotated[
            dict[str, Annotated[int, Meta(ge=0)]],
            Meta(description="The weights by which versions answer where none is named"),
        ]
        | UnsetType
    ) = UNSET


class ModelList(Struct):
    """The models that there are."""

    models: list[Model]


class ShadowRows(Struct, frozen=True):
    """Rows that were chosen for a shadow, by what became of them, since the start."""

    agree: int = 0
    disagree: int = 0
    failed: Annotated[int, Meta(description="The shadow raised, hung or answered NaN")] = 0
    dropped: Annotated[int, Meta(description="Too many waited, or there was no shadow")] = 0


class Bucket(Struct):
    """Rows up to a bound, and above the one before."""

    upper_bound: Annotated[float | None, Meta(description="Null: none")]
    rows: int


class Difference(Struct):
    """How far apart two answers are."""

    of: Annotated[
        Literal["probability", "absolute", "relative"],
        Meta(description="Of the label that the version answered; of values; as a share of them"),
    ]
    mean: float | None
    buckets: list[Bucket]


class LabelPair(Struct):
    """Rows with one label of the version, and another of its shadow."""

    label: str
    shadow_label: str
    rows: int


class Disagreement(Struct):
    """A row, or a request, that a shadow answered otherwise."""

    at: str
    inputs: dict[str, Any]
    answer: dict[str, Any]
    shadow_answer: dict[str, Any]


class Shadow(Struct):
    """A version that answers rows of another one too; nobody gets its answers."""

    version: Number
    shadow: Number
    share: float
    state: Literal["comparing", "waiting"]
    reason: str | UnsetType = UNSET
    rows: ShadowRows = ShadowRows()
    agreement: Annotated[float | None, Meta(description="Of the rows that were compared")] = None
    agree_means: str | UnsetType = UNSET
    differences: list[Difference] = []
    other_labels: Annotated[list[LabelPair], Meta(description="The most frequent ones")] = []
    disagreements: Annotated[
        list[Disagreement],
        Meta(description="The last ones of the worker that answers, where a setting keeps them"),
    ] = []


class ShadowList(Struct):
    """The versions of a model that are compared."""

    model: str
    shadows: list[Shadow]


class Live(Struct):
    """That the process runs."""

    status: Literal["live"] = "live"


class Ready(Struct):
    """Whether every model that must answer does."""

    status: Literal["ready", "not ready", "draining"]
    models: dict[str, dict[str, Any]]


class ExecutionParameters(Struct):
    """How SageMaker's batch transform is to send."""

    MaxConcurrentTransforms: Count
    BatchStrategy: Literal["SINGLE_RECORD", "MULTI_RECORD"]
    MaxPayloadInMB: Count


class Error(Struct):
    """Why a request is refused, in a sentence."""

    error: str


REPLIES = (Error, ModelList, Model, ShadowList, Live, Ready, ExecutionParameters)
