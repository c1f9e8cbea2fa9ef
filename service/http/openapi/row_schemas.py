"""Schemas of what models take and answer, from their cards."""

import math
from collections.abc import Sequence

import numpy as np

from service.card import Card, Feature, Target
from service.catalog.served import ServedModel
from service.engine.classifier import Classifier
from service.engine.model import Model
from service.engine.spec import Tensor
from service.formats.images.decode import image_of
from service.formats.numbers import LEAST_INFINITE
from service.formats.predictions import fields
from service.http.openapi.parts import (
    TEXT,
    VERSION,
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
        about = {"model": TEXT | {"enum": [each.name]}, "version": VERSION}
        predictions = list_of(ref(f"{each.name}_prediction"))
        described[f"{each.name}_reply"] = json_object(about | {"predictions": predictions})
        if image_of(each.model):
            instances = list_of(_nested(each))
            described[f"{each.name}_prepared"] = json_object(about | {"instances": instances})
    return described


def _instance(served: ServedModel) -> Json:
    model = served.model
    forms = [_nested(served)]
    if not model.has_open_rows:
        forms = [_flat(model)]
        if model.columns:
            forms.append(closed_object(_named(model)))
        if model.row_size == 1:
            forms.append(_value(model.row_dtype, model.form.takes_missing))
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


def _flat(model: Model) -> Json:
    """Describe a list of all values of a row."""
    size, columns = model.row_size, model.columns
    if len({(each.dtype, each.takes_missing) for each in columns}) > 1:
        flat = list_of({}, minItems=size, maxItems=size)
        flat["prefixItems"] = [_value(each.dtype, each.takes_missing) for each in columns]
    else:
        value = _value(model.row_dtype, model.form.takes_missing)
        flat = list_of(value, minItems=size, maxItems=size)
    if columns:
        flat["description"] = "in the order " + ", ".join(model.column_names)
    return flat


def _named(model: Model) -> Json:
    """Describe each column, by its name."""
    named = {each.name: _value(each.dtype, each.takes_missing) for each in model.columns}
    for each in model.card.features if model.card else []:
        about = filter(None, (_said(each), f"{each.seen} in training"))
        named[each.name] |= {"description": "; ".join(about)}
    return named


def _said(of: Feature | Target) -> str:
    """Return what a card says of a number, which may be nothing."""
    return (of.description + f" ({of.unit})" * bool(of.unit)).strip()


def _nested(served: ServedModel) -> Json:
    model = served.model
    nested = _value(model.row_dtype, model.form.takes_missing)
    for size in reversed(model.row_shape):
        sizes = {} if size == -1 else {"minItems": size, "maxItems": size}
        nested = list_of(nested, **sizes)
    return nested


def _value(dtype: type[np.generic], takes_missing: bool) -> Json:
    """Describe one value of a row."""
    if dtype is np.object_:
        return dict(TEXT)
    if dtype is np.bool_:
        return {"type": "boolean"}
    if issubclass(dtype, np.floating):
        largest = math.nextafter(LEAST_INFINITE[dtype], 0)  # what is rounded down is taken too
        kind = ["number", "null"] if takes_missing else "number"
        return {"type": kind, "minimum": -largest, "maximum": largest}
    limits = np.iinfo(dtype)  # type: ignore[type-var]  # the only kind that is left
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
    described = {"type": "number"}
    if said := _said(target):
        described["description"] = said
    if card.interval is None:
        return json_object({"value": described})
    share = f"{card.interval.coverage:.0%} of the true values lie between lower and upper"
    bound = {"type": "number", "description": share}
    return json_object({"value": described, "lower": bound, "upper": bound})
