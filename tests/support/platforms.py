"""The service as a cloud platform calls it, over small models that answer what they are sent."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from service.settings import Settings
from tests.support.toys import Client, serving

KEY = "a-key-of-24-characters-01"
JSON, CSV, LINES = "application/json", "text/csv", "application/jsonlines"
# What Vertex AI chooses where nobody says another.
PREDICT = "/v1/endpoints/123/deployedModels/456:predict"
HEALTH = "/v1/endpoints/123/deployedModels/456"
MAX_ROWS, MAX_BYTES = 10, 3000
ROW, OTHER = [1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]


@asynccontextmanager
async def of(folder: Path, default: str, **more: Any) -> AsyncIterator[Client]:
    """A service with limits, whose default model is `default`."""
    known: dict[str, Any] = {
        "max_request_rows": MAX_ROWS,
        "max_body_bytes": MAX_BYTES,
        "predict_route": PREDICT,
    }
    settings = Settings(models_dir=folder, default_model=default, **known | more)
    async with serving(settings) as client:
        yield client


async def invoke(
    client: httpx.AsyncClient, content: bytes, sent: str = CSV, **headers: str
) -> httpx.Response:
    """Send a body to /invocations."""
    return await client.post(
        "/invocations", content=content, headers={"content-type": sent} | headers
    )


def read(reply: httpx.Response) -> list[list[float]]:
    """Return the rows that a model got which answers what it is sent."""
    assert reply.status_code == 200, reply.text
    return [each["output"] for each in reply.json()["predictions"]]


def read_values(reply: httpx.Response) -> list[float]:
    """Return the values of a regression."""
    assert reply.status_code == 200, reply.text
    return [each["value"] for each in reply.json()["predictions"]]
