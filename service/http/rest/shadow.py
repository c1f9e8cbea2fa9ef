"""GET /models/{model}/shadow: what came of a model's versions that are compared."""

import asyncio
from datetime import UTC, datetime
from typing import Literal

from msgspec import UNSET

from service.catalog.shadow import Kept
from service.catalog.shadows import Pair
from service.entrance.services import Services
from service.errors import NotFound
from service.formats.predictions import predictions
from service.http.reply import Reply, json_reply
from service.http.request import Request
from service.http.rest.models import check_model
from service.http.rest.replies import (
    Bucket,
    Difference,
    Disagreement,
    LabelPair,
    Shadow,
    ShadowList,
    ShadowRows,
)
from service.metrics import Reading, ShadowMetrics
from service.metrics.instruments import (
    SHADOW_ABSOLUTE,
    SHADOW_PROBABILITY,
    SHADOW_RELATIVE,
    Instrument,
)
from service.metrics.shadows import Comparison, Histogram

_DIFFERENCES: dict[Instrument, Literal["probability", "absolute", "relative"]] = {
    SHADOW_PROBABILITY: "probability",
    SHADOW_ABSOLUTE: "absolute",
    SHADOW_RELATIVE: "relative",
}
_MOST_PAIRS = 20


async def show_shadow(services: Services, request: Request) -> Reply:
    """Answer GET /models/{model}/shadow."""
    model = request.values["model"]
    check_model(services.catalog, model)
    pairs = [each for each in services.reloader.shadows.pairs if each.said.name == model]
    if not pairs:
        raise NotFound(
            f"model {model}: expected one that TORCHLIT_SHADOW names, as mnist/1=2; no versions of "
            "this one are compared"
        )
    return await asyncio.to_thread(_reply, services, model, pairs)


def _reply(services: Services, model: str, pairs: list[Pair]) -> Reply:
    reading = services.metrics.blocks.read()
    return json_reply(ShadowList(model, [_described(each, reading) for each in pairs]))


def _described(pair: Pair, reading: Reading) -> Shadow:
    said = pair.said
    described = Shadow(
        said.version,
        said.shadow,
        said.share,
        "waiting" if pair.why_not else "comparing",
        pair.why_not or UNSET,
    )
    if pair.metrics is not None:
        _count(described, pair.metrics, pair.metrics.compared(reading))
    if (shadow := pair.shadow) is not None:
        described.agree_means = shadow.agreement.meaning
    described.disagreements = [_kept(each) for each in pair.disagreements.newest_first()]
    return described


def _count(into: Shadow, metrics: ShadowMetrics, counted: Comparison) -> None:
    into.rows = ShadowRows(**counted.rows)
    compared = into.rows.agree + into.rows.disagree
    into.agreement = into.rows.agree / compared if compared else None
    into.differences = [
        Difference(_DIFFERENCES[each], histogram.mean, _buckets(histogram))
        for each, histogram in counted.differences.items()
    ]
    places = zip(*counted.pairs.nonzero(), strict=True)
    pairs = [(int(counted.pairs[one, other]), one, other) for one, other in places if one != other]
    into.other_labels = [
        LabelPair(metrics.labels[one], metrics.labels[other], rows)
        for rows, one, other in sorted(pairs, reverse=True)[:_MOST_PAIRS]
    ]


def _buckets(histogram: Histogram) -> list[Bucket]:
    bounds = [*histogram.bounds, None]
    return [Bucket(bound, rows) for bound, rows in zip(bounds, histogram.rows, strict=True)]


def _kept(kept: Kept) -> Disagreement:
    model = kept.model
    inputs = {
        each.name: array[0].tolist() if len(kept.inputs[0]) == 1 else array.tolist()
        for each, array in zip(model.inputs, kept.inputs, strict=True)
    }
    at = datetime.fromtimestamp(kept.since_1970_s, UTC).isoformat(timespec="seconds")
    answers = [
        {each.name: array.tolist() for each, array in zip(model.outputs, outputs, strict=True)}
        if model.why_no_rows
        else predictions(model, outputs)[0]
        for outputs in (kept.before, kept.after)
    ]
    return Disagreement(at, inputs, *answers)
