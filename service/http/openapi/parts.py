"""The parts that an OpenAPI document is made of: references, objects, operations, errors."""

import math
from collections.abc import Iterable
from typing import Any

from service.engine.model import Model
from service.http.request import TIMEOUT

Json = dict[str, Any]

MOST_ZEROS = 4096  # of an example

ERRORS = {
    "400": "The input does not fit",
    "401": "No API key, or an unknown one",
    "404": "No such model or version",
    "408": "The request did not arrive in time",
    "413": "The body or the number of rows is over the limit",
    "415": "The body is of a kind that is not known there",
    "431": "Request line and headers are over the limit",
    "500": "The model failed",
    "501": "Content-Encoding is neither gzip nor deflate",
    "503": "Queue full, too many connections, starting or draining; see Retry-After",
    "504": "The deadline passed",
}
OF_INFERENCE = ("400", "404", "408", "413", "431", "500", "501", "503", "504")

TIMEOUT_PARAMETER = {
    "name": TIMEOUT,
    "in": "header",
    "description": "A deadline shorter than the service's own",
    "schema": {"type": "integer", "minimum": 1, "maximum": 999_999_999},
}
CONTENT_ENCODING_PARAMETER = {
    "name": "Content-Encoding",
    "in": "header",
    "description": "How the body is packed; deflate is zlib's format",
    "schema": {"enum": ["gzip", "deflate", "identity"]},
}
VERSION_PARAMETER = {
    "name": "version",
    "in": "query",
    "description": "Of the model, where the body does not say it; the highest if absent",
    "schema": {"type": "integer", "minimum": 1, "maximum": 999_999_999},
}
PREPARE_PARAMETER = {
    "name": "prepare",
    "in": "query",
    "description": "For pictures; false: they have the model's size and are taken as they are",
    "schema": {"enum": ["auto", "false"]},
}


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
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def error(description: str) -> Json:
    """Describe the response to a request that failed."""
    return answer(description, ref("Error"))


def in_path(name: str, schema: Json) -> Json:
    """Describe a parameter in the path."""
    return {"name": name, "in": "path", "required": True, "schema": schema}


def json_object(required: Json, **optional: Json) -> Json:
    """Describe an object: the fields that it has, and those that it may have."""
    return {"type": "object", "required": list(required), "properties": required | optional}


def list_of(items: Json) -> Json:
    """Describe a list."""
    return {"type": "array", "items": items}


def any_of(names: Iterable[str]) -> Json:
    """Refer to any of these schemas; `anyOf` may not be empty."""
    references = [ref(name) for name in names]
    return {"anyOf": references} if references else {}


def ref(name: str) -> Json:
    """Refer to a schema of the document."""
    return {"$ref": f"#/components/schemas/{name}"}
