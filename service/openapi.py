"""The OpenAPI 3.1 document, written from the cards of the models that are served.

The inference routes are ASGI functions that no framework can describe, and what they take
differs from model to model. So the document is built for the models there are: schemas with
each feature's unit and training range, and examples that the service answers as shown.
"""

import numpy as np

from service import openapi_v2
from service.access import METRICS, PROBES
from service.card import Card, Target
from service.openapi_parts import (
    CONTENT_ENCODING_PARAMETER,
    ERRORS,
    OF_INFERENCE,
    TIMEOUT_PARAMETER,
    Json,
    answer,
    any_of,
    error,
    in_path,
    json_object,
    list_of,
    operation,
    ref,
)
from service.repository import ModelRepository
from service.served import ServedModel
from service.settings import Settings

API_KEYS = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}


def document(models: ModelRepository, settings: Settings) -> Json:
    """Return the document for the models that answer now."""
    served = [each for name in models.names if (each := models.default(name))]
    with_rows = [each for each in served if not each.model.why_no_rows]
    paths: Json = {"/predict": {"post": _predict_any(with_rows, settings)}}
    for each in with_rows:
        paths[f"/predict/{each.name}"] = {"post": _predict_one(each, settings)}
    paths |= {
        "/models": _get("models", "The models and their cards", "ModelList"),
        "/models/{model}": _get("model", "One model and its cards", "Model"),
        "/models/{model}/{version}/{picture}": {"get": _picture()},
        "/health/live": _get("live", "Whether the process runs", "Live"),
        "/health/ready": _get("ready", "Whether every model answers", "Ready"),
        "/metrics": {"get": _metrics()},
    }
    one = paths["/models/{model}"]["get"]
    one["parameters"] = [in_path("model", {"type": "string"})]
    one["responses"]["404"] = error(ERRORS["404"])
    paths["/health/ready"]["get"]["responses"]["503"] = answer("Some do not", ref("Ready"))
    paths |= openapi_v2.paths(served)
    described: Json = {
        "openapi": "3.1.0",
        "info": {
            "title": "torchlit",
            "version": "1",
            "description": "Small neural networks over HTTP.",
        },
        "paths": paths,
        "components": {"schemas": _schemas(with_rows) | openapi_v2.schemas(served)},
    }
    for path, operations in paths.items():
        for each in operations.values():
            _add_refusals(each, path, settings)
    if settings.has_api_keys:
        described["components"]["securitySchemes"] = API_KEYS
        described["security"] = [{name: []} for name in API_KEYS]
    return described


def _add_refusals(described: Json, path: str, settings: Settings) -> None:
    """Say of an operation who is refused whatever the request holds, as access.py does it."""
    is_probe, is_metrics = path.startswith(PROBES), path.startswith(METRICS)
    if not is_probe and not is_metrics:
        described["responses"].setdefault("503", error("Too many connections; see Retry-After"))
    if not settings.has_api_keys:
        return
    if settings.protect_health if is_probe else settings.protect_metrics or not is_metrics:
        described["responses"]["401"] = error(ERRORS["401"])
    else:
        described["security"] = []


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
                "items": any_of(f"{each.name}_instance" for each in served),
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
                "items": ref(f"{served.name}_instance"),
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
    return operation(
        operation_id,
        summary,
        answer("One prediction for each instance", ref(reply)),
        OF_INFERENCE,
        parameters=[TIMEOUT_PARAMETER, CONTENT_ENCODING_PARAMETER],
        requestBody={"required": True, "content": {"application/json": content}},
    )


def _get(operation_id: str, summary: str, reply: str) -> Json:
    return {"get": operation(operation_id, summary, answer(summary, ref(reply)))}


def _metrics() -> Json:
    text = {"content": {"text/plain": {"schema": {"type": "string"}}}}
    return operation("metrics", "Prometheus metrics", text | {"description": "Exposition format"})


def _picture() -> Json:
    described = operation(
        "picture",
        "A picture of a model's training, one that its card lists",
        {"description": "A PNG file", "content": {"image/png": {}}},
        parameters=[
            in_path("model", {"type": "string"}),
            in_path("version", {"type": "integer", "minimum": 1}),
            in_path("picture", {"type": "string", "examples": ["loss.png"]}),
        ],
    )
    described["responses"] |= {
        "304": {"description": "It still has an ETag that If-None-Match names"},
        "404": error("No such model, version or picture"),
        "503": error("The version could not be opened; see Retry-After"),
    }
    return described


def _schemas(served: list[ServedModel]) -> Json:
    schemas: Json = {
        "Error": json_object({"error": {"type": "string"}}),
        "PredictReply": any_of(f"{each.name}_reply" for each in served),
        "Model": json_object(
            {
                "model": {"type": "string"},
                "default_version": {"type": ["integer", "null"]},
                "versions": list_of(ref("Version")),
            }
        ),
        "ModelList": json_object({"models": list_of(ref("Model"))}),
        "Version": json_object(
            {"version": {"type": ["integer", "null"]}, "state": {"enum": ["ready", "failed"]}},
            reason={"type": "string"},
            provider={"type": "string"},
            device={"type": "string"},
            card={"type": ["object", "null"]},
            pictures=list_of(ref("Picture")),
        ),
        "Picture": json_object(
            {"title": {"type": "string"}, "url": {"type": "string", "format": "uri-reference"}}
        ),
        "Live": json_object({"status": {"const": "live"}}),
        "Ready": json_object(
            {"status": {"enum": ["ready", "not ready", "draining"]}, "models": {"type": "object"}}
        ),
    }
    for each in served:
        schemas[f"{each.name}_instance"] = _instance(each)
        schemas[f"{each.name}_reply"] = json_object(
            {
                "model": {"const": each.name},
                "version": {"type": "integer"},
                "predictions": list_of(_prediction(each)),
            }
        )
    return schemas


def _instance(served: ServedModel) -> Json:
    model, card = served.model, served.card
    number = _number(model.input.dtype)
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
            each.name: number
            | {
                "description": f"{each.description} ({each.unit}); "
                f"{each.minimum:g} to {each.maximum:g} in training",
            }
            for each in card.features
        }
        forms.append(json_object(named) | {"additionalProperties": False})
    if len(model.row_shape) > 1:
        nested: Json = number
        for size in reversed(model.row_shape):
            nested = {"type": "array", "items": nested, "minItems": size, "maxItems": size}
        forms.append(nested)
    return {"anyOf": forms}


def _number(dtype: type[np.generic]) -> Json:
    if issubclass(dtype, np.floating):
        largest = float(np.finfo(dtype).max)
        return {"type": "number", "minimum": -largest, "maximum": largest}
    limits = np.iinfo(dtype)  # type: ignore[type-var]  # why_no_rows: numbers only
    return {"type": "integer", "minimum": limits.min, "maximum": limits.max}


def _prediction(served: ServedModel) -> Json:
    card = served.card
    if card is None:
        return json_object({output.name: {} for output in served.model.outputs})
    if card.labels:
        share = {"type": "number", "minimum": 0, "maximum": 1}
        return json_object(
            {
                "label": {"enum": card.labels},
                "probability": share,
                "probabilities": json_object(dict.fromkeys(card.labels, share)),
            }
        )
    answers = {each.name: _answer(card, each) for each in card.targets}
    if len(answers) == 1:
        return answers[card.targets[0].name]
    if card.interval:
        return json_object(answers)
    return json_object({name: answer["properties"]["value"] for name, answer in answers.items()})


def _answer(card: Card, target: Target) -> Json:
    described = {"type": "number", "description": f"{target.description} ({target.unit})"}
    if card.interval is None:
        return json_object({"value": described})
    share = f"{card.interval.coverage:.0%} of the true values lie between lower and upper"
    bound = {"type": "number", "description": share}
    return json_object({"value": described, "lower": bound, "upper": bound})


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
