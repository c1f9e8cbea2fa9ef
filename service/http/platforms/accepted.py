"""Predictions in the media type that a caller of POST /invocations accepts."""

from functools import lru_cache

from service.batching import Outputs
from service.catalog.served import ServedModel
from service.entrance.version import version_headers
from service.formats.csv_rows import TABS
from service.formats.predictions import csv_of, each_prediction, json_lines_of
from service.formats.registry import CSV, JSON, JSON_LINES
from service.http.preferences import LONGEST, Preferences
from service.http.reply import Reply
from service.http.rest.dialect import Said, predicted, predictions_alone

# What Accept may name, the likeliest first: the first of those that are as good is taken.
_ANSWERS = {
    name: format
    for format in (JSON, CSV, JSON_LINES)
    for name in format.media_types
    if name not in TABS  # we write commas
}


@lru_cache
def _media_type(accept: bytes) -> str:
    """Return what is wanted most; if nothing is, the first that is not refused."""
    wanted = Preferences(accept)
    others = (each for each in _ANSWERS if not wanted.refuses(each))
    return wanted.best(_ANSWERS) or next(others, JSON.media_types[0])


def accepted(said: Said, served: ServedModel, outputs: Outputs) -> Reply:
    """Return the reply in the media type that Accept names; in JSON that of /predict."""
    return _in_lines(said, served, outputs) or predicted(said, served, outputs)


def accepted_alone(said: Said, served: ServedModel, outputs: Outputs) -> Reply:
    """As `accepted`; in JSON the predictions and nothing else."""
    return _in_lines(said, served, outputs) or predictions_alone(said, served, outputs)


def _in_lines(said: Said, served: ServedModel, outputs: Outputs) -> Reply | None:
    """Return the reply in CSV or JSON Lines, None where it is to be JSON."""
    media_type = _media_type(said.accept[: LONGEST + 1])  # of others more is not kept
    format = _ANSWERS[media_type]
    if format is JSON:
        return None
    write = csv_of if format is CSV else json_lines_of
    return Reply(
        [write(each_prediction(served.model, outputs))],
        content_type=media_type.encode(),
        headers=version_headers(served),
    )
