"""The OpenAPI 3.1 document, written from the cards of the models that are served.

The inference routes are ASGI functions that no framework can describe, and what they take
differs from model to model. So the document is built for the models there are: schemas with
each feature's unit and training range, and examples that the service answers as shown.
"""

from collections.abc import Iterable
from typing import Any

from service.card import Card, Target
from service.predict import TIMEOUT
from service.repository import ModelRepository
from service.served import ServedModel
from service.settings import Settings

Json = dict[str, Any]

ERRORS = {
    "400": "The input does not fit",
    "401": "No API key, or an unknown one, where keys are set",
    "404": "No such model or version",
    "408": "The request did not arrive in time",
    "413": "The body or the number of rows is over the limit",
    "431": "Request line and headers are over the limit",
    "500": "The model failed",
    "503": "Queue full, too many connections, starting or draining; see Retry-After",
    "504": "The deadline passed",
}

API_KEYS = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
TIMEOUT_PARAMETER = {
    "name": TIMEOUT,
    "in": "header",
    "description": "A deadline shorter than the service's own",
    "schema": {"type": "integer", "minimum": 1, "maximum": 999_999_999},
}


def document(models: ModelRepository, settings: Settings) -> Json:
    """Return the document for the models that answer now."""
    served = [each for name in models.names if (each := models.default(name))]
    paths: Json = {"/predict": {"post": _predict_any(served, settings)}}
    for each in served:
        paths[f"/predict/{each.name}"] = {"post": _predict_one(each, settings)}
    paths |= {
        "/models": _get("models", "The models and their cards", "ModelList"),
        "/models/{model}": _get("model", "One model and its cards", "Model", takes_model=True),
        "/models/{model}/{version}/{picture}": _get_picture(),
        "/health/live": _get("live", "Whether the process runs", "Live"),
        "/health/ready": _get("ready", "Whether every model answers", "Ready", unready=True),
        "/metrics": {
            "get": {
                "operationId": "metrics",
                "summary": "Prometheus metrics",
                "responses": {
                    "200": {
                        "description": "Text exposition format",
                        "content": {"text/plain": {"schema": {"type": "string"}}},
                    }
                },
            }
        },
    }
    described: Json = {
        "openapi": "3.1.0",
        "info": {
            "title": "torchlit",
            "version": "1",
            "description": "Small neural networks over HTTP.",
        },
        "paths": paths,
        "components": {"schemas": _schemas(served)},
    }
    if settings.has_api_keys:
        described["components"]["securitySchemes"] = API_KEYS
        described["security"] = [{name: []} for name in API_KEYS]
    return described


def _predict_any(served: list[ServedModel], settings: Settings) -> Json:
    names = [each.name for each in served]
    request = {
        "type": "object",
        "required": ["model", "instances"],
        "additionalProperties": False,
        "properties": {
            "model": {"type": "string"} | ({"enum": names} if names else {}),
            "version": {"type": "integer", "minimum": 1, "description": "the highest if absent"},
            "instances": {
                "type": "array",
                "minItems": 1,
                "maxItems": settings.max_request_rows,
                "items": _any_of(f"{each.name}_instance" for each in served),
            },
        },
    }
    examples = {each.name: {"value": body | {"model": each.name}} for each, body in _first(served)}
    return _operation("predict", "Predict", request, "PredictReply", examples)


def _predict_one(served: ServedModel, settings: Settings) -> Json:
    request = {
        "type": "object",
        "required": ["instances"],
        "additionalProperties": False,
        "properties": {
            "model": {"const": served.name},
            "version": {"type": "integer", "minimum": 1, "description": "the highest if absent"},
            "instances": {
                "type": "array",
                "minItems": 1,
                "maxItems": settings.max_request_rows,
                "items": _ref(f"{served.name}_instance"),
            },
        },
    }
    summary = served.card.description if served.card else f"Predict with {served.name}"
    examples = {example["name"]: {"value": example["body"]} for example in _examples(served)}
    reply = f"{served.name}_reply"
    return _operation(f"predict_{served.name}", summary, request, reply, examples)


def _operation(operation_id: str, summary: str, request: Json, reply: str, examples: Json) -> Json:
    content: Json = {"schema": request}
    if examples:
        content["examples"] = examples
    responses: Json = {
        "200": {
            "description": "One prediction for each instance",
            "content": {"application/json": {"schema": _ref(reply)}},
        }
    }
    for status, description in ERRORS.items():
        responses[status] = _error(description)
    return {
        "operationId": operation_id,
        "summary": summary,
        "parameters": [TIMEOUT_PARAMETER],
        "requestBody": {"required": True, "content": {"application/json": content}},
        "responses": responses,
    }


def _get(
    operation_id: str, summary: str, reply: str, *, takes_model: bool = False, unready: bool = False
) -> Json:
    content = {"application/json": {"schema": _ref(reply)}}
    operation: Json = {
        "operationId": operation_id,
        "summary": summary,
        "responses": {"200": {"description": summary, "content": content}},
    }
    if takes_model:
        operation["parameters"] = [_in_path("model", {"type": "string"})]
        operation["responses"]["404"] = _error(ERRORS["404"])
    if unready:
        operation["responses"]["503"] = {"description": "Some do not", "content": content}
    return {"get": operation}


def _get_picture() -> Json:
    operation = {
        "operationId": "picture",
        "summary": "A picture of a model's training, one that its card lists",
        "parameters": [
            _in_path("model", {"type": "string"}),
            _in_path("version", {"type": "integer", "minimum": 1}),
            _in_path("picture", {"type": "string", "examples": ["loss.png"]}),
        ],
        "responses": {
            "200": {"description": "A PNG file", "content": {"image/png": {}}},
            "304": {"description": "It still has an ETag that If-None-Match names"},
            "404": _error("No such model, version or picture"),
            "503": _error("The version could not be opened; see Retry-After"),
        },
    }
    return {"get": operation}


def _in_path(name: str, schema: Json) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _schemas(served: list[ServedModel]) -> Json:
    schemas: Json = {
        "Error": _object({"error": {"type": "string"}}),
        "PredictReply": _any_of(f"{each.name}_reply" for each in served),
        "Model": _object(
            {
                "model": {"type": "string"},
                "default_version": {"type": ["integer", "null"]},
                "versions": {"type": "array", "items": _ref("Version")},
            }
        ),
        "ModelList": _object({"models": {"type": "array", "items": _ref("Model")}}),
        "Version": _object(
            {"version": {"type": ["integer", "null"]}, "state": {"enum": ["ready", "failed"]}},
            reason={"type": "string"},
            provider={"type": "string"},
            device={"type": "string"},
            card={"type": ["object", "null"]},
            pictures={"type": "array", "items": _ref("Picture")},
        ),
        "Picture": _object(
            {"title": {"type": "string"}, "url": {"type": "string", "format": "uri-reference"}}
        ),
        "Live": _object({"status": {"const": "live"}}),
        "Ready": _object(
            {"status": {"enum": ["ready", "not ready", "draining"]}, "models": {"type": "object"}}
        ),
    }
    for each in served:
        schemas[f"{each.name}_instance"] = _instance(each)
        schemas[f"{each.name}_reply"] = _object(
            {
                "model": {"const": each.name},
                "version": {"type": "integer"},
                "predictions": {"type": "array", "items": _prediction(each)},
            }
        )
    return schemas


def _instance(served: ServedModel) -> Json:
    model, card = served.model, served.card
    number = {"type": "number"}
    flat = {
        "type": "array",
        "items": number,
        "minItems": model.row_size,
        "maxItems": model.row_size,
    }
    forms: list[Json] = [flat]
    if card and card.features:
        flat["description"] = "in the order " + ", ".join(model.feature_names)
        named = {
            each.name: {
                "type": "number",
                "description": f"{each.description} ({each.unit}); "
                f"{each.minimum:g} to {each.maximum:g} in training",
            }
            for each in card.features
        }
        forms.append(_object(named) | {"additionalProperties": False})
    if len(model.row_shape) > 1:
        nested: Json = number
        for size in reversed(model.row_shape):
            nested = {"type": "array", "items": nested, "minItems": size, "maxItems": size}
        forms.append(nested)
    return {"anyOf": forms}


def _prediction(served: ServedModel) -> Json:
    card = served.card
    if card is None:
        return _object({output.name: {} for output in served.model.outputs})
    if card.labels:
        share = {"type": "number", "minimum": 0, "maximum": 1}
        return _object(
            {
                "label": {"enum": card.labels},
                "probability": share,
                "probabilities": _object(dict.fromkeys(card.labels, share)),
            }
        )
    answers = {each.name: _answer(card, each) for each in card.targets}
    if len(answers) == 1:
        return answers[card.targets[0].name]
    if card.interval:
        return _object(answers)
    return _object({name: answer["properties"]["value"] for name, answer in answers.items()})


def _answer(card: Card, target: Target) -> Json:
    described = {"type": "number", "description": f"{target.description} ({target.unit})"}
    if card.interval is None:
        return _object({"value": described})
    share = f"{card.interval.coverage:.0%} of the true values lie between lower and upper"
    bound = {"type": "number", "description": share}
    return _object({"value": described, "lower": bound, "upper": bound})


def _first(served: list[ServedModel]) -> list[tuple[ServedModel, Json]]:
    return [(each, examples[0]["body"]) for each in served if (examples := _examples(each))]


def _examples(served: ServedModel) -> list[Json]:
    """Return request bodies from the card's examples, features by name."""
    card = served.card
    if card is None:
        return []
    names = served.model.feature_names
    return [
        {
            "name": example.name,
            "body": {
                "instances": [
                    dict(zip(names, example.input, strict=True)) if names else example.input
                ]
            },
        }
        for example in card.examples
    ]


def _object(required: Json, **optional: Json) -> Json:
    return {"type": "object", "required": list(required), "properties": required | optional}


def _any_of(names: Iterable[str]) -> Json:
    """Refer to any of these schemas; `anyOf` may not be empty."""
    references = [_ref(name) for name in names]
    return {"anyOf": references} if references else {}


def _error(description: str) -> Json:
    return {
        "description": description,
        "content": {"application/json": {"schema": _ref("Error")}},
    }


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}
