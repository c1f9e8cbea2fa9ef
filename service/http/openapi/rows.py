"""What the OpenAPI document says of the routes that take rows."""

import base64
from collections.abc import Callable
from typing import Any

from service.catalog.served import ServedModel
from service.formats.images.bodies import IMAGES
from service.formats.images.decode import as_png, image_of
from service.formats.predictions import encode
from service.formats.registry import CSV, FORM, FORMATS, IMAGE, JSON, JSON_LINES, Format
from service.http.openapi.parts import (
    CONTENT_ENCODING_PARAMETER,
    ERRORS,
    OF_INFERENCE,
    PREPARE_PARAMETER,
    TIMEOUT_PARAMETER,
    VERSION_PARAMETER,
    Context,
    Json,
    answer,
    any_of,
    error,
    operation,
    ref,
    zeros_fit,
)
from service.http.route import Route


def predict(route: Route, context: Context) -> Json:
    """Describe POST /predict."""
    request = _request_to_any(context)
    examples = _examples_of_any(context.with_rows)
    return {
        route.path: _operation("predict", route.summary, request, "PredictReply", examples, context)
    }


def predict_model(route: Route, context: Context) -> Json:
    """Describe POST /predict/{model} for each model."""
    return {f"/predict/{each.name}": _predict_one(each, context) for each in context.with_rows}


def prepare(route: Route, context: Context) -> Json:
    """Describe POST /prepare/{model} for each model that takes images."""
    models = [each for each in context.with_rows if image_of(each.model)]
    return {f"/prepare/{each.name}": _prepare_one(each, context) for each in models}


def invocations(route: Route, context: Context) -> Json:
    """Describe POST /invocations."""
    described = _operation(
        "invocations",
        route.summary,
        _request_to_any(context),
        "PredictReply",
        _examples_of_any(context.with_rows),
        context,
    )
    described["responses"]["200"]["content"] |= {
        CSV.media_types[0]: {"schema": _text("A line for each prediction, without a header")},
        JSON_LINES.media_types[0]: {"schema": _text("A prediction in each line")},
    }
    return {route.path: described}


def vertex(route: Route, context: Context) -> Json:
    """Describe POST TORCHLIT_PREDICT_ROUTE."""
    parameters: Json = {
        "type": ["object", "null"] if context.unnamed else "object",
        "additionalProperties": False,
        "properties": {
            "model": _name_of_any(context),
            "version": {"type": "integer", "minimum": 1, "description": "the highest if absent"},
        },
    }
    request = {
        "type": "object",
        "required": ["instances"],
        "additionalProperties": False,
        "properties": {
            "instances": _instances_of_any(context),
            "parameters": parameters,
        },
    }
    if context.unnamed is None:
        parameters["required"], request["required"] = ["model"], ["instances", "parameters"]
    examples = {
        each.name: {"value": body | {"parameters": {"model": each.name}}}
        for each, body in _first(context.with_rows)
    }
    described = _json_operation(
        "predict_route", route.summary, request, "PredictRouteReply", examples
    )
    return {route.path: described}


def _request_to_any(context: Context) -> Json:
    """Describe the body of a request that names its model, or means the default."""
    return {
        "type": "object",
        "required": ["instances"] if context.unnamed else ["model", "instances"],
        "additionalProperties": False,
        "properties": {
            "model": _name_of_any(context),
            "version": {"type": "integer", "minimum": 1, "description": "the highest if absent"},
            "instances": _instances_of_any(context),
        },
    }


def _name_of_any(context: Context) -> Json:
    unnamed, names = context.unnamed, [each.name for each in context.with_rows]
    described: Json = {"type": "string"} | ({"enum": names} if names else {})
    return described | ({"description": f"{unnamed.name} if absent"} if unnamed else {})


def _instances_of_any(context: Context) -> Json:
    return {
        "type": "array",
        "minItems": 1,
        "maxItems": context.settings.max_request_rows,
        "items": any_of(f"{each.name}_instance" for each in context.with_rows),
    }


def _examples_of_any(served: list[ServedModel]) -> Json:
    return {each.name: {"value": body | {"model": each.name}} for each, body in _first(served)}


def _text(description: str) -> Json:
    return {"type": "string", "description": description}


def _other_format(format: Format, unnamed: ServedModel) -> Json:
    """Describe a body of rows that cannot name a model, with the examples of the one it is for."""
    content: Json = {"schema": _text(f"{format.description}, for the model {unnamed.name}")}
    line = _LINES.get(format.name)
    if line and (examples := _examples(unnamed)):
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


def _binary(description: str) -> Json:
    return {"type": "string", "format": "binary", "description": description}


# Formats that are described alike: all but JSON and images.
OTHERS = [each for each in FORMATS if each not in (JSON, IMAGE, FORM)]

# How an instance is written in formats of lines.
_LINES: dict[str, Callable[[Any], str]] = {CSV.name: _as_csv, JSON_LINES.name: _as_json}


def _predict_one(served: ServedModel, context: Context) -> Json:
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
                "maxItems": context.settings.max_request_rows,
                "items": ref(f"{served.name}_instance"),
            },
        },
    }
    summary = served.card.description if served.card else f"Predict with {served.name}"
    examples = {example["name"]: {"value": example["body"]} for example in _examples(served)}
    examples |= _image_examples(served)
    reply = f"{served.name}_reply"
    operation_id = f"predict_{served.name}"
    return _operation(operation_id, summary, request, reply, examples, context, served)


def _prepare_one(served: ServedModel, context: Context) -> Json:
    """Describe POST /prepare/{model}: what /predict/{model} takes, and the pixels of it."""
    described = _predict_one(served, context)
    content = described["requestBody"]["content"]
    for each in OTHERS:
        content.pop(each.media_types[0], None)
    described["operationId"] = f"prepare_{served.name}"
    described["summary"] = f"The pixels that {served.name} sees of images, to send or to show"
    reply = answer("An instance for each image", ref(f"{served.name}_prepared"))
    described["responses"]["200"] = reply
    return described


def _add_images(described: Json, context: Context) -> None:
    """Say of an operation that its body may be an image, or a form of them."""
    described["parameters"].append(PREPARE_PARAMETER)
    described["responses"]["415"] = error(ERRORS["415"])
    image = {"type": "string", "contentMediaType": "image/png"}
    files = {"type": "array", "items": image, "minItems": 1}
    form = {
        "type": "object",
        "description": "One prediction for each file, in their order; their names do not matter",
        "required": ["file"],
        "properties": {"file": files | {"maxItems": context.settings.max_request_rows}},
        "additionalProperties": False,
    }
    described["requestBody"]["content"] |= {
        **{each: {} for each in IMAGES},  # without schema: bytes as they are (OpenAPI 3.1, 4.8.14)
        FORM.media_types[0]: {
            "schema": form,
            "encoding": {"file": {"contentType": ", ".join(IMAGES)}},
        },
    }


def _image_examples(served: ServedModel) -> Json:
    """Return those of the card's examples that an image can say, as PNG in base64."""
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


def _operation(
    operation_id: str,
    summary: str,
    request: Json,
    reply: str,
    examples: Json,
    context: Context,
    served: ServedModel | None = None,
) -> Json:
    """Describe an operation whose body may be of every format; `served` is the model it is for."""
    described = _json_operation(operation_id, summary, request, reply, examples)
    served = served or context.unnamed
    content = described["requestBody"]["content"]
    for format in OTHERS:
        if not format.is_text:
            content[format.media_types[0]] = {"schema": _binary(format.description)}
        elif served is not None:  # which a text cannot name
            content[format.media_types[0]] = _other_format(format, served)
    described["responses"]["415"] = error(ERRORS["415"])
    if served is not None and image_of(served.model):
        _add_images(described, context)
    return described


def _json_operation(
    operation_id: str, summary: str, request: Json, reply: str, examples: Json
) -> Json:
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
