"""Who may call: API keys and CORS."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from service.http.access import Access
from service.http.app import create_app
from service.http.routes import routes_for
from service.settings import Settings
from tests.support.toys import body, serving

pytestmark = pytest.mark.anyio

KEY, OTHER = "a-key-of-24-characters-01", "another-key-of-24-chars-2"
CONTENT = body("toy", [[1, 2, 3, 4]])
PAGE = "https://page.example"
BINARY = "inference-header-content-length"  # without it a page cannot tell JSON from binary data


async def status(client: httpx.AsyncClient, path: str, **headers: str) -> int:
    if path == "/predict":
        return (await client.post(path, content=CONTENT, headers=headers)).status_code
    return (await client.get(path, headers=headers)).status_code


async def test_without_keys_everybody_may_call(client: httpx.AsyncClient) -> None:
    for path in ("/predict", "/models", "/metrics", "/health/ready"):
        assert await status(client, path) == 200


async def test_a_key_opens_every_path_and_probes_and_metrics_need_none(models_dir: Path) -> None:
    async with serving(Settings(models_dir=models_dir, api_keys=f"{KEY}, {OTHER}")) as client:
        for path in ("/predict", "/models", "/schema/openapi.json", "/v2/models/toy"):
            assert await status(client, path, authorization=f"Bearer {KEY}") == 200
            assert await status(client, path, authorization=f"bearer {OTHER}") == 200
            assert await status(client, path, **{"x-api-key": OTHER}) == 200
        for path in ("/health/live", "/v2/health/live", "/v2/health/ready", "/ping", "/metrics"):
            assert await status(client, path) == 200
            assert await status(client, path + "/") == 200  # the same path
        assert KEY not in (await client.get("/metrics")).text


async def test_probes_and_metrics_are_protected_each_by_its_setting(models_dir: Path) -> None:
    for field, closed, still_open in (
        ("protect_health", "/health/live", "/metrics"),
        ("protect_health", "/v2/health/ready", "/metrics"),
        ("protect_health", "/ping", "/metrics"),
        ("protect_metrics", "/metrics", "/health/live"),
        ("protect_metrics", "/metrics", "/v2/health/ready"),
        ("protect_metrics", "/metrics", "/ping"),
    ):
        settings = Settings(models_dir=models_dir, api_keys=KEY, **{field: True})
        async with serving(settings) as client:
            assert await status(client, closed) == 401
            assert await status(client, closed, authorization=f"Bearer {KEY}") == 200
            assert await status(client, still_open) == 200


async def test_keys_come_from_a_file_too(models_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# of the web shop\n{KEY}\n\n")
    settings = Settings(models_dir=models_dir, api_keys=OTHER, api_keys_file=file)
    async with serving(settings) as client:
        for key in (KEY, OTHER):
            assert await status(client, "/models", authorization=f"Bearer {key}") == 200
        assert await status(client, "/models", authorization="Bearer # of the web shop") == 401


async def test_no_page_may_call_by_default(client: httpx.AsyncClient) -> None:
    reply = await client.get("/models", headers={"origin": PAGE})
    assert not [name for name in reply.headers if name.startswith("access-control")]


@pytest.mark.parametrize("origins", [PAGE, f"https://other.example {PAGE}", "*"])
async def test_pages_of_the_origins_that_are_set_may_call(models_dir: Path, origins: str) -> None:
    settings = Settings(models_dir=models_dir, cors_origins=origins, api_keys=KEY)
    async with serving(settings) as client:
        asked = {"origin": PAGE, "access-control-request-method": "POST"}
        preflight = await client.options("/predict", headers=asked)  # a browser sends no key
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == PAGE
        assert "POST" in preflight.headers["access-control-allow-methods"]
        allowed = preflight.headers["access-control-allow-headers"].split(", ")
        assert {"authorization", "content-encoding", BINARY} <= set(allowed)
        # Of OpenTelemetry's and Sentry's browser clients, and of axios.
        assert {"tracestate", "baggage", "sentry-trace", "x-requested-with"} <= set(allowed)
        assert preflight.headers["vary"] == "origin"
        for headers in ({}, {"authorization": f"Bearer {KEY}"}):
            reply = await client.post("/predict", content=CONTENT, headers=headers | asked)
            assert reply.headers["access-control-allow-origin"] == PAGE
            assert reply.status_code == (200 if headers else 401)
            exposed = reply.headers["access-control-expose-headers"].split(", ")
            ours = {"x-request-id", "x-model-version", "retry-after", "server-timing", BINARY}
            assert ours == set(exposed)
        if origins != "*":
            elsewhere = await client.get("/health/live", headers={"origin": "https://evil.example"})
            assert "access-control-allow-origin" not in elsewhere.headers
            assert elsewhere.headers["vary"] == "origin"


async def test_a_valid_key_is_enough_in_any_of_several_lines(models_dir: Path) -> None:
    async with serving(Settings(models_dir=models_dir, api_keys=KEY)) as client:
        for lines, expected in (
            ([("x-api-key", KEY), ("x-api-key", OTHER + "x")], 200),
            ([("authorization", f"Bearer {KEY}"), ("authorization", "Bearer theirs")], 200),
            ([("x-api-key", "a"), ("x-api-key", "b")], 401),
        ):
            reply = await client.get("/models", headers=lines)
            assert reply.status_code == expected


@pytest.mark.parametrize("gateways", ["", "ya29.a0-token-of-a-gateway", "Basic dXNlcjpwYXNz"])
async def test_a_valid_key_is_enough_wherever_it_stands(models_dir: Path, gateways: str) -> None:
    """A gateway writes its own token into either header."""
    async with serving(Settings(models_dir=models_dir, api_keys=KEY)) as client:
        for authorization, other, expected in (
            (f"Bearer {gateways}", f" {KEY} ", 200),
            (f"bearer {KEY}", gateways, 200),
            (f"Bearer {gateways}", f"{KEY}x", 401),
            (f"Bearer {gateways}", gateways, 401),
        ):
            headers = {"authorization": authorization, "x-api-key": other}
            assert await status(client, "/models", **headers) == expected


async def test_options_of_what_is_open_needs_no_key(models_dir: Path) -> None:
    """As load balancers ask whether a server is there: HAProxy by OPTIONS of "/", others of "*"."""
    settings = Settings(models_dir=models_dir, api_keys=KEY, protect_metrics=True)
    async with serving(settings) as client:
        for path in ("/", "/health/live", "/health/ready/", "/v2/health/live", "/ping", "/docs"):
            reply = await client.options(path)
            assert (reply.status_code, reply.headers["allow"]) == (204, "GET, OPTIONS"), path
        for path in ("/models", "/predict", "/v2/models/toy", "/metrics", "/no/such/path", "/*"):
            assert (await client.options(path)).status_code == 401, path
        assert (await client.options("/models", headers={"x-api-key": KEY})).status_code == 204


async def test_options_of_the_server_needs_no_key_and_other_methods_do(models_dir: Path) -> None:
    app = create_app(Settings(models_dir=models_dir, api_keys=KEY))
    for method, status in (("OPTIONS", 200), ("GET", 401), ("POST", 401), ("PUT", 401)):
        sent: list[Any] = []

        async def send(message: Any, sent: list[Any] = sent) -> None:
            sent.append(message)

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        scope: Any = {"type": "http", "method": method, "path": "*", "headers": []}
        await app(scope, receive, send)
        assert sent[0]["status"] == status, method
        if status == 200:
            assert (b"allow", b"GET, HEAD, OPTIONS, POST") in sent[0]["headers"]


def test_a_load_balancer_that_asks_for_options_is_answered_also_when_all_is_full() -> None:
    access = Access(Settings(), routes_for(Settings()))
    for path in ("/", "*", "/health/live", "/ping"):
        assert access.is_essential("OPTIONS", path)
    for path in ("/docs", "/predict", "/models"):
        assert not access.is_essential("OPTIONS", path)
