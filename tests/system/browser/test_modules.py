"""The modules that a page names in advance are those that a browser loads for it."""

import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.support.processes import Process

pytestmark = pytest.mark.browser

Visit = Callable[..., Any]
PRELOAD = re.compile(r'<link rel="modulepreload" href="([^"]+)" />\n')


@pytest.mark.parametrize(
    ("path", "script"), [("", "main.js"), ("docs", "docs.js"), ("docs/", "docs.js")]
)
def test_preloads_are_what_the_browser_loads(
    service: Process, visit: Visit, path: str, script: str
) -> None:
    named = PRELOAD.findall(httpx.get(f"{service.url}/{path}").text)
    page = visit(f"{service.url}/health/live", permitted="404")  # its icon
    loaded: list[str] = []
    page.on("request", lambda request: loaded.append(request.url))

    def without_preloads(route: Any) -> None:
        reply = route.fetch()
        route.fulfill(response=reply, body=PRELOAD.sub("", reply.text()))

    page.route(f"{service.url}/{path}", without_preloads)
    page.goto(f"{service.url}/{path}")
    page.locator(".answer .headline, details.operation").first.wait_for()
    assert page.locator("link[rel=modulepreload]").count() == 0
    modules = [url.rsplit("/", 1)[1] for url in loaded if url.endswith(".js")]
    assert sorted(modules) == sorted([script, *(url.rsplit("/", 1)[1] for url in named)])
