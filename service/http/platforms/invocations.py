"""What cloud platforms ask of a container: SageMaker's /invocations, and Vertex AI's route.

Cloud Run and Knative ask only for a port (settings.py). Sources, as of 2026:
  SageMaker, "Custom Inference Code with Hosting Services": POST /invocations in 60 s, GET /ping
      in 2 s. "Common data formats for inference": CSV without a header, JSON, JSON Lines.
      "Custom Inference Code with Batch Transform": GET /execution-parameters.
  Vertex AI, "Custom container requirements for inference": POST AIP_PREDICT_ROUTE of
      {"instances": [...], "parameters": {...}} -> {"predictions": [...]}, GET AIP_HEALTH_ROUTE.

Neither says which model is meant, as an endpoint of theirs has one: it is the default model, or
the one that the body names.
"""

import asyncio
import csv
import io
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import simdjson
from numpy.typing import NDArray

from service.catalog.catalog import ModelRepository
from service.catalog.served import ServedModel
from service.engine.model import Model
from service.errors import InvalidInput, TooLarge, UnsupportedMediaType
from service.formats import json_rows as inputs
from service.formats.images.decode import Reader
from service.formats.images.ink import Pixels
from service.formats.json_rows import Fields
from service.http.pictures import FORM, IMAGES, PICTURES, Pictures, Query, query_of
from service.http.request import Incoming, Parts, encode
from service.http.rest.predict import infer_rows, is_predict, look_up, name_below, predictions
from service.settings import Settings

INVOCATIONS = "/invocations"

JSON, CSV, JSON_LINES = "application/json", "text/csv", "application/jsonlines"
# Media types by what they are called. The last two say nothing of what a body is: clients send
# them unless told otherwise.
MEDIA_TYPES = {
    JSON: JSON,
    CSV: CSV,
    JSON_LINES: JSON_LINES,
    "application/x-ndjson": JSON_LINES,
    "": JSON,
    "application/octet-stream": JSON,
    "application/x-www-form-urlencoded": JSON,
}
VERTEX_FIELDS = frozenset({"instances", "parameters"})
PARAMETERS = frozenset({"model", "version"})

# Of SageMaker's batch transform: what it sends unless told otherwise, and the most of payload times
# requests at once (API reference, "CreateTransformJob").
PAYLOAD_MB, MOST_MB = 6, 100
SHORTEST_LINE = 2  # bytes: a digit and the line's end


class Platforms:
    """Answers POST /invocations and POST TORCHLIT_PREDICT_ROUTE."""

    def __init__(self, models: ModelRepository, pictures: Pictures, settings: Settings) -> None:
        self._models = models
        self._timeout_s = settings.request_timeout_s
        self._max_body_bytes = settings.max_body_bytes
        self._max_rows = settings.max_request_rows
        self._pictures = pictures
        self._parser = inputs.BodyParser()
        self._csv_parser = simdjson.Parser()

    async def invocations(self, request: Incoming, start: float) -> Parts:
        """Return the reply's body for SageMaker, in the media type that was asked for.

        Raises RequestError; cancelled when the caller leaves.
        """
        request.check_is_post()
        sent = _content_type(request)
        deadline = start + request.timeout_s(self._timeout_s)
        query = query_of(request)
        body = await request.body(self._max_body_bytes)
        if sent == JSON:
            served, rows = await self._of_json(
                request, body, inputs.FIELDS, _model_and_version, query, deadline
            )
        elif sent in (CSV, JSON_LINES):
            served, rows = await self._of_lines(request, body, sent, query, deadline)
        else:
            find = partial(look_up, self._models, None, query.version)
            served, rows = await self._pictures.of_files(
                request, body, sent, find, query.prepare, deadline
            )
        outputs = await infer_rows(request, served, rows, deadline)
        answers = predictions(served.model, outputs)
        accepted = _accepted(request)
        if accepted == JSON:
            whole = {"model": served.name, "version": served.version, "predictions": answers}
            return [encode(whole)]
        request.content_type = (b"content-type", accepted.encode())
        if accepted == JSON_LINES:
            return [b"".join(encode(each) + b"\n" for each in answers)]
        return [csv_of(answers)]

    async def vertex(self, request: Incoming, start: float) -> Parts:
        """Return the reply's body for Vertex AI. Raises RequestError; cancelled as above."""
        request.check_is_post()
        deadline = start + request.timeout_s(self._timeout_s)
        query = query_of(request)
        body = await request.body(self._max_body_bytes)

        def named(fields: Fields) -> tuple[Any, Any]:
            name, version = _parameters(fields)
            if name is None and is_predict(request.scope["path"]):  # it may be /predict/iris
                name = name_below("/predict", request.scope["path"])
            return name, version

        served, rows = await self._of_json(request, body, VERTEX_FIELDS, named, query, deadline)
        outputs = await infer_rows(request, served, rows, deadline)
        return [encode({"predictions": predictions(served.model, outputs)})]

    async def _of_json(
        self,
        request: Incoming,
        body: bytes,
        known: frozenset[str],
        named: Callable[[Fields], tuple[Any, Any]],
        query: Query,
        deadline: float,
    ) -> tuple[ServedModel, NDArray[Any]]:
        """Return the model whose name and version `named` finds in a JSON body, and its rows.

        As predict.py does it in place, where a further coroutine would be felt.
        """
        fields = self._parser.parse(body, known)
        name, version = named(fields)
        version = query.version_beside(version)
        request.served = served = look_up(self._models, name, version)
        rows = inputs.to_rows(fields, body, served.model, self._max_rows)
        del fields  # the parser is free again before anything waits
        if rows is not None:
            return served, rows
        find = partial(look_up, self._models, name, version)
        return await self._pictures.of_json(request, body, known, find, query.prepare, deadline)

    async def _of_lines(
        self, request: Incoming, body: bytes, sent: str, query: Query, deadline: float
    ) -> tuple[ServedModel, NDArray[Any]]:
        """Return the default model, and the rows of CSV or JSON Lines for it."""
        find = partial(look_up, self._models, None, query.version)
        request.served = served = find()
        _check_lines(body, self._max_rows)
        rows = self._of_plain_csv(body, served.model) if sent == CSV else None
        if rows is not None:
            return served, rows
        if sent == JSON_LINES and inputs.may_hold_pictures(body, served.model):

            def read_lines(model: Model, reader: Reader | None) -> NDArray[Any]:
                return json_lines_rows(body, model, self._max_rows, reader)

            return await self._pictures.read(request, find, read_lines, deadline, query.prepare)
        read = csv_rows if sent == CSV else json_lines_rows
        rows = await asyncio.to_thread(read, body, served.model, self._max_rows)
        if find() is served:
            return served, rows
        # The folder has another version by now.
        return await self._of_lines(request, body, sent, query, deadline)

    def _of_plain_csv(self, body: bytes, model: Model) -> NDArray[Any] | None:
        """Return the rows of CSV that JSON would say with the same numbers, else None.

        It is read 20 times faster that way. Raises TooLarge.
        """
        if any(mark in body for mark in (b"[", b"]", b"{", b'"')):
            return None
        lines = body.strip().replace(b"\r\n", b"\n")
        if b"\r" in lines:  # ends a line too, and is white space in JSON
            return None
        as_json = b"[[%b]]" % lines.replace(b"\n", b"],[")
        try:
            instances: Any = self._csv_parser.parse(as_json)
            return inputs.fast_rows(instances, as_json, model, self._max_rows)
        except TooLarge:
            raise
        except Exception:  # simdjson's are of many kinds; the slow way says what is wrong
            return None


def _check_lines(body: bytes, max_rows: int) -> None:
    """Raise TooLarge where there are more lines than rows and blank lines between them can be.

    A packed body of a few kB may hold millions.
    """
    lines = max(body.count(b"\n"), body.count(b"\r"))
    if lines > 2 * max_rows:
        raise TooLarge(f"body: expected at most {max_rows} rows in one request, got {lines} lines")


def csv_rows(body: bytes, model: Model, max_rows: int) -> NDArray[Any]:
    """Return the lines of CSV without a header as rows (n, ...) of the model's dtype and shape.

    Blank lines are none. Raises InvalidInput with the line of the first thing that does not fit,
    and TooLarge.
    """
    try:
        reader = csv.reader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True)
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"body: expected CSV in UTF-8, got byte {error.start} that is not"
        ) from error
    rows: list[list[float]] = []
    try:
        for cells in reader:
            if not cells or (len(cells) == 1 and cells[0].isspace()):
                continue
            where = f"line {reader.line_num}"
            if len(cells) != model.row_size:
                raise InvalidInput(f"{where}: expected {model.row_size} values, got {len(cells)}")
            inputs.check_count(len(rows) + 1, max_rows)
            rows.append(inputs.row([value_of(cell) for cell in cells], where, model))
    except csv.Error as error:
        raise InvalidInput(f"line {reader.line_num}: expected CSV, got: {error}") from error
    return _stacked(rows, model, max_rows)


def json_lines_rows(
    body: bytes, model: Model, max_rows: int, reader: Reader | None = None
) -> NDArray[Any]:
    """Return JSON Lines, an instance in each, as rows (n, ...) of the model's dtype and shape.

    Blank lines are none; `reader` reads {"b64": ...}. Raises InvalidInput with the line of the
    first thing that does not fit, and TooLarge.
    """
    rows: list[list[float] | Pixels] = []
    for number, line in enumerate(body.split(b"\n"), 1):
        if line.strip():
            where = f"line {number}"
            inputs.check_count(len(rows) + 1, max_rows)
            instance = inputs.parsed(line, where)
            rows.append(inputs.row_or_picture(instance, where, model, reader))
    return _stacked(rows, model, max_rows)


def _stacked(rows: Sequence[list[float] | Pixels], model: Model, max_rows: int) -> NDArray[Any]:
    if not rows:
        raise InvalidInput("body: expected a line for each instance, got none")
    return model.rows_of(rows)


def value_of(cell: str) -> float | str:
    """Return the number that a cell holds, or what it says if that is none."""
    text = cell.strip()
    try:
        number = float(text)
    except ValueError:
        return cell
    if not text.isascii() or "_" in text:  # Python's numbers, nobody else's
        return cell
    is_whole = text.lstrip("+-").isdigit() and math.isfinite(number)
    is_minus_zero = number == 0 and text.startswith("-")  # an integer has no such sign
    return int(text) if is_whole and not is_minus_zero else number  # floats lack some int64


def csv_of(predictions: list[dict[str, Any]]) -> bytes:
    """Return predictions as CSV: a line for each, its fields in order, what they hold laid flat."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(list(_flat(each)) for each in predictions)
    return text.getvalue().encode()


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _flat(each)
    else:
        yield value


def _content_type(request: Incoming) -> str:
    """Return the media type of the body. Raises UnsupportedMediaType."""
    text = request.headers.get(b"content-type", b"").decode("latin-1")
    media_type = _without_parameters(text)
    if media_type in PICTURES:
        return PICTURES[media_type]
    if media_type not in MEDIA_TYPES:
        expected = ", ".join((JSON, CSV, JSON_LINES, *IMAGES)) + f" or {FORM}"
        got = inputs.shown(text)
        raise UnsupportedMediaType(f"Content-Type: expected {expected}, got {got}")
    return MEDIA_TYPES[media_type]


def _accepted(request: Incoming) -> str:
    """Return the first media type of Accept that is known; JSON if none is."""
    listed = request.headers.get(b"accept", b"").decode("latin-1").split(",")
    known = (MEDIA_TYPES.get(_without_parameters(each)) for each in listed if each.strip())
    return next(filter(None, known), JSON)


def _without_parameters(media_type: str) -> str:
    return media_type.partition(";")[0].strip().lower()


def _model_and_version(fields: Fields) -> tuple[Any, Any]:
    """Return the model and version that a body of /predict's form names."""
    return fields.get("model"), fields.get("version")


def _parameters(fields: Fields) -> tuple[Any, Any]:
    """Return the model and the version that Vertex AI's parameters name, None where they do not.

    Numbers may come as 1.0, as they went through a protobuf Value. Raises InvalidInput.
    """
    parameters = fields.get("parameters")
    if isinstance(parameters, simdjson.Object):
        parameters = parameters.as_dict()
    if parameters is None:
        return None, None
    if not isinstance(parameters, dict):
        got = inputs.shown(parameters)
        raise InvalidInput(f"parameters: expected an object of model and version, got {got}")
    for name in parameters:
        if name not in PARAMETERS:
            hint = inputs.did_you_mean(name, PARAMETERS)
            raise InvalidInput(f"parameters: {inputs.shown(name)}: unknown field{hint}")
    version = parameters.get("version")
    if isinstance(version, float) and version.is_integer():
        version = int(version)
    return parameters.get("model"), version


def execution_parameters(settings: Settings) -> dict[str, Any]:
    """Return how SageMaker's batch transform is to ask, where its caller does not say.

    MULTI_RECORD fills each payload with as many lines as fit: more than one request may have,
    unless that limit was raised. Batches form from single records that come at the same time.
    """
    payload_mb = max(1, min(PAYLOAD_MB, settings.max_body_bytes // 2**20))
    fits = settings.max_request_rows * SHORTEST_LINE >= payload_mb * 2**20
    return {
        "MaxConcurrentTransforms": MOST_MB // payload_mb,
        "BatchStrategy": "MULTI_RECORD" if fits else "SINGLE_RECORD",
        "MaxPayloadInMB": payload_mb,
    }
