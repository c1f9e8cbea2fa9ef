"""curl, ab, and clients that close their sending side: socat and netcat."""

import json
import re
from pathlib import Path

import pytest

from tests.support.clients import address, counted, predict_request
from tests.support.processes import Process
from tests.support.toys import body
from tests.system.programs.asked import JSON, LARGE, PREDICT, check_predictions
from tests.system.programs.programs import run

pytestmark = pytest.mark.programs

FROM_INPUT = ["--data-binary", "@-"]
IN_CHUNKS = ["-X", "POST", "-T", "-"]  # curl does not know how much will come
WAYS = {
    "as it is": FROM_INPUT,
    "chunks": IN_CHUNKS,
    "chunks by a header": ["-H", "Transfer-Encoding: chunked", *FROM_INPUT],
    "HTTP/2 offered": ["--http2", *FROM_INPUT],
    "HTTP/2 offered, in chunks": ["--http2", *IN_CHUNKS],
    "announced": ["-H", "Expect: 100-continue", *FROM_INPUT],
    "announced, in chunks": ["-H", "Expect: 100-continue", *IN_CHUNKS],
    "compressed reply": ["--compressed", *FROM_INPUT],
    "compressed chunks wanted": ["--tr-encoding", *FROM_INPUT],
    "HTTP/1.0": ["--http1.0", *FROM_INPUT],
}


def curl(*arguments: object, stdin: bytes = b"") -> bytes:
    """Run curl; return what it printed."""
    common = ["-sS", "--fail-with-body", "-H", f"Content-Type: {JSON}"]
    return run("curl", *common, *arguments, stdin=stdin)


@pytest.mark.parametrize("way", WAYS)
def test_curl(service: Process, way: str) -> None:
    for content in (PREDICT, LARGE):
        check_predictions(json.loads(curl(*WAYS[way], f"{service.url}/predict", stdin=content)))


def test_curl_is_told_to_continue(service: Process) -> None:
    """It waits a second for that with a large body."""
    said = curl("-v", "--stderr", "-", *FROM_INPUT, f"{service.url}/predict", stdin=LARGE)
    assert b"> Expect: 100-continue" in said
    assert b"< HTTP/1.1 100 Continue" in said


def test_curl_keeps_its_connection(service: Process) -> None:
    url = f"{service.url}/predict"
    connections = ["-w", " %{num_connects}\n"]
    said = curl("--http2", *connections, "-d", PREDICT.decode(), url, url, url)
    replies, opened = zip(*(line.rsplit(b" ", 1) for line in said.splitlines()), strict=True)
    assert opened == (b"1", b"0", b"0")
    for reply in replies:
        check_predictions(json.loads(reply))


def test_curl_decompresses_the_document(service: Process) -> None:
    url = f"{service.url}/schema/openapi.json"
    document, size = curl("--compressed", "-w", "\n%{size_download}", url).splitlines()
    assert json.loads(document) == service.get("/schema/openapi.json").json()
    assert int(size) < len(document) / 4


def test_curl_sends_a_form(service: Process, picture: Path) -> None:
    said = run(
        "curl", "-sS", "--fail-with-body", "-F", f"file=@{picture}", f"{service.url}/predict/mean"
    )
    assert json.loads(said)["predictions"] == [{"value": 2.5}]


def test_ab(service: Process, tmp_path: Path) -> None:
    """It wants to keep its connections in HTTP/1.0: the reply says that they are closed."""
    (tmp_path / "body").write_bytes(PREDICT)
    options = ["-n", 60, "-c", 3, "-k", "-v", 4, "-p", tmp_path / "body", "-T", JSON]
    said = run("ab", *options, f"{service.url}/predict").decode()
    replies = re.findall(r"^\{.*\}$", said, re.M)
    assert len(replies) == 60
    for reply in replies:
        check_predictions(json.loads(reply))
    assert re.search(r"^Keep-Alive requests: +0$", said, re.M)
    assert re.search(r"^Failed requests: +0$", said, re.M)


@pytest.mark.parametrize("program", ["nc.openbsd", "socat"])
def test_clients_that_close_their_side_get_their_answers(service: Process, program: str) -> None:
    """Of rows that wait for a model too, and of requests that come behind each other."""
    host, port = address(service.url)
    programs = {
        "nc.openbsd": ["nc.openbsd", "-N", host, port],
        "socat": ["socat", "-t9", "-", f"TCP:{host}:{port}"],
    }
    toy, slow = predict_request(PREDICT), predict_request(body("dear", [[1, 2, 3, 4]]))
    for asked in ([toy], [slow], [toy, slow, toy]):
        said = run(*programs[program], stdin=b"".join(asked)).decode()
        status, *replies = re.split(r"HTTP/1.1 200 OK\r\n(?:[^\r]+\r\n)+\r\n", said)
        assert status == ""
        assert len(replies) == len(asked)
        for request, reply in zip(asked, replies, strict=True):
            if request is toy:
                check_predictions(json.loads(reply))
            else:
                (row,) = json.loads(reply)["predictions"]
                assert row["output"] == [1501.0, 1502.0, 1503.0, 1504.0]
    metrics = service.get("/metrics").text
    assert counted(metrics, "torchlit_requests_total", 'outcome="cancelled"') == 0
