"""GET /health: whether the process lives, and whether its models answer."""

import asyncio
from typing import Any

from service.entrance.services import Services
from service.http.reply import Reply, json_reply
from service.http.request import Request
from service.http.rest.replies import Live, Ready
from service.metrics.exposition import CONTENT_TYPE, Page


async def live(services: Services, request: Request) -> Reply:
    """Answer GET /health/live."""
    return json_reply(Live())


async def ready(services: Services, request: Request) -> Reply:
    """Answer GET /health/ready: 200 if every model that must answer does, else 503."""
    catalog = services.catalog
    not_ready = catalog.not_ready()
    states: dict[str, Any] = {}
    for name in catalog.names:
        default = catalog.default(name)
        if default is None or name in not_ready:
            states[name] = {"ready": False, "reason": not_ready[name]}
        else:
            failed = [each.reason for each in catalog.versions[name] if each.reason]
            states[name] = {
                "ready": True,
                "version": default.version,
                "device": default.model.device,
            } | ({"failed": failed} if failed else {})
    if services.host.is_draining:
        return json_reply(Ready("draining", states), 503)
    if not catalog.is_ready:
        return json_reply(Ready("not ready", states), 503)
    return json_reply(Ready("ready", states))


async def show_metrics(services: Services, request: Request) -> Reply:
    """Answer GET /metrics."""
    text = await asyncio.to_thread(Page(services.metrics).text)
    return Reply([text], content_type=CONTENT_TYPE.encode(), is_compressible=True)
