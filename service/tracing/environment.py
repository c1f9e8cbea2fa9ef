"""Whether the environment wants spans to be sent, by OpenTelemetry's own variables.

https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/ and
https://opentelemetry.io/docs/specs/otel/protocol/exporter/. Here they are only looked at.
"""

from collections.abc import Mapping
from urllib.parse import urlsplit

DISABLED = "OTEL_SDK_DISABLED"
EXPORTER = "OTEL_TRACES_EXPORTER"
# The first that is set counts.
ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
LINKS = "OTEL_SPAN_LINK_COUNT_LIMIT"
PROPAGATORS = "OTEL_PROPAGATORS"
# With what the SDK takes by default, also where the value is no number.
QUEUE, BATCH = ("OTEL_BSP_MAX_QUEUE_SIZE", 2048), ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512)
OTLP, CONSOLE, NONE = "otlp", "console", "none"
PACKAGES = ("opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-http")


def exporters(environ: Mapping[str, str]) -> list[str]:
    """Return the names of where spans go."""
    names = [each.strip().lower() for each in environ.get(EXPORTER, "").split(",")]
    return [each for each in names if each] or [OTLP]


def destination(exporter: str, environ: Mapping[str, str]) -> str:
    """Return where an exporter sends spans, as a sentence is to say it.

    Of OTLP the URL as the library has it, without a name, a password and a query.
    """
    if exporter == CONSOLE:
        return "the console"
    url = environ.get(ENDPOINTS[0]) or ""
    if not url:
        base = environ.get(ENDPOINTS[1]) or "http://localhost:4318"
        url = f"{base.removesuffix('/')}/v1/traces"
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def destinations(environ: Mapping[str, str]) -> str:
    """Return where spans go, in words."""
    return ", ".join(destination(each, environ) for each in exporters(environ))


def is_wanted(environ: Mapping[str, str]) -> bool:
    """Whether spans are to be sent."""
    if environ.get(DISABLED, "").strip().lower() == "true" or NONE in exporters(environ):
        return False
    return bool(_first(environ, (EXPORTER, *ENDPOINTS)))


def why_not(environ: Mapping[str, str]) -> str:
    """Return why spans that are wanted cannot be sent, in one sentence; nothing if they can."""
    for name in exporters(environ):
        if name not in (OTLP, CONSOLE):
            return f"{EXPORTER}: expected {OTLP}, {CONSOLE} or {NONE}, got {name!r}"
    variable = _first(environ, PROTOCOLS)
    if variable and environ[variable].strip() != "http/protobuf":
        return f"{variable}: expected http/protobuf, got {environ[variable]!r}"
    if not _are_installed():
        return (
            f"{_first(environ, (*ENDPOINTS, EXPORTER))} is set, and the extra otel is not "
            f"installed: pip install {' '.join(PACKAGES)}"
        )
    return _why_no_endpoint(environ) or _why_no_propagator(environ) or _why_no_queue(environ)


def _why_no_endpoint(environ: Mapping[str, str]) -> str:
    variable = _first(environ, ENDPOINTS)
    if not variable or environ[variable].lower().startswith(("http://", "https://")):
        return ""
    got = environ[variable].rpartition("@")[2]  # no password
    return f"{variable}: expected http://HOST:PORT or https://HOST:PORT, got {got!r}"


def _why_no_propagator(environ: Mapping[str, str]) -> str:
    if not environ.get(PROPAGATORS):
        return ""
    from importlib import metadata  # here: it takes milliseconds, where no spans are wanted

    known = sorted(metadata.entry_points(group="opentelemetry_propagator").names)
    for name in map(str.strip, environ[PROPAGATORS].split(",")):
        if name.lower() == NONE:  # the library reads no further
            return ""
        if name not in known:
            return f"{PROPAGATORS}: expected {' or '.join(known)}, got {name!r}"
    return ""


def _why_no_queue(environ: Mapping[str, str]) -> str:
    queue, batch = _size(environ, *QUEUE), _size(environ, *BATCH)
    if queue >= batch:
        return ""
    return f"{QUEUE[0]}: expected at least {BATCH[0]} ({batch}), got {queue}"


def _size(environ: Mapping[str, str], variable: str, by_default: int) -> int:
    try:
        return int(environ.get(variable, by_default))
    except ValueError:
        return by_default


def _first(environ: Mapping[str, str], variables: tuple[str, ...]) -> str:
    """Return the first variable that says something; none if none does."""
    return next((each for each in variables if environ.get(each, "").strip()), "")


def _are_installed() -> bool:
    from importlib import metadata  # here: it takes milliseconds, where no spans are wanted

    try:
        for each in PACKAGES:
            metadata.distribution(each)
    except metadata.PackageNotFoundError:
        return False
    return True
