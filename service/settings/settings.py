"""Settings: everything that can be chosen from outside, as TORCHLIT_* environment variables."""

import difflib
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeAlias, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta, Struct

from service.errors import InvalidSetting
from service.settings import machine as resources
from service.settings import shadows, versions
from service.settings.machine import MOST_WORKERS
from service.settings.shadows import ShadowVersions
from service.settings.split import EXPECTED, Split
from service.settings.verdicts import MissingValues, Verdicts
from service.settings.versions import Versions

PREFIX = "TORCHLIT_"
OF_TRAINING = {"TORCHLIT_DATA_DIR"}  # read by `python -m training`, known here
AUTO = "auto"  # of `workers`
# An empty value of these is refused: a secret that did not arrive is no reason to let everybody in.
OF_KEYS = {"api_keys", "api_keys_file"}
MOST_PIXELS = 89_478_485  # Pillow's own: beyond it, it warns
LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]
LogFormat: TypeAlias = Literal["text", "json"]
Count: TypeAlias = Annotated[int, Meta(ge=1)]
Seconds: TypeAlias = Annotated[float, Meta(gt=0, le=3600)]
RoutePath: TypeAlias = Annotated[str, Meta(pattern=r"^/[^?#%\s]*$")]  # those free: http/routes.py
HeaderName: TypeAlias = Annotated[
    str, Meta(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")
]  # RFC 9110, 5.1

# What cloud platforms call a setting; TORCHLIT_ comes first, then these in their order.
# SageMaker: "Run models with inference pipelines"; Vertex AI: "Custom container requirements";
# Cloud Run: "Container runtime contract".
OF_PLATFORMS = {
    "port": ("SAGEMAKER_BIND_TO_PORT", "AIP_HTTP_PORT", "PORT"),
    "predict_route": ("AIP_PREDICT_ROUTE",),
    "health_route": ("AIP_HEALTH_ROUTE",),
}

# What Kubernetes sets in each container of a Service named torchlit, or torchlit-...
# (its documentation, "Service", "Environment variables").
_SERVICE_LINK = re.compile(
    r"TORCHLIT_(\w+_)?(SERVICE_(HOST|PORT(_\w+)?)|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_SERVICE_URL = re.compile(r"(tcp|udp|sctp)://.*")

# What else people write for true and false.
_BOOLEANS = {"yes": "true", "on": "true", "no": "false", "off": "false"}

# What is expected of a type, where bounds say nothing more.
_IN_WORDS: dict[type, str] = {
    bool: "true or false",
    Verdicts: Verdicts.expected(),
    MissingValues: MissingValues.expected(),
    Split: EXPECTED,
    ShadowVersions: shadows.EXPECTED,
}


class Settings(Struct, frozen=True, kw_only=True):
    """What is chosen from outside; `TORCHLIT_PORT` is the field `port`, and so on.

    Each has its type, its bounds, if any, and what it is for.
    """

    host: Annotated[
        str, "address to listen on; `0.0.0.0`: all of IPv4; `::`: all of IPv6 and IPv4"
    ] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535), "port; 0 takes a free one"] = 8000
    models_dir: Annotated[Path, "folder of `<name>/<version>/model.onnx`"] = Path("models")
    versions: Annotated[
        Versions, "which to open: `all`, `latest`, `latest:2` or `1,3`; also `name=1,3`"
    ] = Versions()
    watch: Annotated[bool, "follow changes in the folder; else only at SIGHUP"] = True
    split: Annotated[
        Split,
        "weights by which versions answer requests that name none: `name=2:90,3:10`; else the "
        "highest answers",
    ] = Split()
    split_file: Annotated[
        Path | None,
        "file of such weights, in place of `TORCHLIT_SPLIT`; followed as the folder is",
    ] = None
    split_header: Annotated[
        HeaderName | None,
        "header, as `X-User-Id`, by whose value requests get the same version each time",
    ] = None
    grpc: Annotated[
        bool | None,
        "whether the port speaks gRPC too (HTTP/2); if unset, where the extra `grpc` is installed",
    ] = None
    pins: Annotated[
        Literal["listed", "required"],
        "whether a file of a model must have a digest in `SHA256SUMS`; a digest that is there must "
        "be its own",
    ] = "listed"
    pins_file: Annotated[
        Path | None, "the file of digests; `SHA256SUMS` in the folder of models if unset"
    ] = None
    model_control: Annotated[
        bool, "whether callers may load and unload models (`/v2/repository`)"
    ] = False
    device: Annotated[
        Literal["auto", "cpu", "cuda"],
        "`cuda` refuses to start without a GPU, `auto` falls back to the CPU",
    ] = "auto"
    provider: Annotated[
        Literal["none", "openvino", "tensorrt-rtx", "webgpu"],
        "a plug-in execution provider that models run on instead; pip installs it",
    ] = "none"
    fallback: Annotated[
        Literal["refuse", "warn", "allow"],
        "what becomes of a model if `TORCHLIT_DEVICE=cuda` or `TORCHLIT_PROVIDER` has no operator "
        "for some of its nodes, which then run on the CPU",
    ] = "warn"
    reuse_port: Annotated[bool, "share the port with another such process, to replace it"] = False
    workers: Annotated[
        int,
        Meta(ge=1, le=MOST_WORKERS),
        "processes that share the port; `auto`: as many as CPUs and memory allow",
    ] = 1
    default_model: Annotated[
        str | None, "the model of requests that name none; the only one if unset"
    ] = None
    predict_route: Annotated[
        RoutePath | None, "a further path that predicts, as Vertex AI wants it"
    ] = None
    health_route: Annotated[RoutePath | None, "a further path that says what `/ping` does"] = None
    batching: Annotated[
        Verdicts, "overrules the trial of a model: `name=rows` or `name=requests`"
    ] = Verdicts()
    missing: Annotated[
        MissingValues,
        "whether a model takes missing values, in place of what the trial found: `name=allow` or "
        "`name=refuse`",
    ] = MissingValues()
    shadow: Annotated[
        ShadowVersions,
        "versions to compare on live rows: `name/2=3`, rows that 2 answers go to 3 too; "
        "`name/2=3:0.1`, a tenth of them",
    ] = ShadowVersions()
    shadow_keep: Annotated[
        int,
        Meta(ge=0, le=1000),
        "how many rows `/models/{model}/shadow` shows that a shadow answered otherwise; 0: none is "
        "kept",
    ] = 0
    max_batch_size: Annotated[int, Meta(ge=1, le=65_536), "most rows run together"] = 64
    max_queue_delay_ms: Annotated[
        float, Meta(ge=0, le=60_000), "how long a batch waits for more rows"
    ] = 0.0
    max_queue_rows: Annotated[Count, "most rows waiting per model and worker; beyond it 503"] = 8192
    max_request_rows: Annotated[Count, "most rows in one request"] = 4096
    request_timeout_s: Annotated[Seconds, "how long an answer may take; beyond it 504"] = 10.0
    receive_timeout_s: Annotated[Seconds, "how long a request may arrive; beyond it 408"] = 10.0
    keep_alive_s: Annotated[
        int, Meta(ge=1, le=3600), "how long a connection is kept between requests"
    ] = 75
    max_connections: Annotated[
        Count, "most open connections per worker; beyond it idle ones are closed, else 503"
    ] = 4096
    max_body_bytes: Annotated[Count, "largest request body"] = 16_777_216
    max_reply_bytes: Annotated[
        int,
        Meta(ge=0),
        "largest reply of an inference; 0: four times `TORCHLIT_MAX_BODY_BYTES`",
    ] = 0
    max_held_bytes: Annotated[
        int,
        Meta(ge=0),
        "most bytes of requests and unread replies per worker, beyond it 503; 0: 16 times "
        "`TORCHLIT_MAX_BODY_BYTES`",
    ] = 0
    max_image_pixels: Annotated[
        int,
        Meta(ge=1, le=MOST_PIXELS),
        "most pixels of an image; all of one request: four times that",
    ] = 16_777_216
    drain_s: Annotated[
        float, Meta(ge=0, le=3600), "after SIGTERM: how long it still serves, not ready"
    ] = 1.0
    api_keys: Annotated[
        str | None, "keys, one of which a request must have; all may call if unset"
    ] = None
    api_keys_file: Annotated[Path | None, "file of more such keys, one a line"] = None
    protect_health: Annotated[bool, "whether `/health/`, `/v2/health/` and `/ping` need a key"] = (
        False
    )
    protect_metrics: Annotated[bool, "whether `/metrics` needs a key"] = False
    cors_origins: Annotated[str, "origins whose web pages may call, blank-separated, or `*`"] = ""
    frame_ancestors: Annotated[
        str, "origins whose web pages may show ours in a frame, blank-separated, `self` or `*`"
    ] = ""
    log_level: Annotated[LogLevel, "least level logged"] = "info"
    log_format: Annotated[LogFormat, "log lines for people, or JSON for machines"] = "text"
    access_log: Annotated[bool, "whether each reply is logged"] = False
    metrics_dir: Annotated[
        Path | None,
        "where each service of several workers makes a folder for their counters, which goes at "
        "its end; that of the system for temporary files if unset",
    ] = None

    @property
    def runs_on(self) -> str:
        """The device that is asked for, or the plug-in provider."""
        return self.device if self.provider == "none" else self.provider

    @property
    def most_reply_bytes(self) -> int:
        """The largest reply of an inference."""
        return self.max_reply_bytes or 4 * self.max_body_bytes

    @property
    def most_held_bytes(self) -> int:
        """The most bytes of requests and unread replies that a worker holds."""
        return self.max_held_bytes or 16 * self.max_body_bytes

    @property
    def has_api_keys(self) -> bool:
        """Whether a request must have a key."""
        return self.api_keys is not None or self.api_keys_file is not None

    def unknown_models(self, models: Collection[str]) -> Iterator[str]:
        """Yield a sentence for each model that a setting names and that is none of `models`."""
        for field in ("versions", "batching", "missing"):
            for name in sorted(getattr(self, field).names - set(models)):
                yield f"{variable_name(field)}: {name!r}: no such model"

    def check_device(self) -> None:
        """Raise InvalidSetting for choices of where models run that contradict each other."""
        if self.provider != "none" and self.device != "auto":
            variable = variable_name("provider")
            raise InvalidSetting(
                f"{variable}: expected none where TORCHLIT_DEVICE is {self.device}, got "
                f"{self.provider!r}: set one of the two",
                variable,
            )
        if self.fallback == "refuse" and self.runs_on == "auto":
            variable = variable_name("fallback")
            raise InvalidSetting(
                f"{variable}: expected warn or allow where TORCHLIT_DEVICE is auto, which falls "
                "back to the CPU, got 'refuse': set TORCHLIT_DEVICE or TORCHLIT_PROVIDER too",
                variable,
            )

    def check_default_model(self, models: Collection[str]) -> None:
        """Raise InvalidSetting for a default model that is none of `models`."""
        if self.default_model is not None and self.default_model not in models:
            expected = f"TORCHLIT_DEFAULT_MODEL: expected one of {', '.join(models)}"
            raise InvalidSetting(f"{expected}, got {self.default_model!r}")

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Self:
        """Read every TORCHLIT_ variable, and what platforms set (OF_PLATFORMS).

        An empty one counts as unset, but for those of keys. Raises InvalidSetting naming the
        variable that is unknown, does not fit, or contradicts another.
        """
        types = get_type_hints(cls, include_extras=True)
        values = {}
        for field, variable in _variables(environ, types).items():
            values[field] = _converted(variable, environ[variable], types[field])
        settings = cls(**values)
        settings.check_device()
        return settings


def variable_name(field: str) -> str:
    """Return the environment variable of a field."""
    return PREFIX + field.upper()


def describe() -> list[tuple[str, str, str]]:
    """Return (variable, default, description) of every setting, in order."""
    types = get_type_hints(Settings, include_extras=True)
    rows = []
    for field in msgspec.structs.fields(Settings):
        *_, description = types[field.name].__metadata__
        default = "" if field.default is None else as_text(field.default)
        rows.append((variable_name(field.name), default, description))
    return rows


def as_text(value: object) -> str:
    """Return a value as its variable says it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _variables(environ: Mapping[str, str], fields: Mapping[str, object]) -> dict[str, str]:
    """Return the variable that says each field which is said. Raises InvalidSetting."""
    variables = {}
    for field, names in OF_PLATFORMS.items():
        for name in reversed(names):
            if is_set(environ, name):
                variables[field] = name
    for variable in sorted(environ):
        if not variable.startswith(PREFIX) or variable in OF_TRAINING:
            continue
        if _is_service_link(variable, environ[variable]):
            continue
        field = variable.removeprefix(PREFIX).lower()
        if field not in fields or variable != variable_name(field):
            sentence = f"{variable}: no such setting{_nearest(variable, fields)}"
            raise InvalidSetting(sentence, variable)
        if is_set(environ, variable) or field in OF_KEYS:
            variables[field] = variable
    return variables


def is_set(environ: Mapping[str, str], variable: str) -> bool:
    """Whether a variable says something: compose files and charts set many to nothing."""
    return bool(environ.get(variable, "").strip())


def _is_service_link(variable: str, text: str) -> bool:
    """Whether Kubernetes says with it where a Service is, rather than somebody a setting."""
    is_url = variable.endswith("_PORT") and _SERVICE_URL.fullmatch(text)
    return bool(is_url or _SERVICE_LINK.fullmatch(variable))


def _converted(variable: str, text: str, annotation: Any) -> Any:
    """Return the value of a field, from its variable's text. Raises InvalidSetting."""
    kind, word = annotation.__origin__, text.strip().lower()
    if variable == variable_name("workers") and word == AUTO:
        return resources.available().workers
    value = text
    is_flag = kind is bool or bool in get_args(kind)
    if is_flag or get_origin(kind) is Literal:
        value = _BOOLEANS.get(word, word) if is_flag else word
    try:
        # Not strict, so that texts become numbers; but then "null" would become None.
        strict = type(None) in get_args(kind) and not is_flag
        return msgspec.convert(value, annotation, strict=strict, dec_hook=_parsed)
    except msgspec.ValidationError as error:
        expected = versions.expected(text) if kind is Versions else _expected(annotation)
        if variable == variable_name("workers"):
            expected += f", or {AUTO}"
        sentence = f"{variable}: expected {expected}, got {text!r}"
        raise InvalidSetting(sentence, variable) from error


def _parsed(expected: type, text: str) -> object:
    """Return a Path, or what a class of the settings reads. Raises ValueError."""
    if expected is Path and not text:
        raise ValueError("not a path")
    return expected(text)


def _expected(annotation: Any) -> str:
    """Say in words what a field takes, from its type and bounds."""
    kind, bounds = annotation.__origin__, annotation.__metadata__[0]
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(get_args(kind))
    if kind in _IN_WORDS:
        return _IN_WORDS[kind]
    if bool in get_args(kind):
        return _IN_WORDS[bool]
    if HeaderName in get_args(kind):
        return "the name of a header"
    if RoutePath in get_args(kind):
        return "a path that begins with / and has no ?, #, % or blank"
    if kind not in (int, float):
        return "the path of a file"
    number = "a whole number" if kind is int else "a number"
    low = f"above {bounds.gt}" if bounds.gt is not None else f"from {bounds.ge}"
    return f"{number} {low}" + ("" if bounds.le is None else f" to {bounds.le}")


def _nearest(variable: str, fields: Mapping[str, object]) -> str:
    names = [variable_name(field) for field in fields] + sorted(OF_TRAINING)
    near = difflib.get_close_matches(variable.upper(), names, n=1, cutoff=0.0)
    return f"; did you mean {near[0]}?"
