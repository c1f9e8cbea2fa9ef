"""What the OpenAPI document says of the routes that take rows."""

import base64
from typing import Any

import numpy as np

from service.catalog.served import ServedModel
from service.engine.model import Model
from service.formats.images.bodies import IMAGES
from service.formats.images.decode import as_png, image_of
from service.formats.predictions import csv_of, encode
from service.formats.registry import CSV, FORM, FORMATS, IMAGE, JSON, JSON_LINES, Format
from service.http.openapi.parts import (
    CONTENT_ENCODING_PARAMETER,
    OF_INFERENCE,
    PREPARE_PARAMETER,
    TEXT,
    TIMEOUT_PARAMETER,
    VERSION,
    VERSION_HEADER,
    VERSION_PARAMETER,
    WITHOUT_VERSION,
    Context,
    Document,
    Json,
    answer,
    any_of,
    as_json,
    closed_object,
    json_object,
    list_of,
    operation,
    ref,
    zeros_fit,
)
from service.http.route import Route

# Formats that are described alike: all but JSON and images.
OTHERS = [each for each in FORMATS if each not in (JSON, IMAGE, FORM)]

_VERSION: Json = VERSION | {"description": WITHOUT_VERSION}


def predict(route: Route, context: Context) -> Json:
    """Describe POST /predict."""
    return {route.path: _predict_any("predict", route, context)}


def predict_model(route: Route, context: Context) -> Json:
    """Describe POST /predict/{model} for each model."""
    return {f"/predict/{each.name}": _predict_one(each, context) for each in context.with_rows}


def prepare(route: Route, context: Context) -> Json:
    """Describe POST /prepare/{model} for each model that takes images."""
    models = [each for each in context.with_rows if image_of(each.model)]
    return {f"/prepare/{each.name}": _prepare_one(each, context) for each in models}


def invocations(route: Route, context: Context) -> Json:
    """Describe POST /invocations."""
    described = _predict_any("invocations", route, context)
    described["description"] = (
        "Also takes what MLflow's clients send: dataframe_split, dataframe_records or inputs, and "
        "params; in JSON the reply has the predictions alone then."
    )
    described["responses"]["200"]["headers"] = VERSION_HEADER
    described["responses"]["200"]["content"] |= {
        CSV.media_types[0]: {"schema": _text("A line for each prediction, without a header")},
        JSON_LINES.media_types[0]: {"schema": _text("A prediction in each line")},
    }
    return {route.path: described}


def vertex(route: Route, context: Context) -> Json:
    """Describe POST TORCHLIT_PREDICT_ROUTE."""
    instances = {"instances": _instances_of_any(context)}
    parameters = json_object({"model": _name_of_any(context)}, version=_VERSION)
    if context.unnamed is None:
        request = closed_object(instances | {"parameters": parameters})
    else:
        del parameters["required"]
        parameters["type"] = ["object", "null"]
        request = closed_object(instances, parameters=parameters)
    examples = {
        name: body | {"parameters": {"model": name}} for name, body in _first_examples(context)
    }
    reply = "PredictRouteReply"
    described = _json_operation("predict_route", route.summary, request, reply, examples)
    described["responses"]["200"]["headers"] = VERSION_HEADER
    return {route.path: described}


def beside_vertex(own: Document) -> Document:
    """Describe a route of ours that is TORCHLIT_PREDICT_ROUTE too."""

    def document(route: Route, context: Context) -> Json:
        theirs: Json = vertex(route, context)[route.path]
        described: Json = own(route, context).get(route.path) or theirs
        for of_own, of_theirs in zip(_json_of(described), _json_of(theirs), strict=True):
            of_own["schema"] = {"anyOf": [of_own["schema"], of_theirs["schema"]]}
        return {route.path: described}

    return document


def _json_of(described: Json) -> tuple[Json, Json]:
    """Return what an operation says of JSON: in its request, and in its response."""
    sent, given = described["requestBody"], described["responses"]["200"]
    return sent["content"]["application/json"], given["content"]["application/json"]


def _predict_any(operation_id: str, route: Route, context: Context) -> Json:
    """Describe an operation whose body names its model, or means the default."""
    model, instances = {"model": _name_of_any(context)}, {"instances": _instances_of_any(context)}
    if context.unnamed:
        request = closed_object(instances, version=_VERSION, **model)
    else:
        request = closed_object(model | instances, version=_VERSION)
    examples = {name: body | {"model": name} for name, body in _first_examples(context)}
    reply, served = "PredictReply", context.unnamed
    return _operation(operation_id, route.summary, request, reply, examples, context, served)


def _name_of_any(context: Context) -> Json:
    unnamed, names = context.unnamed, [each.name for each in context.with_rows]
    described = TEXT | ({"enum": names} if names else {})
    return described | ({"description": f"{unnamed.name} if absent"} if unnamed else {})


def _instances_of_any(context: Context) -> Json:
    return _instances(any_of(f"{each.name}_instance" for each in context.with_rows), context)


def _instances(items: Json, context: Context) -> Json:
    return list_of(items, minItems=1, maxItems=context.settings.max_request_rows)


def _text(description: str) -> Json:
    return TEXT | {"description": description}


def _predict_one(served: ServedModel, context: Context) -> Json:
    request = closed_object(
        {"instances": _instances(ref(f"{served.name}_instance"), context)},
        model=TEXT | {"const": served.name},
        version=_VERSION,
    )
    summary = served.card.description if served.card else f"Predict with {served.name}"
    examples = {
        name: {"instances": [instance]}
        for name, instance in (_examples(served) | _image_examples(served)).items()
    }
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


def _operation(
    operation_id: str,
    summary: str,
    request: Json,
    reply: str,
    examples: Json,
    context: Context,
    served: ServedModel | None,
) -> Json:
    """Describe an operation whose body may be of every format.

    served: the model that is meant where none is named, as a text names none.
    """
    described = _json_operation(operation_id, summary, request, reply, examples)
    content = described["requestBody"]["content"]
    for format in OTHERS:
        if not format.is_text:
            binary = _text(format.description) | {"format": "binary"}
            content[format.media_types[0]] = {"schema": binary}
        elif served is not None:
            content[format.media_types[0]] = _text_format(format, served)
    if served is not None and image_of(served.model):
        _add_images(described, context)
    return described


def _json_operation(
    operation_id: str, summary: str, request: Json, reply: str, examples: Json
) -> Json:
    return operation(
        operation_id,
        summary,
        answer("One prediction for each instance", ref(reply)),
        OF_INFERENCE,
        parameters=[TIMEOUT_PARAMETER, CONTENT_ENCODING_PARAMETER, VERSION_PARAMETER],
        requestBody={"required": True, "content": as_json(request, examples)},
    )


def _text_format(format: Format, served: ServedModel) -> Json:
    """Describe a body of lines, which cannot name a model, with the examples of the one meant."""
    content: Json = {"schema": _text(f"{format.description}, for the model {served.name}")}
    if examples := _examples(served):
        content["examples"] = {
            name: {"value": _line(format, instance)} for name, instance in examples.items()
        }
    return content


def _line(format: Format, instance: dict[str, float] | list[float]) -> str:
    """Write an instance as a line of CSV or JSON."""
    if format is not CSV:
        return encode(instance).decode() + "\n"
    values = instance.values() if isinstance(instance, dict) else instance
    return csv_of([{str(place): each for place, each in enumerate(values)}]).decode()


def _add_images(described: Json, context: Context) -> None:
    """Say of an operation that its body may be an image, or a form of them."""
    described["parameters"].append(PREPARE_PARAMETER)
    form = closed_object({"file": _instances(TEXT | {"contentMediaType": "image/png"}, context)})
    form["description"] = "One prediction for each file, in their order; their names do not matter"
    described["requestBody"]["content"] |= {
        **{each: {} for each in IMAGES},  # without schema: bytes as they are (OpenAPI 3.1, 4.8.14)
        FORM.media_types[0]: {
            "schema": form,
            "encoding": {"file": {"contentType": ", ".join(IMAGES)}},
        },
    }


def _first_examples(context: Context) -> list[tuple[str, Json]]:
    """Return a body for each model that has examples, by the model's name."""
    found = [(each.name, list(_examples(each).values())) for each in context.with_rows]
    return [(name, {"instances": instances[:1]}) for name, instances in found if instances]


def _examples(served: ServedModel) -> dict[str, Any]:
    """Return instances of the card's examples, features by name; zeros without a card."""
    model, card = served.model, served.card
    names = model.column_names
    if card is None and model.trial.example:
        return {"example": dict(zip(names, model.trial.example, strict=True))}
    if card is None:
        return {"zeros": _zeros(model)} if zeros_fit(model) else {}
    return {
        each.name: dict(zip(names, each.input, strict=True)) if names else each.input
        for each in card.examples
    }


def _zeros(model: Model) -> Any:
    """Return an instance of zeros, empty strings or false."""
    nothing: dict[type[np.generic], Any] = {np.object_: "", np.bool_: False}
    return [nothing.get(model.row_dtype, 0)] * model.row_size


def _image_examples(served: ServedModel) -> Json:
    """Return those of the card's examples that an image can say, as PNG in base64."""
    image = image_of(served.model)
    if served.card is None or image is None:
        return {}
    return {
        f"{example.name}, as PNG": {"b64": base64.b64encode(data).decode()}
        for example in served.card.examples
        if (data := as_png(example.numbers, image)) is not None
    }
