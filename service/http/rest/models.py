"""GET /models: the models, their versions and their cards."""

import asyncio
from hashlib import sha256
from typing import Literal, TypeAlias

import numpy as np
from msgspec import UNSET

from service.catalog.catalog import Catalog
from service.catalog.served import Version
from service.entrance.services import Services
from service.errors import NotFound
from service.formats.predictions import encode, of_all
from service.http.reply import Reply, json_reply
from service.http.request import Request
from service.http.rest.replies import (
    Batching,
    Classifier,
    Column,
    File,
    Model,
    ModelList,
    ModelVersion,
    Plot,
)
from service.words import cut

_Type: TypeAlias = Literal["number", "integer", "string", "boolean"]
_TYPES: dict[str, _Type] = {
    "f": "number",
    "i": "integer",
    "u": "integer",
    "b": "boolean",
    "O": "string",
}


async def list_models(services: Services, request: Request) -> Reply:
    """Answer GET /models."""
    catalog = services.catalog
    listed = ModelList([describe_model(catalog, name) for name in catalog.names])
    return Reply([encode(listed)], is_compressible=True)


async def show_model(services: Services, request: Request) -> Reply:
    """Answer GET /models/{model}."""
    model = request.values["model"]
    check_model(services.catalog, model)
    return json_reply(describe_model(services.catalog, model))


async def show_plot(services: Services, request: Request) -> Reply:
    """Answer GET /models/{model}/{version}/{picture}."""
    values = request.values
    png = await asyncio.to_thread(
        services.catalog.plot, values["model"], values["version"], values["picture"]
    )
    return png_unless_known(png, request.headers.get(b"if-none-match", b"").decode("latin-1"))


def check_model(catalog: Catalog, name: str) -> None:
    """Raise NotFound unless there is a model of that name."""
    if name not in catalog.names:
        known = ", ".join(catalog.names) or "none"
        raise NotFound(f"model: expected one of {known}; got {cut(name)!r}")


def describe_model(catalog: Catalog, name: str) -> Model:
    """Return what /models says of one model."""
    default = catalog.default(name)
    versions = [_describe_version(version) for version in catalog.versions[name]]
    weights = catalog.splits.held.of(name) if catalog.splits else {}
    split = {str(version): weight for version, weight in weights.items()}
    return Model(name, default.version if default else None, versions, split or UNSET)


def _describe_version(version: Version) -> ModelVersion:
    described = ModelVersion(version.version, version.state, version.reason or UNSET)
    if version.served is None:
        return described
    model = version.served.model
    described.why_no_rows = model.why_no_rows or UNSET
    described.files = [File(each.name, each.bytes, each.sha256) for each in model.files]
    described.provider, described.device = model.provider, model.device
    described.nodes = dict(model.assignment.nodes)
    described.fallback = dict(model.assignment.fallen) or UNSET
    of: Literal["rows", "requests"] = "rows" if model.is_batched else "requests"
    described.batching = Batching(of, model.largest_batch, model.why_batching)
    if model.columns and not model.why_no_rows:
        described.columns = [
            Column(each.name, _TYPES[np.dtype(each.dtype).kind], each.takes_missing, each.example)
            for each in model.columns
        ]
    if (found := model.classifier) is not None:
        described.classifier = Classifier(found.labels, of_all(found))
    described.card = model.card
    folder = f"/models/{version.served.name}/{version.served.version}"
    plots = model.card.pictures if model.card else []
    described.pictures = [Plot(plot.title, f"{folder}/{plot.file}") for plot in plots]
    return described


def png_unless_known(png: bytes, if_none_match: str) -> Reply:
    """Return a plot, or 304 if the caller has it (RFC 9110, section 13.1.2).

    Callers are to ask each time: a model that is trained again has others at the same URL.
    """
    etag = f'"{sha256(png).hexdigest()}"'
    headers = [(b"etag", etag.encode()), (b"cache-control", b"no-cache")]
    if if_none_match == "*" or etag in if_none_match:  # a list of them; W/ may stand before each
        return Reply([], 304, b"image/png", headers)
    return Reply([png], 200, b"image/png", headers)
