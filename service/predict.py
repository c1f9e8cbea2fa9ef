"""POST /predict: the whole life of a request, top to bottom.

    body bytes -> model looked up -> inputs -> batcher -> model -> reply bytes

This is an ASGI function of its own, beside the Litestar app: the framework's way to it costs
14 microseconds a request, as much as all that is done here (DESIGN.md).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any, TypeAlias

import msgspec
from litestar.types import HTTPScope, Receive, Send
from msgspec import Struct

from service import inputs
from service.batcher import Outputs
from service.card import Card
from service.errors import (
    InferenceFailed,
    InvalidInput,
    MethodNotAllowed,
    RequestError,
    TooLarge,
)
from service.metrics import Metrics
from service.repository import ModelRepository
from service.served import ServedModel
from service.settings import Settings

logger = logging.getLogger("torchlit.predict")

encode = msgspec.json.Encoder().encode
JSON = (b"content-type", b"application/json")
TIMEOUT = "X-Request-Timeout-Ms"
TIMEOUT_HEADER = TIMEOUT.lower().encode()

# An extension of ASGI that our server offers (asgi.readthedocs.io, "Extensions"): a function that
# sends status, headers and body at once. It takes them as they are: no line break may be in them.
WHOLE_REPLY = "torchlit.whole_reply"
SendWhole: TypeAlias = Callable[[int, list[tuple[bytes, bytes]], bytes], Awaitable[None]]


class Incoming(Struct):
    """A request, and the headers that its reply will have whatever it says."""

    scope: HTTPScope
    headers: dict[bytes, bytes]  # names in lower case; of those that came twice, the last
    receive: Receive
    send: Send
    send_whole: SendWhole | None  # where the server can, and nothing has to see the parts
    reply_headers: list[tuple[bytes, bytes]]


class ClientLeft(Exception):
    """The caller closed the connection before its body was complete. Never leaves this file."""


class Predict:
    """Answers POST /predict and POST /predict/{model}."""

    def __init__(self, models: ModelRepository, metrics: Metrics, settings: Settings) -> None:
        self._models = models
        self._metrics = metrics
        self._timeout_s = settings.request_timeout_s
        self._max_body_bytes = settings.max_body_bytes
        self._max_rows = settings.max_request_rows
        self._parser = inputs.BodyParser()
        # Whether the request that asks is the only one that is being answered; the server knows.
        self.is_alone: Callable[[], bool] = lambda: False

    async def answer(self, request: Incoming) -> None:
        """Answer one request; every error too. Cancelled when the caller leaves."""
        start = perf_counter()
        served: ServedModel | None = None
        body: bytes | None = None
        fields: inputs.Fields | None = None
        status, outcome = 200, "ok"
        try:
            name_in_path = _name_in_path(request.scope["path"])
            if request.scope["method"] != "POST":
                raise MethodNotAllowed(f"method: expected POST, got {request.scope['method']}")
            timeout_s = _timeout_s(request.headers, self._timeout_s)
            body = await _read_body(request, self._max_body_bytes)
            fields = self._parser.parse(body)
            served = self._look_up(fields.get("model"), fields.get("version"), name_in_path)
            rows = inputs.to_rows(fields, body, served.model, self._max_rows)
            fields = None  # the parser is free again before anything waits
            batcher = served.batcher
            time_left_s = timeout_s - (perf_counter() - start)
            outputs = await batcher.submit(rows, time_left_s, alone=self.is_alone())
            reply = encode(
                {
                    "model": served.name,
                    "version": served.version,
                    "predictions": predictions(served, outputs),
                }
            )
        except ClientLeft:
            return
        except asyncio.CancelledError:
            if body is not None:  # one that never came whole is counted by the connection
                self._count(served, "cancelled", start)
            raise
        except RequestError as error:
            status, outcome, reply = error_reply(error)
            request.reply_headers += error.headers
        except Exception:
            logger.exception("predict: this is a bug")
            status, outcome, reply = error_reply(InferenceFailed("internal error"))
        fields = None
        self._count(served, outcome, start)
        await send_json(request, status, reply)

    def _count(self, served: ServedModel | None, outcome: str, start: float) -> None:
        if served is None:
            self._metrics.unmatched(outcome)
        else:
            served.metrics.request(outcome, perf_counter() - start)

    def _look_up(self, name: Any, version: Any, name_in_path: str | None) -> ServedModel:
        """Return the model named in the body, or in the path."""
        if name_in_path is not None:
            if name is not None and name != name_in_path:
                expected, got = inputs.shown(name_in_path), inputs.shown(name)
                raise InvalidInput(f"model: expected {expected} as in the path, got {got}")
            name = name_in_path
        if type(name) is not str:
            got = "no such field" if name is None else inputs.shown(name)
            known = ", ".join(self._models.names)
            raise InvalidInput(f"model: expected the name of a model ({known}), got {got}")
        if version is not None and (type(version) is not int or version < 1):
            raise InvalidInput(
                f"version: expected a whole number from 1, got {inputs.shown(version)}"
            )
        return self._models.get(name, version)


def is_predict(scope: HTTPScope) -> bool:
    """Whether this is a request to /predict, or to a path below it."""
    path = scope["path"]
    return path == "/predict" or path.startswith("/predict/")


def _name_in_path(path: str) -> str | None:
    """Return "iris" for "/predict/iris", None for "/predict"; a slash at the end is ignored."""
    return path.removeprefix("/predict").strip("/") or None


def predictions(served: ServedModel, outputs: Outputs) -> list[dict[str, Any]]:
    """Return one prediction per row: a label, a value, or what an ONNX without a card gives."""
    card = served.card
    if card is None:
        names = [output.name for output in served.model.outputs]
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


def error_reply(error: RequestError) -> tuple[int, str, bytes]:
    """Return status, outcome and body of the reply to a request that failed."""
    if error.__cause__ is not None and isinstance(error, InferenceFailed):
        logger.error("inference failed: %s", error.__cause__)
    # A lone surrogate, which JSON may hold as an escape, has no UTF-8.
    sentence = str(error).encode("utf-8", "backslashreplace").decode()
    return error.status, error.outcome, encode({"error": sentence})


async def send_json(request: Incoming, status: int, reply: bytes) -> None:
    """Send a reply whose body is `reply`, with the headers that the request has gathered."""
    headers = [*request.reply_headers, JSON, (b"content-length", b"%d" % len(reply))]
    if request.send_whole is not None:
        await request.send_whole(status, headers, reply)
        return
    await request.send({"type": "http.response.start", "status": status, "headers": headers})
    await request.send({"type": "http.response.body", "body": reply, "more_body": False})


def _timeout_s(headers: dict[bytes, bytes], longest: float) -> float:
    """Return how long the answer may take: what the caller says, `longest` at most."""
    text = headers.get(TIMEOUT_HEADER)
    if text is None:
        return longest
    if not text.isdigit() or not 1 <= len(text) <= 9 or int(text) == 0:
        shown = inputs.shown(text[:40].decode("latin-1"))
        raise InvalidInput(f"{TIMEOUT}: expected whole milliseconds from 1, got {shown}")
    return min(longest, int(text) / 1000)


async def _read_body(request: Incoming, limit: int) -> bytes:
    """Return the whole body. Raises TooLarge as soon as it is known, ClientLeft."""
    length = request.headers.get(b"content-length")
    if length is not None and int(length) > limit:
        raise TooLarge(f"body: expected at most {limit} bytes, got {int(length)}")
    message: Any = await request.receive()
    if message["type"] == "http.request" and not message["more_body"]:
        body: bytes = message["body"]
    else:
        body = await _join_parts(message, request.receive, limit)
    if len(body) > limit:
        raise TooLarge(f"body: expected at most {limit} bytes, got {len(body)} or more")
    return body


async def _join_parts(message: Any, receive: Receive, limit: int) -> bytes:
    """Return what this message and those after it hold; no more than it takes to exceed `limit`."""
    body = bytearray()  # grows in place: bytes would be copied whole with each part
    while message["type"] == "http.request":
        body += message["body"]
        if not message["more_body"] or len(body) > limit:
            return bytes(body)
        message = await receive()
    raise ClientLeft
