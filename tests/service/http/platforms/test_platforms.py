"""What holds for the routes of all platforms, and a process that is started as they start one.

SageMaker: "Use Your Own Inference Code with Hosting Services". Vertex AI: "Custom container
requirements for prediction". Cloud Run: "Container runtime contract"; Knative: "Knative Runtime
Contract".
"""

import logging
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from service.http.app import create_app
from service.settings import Settings
from tests.support.platforms import CSV, HEALTH, JSON, KEY, LINES, PREDICT, invoke, of
from tests.support.processes import Process, environment

pytestmark = pytest.mark.anyio

PATHS = ("/ping", HEALTH)


async def test_probes_need_no_key_unless_they_are_protected(folder: Path) -> None:
    routes = {"health_route": HEALTH}
    async with of(folder, "toy", api_keys=KEY, **routes) as client:
        for path in PATHS:
            assert (await client.get(path)).status_code == 200
        for path in ("/invocations", PREDICT):
            assert (await client.post(path, content=b"{}")).status_code == 401
        assert (await client.get("/execution-parameters")).status_code == 401
        reply = await invoke(client, b"1,2,3,4\n", authorization=f"Bearer {KEY}")
        assert reply.status_code == 200
    async with of(folder, "toy", api_keys=KEY, protect_health=True, **routes) as client:
        for path in PATHS:
            assert (await client.get(path)).status_code == 401
            reply = await client.get(path, headers={"authorization": f"Bearer {KEY}"})
            assert reply.status_code == 200


async def test_probes_are_answered_when_all_connections_are_taken(folder: Path) -> None:
    app = create_app(Settings(models_dir=folder, predict_route=PREDICT, health_route=HEALTH))
    transport = httpx.ASGITransport(app=app.answer_when_full)
    async with (
        app.lifespan(),
        httpx.AsyncClient(transport=transport, base_url="http://toy") as client,
    ):
        for path in PATHS:
            assert (await client.get(path)).status_code == 200
        for path in ("/invocations", PREDICT):
            reply = await client.post(path, content=b"{}")
            assert (reply.status_code, reply.headers["connection"]) == (503, "close")


async def test_ids_logs_and_pages_are_as_elsewhere(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    origin = "https://page.example"
    routes = {"health_route": HEALTH}
    async with of(folder, "toy", cors_origins=origin, access_log=True, **routes) as client:
        with caplog.at_level(logging.INFO, "torchlit.access"):
            for method, path in (
                ("GET", "/ping"),
                ("GET", HEALTH),
                ("GET", "/execution-parameters"),
                ("POST", "/invocations"),
                ("POST", PREDICT),
            ):
                caplog.clear()
                headers = {"x-request-id": "mine", "origin": origin}
                content = b'{"instances": [[1, 2, 3, 4]]}' if method == "POST" else None
                reply = await client.request(method, path, content=content, headers=headers)
                assert reply.status_code == 200
                assert reply.headers["x-request-id"] == "mine"
                assert reply.headers["access-control-allow-origin"] == origin
                (record,) = caplog.records
                assert record.getMessage().startswith(f"{method} {path} 200 ")
        asked = {"origin": origin, "access-control-request-method": "POST"}
        assert (await client.options("/invocations", headers=asked)).status_code == 200


# ------------------------------------------------------------ a real process


@contextmanager
def started(models_dir: Path, **variables: str) -> Iterator[Process]:
    """Start the service as a platform does: `serve` behind the command, and its own variables."""
    process = subprocess.Popen(
        [sys.executable, "-m", "service", "serve"],
        env=environment(models_dir=models_dir, host="0.0.0.0", drain_s=0.2) | variables,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    service = Process(process)
    try:
        yield service
    finally:
        service.kill()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


@pytest.mark.slow
@pytest.mark.parametrize("variable", ["SAGEMAKER_BIND_TO_PORT", "PORT"])
def test_sagemaker_and_cloud_run_choose_the_port(models_dir: Path, variable: str) -> None:
    """SageMaker runs `docker run image serve`, and sends SIGTERM, then SIGKILL 30 s later.

    Cloud Run and Knative set PORT and want 0.0.0.0; SIGTERM comes 10 s before SIGKILL.
    """
    port = free_port()
    chosen = {variable: str(port), "TORCHLIT_DEFAULT_MODEL": "mean"}
    with started(models_dir, **chosen) as service:
        assert service.url == f"http://0.0.0.0:{port}"
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            assert client.get("/ping").status_code == 200
            headers = {"content-type": CSV, "accept": CSV}
            content = b"0,1,2,3,4,5\n1,2,3,4,5,6\n"
            reply = client.post("/invocations", content=content, headers=headers)
            assert (reply.status_code, reply.content) == (200, b"2.5\n3.5\n")
            assert reply.headers["content-type"] == CSV
            reply = client.post(
                "/invocations",
                content=iter([b"+0,1,2,", b"3,4,5\n"]),
                headers=headers | {"accept": LINES},
            )
            assert reply.content == b'{"value":2.5}\n'
            assert client.get("/execution-parameters").status_code == 200
        assert service.stop() == 0


@pytest.mark.slow
def test_vertex_chooses_port_and_routes(models_dir: Path) -> None:
    """Vertex AI, as above: AIP_HTTP_PORT, AIP_HEALTH_ROUTE, AIP_PREDICT_ROUTE, and others."""
    port = free_port()
    chosen = {
        "AIP_HTTP_PORT": str(port),
        "AIP_HEALTH_ROUTE": HEALTH,
        "AIP_PREDICT_ROUTE": PREDICT,
        "AIP_MODE": "PREDICTION",
        "AIP_STORAGE_URI": "",
        "TORCHLIT_DEFAULT_MODEL": "mean",
    }
    with started(models_dir, **chosen) as service:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            assert client.get(HEALTH).status_code == 200
            content = b'{"instances": [[0, 1, 2, 3, 4, 5]], "parameters": {"version": 1.0}}'
            reply = client.post(PREDICT, content=content, headers={"content-type": JSON})
            assert reply.json() == {"predictions": [{"value": 2.5}]}
        assert service.stop() == 0
