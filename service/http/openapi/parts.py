"""The parts that an OpenAPI document is made of: references, objects, operations, errors."""

import math
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from msgspec import Struct

from service.card import LAST_VERSION
from service.catalog.served import ServedModel
from service.engine.model import Model
from service.http.request import TIMEOUT
from service.http.route import Route
from service.settings import Settings

Json = dict[str, Any]

MOST_ZEROS = 4096  # of an example

TEXT: Json = {"type": "string"}
FROM_ONE: Json = {"type": "integer", "minimum": 1, "maximum": 999_999_999}
# With its format, by which clients take 64 bits for it.
VERSION: Json = {"type": "integer", "format": "int64", "minimum": 1, "maximum": LAST_VERSION}

ERRORS = {
    "400": "The input does not fit",
    "401": "No API key, or an unknown one",
    "404": "No such model or version",
    "408": "The request did not arrive in time",
    "413": "The body or the number of rows is over the limit",
    "415": "The body is of a kind that is not known there, or Content-Encoding is",
    "431": "Request line and headers are over the limit",
    "500": "The model failed",
    "503": "Queue full, too many connections, starting or draining; see Retry-After",
    "504": "The deadline passed",
}
OF_INFERENCE = ("400", "404", "408", "413", "415", "431", "500", "503", "504")


def parameter(place: str, name: str, schema: Json, description: str) -> Json:
    """Describe a parameter in the query or a header."""
    return {"name": name, "in": place, "description": description, "schema": schema}


TIMEOUT_PARAMETER = parameter(
    "header", TIMEOUT, FROM_ONE, "A deadline shorter than the service's own"
)
CONTENT_ENCODING_PARAMETER = parameter(
    "header",
    "Content-Encoding",
    {"enum": ["gzip", "deflate", "identity"]},
    "How the body is compressed; deflate is zlib's format",
)
WITHOUT_VERSION = "without it the highest that is ready answers, or one by weight"
VERSION_PARAMETER = parameter(
    "query",
    "version",
    VERSION,
    f"Of the model, where the body does not say it; {WITHOUT_VERSION}",
)
PREPARE_PARAMETER = parameter(
    "query",
    "prepare",
    {"enum": ["auto", "false"]},
    "For images; false: they have the model's size and are taken as they are",
)


VERSION_HEADER: Json = {
    "X-Model-Version": {
        "description": "The version that answered, where the body does not say it",
        "schema": VERSION,
    }
}


class Context(Struct, frozen=True):
    """What the document is written for."""

    served: list[ServedModel]  # the models that answer
    with_rows: list[ServedModel]  # those of them that take rows
    unnamed: ServedModel | None  # the one that is meant where none is named
    settings: Settings


# What is said of a route: its operation, by path; models have paths of their own too.
Document: TypeAlias = Callable[[Route, Context], Json]


def reads(
    operation_id: str,
    reply: str,
    errors: Iterable[str] = (),
    others: dict[str, str] = {},  # noqa: B006  # it is only read
    **places: Json,
) -> Document:
    """Describe a route that is read: its reply of JSON, and the places of its path.

    others: descriptions of the statuses with which it answers the same.
    """

    def document(route: Route, context: Context) -> Json:
        described = operation(
            operation_id, route.summary, answer(route.summary, ref(reply)), errors
        )
        for status, description in others.items():
            described["responses"][status] = answer(description, ref(reply))
        if places:
            described["parameters"] = [in_path(name, schema) for name, schema in places.items()]
        return {route.path: described}

    return document


def metrics(route: Route, context: Context) -> Json:
    """Describe GET /metrics."""
    text = {"description": "Exposition format", "content": {"text/plain": {"schema": TEXT}}}
    return {route.path: operation("metrics", route.summary, text)}


def plot(route: Route, context: Context) -> Json:
    """Describe GET of a plot."""
    described = operation(
        "picture",
        route.summary,
        {"description": "A PNG file", "content": {"image/png": {}}},
        parameters=[
            in_path("model", TEXT),
            in_path("version", VERSION),
            in_path("picture", TEXT | {"examples": ["loss.png"]}),
        ],
    )
    described["responses"] |= {
        "304": {"description": "It still has an ETag that If-None-Match names"},
        "404": error("No such model, version or plot"),
        "503": error("The version could not be opened; see Retry-After"),
    }
    return {route.path: described}


def zeros_fit(model: Model) -> bool:
    """Whether zeros are an example of a model without a card: few, and answered."""
    sizes = sum(math.prod(each.shape[1:]) for each in model.inputs)
    return model.trial.takes_zeros and not model.is_open_inside and sizes <= MOST_ZEROS


def operation(
    operation_id: str, summary: str, answer: Json, errors: Iterable[str] = (), **more: Any
) -> Json:
    """Describe an operation: its response of 200, and the statuses of its errors."""
    responses = {"200": answer} | {status: error(ERRORS[status]) for status in errors}
    return {"operationId": operation_id, "summary": summary, "responses": responses} | more


def answer(description: str, schema: Json) -> Json:
    """Describe a response of JSON."""
    return {"description": description, "content": as_json(schema)}


def as_json(schema: Json, examples: Json | None = None) -> Json:
    """Describe the content of a body of JSON; examples are values by their names."""
    described = {"schema": schema}
    if examples:
        described["examples"] = {name: {"value": value} for name, value in examples.items()}
    return {"application/json": described}


def error(description: str) -> Json:
    """Describe the response to a request that failed."""
    return answer(description, ref("Error"))


def in_path(name: str, schema: Json) -> Json:
    """Describe a parameter in the path."""
    return {"name": name, "in": "path", "required": True, "schema": schema}


def json_object(required: Json, **optional: Json) -> Json:
    """Describe an object: the fields that it has, and those that it may have."""
    return {"type": "object", "required": list(required), "properties": required | optional}


def closed_object(required: Json, **optional: Json) -> Json:
    """Describe an object that has no other fields."""
    return json_object(required, **optional) | {"additionalProperties": False}


def list_of(items: Json, **limits: int) -> Json:
    """Describe a list; limits: minItems and maxItems."""
    return {"type": "array", "items": items} | limits


def any_of(names: Iterable[str]) -> Json:
    """Refer to any of these schemas; `anyOf` may not be empty."""
    references = [ref(name) for name in names]
    return {"anyOf": references} if references else {}


def ref(name: str) -> Json:
    """Refer to a schema of the document."""
    return {"$ref": f"#/components/schemas/{name}"}
