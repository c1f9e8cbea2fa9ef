"""The service as a process, and an OTLP receiver that really gets what it sends."""

import asyncio
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.support.clients import address, counted
from tests.support.grpc_client import INFER, Client, infer_request
from tests.support.processes import NO_CERTIFICATES, running
from tests.support.spans import NOT_SAMPLED, SAMPLED, SPAN, TRACE, Collector, attributes, collecting
from tests.support.toys import body, save_toy, toy_card

ROW = [1, 2, 3, 4]
TOY = body("toy", [ROW])
LATE = {"x-request-timeout-ms": "200"}
ASKED = infer_request("toy", np.ones((1, 4), np.float32)).SerializeToString()
VARIABLES = (
    *("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_TRACES_EXPORTER"),
    *("OTEL_SDK_DISABLED", "OTEL_TRACES_SAMPLER", "OTEL_PROPAGATORS", "OTEL_SERVICE_NAME"),
)


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for each in VARIABLES:
        monkeypatch.delenv(each, raising=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_toy(tmp_path, card=toy_card())
    return tmp_path


async def call(url: str) -> int:
    async with Client(address(url)[1]) as client:
        return (await client.call(INFER, ASKED, traceparent=SAMPLED)).code


@pytest.mark.slow
def test_spans_of_both_protocols_arrive_at_the_latest_at_the_stop(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with collecting() as collector, ThreadPoolExecutor(1) as beside:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-team=models")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "600000")
        # A batch is run when it is full.
        limits = {"max_batch_size": 2, "max_queue_rows": 2, "max_queue_delay_ms": 60_000}
        with running(models_dir=folder, watch=False, **limits) as service:
            headers = {"traceparent": SAMPLED}
            first = beside.submit(service.post, "/predict", content=TOY, headers=headers)
            assert asyncio.run(call(service.url)) == 0
            assert first.result().status_code == 200
            unwanted = service.post(
                "/predict", content=TOY, headers={"traceparent": NOT_SAMPLED, **LATE}
            )
            assert unwanted.status_code == 504
            assert service.post("/predict", content=b"{").status_code == 400
            save_toy(folder, 2, card=toy_card())
            service.process.send_signal(signal.SIGHUP)
            service.wait_for("model toy version 2: (ready)")
            waiting = beside.submit(service.post, "/predict", content=TOY, headers=LATE)
            while not counted(service.get("/metrics").text, "torchlit_queue_rows", 'version="2"'):
                pass
            full = service.post("/predict", content=body("toy", [ROW, ROW]))
            assert full.status_code == 503
            assert waiting.result().status_code == 504
            assert not collector.spans
            assert service.stop() == 0
            assert not [line for line in service.log if "WARN" in line or "ERROR" in line]
        check_arrived(collector)


def check_arrived(collector: Collector) -> None:
    servers = sorted(collector.servers(), key=lambda each: each.start_time_unix_nano)
    codes = [attributes(each).get("http.response.status_code") for each in servers]
    assert sorted(map(str, codes)) == ["200", "400", "503", "504", "None"]
    by_code = dict(zip(codes, servers, strict=True))
    asked, called = by_code[200], by_code[None]
    assert (asked.name, called.name) == ("POST /predict", INFER[1:])
    (batch,) = [each for each in collector.spans if each.name == "batch"]
    assert {each.span_id for each in batch.links} == {asked.span_id, called.span_id}
    for each in (asked, called):
        assert (each.trace_id.hex(), each.parent_span_id.hex()) == (TRACE, SPAN)
        below = [other for other in collector.spans if other.parent_span_id == each.span_id]
        assert {other.trace_id.hex() for other in below} == {TRACE}
        assert {"receive", "queue", "compute", "encode"} <= {other.name for other in below}
        (compute,) = [other for other in below if other.name == "compute"]
        assert [link.span_id for link in compute.links] == [batch.span_id]
    assert {code: by_code[code].status.code for code in (400, 503, 504)} == {400: 0, 503: 2, 504: 2}
    assert attributes(by_code[503])["torchlit.outcome"] == "queue_full"
    assert attributes(by_code[504])["torchlit.model.version"] == "2"
    for resource in collector.resources:
        assert resource["service.name"] == "torchlit"
        assert resource["deployment.environment.name"] == "test"
        assert resource["telemetry.sdk.name"] == "opentelemetry"
    assert {each["x-team"] for each in collector.headers} == {"models"}


@pytest.mark.slow
def test_what_cannot_be_sent_is_one_line_whatever_the_number_of_workers(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with running(models_dir=folder, workers=2) as service:
        assert service.post("/predict", content=TOY).status_code == 200
        assert service.stop() == 0
        said = [line for line in service.log if "no traces are sent" in line]
        assert len(said) == 1
        assert "OTEL_EXPORTER_OTLP_PROTOCOL: expected http/protobuf, got 'grpc'" in said[0]


@pytest.mark.slow
def test_each_worker_sends_its_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"{collector.url}/v1/traces")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        with running(models_dir=folder, workers=2) as service:
            service.wait_for(r"serves (http)")
            while len({each["process.pid"] for each in collector.resources}) < 2:
                asked = service.post("/predict", content=TOY, headers={"connection": "close"})
                assert asked.status_code == 200
            assert service.stop() == 0


@pytest.mark.slow
def test_a_collector_that_is_gone_holds_nobody_up_and_is_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with collecting() as gone:
        url = gone.url
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "32")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "16")
    with running(models_dir=folder) as service:
        with httpx.Client(base_url=service.url, verify=NO_CERTIFICATES) as client:
            for _ in range(100):
                assert client.post("/predict", content=TOY).status_code == 200
            service.wait_for(f"(spans are lost until {url}/v1/traces takes them, and requests are)")
            for _ in range(100):
                assert client.post("/predict", content=TOY).status_code == 200
        assert service.stop() == 0
        said = [line for line in service.log if "spans are lost until" in line]
        assert len(said) == 1
        assert not [line for line in service.log if " opentelemetry." in line]


@pytest.mark.slow
def test_nothing_is_loaded_where_it_is_off() -> None:
    program = (
        "import sys; from service.process import traced, worker\n"
        "from service.tracing import opened\n"
        "tracing = opened({'OTEL_EXPORTER_OTLP_ENDPOINT': 'x', 'OTEL_TRACES_EXPORTER': 'none'})\n"
        "traced.inference_of(tracing), traced.calls_of(tracing)\n"
        "print([each for each in sys.modules if 'opentelemetry' in each or 'traced' in each])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "['service.process.traced']\n", done.stderr
