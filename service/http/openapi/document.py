"""The OpenAPI 3.1 document, written from the table of routes and the cards of the models served.

What the routes of inference take differs from model to model, and no framework can describe that.
So the document is built for the models there are: schemas with each feature's unit and training
range, and examples that the service answers as shown.
"""

from collections.abc import Sequence

import msgspec

from service.catalog.catalog import Catalog
from service.http.openapi import row_schemas, v2
from service.http.openapi.parts import ERRORS, Context, Json, error, ref
from service.http.rest import replies as rest_replies
from service.http.route import Route
from service.settings import Settings
from service.v2 import replies as v2_replies

API_KEYS = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}


def document(routes: Sequence[Route], catalog: Catalog, settings: Settings) -> Json:
    """Return the document for the models that answer now."""
    served = [each for name in catalog.names if (each := catalog.default(name))]
    with_rows = [each for each in served if not each.model.why_no_rows]
    unnamed = next((each for each in with_rows if each.name == catalog.unnamed), None)
    context = Context(served, with_rows, unnamed, settings)
    paths: Json = {}
    for route in routes:
        found = route.document(route, context) if route.document is not None else {}
        for path, operation in found.items():
            _add_refusals(operation, route, settings)
            paths.setdefault(path, {})[route.method.lower()] = operation
    # The replies that are the same for all models.
    types = (*rest_replies.REPLIES, *v2_replies.REPLIES)
    _, replies = msgspec.json.schema_components(types, ref_template=ref("{name}")["$ref"])
    described: Json = {
        "openapi": "3.1.0",
        "info": {
            "title": "torchlit",
            "version": "1",
            "description": "Small neural networks over HTTP.",
        },
        "paths": paths,
        "components": {"schemas": replies | row_schemas.schemas(with_rows) | v2.schemas(served)},
    }
    if settings.has_api_keys:
        described["components"]["securitySchemes"] = API_KEYS
        described["security"] = [{name: []} for name in API_KEYS]
    return described


def _add_refusals(described: Json, route: Route, settings: Settings) -> None:
    """Say of an operation who is refused whatever the request holds, as access.py does it."""
    if route.who not in ("probe", "metrics"):
        described["responses"].setdefault("503", error("Too many connections; see Retry-After"))
    if not settings.has_api_keys:
        return
    is_open = {"probe": not settings.protect_health, "metrics": not settings.protect_metrics}
    if is_open.get(route.who, False):
        described["security"] = []
    else:
        described["responses"]["401"] = error(ERRORS["401"])
