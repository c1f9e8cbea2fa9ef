"""POST /predict: the whole life of a request, top to bottom.

    body bytes -> model looked up -> inputs or pictures -> batcher -> model -> reply bytes

This is an ASGI function of its own, beside the Litestar app: the framework's way to it costs
14 microseconds a request, as much as all that is done here (DESIGN.md).
"""

from functools import partial
from time import perf_counter
from typing import Any

from numpy.typing import NDArray

from service.batching import Outputs, check_rows
from service.card import Card
from service.catalog.catalog import ModelRepository
from service.catalog.served import ServedModel
from service.engine.model import Model
from service.errors import InvalidInput
from service.formats import json_rows as inputs
from service.http.pictures import Pictures, media_type_of, query_of
from service.http.request import Incoming, Parts, encode
from service.settings import Settings


class Predict:
    """Answers POST /predict and POST /predict/{model}."""

    def __init__(self, models: ModelRepository, pictures: Pictures, settings: Settings) -> None:
        self._models = models
        self._timeout_s = settings.request_timeout_s
        self._max_body_bytes = settings.max_body_bytes
        self._max_rows = settings.max_request_rows
        self._parser = inputs.BodyParser()
        self._pictures = pictures

    async def respond(self, request: Incoming, start: float) -> Parts:
        """Return the reply's body. Raises RequestError; cancelled when the caller leaves."""
        name_in_path = name_below("/predict", request.scope["path"])
        request.check_is_post()
        deadline = start + request.timeout_s(self._timeout_s)
        query = query_of(request)
        sent = request.headers.get(b"content-type", b"application/json")
        media_type = None if sent == b"application/json" else media_type_of(sent)
        body = await request.body(self._max_body_bytes)
        if media_type is None:
            fields = self._parser.parse(body)
            name = model_name(fields.get("model"), name_in_path)
            version = query.version_beside(fields.get("version"))
            request.served = served = look_up(self._models, name, version)
            rows = inputs.to_rows(fields, body, served.model, self._max_rows)
            del fields  # the parser is free again before anything waits
            if rows is None:
                find = partial(look_up, self._models, name, version)
                served, rows = await self._pictures.of_json(
                    request, body, inputs.FIELDS, find, query.prepare, deadline
                )
        else:
            find = partial(look_up, self._models, name_in_path, query.version)
            served, rows = await self._pictures.of_files(
                request, body, media_type, find, query.prepare, deadline
            )
        outputs = await infer_rows(request, served, rows, deadline)
        reply = {
            "model": served.name,
            "version": served.version,
            "predictions": predictions(served.model, outputs),
        }
        return [encode(reply)]


def is_predict(path: str) -> bool:
    """Whether this is /predict, or a path below it."""
    return path == "/predict" or path.startswith("/predict/")


def name_below(route: str, path: str) -> str | None:
    """Return "iris" for "/predict/iris", None for "/predict"; a slash at the end is ignored."""
    return path.removeprefix(route).strip("/") or None


def model_name(in_body: Any, in_path: str | None) -> Any:
    """Return the model's name. Raises InvalidInput when body and path say two."""
    if in_path is None:
        return in_body
    if in_body is not None and in_body != in_path:
        expected, got = inputs.shown(in_path), inputs.shown(in_body)
        raise InvalidInput(f"model: expected {expected} as in the path, got {got}")
    return in_path


def look_up(models: ModelRepository, name: Any, version: Any) -> ServedModel:
    """Return a model that takes rows, by what a body says: None is the default.

    Raises InvalidInput, and what `ModelRepository.get` raises.
    """
    if name is None:
        name = models.unnamed
    if type(name) is not str:
        got = "no such field" if name is None else inputs.shown(name)
        known = ", ".join(models.names)
        raise InvalidInput(f"model: expected the name of a model ({known}), got {got}")
    if version is not None and (type(version) is not int or version < 1):
        raise InvalidInput(f"version: expected a whole number from 1, got {inputs.shown(version)}")
    served = models.get(name, version)
    if why := served.model.why_no_rows:
        raise InvalidInput(
            f"model {name}: expected one that takes rows of numbers, but {why}: "
            f"ask /v2/models/{name}/infer"
        )
    return served


async def infer_rows(
    request: Incoming, served: ServedModel, rows: NDArray[Any], deadline: float
) -> Outputs:
    """Return the model's outputs for `rows` (n, ...), all finite.

    `deadline` is by `perf_counter`. Raises RequestError.
    """
    timing = request.timing()
    outputs = await served.batcher.submit(
        [rows],
        len(rows),
        deadline - perf_counter(),
        alone=request.is_alone(),
        kind=served.kind_of_rows,
        timing=timing,
    )
    if timing is not None:
        request.tell(timing)
    check_rows(outputs, len(rows))
    served.check_finite(outputs)
    return outputs


def predictions(model: Model, outputs: Outputs) -> list[dict[str, Any]]:
    """Return one prediction per row: a label, a value, or what an ONNX without a card gives."""
    card = model.card
    if card is None:
        names = [output.name for output in model.outputs]
        rows_of_each = zip(*(array.tolist() for array in outputs), strict=True)
        return [dict(zip(names, row, strict=True)) for row in rows_of_each]
    rows = outputs[0].tolist()
    if card.labels:
        return [_classified(card.labels, row) for row in rows]
    if card.interval:
        bounds = outputs[1].tolist()
        return [_valued(card, *answer) for answer in zip(rows, bounds, strict=True)]
    return [_valued(card, row) for row in rows]


def _classified(labels: list[str], probabilities: list[float]) -> dict[str, Any]:
    highest = max(probabilities)
    return {
        "label": labels[probabilities.index(highest)],
        "probability": highest,
        "probabilities": dict(zip(labels, probabilities, strict=True)),
    }


def _valued(
    card: Card, values: list[float], bounds: list[list[float]] | None = None
) -> dict[str, Any]:
    """Return {"value"}, with "lower" and "upper" if bounded; by target if several."""
    answers: list[dict[str, float]] = [{"value": value} for value in values]
    for answer, (lower, upper) in zip(answers, bounds or (), strict=bool(bounds)):
        answer |= {"lower": lower, "upper": upper}
    if len(answers) == 1:
        return answers[0]
    names = [target.name for target in card.targets]
    return dict(zip(names, answers if bounds else values, strict=True))
