"""nginx and HAProxy before the service: what they send it, and what they make of its replies."""

import gzip
import json
import re
from urllib.parse import urljoin

import httpx
import numpy as np
import pytest
import tritonclient.http as triton

from tests.support.clients import counted
from tests.support.processes import Process
from tests.support.toys import toy_answer
from tests.system.programs.asked import (
    INFER,
    LARGE,
    PREDICT,
    ROWS,
    check_outputs,
    check_predictions,
)
from tests.system.programs.programs import run

PREFIX = "/ml/v1"
MAX_CONNECTIONS = 8  # four that nginx keeps, one that asks for /metrics, and a health check or two

pytestmark = pytest.mark.programs


def connections(service: Process) -> float:
    """Return how many connections are open, but for the one that asks."""
    return counted(service.get("/metrics").text, "torchlit_connections ") - 1


def test_connections_to_the_service_are_kept(proxy: str, service: Process) -> None:
    with httpx.Client(base_url=proxy) as client:
        for _ in range(30):
            check_predictions(client.post("/predict", content=PREDICT).json())
            check_outputs(client.post("/v2/models/toy/infer", content=INFER).json())
    assert 1 <= connections(service) <= MAX_CONNECTIONS


@pytest.mark.parametrize("prefix", ["", PREFIX])
def test_bodies_come_through(proxy: str, prefix: str) -> None:
    """With their length, compressed, and in chunks."""
    pieces = (LARGE[at : at + 60_000] for at in range(0, len(LARGE), 60_000))
    packed = {"content-encoding": "gzip"}
    with httpx.Client(base_url=proxy + prefix) as client:
        for content, headers in (
            (PREDICT, {}),
            (LARGE, {}),
            (gzip.compress(LARGE), packed),
            (pieces, {}),
        ):
            reply = client.post("/predict/toy", content=content, headers=headers)
            assert reply.headers["content-encoding"] == "gzip"  # the proxy did it
            check_predictions(reply.json())


def test_pages_work_below_a_prefix(proxy: str) -> None:
    with httpx.Client() as client:
        for page in ("/", "/docs"):
            url = proxy + PREFIX + page
            text = client.get(url).raise_for_status().text
            named = re.findall(r'(?:href|src)="([^"#][^"]*)"', text)
            assert any(name.endswith(".js") for name in named)
            for name in named:
                assert not name.startswith("/")
                assert client.get(urljoin(url, name)).status_code == 200
        document = client.get(f"{proxy}{PREFIX}/schema/openapi.json").json()
        assert "/predict/toy" in document["paths"]


def test_binary_tensors_come_through(proxy: str) -> None:
    sent = triton.InferInput("input", ROWS.shape, "FP32")
    sent.set_data_from_numpy(ROWS.astype(np.float32))
    with triton.InferenceServerClient(proxy.removeprefix("http://") + PREFIX) as client:
        for algorithm in (None, "gzip"):
            answer = client.infer("toy", [sent], request_compression_algorithm=algorithm)
            got = answer.as_numpy("probabilities")
            np.testing.assert_allclose(got, toy_answer(ROWS), atol=1e-6)


def test_refusals_come_through(proxy: str, service: Process) -> None:
    wrong = b'{"model": "toy", "instances": [[1, 2, 3, "four"]]}'
    too_large = b" " * (17 * 2**20)  # it is refused before it is read
    with httpx.Client(base_url=proxy) as client:
        for path, content, status in (
            ("/predict", wrong, 400),
            ("/predict/nobody", b'{"instances": [[1, 2, 3, 4]]}', 404),
            ("/predict", too_large, 413),
        ):
            reply = client.post(path, content=content)
            assert reply.status_code == status
            assert reply.json() == service.post(path, content=content).json()
            check_predictions(client.post("/predict", content=PREDICT).json())


@pytest.mark.parametrize("offered", ["", "websocket", "h2c", "TLS/1.0", "h2c, websocket/13"])
def test_nginxs_lines_for_websockets_cost_nothing(nginx: str, offered: str) -> None:
    headers = {"upgrade": offered, "connection": "upgrade"} if offered else {}
    with httpx.Client(base_url=f"{nginx}/websocket") as client:
        for content in (PREDICT, LARGE, PREDICT):
            check_predictions(client.post("/predict", content=content, headers=headers).json())
            outputs = client.post("/v2/models/toy/infer", content=INFER, headers=headers)
            check_outputs(outputs.json())
        assert client.get("/health/live", headers=headers).json() == {"status": "live"}


@pytest.mark.parametrize("place", ["unbuffered", "plain"])
def test_other_ways_of_nginx(nginx: str, place: str) -> None:
    """Bodies that are passed on as they come; HTTP/1.0, as it is if nothing is said."""
    with httpx.Client(base_url=f"{nginx}/{place}") as client:
        for content in (PREDICT, iter([PREDICT[:9], PREDICT[9:]]), LARGE):
            check_predictions(client.post("/predict", content=content).json())


def test_haproxy_finds_the_service_ready(haproxy: str) -> None:
    state = "INI"
    while state == "INI":  # until its first check
        names, *rows = httpx.get(f"{haproxy}/haproxy;csv").text.splitlines()
        places = names.removeprefix("# ").split(",")
        (one,) = [row.split(",") for row in rows if row.startswith("torchlit,one,")]
        state = one[places.index("check_status")].removeprefix("* ")
    assert state == "L7OK"


def test_http_2_before_haproxy(haproxy: str) -> None:
    options = ["--http2-prior-knowledge", "-w", "%{http_version}", "--data-binary", "@-"]
    for content in (PREDICT, LARGE):
        said = run("curl", "-sS", *options, f"{haproxy}/predict", stdin=content)
        assert said.endswith(b"}2")
        check_predictions(json.loads(said[:-1]))
