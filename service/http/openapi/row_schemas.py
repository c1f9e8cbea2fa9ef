"""Schemas of what models take and answer, from their cards."""

import math
from collections.abc import Sequence

import numpy as np

from service.card import Card, Target
from service.catalog.served import ServedModel
from service.engine.classifier import Classifier
from service.engine.spec import Tensor
from service.formats.images.decode import image_of
from service.formats.numbers import LEAST_INFINITE
from service.formats.predictions import fields
from service.http.openapi.parts import (
    TEXT,
    Json,
    any_of,
    closed_object,
    json_object,
    list_of,
    ref,
)


def schemas(served: list[ServedModel]) -> Json:
    """Return the schemas of what the models take and answer, by name."""
    described: Json = {
        "PredictReply": any_of(f"{each.name}_reply" for each in served),
        "PredictRouteReply": json_object(
            {"predictions": list_of(any_of(f"{each.name}_prediction" for each in served))}
        ),
    }
    for each in served:
        described[f"{each.name}_instance"] = _instance(each)
        described[f"{each.name}_prediction"] = _prediction(each)
        about = {"model": {"const": each.name}, "version": {"type": "integer"}}
        predictions = list_of(ref(f"{each.name}_prediction"))
        described[f"{each.name}_reply"] = json_object(about | {"predictions": predictions})
        if image_of(each.model):
            instances = list_of(_nested(each))
            described[f"{each.name}_prepared"] = json_object(about | {"instances": instances})
    return described


def _instance(served: ServedModel) -> Json:
    model, card = served.model, served.card
    number = _number(model.input.dtype)
    flat = list_of(number, minItems=model.row_size, maxItems=model.row_size)
    forms = [flat]
    if card and card.features:
        flat["description"] = "in the order " + ", ".join(model.feature_names)
        named = {}
        for each in card.features:
            seen = f"{each.minimum:g} to {each.maximum:g} in training"
            about = {"description": f"{each.description} ({each.unit}); {seen}"}
            named[each.name] = number | about
        forms.append(closed_object(named))
    if len(model.row_shape) > 1:
        forms.append(_nested(served))
    if image_of(model):
        image = {
            "contentMediaType": "image/png",
            "contentEncoding": "base64",
            "description": "A PNG or JPEG, also as a data: URL",
        }
        forms.append(closed_object({"b64": TEXT | image}))
    return {"anyOf": forms}


def _nested(served: ServedModel) -> Json:
    nested = _number(served.model.input.dtype)
    for size in reversed(served.model.row_shape):
        nested = list_of(nested, minItems=size, maxItems=size)
    return nested


def _number(dtype: type[np.generic]) -> Json:
    if issubclass(dtype, np.floating):
        largest = math.nextafter(LEAST_INFINITE[dtype], 0)  # what is rounded down is taken too
        return {"type": "number", "minimum": -largest, "maximum": largest}
    limits = np.iinfo(dtype)  # type: ignore[type-var]  # why_no_rows: numbers only
    return {"type": "integer", "minimum": limits.min, "maximum": limits.max}


def _prediction(served: ServedModel) -> Json:
    card, outputs = served.card, served.model.outputs
    if classifier := served.model.classifier:
        beside: Json = {outputs[place].name: {} for place in classifier.beside}
        return json_object(_class(classifier, outputs) | beside)
    if card is None:
        return json_object({output.name: {} for output in outputs})
    answers = {each.name: _answer(card, each) for each in card.targets}
    if len(answers) == 1:
        return answers[card.targets[0].name]
    if card.interval:
        return json_object(answers)
    return json_object({name: answer["properties"]["value"] for name, answer in answers.items()})


def _class(classifier: Classifier, outputs: Sequence[Tensor]) -> Json:
    """Return the fields of what a classifier says of a row."""
    number: Json = {"type": "number"}
    if classifier.are_probabilities:
        number |= {"minimum": 0, "maximum": 1}
    names = classifier.names
    of_all = json_object(dict.fromkeys(names, number)) if names else list_of(number)
    label: Json = {"enum": classifier.labels}
    if not names and classifier.label is not None:
        is_text = outputs[classifier.label].dtype is np.object_
        label = {"type": "string" if is_text else "integer"}
    schemas = {"label": label, "probability": number}
    return {each: schemas.get(each, of_all) for each in fields(classifier)}


def _answer(card: Card, target: Target) -> Json:
    described = {"type": "number", "description": f"{target.description} ({target.unit})"}
    if card.interval is None:
        return json_object({"value": described})
    share = f"{card.interval.coverage:.0%} of the true values lie between lower and upper"
    bound = {"type": "number", "description": share}
    return json_object({"value": described, "lower": bound, "upper": bound})
