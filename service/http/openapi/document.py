"""The OpenAPI 3.1 document, written from the cards of the models that are served.

The inference routes are ASGI functions that no framework can describe, and what they take
differs from model to model. So the document is built for the models there are: schemas with
each feature's unit and training range, and examples that the service answers as shown.
"""

import base64
from collections.abc import Callable
from typing import Any

import numpy as np

from service.card import Card, Target
from service.catalog.catalog import ModelRepository
from service.catalog.served import ServedModel
from service.formats.images.decode import as_png, image_of, takes_pictures
from service.http.access import METRICS, PING, is_probe
from service.http.openapi import v2 as openapi_v2
from service.http.openapi.parts import (
    CONTENT_ENCODING_PARAMETER,
    ERRORS,
    OF_INFERENCE,
    PREPARE_PARAMETER,
    TIMEOUT_PARAMETER,
    VERSION_PARAMETER,
    Json,
    answer,
    any_of,
    error,
    in_path,
    json_object,
    list_of,
    operation,
    ref,
    zeros_fit,
)
from service.http.pictures import FORM, IMAGES
from service.http.platforms.invocations import CSV, INVOCATIONS, JSON_LINES
from service.http.request import encode
from service.settings import Settings

API_KEYS = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}


def document(models: ModelRepository, settings: Settings) -> Json:
    """Return the document for the models that answer now."""
    served = [each for name in models.names if (each := models.default(name))]
    with_rows = [each for each in served if not each.model.why_no_rows]
    unnamed = next((each for each in with_rows if each.name == models.unnamed), None)
    paths: Json = {"/predict": {"post": _predict_any(with_rows, unnamed, settings)}}
    for each in with_rows:
        paths[f"/predict/{each.name}"] = {"post": _predict_one(each, settings)}
        if takes_pictures(each.model):
            paths[f"/prepare/{each.name}"] = {"post": _prepare_one(each, settings)}
    paths |= {
        "/models": _get("models", "The models and their cards", "ModelList"),
        "/models/{model}": _get("model", "One model and its cards", "Model"),
        "/models/{model}/{version}/{picture}": {"get": _picture()},
        "/health/live": _get("live", "Whether the process runs", "Live"),
        "/health/ready": {"get": _ping("ready", "Whether every model answers")},
        "/metrics": {"get": _metrics()},
    }
    one = paths["/models/{model}"]["get"]
    one["parameters"] = [in_path("model", {"type": "string"})]
    one["responses"]["404"] = error(ERRORS["404"])
    paths |= openapi_v2.paths(served)
    paths |= _of_platforms(with_rows, unnamed, settings)
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
        for method, each in operations.items():
            _add_refusals(each, method, path, settings)
    if settings.has_api_keys:
        described["components"]["securitySchemes"] = API_KEYS
        described["security"] = [{name: []} for name in API_KEYS]
    return described


def _add_refusals(described: Json, method: str, path: str, settings: Settings) -> None:
    """Say of an operation who is refused whatever the request holds, as access.py does it."""
    asks_health = method == "get" and is_probe(path, settings)
    is_metrics = path.startswith(METRICS)
    if not asks_health and not is_metrics:
        described["responses"].setdefault("503", error("Too many connections; see Retry-After"))
    if not settings.has_api_keys:
        return
    if settings.protect_health if asks_health else settings.protect_metrics or not is_metrics:
        described["responses"]["401"] = error(ERRORS["401"])
    else:
        described["security"] = []


def _predict_any(
    served: list[ServedModel], unnamed: ServedModel | None, settings: Settings
) -> Json:
    request = _request_to_any(served, unnamed, settings)
    described = _operation("predict", "Predict", request, "PredictReply", _examples_of_any(served))
    if unnamed is not None and takes_pictures(unnamed.model):
        _add_pictures(described, settings)
    return described


def _request_to_any(
    served: list[ServedModel], unnamed: ServedModel | None, settings: Settings
) -> Json:
    """Describe the body of a request that names its model, or means the default."""
    return {
        "type": "object",
        "required": ["instances"] if unnamed else ["model", "instances"],
        "additionalProperties": False,
        "properties": {
            "model": _name_of_any(served, unnamed),
            "version": {"type": "integer", "minimum": 1, "description": "the highest if absent"},
            "instances": _instances_of_any(served, settings),
        },
    }


def _name_of_any(served: list[ServedModel], unnamed: ServedModel | None) -> Json:
    names = [each.name for each in served]
    described: Json = {"type": "string"} | ({"enum": names} if names else {})
    return described | ({"description": f"{unnamed.name} if absent"} if unnamed else {})


def _instances_of_any(served: list[ServedModel], settings: Settings) -> Json:
    return {
        "type": "array",
        "minItems": 1,
        "maxItems": settings.max_request_rows,
        "items": any_of(f"{each.name}_instance" for each in served),
    }


def _examples_of_any(served: list[ServedModel]) -> Json:
    return {each.name: {"value": body | {"model": each.name}} for each, body in _first(served)}


def _of_platforms(
    served: list[ServedModel], unnamed: ServedModel | None, settings: Settings
) -> Json:
    """Describe what cloud platforms ask, as platforms.py answers it."""
    summary = "How batch transform is to ask (SageMaker)"
    paths: Json = {
        INVOCATIONS: {"post": _invocations(served, unnamed, settings)},
        PING: {"get": _ping("ping", "Whether every model answers (SageMaker)")},
        "/execution-parameters": _get("execution_parameters", summary, "ExecutionParameters"),
    }
    if settings.predict_route is not None:
        paths[settings.predict_route] = {"post": _vertex(served, unnamed, settings)}
    if settings.health_route is not None:
        health = _ping("health_route", "Whether every model answers (Vertex AI)")
        paths[settings.health_route] = paths.get(settings.health_route, {}) | {"get": health}
    return paths


def _invocations(
    served: list[ServedModel], unnamed: ServedModel | None, settings: Settings
) -> Json:
    """Describe POST /invocations; CSV and JSON Lines cannot name a model."""
    described = _operation(
        "invocations",
        "Predict (SageMaker); the reply is of the first media type in Accept that is known",
        _request_to_any(served, unnamed, settings),
        "PredictReply",
        _examples_of_any(served),
    )
    described["responses"]["415"] = error(ERRORS["415"])
    described["responses"]["200"]["content"] |= {
        CSV: {"schema": _text("A line for each prediction, without a header")},
        JSON_LINES: {"schema": _text("A prediction in each line")},
    }
    if unnamed is not None:
        described["requestBody"]["content"] |= {
            CSV: _lines(unnamed, "A line for each instance, without a header", _as_csv),
            JSON_LINES: _lines(unnamed, "An instance in each line", _as_json),
        }
        if takes_pictures(unnamed.model):
            _add_pictures(described, settings)
    return described


def _text(description: str) -> Json:
    return {"type": "string", "description": description}


def _lines(unnamed: ServedModel, description: str, line: Callable[[Any], str]) -> Json:
    """Describe a body of lines, with the examples of the model that it is for."""
    content: Json = {"schema": _text(f"{description}, for the model {unnamed.name}")}
    if examples := _examples(unnamed):
        content["examples"] = {
            example["name"]: {"value": "".join(map(line, example["body"]["instances"]))}
            for example in examples
        }
    return content


def _as_csv(instance: dict[str, float] | list[float]) -> str:
    values = instance.values() if isinstance(instance, dict) else instance
    return ",".join(map(repr, values)) + "\n"


def _as_json(instance: dict[str, float] | list[float]) -> str:
    return encode(instance).decode() + "\n"


def _ping(operation_id: str, summary: str) -> Json:
    described = operation(operation_id, summary, answer(summary, ref("Ready")))
    described["responses"]["503"] = answer("Some do not", ref("Ready"))
    return described


def _vertex(served: list[ServedModel], unnamed: ServedModel | None, settings: Settings) -> Json:
    """Describe POST TORCHLIT_PREDICT_ROUTE."""
    parameters: Json = {
        "type": ["object", "null"] if unnamed else "object",
        "additionalProperties": False,
        "properties": {
            "model": _name_of_any(served, unnamed),
            "version": {"type": "integer", "minimum": 1, "description": "the highest if absent"},
        },
    }
    request = {
        "type": "object",
        "required": ["instances"],
        "additionalProperties": False,
        "properties": {
            "instances": _instances_of_any(served, settings),
            "parameters": parameters,
        },
    }
    if unnamed is None:
        parameters["required"], request["required"] = ["model"], ["instances", "parameters"]
    examples = {
        each.name: {"value": body | {"parameters": {"model": each.name}}}
        for each, body in _first(served)
    }
    summary = "Predict (Vertex AI)"
    return _operation("predict_route", summary, request, "PredictRouteReply", examples)


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
    examples |= _picture_examples(served)
    reply = f"{served.name}_reply"
    described = _operation(f"predict_{served.name}", summary, request, reply, examples)
    if takes_pictures(served.model):
        _add_pictures(described, settings)
    return described


def _prepare_one(served: ServedModel, settings: Settings) -> Json:
    """Describe POST /prepare/{model}: what /predict/{model} takes, and the pixels of it."""
    described = _predict_one(served, settings)
    described["operationId"] = f"prepare_{served.name}"
    described["summary"] = f"The pixels that {served.name} sees of pictures, to send or to show"
    reply = answer("An instance for each picture", ref(f"{served.name}_prepared"))
    described["responses"]["200"] = reply
    return described


def _add_pictures(described: Json, settings: Settings) -> None:
    """Say of an operation that its body may be a picture, or a form of them."""
    described["parameters"].append(PREPARE_PARAMETER)
    described["responses"]["415"] = error(ERRORS["415"])
    picture = {"type": "string", "contentMediaType": "image/png"}
    files = {"type": "array", "items": picture, "minItems": 1}
    form = {
        "type": "object",
        "description": "One prediction for each file, in their order; their names do not matter",
        "required": ["file"],
        "properties": {"file": files | {"maxItems": settings.max_request_rows}},
        "additionalProperties": False,
    }
    described["requestBody"]["content"] |= {
        **{each: {} for each in IMAGES},  # without schema: bytes as they are (OpenAPI 3.1, 4.8.14)
        FORM: {"schema": form, "encoding": {"file": {"contentType": ", ".join(IMAGES)}}},
    }


def _picture_examples(served: ServedModel) -> Json:
    """Return those of the card's examples that a picture can say, as PNG in base64."""
    image = image_of(served.model)
    if served.card is None or image is None:
        return {}
    examples = {}
    for example in served.card.examples:
        if (data := as_png(example.input, image)) is not None:
            b64 = base64.b64encode(data).decode()
            value = {"instances": [{"b64": b64}]}
            examples[f"{example.name}, as PNG"] = {"value": value}
    return examples


def _operation(operation_id: str, summary: str, request: Json, reply: str, examples: Json) -> Json:
    content: Json = {"schema": request}
    if examples:
        content["examples"] = examples
    return operation(
        operation_id,
        summary,
        answer("One prediction for each instance", ref(reply)),
        OF_INFERENCE,
        parameters=[TIMEOUT_PARAMETER, CONTENT_ENCODING_PARAMETER, VERSION_PARAMETER],
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
            batching=json_object(
                {
                    "of": {"enum": ["rows", "requests"]},
                    "largest_batch": {"type": "integer", "minimum": 1},
                    "reason": {"type": "string"},
                }
            ),
            card={"type": ["object", "null"]},
            why_no_rows={"type": "string", "description": "Why only /v2 takes what it takes"},
            pictures=list_of(ref("Picture")),
        ),
        "Picture": json_object(
            {"title": {"type": "string"}, "url": {"type": "string", "format": "uri-reference"}}
        ),
        "ExecutionParameters": json_object(
            {
                "MaxConcurrentTransforms": {"type": "integer", "minimum": 1},
                "BatchStrategy": {"enum": ["SINGLE_RECORD", "MULTI_RECORD"]},
                "MaxPayloadInMB": {"type": "integer", "minimum": 1},
            }
        ),
        "PredictRouteReply": json_object(
            {"predictions": list_of(any_of(f"{each.name}_prediction" for each in served))}
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
                "predictions": list_of(ref(f"{each.name}_prediction")),
            }
        )
        schemas[f"{each.name}_prediction"] = _prediction(each)
        if takes_pictures(each.model):
            schemas[f"{each.name}_prepared"] = json_object(
                {
                    "model": {"const": each.name},
                    "version": {"type": "integer"},
                    "instances": list_of(_nested(each)),
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
        forms.append(_nested(served))
    if takes_pictures(model):
        picture = {
            "type": "string",
            "contentMediaType": "image/png",
            "contentEncoding": "base64",
            "description": "A PNG or JPEG, also as a data: URL",
        }
        forms.append(json_object({"b64": picture}) | {"additionalProperties": False})
    return {"anyOf": forms}


def _nested(served: ServedModel) -> Json:
    nested = _number(served.model.input.dtype)
    for size in reversed(served.model.row_shape):
        nested = {"type": "array", "items": nested, "minItems": size, "maxItems": size}
    return nested


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
    """Return request bodies from the card's examples, features by name; zeros without a card."""
    card = served.card
    if card is None:
        if not zeros_fit(served.model):
            return []
        return [{"name": "zeros", "body": {"instances": [[0] * served.model.row_size]}}]
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
