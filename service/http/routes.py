"""THE table of routes. Dispatch, access, reserved paths, the OpenAPI document and docs/ follow it.

To add a route, write its handler, `async def name(services, request) -> Reply`, in the folder that
it belongs to, and a row here. One that infers has a Procedure in place of that.
"""

from collections.abc import Sequence
from functools import cache, partial

from msgspec.structs import replace

from service.entrance.services import Services
from service.errors import InvalidSetting
from service.formats.predictions import encode
from service.http.openapi import document, parts, rows
from service.http.openapi import v2 as of_v2
from service.http.openapi.parts import Document, reads
from service.http.pages import pages
from service.http.platforms.sagemaker import invocations, show_execution_parameters
from service.http.platforms.vertex import beside_vertex, vertex
from service.http.procedure import Procedure, follow
from service.http.reply import Reply
from service.http.request import Request
from service.http.rest import health, models
from service.http.rest.predict import predict
from service.http.rest.prepare import prepare
from service.http.rest.shadow import show_shadow
from service.http.route import Handler, Route, Router, Who, plain_path
from service.http.v2 import metadata as v2
from service.http.v2.infer import infer
from service.settings import OF_PLATFORMS, Settings, variable_name
from service.settings.keys import ancestors

_MODEL, _VERSION = "/v2/models/{model}", "/v2/models/{model}/versions/{version}"
_REPOSITORY = "/v2/repository"
_READY = {"503": "Some do not, or it is told to stop"}


def _get(
    path: str, handler: Handler, summary: str, document: Document | None, who: Who = "key"
) -> Route:
    return Route(path, "GET", handler, summary, document, who)


def _infer(path: str, procedure: Procedure, summary: str, document: Document) -> Route:
    handler = partial(follow, procedure=procedure)
    return Route(path, "POST", handler, summary, document, is_inference=True, procedure=procedure)


def _of_v2(end: str, handler: Handler, summary: str, document: Document) -> list[Route]:
    """Return a route of a model, and the same of one of its versions."""
    return [_get(at + end, handler, summary, document) for at in (_MODEL, _VERSION)]


ROUTES: list[Route] = [
    _infer("/predict", predict, "Predict", rows.predict),
    _infer("/predict/{model}", predict, "Predict with a model", rows.predict_model),
    Route(
        "/prepare/{model}",
        "POST",
        prepare,
        "The pixels that a model sees of images",
        rows.prepare,
        is_inference=True,
    ),
    _get("/models", models.list_models, "The models and their cards", reads("models", "ModelList")),
    _get(
        "/models/{model}",
        models.show_model,
        "One model and its cards",
        reads("model", "Model", ["404"], model={"type": "string"}),
    ),
    _get(
        "/models/{model}/shadow",
        show_shadow,
        "What came of versions that are compared on live rows",
        reads("shadow", "ShadowList", ["404"], model={"type": "string"}),
    ),
    _get(
        "/models/{model}/{version}/{picture}",
        models.show_plot,
        "A plot of a model's training, one that its card lists",
        parts.plot,
    ),
    _get("/health/live", health.live, "Whether the process runs", reads("live", "Live"), "probe"),
    _get(
        "/health/ready",
        health.ready,
        "Whether every model answers",
        reads("ready", "Ready", others=_READY),
        "probe",
    ),
    _get("/metrics", health.show_metrics, "Prometheus metrics", parts.metrics, "metrics"),
    # Cloud platforms
    _infer(
        "/invocations",
        invocations,
        "Predict (SageMaker); the reply is of the media type that Accept names",
        rows.invocations,
    ),
    _get(
        "/ping",
        health.ready,
        "Whether every model answers (SageMaker)",
        reads("ping", "Ready", others=_READY),
        "probe",
    ),
    _get(
        "/execution-parameters",
        show_execution_parameters,
        "How batch transform is to send (SageMaker)",
        reads("execution_parameters", "ExecutionParameters"),
    ),
    # The Open Inference Protocol
    _get("/v2", v2.server_metadata, "The server", reads("v2_server_metadata", "ServerMetadata")),
    _get(
        "/v2/health/live",
        v2.server_live,
        "Whether the process runs",
        reads("v2_live", "ServerLive"),
        "probe",
    ),
    _get(
        "/v2/health/ready",
        v2.server_ready,
        "Whether every model answers",
        reads("v2_ready", "ServerReady", others=_READY),
        "probe",
    ),
    _get("/v2/models", v2.list_names, "The models that answer", reads("v2_models", "ModelNames")),
    _get(
        "/v2/models/stats",
        v2.statistics_of_all,
        "The statistics of all models",
        reads("v2_statistics_of_all", "Statistics"),
    ),
    *_of_v2(
        "",
        v2.model_metadata,
        "Inputs and outputs of a model",
        of_v2.of_model("metadata", "ModelMetadata"),
    ),
    *_of_v2(
        "/ready",
        v2.model_ready,
        "Whether a model answers",
        of_v2.of_model("ready", "ModelReady"),
    ),
    *_of_v2(
        "/config",
        v2.model_config,
        "The configuration of a model, in Triton's words",
        of_v2.of_model("config", "ModelConfig"),
    ),
    *_of_v2(
        "/stats",
        v2.statistics,
        "The statistics of a model",
        of_v2.of_model("statistics", "Statistics"),
    ),
    *(_infer(f"{at}/infer", infer, "Infer", of_v2.infer) for at in (_MODEL, _VERSION)),
    Route(
        f"{_REPOSITORY}/index",
        "POST",
        v2.repository_index,
        "Every version there is, also those that do not answer",
        of_v2.index,
    ),
    Route(
        f"{_REPOSITORY}/models/{{model}}/load",
        "POST",
        v2.load,
        "Load all versions of a model, where the settings allow that",
        of_v2.control,
    ),
    Route(
        f"{_REPOSITORY}/models/{{model}}/unload",
        "POST",
        v2.unload,
        "Unload all versions of a model, where the settings allow that",
        of_v2.control,
    ),
]

# Where a platform may say that we are to answer: these say the same there.
_SHARED = ("predict", "invocations", "v2", "")
_PROBES = ("/health", "/ping", "/v2/health")


@cache
def _files() -> pages.Files:
    return pages.read()


def routes_for(settings: Settings) -> list[Route]:
    """Return all routes: those of the table, the pages, and those that the settings name.

    Raises InvalidSetting for one that hides another, and for a setting of the pages.
    """
    shown = pages.Pages(_files(), ancestors(settings))
    routes = [
        *ROUTES,
        _get("/", shown.show_index, "The playground", None, "everybody"),
        _get("/docs", shown.show_docs, "The documentation", None, "everybody"),
        _get("/static/{of}/{name}", shown.show_file, "A file of the pages", None, "everybody"),
    ]

    async def show_openapi(services: Services, request: Request) -> Reply:
        """Answer GET /schema/openapi.json."""
        described = document.document(routes, services.catalog, services.settings)
        return Reply([encode(described)], is_compressible=True)

    routes.append(_get("/schema/openapi.json", show_openapi, "The OpenAPI document", None))
    begins = {each.path.split("/")[1] for each in routes} - set(_SHARED)
    reserved = {f"/{begin}" for begin in begins} - set(_PROBES)
    if path := plain_path(settings.predict_route):
        others = [each for each in ROUTES if each.method == "POST" and not each.is_inference]
        _check_free("predict_route", path, (*reserved, *_PROBES), others)
        found = Router(each for each in ROUTES if each.is_inference).find(path)
        if (further := _of_vertex(path, found)) is not None:
            routes.append(further)
    if path := plain_path(settings.health_route):
        _check_free("health_route", path, reserved)
        summary = "Whether every model answers (Vertex AI)"
        described = reads("health_route", "Ready", others=_READY)
        if not any(each.path == path and each.who == "probe" for each in routes):
            # It takes the place of what is read there, such as the page at "/".
            routes = [each for each in routes if (each.path, each.method) != (path, "GET")]
            routes.append(_get(path, health.ready, summary, described, "probe"))
    return routes


def _of_vertex(path: str, found: tuple[Route, dict[str, str]] | None) -> Route | None:
    """Return the route that Vertex AI's setting names, beside ours of that path if there is one.

    None for one of the Open Inference Protocol, whose bodies are others.
    """
    summary = "Predict (Vertex AI)"
    if found is None:
        return _infer(path, vertex, summary, rows.vertex)
    own, values = found
    if own.procedure is None or own.document is None or own.procedure is infer:
        return None
    document = rows.beside_vertex(own.document)
    return replace(_infer(path, beside_vertex(own.procedure), summary, document), values=values)


def _check_free(
    field: str, path: str, reserved: Sequence[str] | set[str], others: Sequence[Route] = ()
) -> None:
    """Raise InvalidSetting for a path below one that is reserved, or that of another route."""
    is_below = any(path == each or path.startswith(f"{each}/") for each in reserved)
    if is_below or "{" in path or Router(others).find(path) is not None:
        variable = variable_name(field)
        names = " or ".join((variable, *OF_PLATFORMS[field]))
        raise InvalidSetting(
            f"{names}: expected a path that says nothing else here, got {path!r}", variable
        )
