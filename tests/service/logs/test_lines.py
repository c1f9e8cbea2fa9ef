"""What is logged, as text and as JSON."""

import asyncio
import json
import logging
import re
from pathlib import Path

import httpx
import pytest

from service.engine.model import Model
from service.logs.lines import JsonFormatter, TextFormatter
from tests.support.clients import address, ask
from tests.support.processes import running
from tests.support.toys import body

CONTENT = body("toy", [[1, 2, 3, 4]])
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def record(message: str, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("torchlit.x", logging.INFO, "", 0, message, None, None)
    made.__dict__.update(extra)
    return made


def test_outside_of_a_request_a_line_has_no_id() -> None:
    assert TextFormatter().format(record("hello")).endswith("INFO torchlit.x: hello")
    line = json.loads(JsonFormatter().format(record("hello")))
    assert line.keys() == {"time", "level", "logger", "message"}


def test_json_lines_hold_fields_and_errors_in_one_line() -> None:
    try:
        raise ValueError("a\nb")
    except ValueError as error:
        info = (ValueError, error, error.__traceback__)
    text = JsonFormatter().format(record("c\nd", fields={"status": 200}, exc_info=info))
    assert "\n" not in text
    line = json.loads(text)
    assert (line["message"], line["status"]) == ("c\nd", 200)
    assert "ValueError: a\nb" in line["error"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", line["time"])


@pytest.mark.anyio
async def test_a_failure_is_logged_with_the_id_of_its_request(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(Model, "run", fail)
    caplog.handler.setFormatter(TextFormatter())
    headers = {"x-request-id": "r7", "traceparent": f"00-{TRACE}-{SPAN}-01"}
    reply = await client.post("/predict", content=CONTENT, headers=headers)
    assert (reply.status_code, reply.json()) == (500, {"error": "internal error"})
    assert f"[request_id=r7 trace_id={TRACE} span_id={SPAN}]" in caplog.text
    assert "/predict: this is a bug\nTraceback" in caplog.text
    assert "\nZeroDivisionError [request_id=" in caplog.text


@pytest.mark.slow
def test_replies_are_logged_when_that_is_asked_for(models_dir: Path) -> None:
    async def call(url: str) -> None:
        reader, writer = await asyncio.open_connection(*address(url))
        await ask(reader, writer, CONTENT)
        writer.write(b"GET /models/%0a%1b[31mred HTTP/1.1\r\nHost: x\r\nX-Request-Id: r9\r\n\r\n")
        await reader.readuntil(b"}")
        writer.close()

    settings = {"models_dir": models_dir, "log_format": "json"}
    with running(**settings, access_log="true") as service:
        asyncio.run(call(service.url))
        service.wait_for("(red)")
        assert service.stop() == 0
    lines = [json.loads(line) for line in service.log]
    predicted, asked = (line for line in lines if line["logger"] == "torchlit.access")
    assert (predicted["method"], predicted["path"]) == ("POST", "/predict")
    assert predicted["status"] == 200
    assert 0 < predicted["seconds"] < 10
    assert (asked["status"], asked["request_id"]) == (404, "r9")
    assert asked["path"] == "/models/\n\x1b[31mred"  # escaped by JSON
    assert asked["message"].startswith(r"GET /models/\n\x1b[31mred 404 in ")
