"""The image as it is run: locked down, probed, loaded, stopped, killed, and told nonsense."""

import asyncio
import base64
import json
import os
import re
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from tests.support.clients import address, ask_until_sent_away, predict_request, read_reply
from tests.support.drawings import saved
from tests.support.processes import running
from tests.support.toys import body, save_graph, save_toy, tensor, toy_answer, toy_card
from tests.system.container.engine import IMAGE, PORT, ROOT, Container, Engine

pytestmark = pytest.mark.container

SMALL = ("--memory=256m", "--memory-swap=256m", "--cpus=1")
REQUESTS = sorted((ROOT / "models").glob("*/*/request.json"))
STARTS = 5
LOAD_S = 5.0
TWO_CPUS = pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="this machine has one CPU")

# Asks from inside, where no port is open to the outside: (path, body) -> status and reply.
ASK = """
import json, sys, urllib.error, urllib.request
def ask(path, body=None):
    request = urllib.request.Request("http://127.0.0.1:8080" + path, body)
    try:
        with urllib.request.urlopen(request, timeout=10) as reply:
            return reply.status, json.loads(reply.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())
"""


def at(port: int) -> str:
    return f"--publish=127.0.0.1:{port}:{PORT}"


def mounted(models_dir: Path) -> str:
    return f"--volume={models_dir}:/models:ro"


def test_it_serves_every_model_with_nothing_but_itself(engine: Engine) -> None:
    """No capability, nothing writable, no network: not even /tmp is needed."""
    with engine.running(*engine.locked_down, *SMALL, "--network=none") as container:
        container.wait_for(" serves http://")
        facts = container.exec("sh", "-c", "id -u; id -g; cat /proc/1/status")
        assert facts.startswith("10001\n10001\n")
        for line in ("CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1"):
            assert line in facts
        for folder in ("/", "/tmp", "/models", "/app", "/venv", "/var/tmp"):
            refused = engine.run("exec", container.identity, "touch", f"{folder}/x")
            assert refused.returncode != 0, folder
        code = ASK + "import socket\n"
        code += "print(json.dumps([ask('/health/ready'), ask('/models'), ask('/v2')]))\n"
        code += "try: socket.create_connection(('192.0.2.1', 80), 5)\n"  # RFC 5737: nobody's
        code += "except OSError as error: print(error.strerror)"
        replies, egress = container.python(code).splitlines()
        assert egress == "Network is unreachable"
        (ready, health), (_, models), (_, server) = json.loads(replies)
        assert (ready, health["status"]) == (200, "ready")
        assert server["version"] == "0.1.0"
        served = {
            (model["model"], version["version"])
            for model in models["models"]
            for version in model["versions"]
            if version["state"] == "ready"
        }
        assert served == {(file.parts[-3], int(file.parts[-2])) for file in REQUESTS}
        assert len(served) >= 6
        assert container.stop() == 0
        assert "Traceback" not in container.log


@pytest.fixture(scope="module")
def locked(engine: Engine) -> Iterator[Container]:
    """A locked-down container without a network."""
    with engine.running(*engine.locked_down, *SMALL, "--network=none") as container:
        container.wait_for(" serves http://")
        yield container


@pytest.fixture(scope="module")
def here() -> Iterator[httpx.Client]:
    """The same models, served outside."""
    with (
        running(models_dir=ROOT / "models") as service,
        httpx.Client(base_url=service.url) as client,
    ):
        yield client


@pytest.mark.parametrize("file", REQUESTS, ids=lambda file: "/".join(file.parts[-3:-1]))
def test_each_model_answers_as_it_does_here(
    locked: Container, file: Path, here: httpx.Client
) -> None:
    check_answer(locked, here, file.read_bytes())


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_picture_is_read_as_it_is_here(locked: Container, here: httpx.Client, kind: str) -> None:
    picture = np.full((60, 40), 250, np.uint8)
    picture[8:50, 18:23] = 20
    b64 = base64.b64encode(saved(Image.fromarray(picture), kind)).decode()
    check_answer(locked, here, body("mnist", [{"b64": b64}]))


def check_answer(locked: Container, here: httpx.Client, request: bytes) -> None:
    """Fail unless the container answers as the service does here, numbers nearly."""
    code = f"{ASK}print(json.dumps(ask('/predict', {request!r})))"
    status, reply = json.loads(locked.python(code))
    assert status == 200
    expected = here.post("/predict", content=request).json()
    assert (reply["model"], reply["version"]) == (expected["model"], expected["version"])
    for got, wanted in zip(flat(reply["predictions"]), flat(expected["predictions"]), strict=True):
        assert got == (wanted if isinstance(wanted, str) else pytest.approx(wanted, rel=1e-3))


def test_the_pages_are_those_that_are_served_here(locked: Container, here: httpx.Client) -> None:
    """Also the files that they name: their names hold the hash of all."""
    code = "import urllib.request as u\nfor path in ('/', '/docs'):\n"
    code += "    print(u.urlopen('http://127.0.0.1:8080' + path, timeout=10).read().decode())"
    assert locked.python(code) == here.get("/").text + "\n" + here.get("/docs").text + "\n"


def test_the_doctor_finds_all_well(locked: Container) -> None:
    told = locked.exec("/venv/bin/python", "-m", "service", "doctor")
    assert told.splitlines()[-1] == "all is well", told


def flat(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [each for key in value for each in (key, *flat(value[key]))]
    return [one for each in value for one in flat(each)] if isinstance(value, list) else [value]


def test_the_health_check_tells_a_service_that_hangs(engine: Engine, locked: Container) -> None:
    check = locked.state["Config"]["Healthcheck"]["Test"][1:]  # Docker runs it every 10 s
    assert engine.run("exec", locked.identity, *check).returncode == 0
    engine("kill", "--signal=STOP", locked.identity)
    try:
        hanging = engine.run("exec", locked.identity, *check)
    finally:
        engine("kill", "--signal=CONT", locked.identity)
    assert hanging.returncode == 1
    assert "no answer: timed out" in hanging.stderr
    if engine.is_podman:
        assert engine.run("healthcheck", "run", locked.identity).returncode == 0
        assert locked.state["State"]["Health"]["Status"] == "healthy"


def test_start_and_memory(engine: Engine, port: int, figures: list[str]) -> None:
    """Figures, from a container of one CPU and 256 MiB; what bites is that it is not killed."""
    options = (*engine.locked_down, *SMALL, at(port))
    url = f"http://127.0.0.1:{port}"
    starts = []
    for _ in range(STARTS):
        began = time.perf_counter()
        with engine.running(*options) as container:
            container.wait_until_ready(url)
            starts.append(time.perf_counter() - began)
    figures.append(
        f"start to ready, 1 CPU, 256 MiB: median {statistics.median(starts):.2f} s "
        f"({min(starts):.2f} to {max(starts):.2f}), the engine's own time included"
    )
    with engine.running(*options) as container:
        container.wait_until_ready(url)
        at_rest = peak_bytes(container)
        answered = asyncio.run(ask_all_models(url))
        figures.append(
            f"peak resident memory: {at_rest / 2**20:.0f} MiB at start, "
            f"{peak_bytes(container) / 2**20:.0f} MiB after {LOAD_S:.0f} s of 64 clients "
            f"({answered} answers, all models)"
        )
        assert container.stop() == 0


def peak_bytes(container: Container) -> int:
    """Return the most memory that its only process ever had resident, libraries included."""
    found = re.search(r"VmHWM:\s+(\d+) kB", container.exec("cat", "/proc/1/status"))
    assert found is not None
    return int(found[1]) * 1024


async def ask_all_models(url: str) -> int:
    """Let 64 clients ask every model in turn; return how many answers came, all of them 200."""
    requests = [predict_request(file.read_bytes()) for file in REQUESTS]
    until = time.monotonic() + LOAD_S

    async def one(first: int) -> int:
        reader, writer = await asyncio.open_connection(*address(url))
        answered = 0
        while time.monotonic() < until:
            writer.write(requests[(first + answered) % len(requests)])
            head, _ = await read_reply(reader)
            assert head.startswith(b"HTTP/1.1 200 "), head
            answered += 1
        writer.close()
        return answered

    return sum(await asyncio.gather(*(one(first) for first in range(64))))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_stop_under_load_loses_no_request(
    engine: Engine, models_dir: Path, port: int, workers: int
) -> None:
    url = f"http://127.0.0.1:{port}"

    async def load(container: Container) -> tuple[int, list[tuple[int, bool]]]:
        clients = [asyncio.create_task(ask_until_sent_away(url)) for _ in range(32)]
        await asyncio.sleep(1)
        status = await asyncio.to_thread(container.stop)
        return status, await asyncio.gather(*clients)

    options = (*engine.locked_down, mounted(models_dir), at(port))
    with engine.running(*options, workers=workers) as container:
        container.wait_until_ready(url)
        status, ends = asyncio.run(load(container))
        assert status == 0, container.log
        assert "has answered all and stops" in container.log
    assert not any(is_lost for _, is_lost in ends)
    assert sum(answered for answered, _ in ends) > 100


def save_greedy(folder: Path) -> None:
    """Write models folder `folder`/greedy: it takes as many bytes of memory as its input says."""
    one = numpy_helper.from_array(np.ones(1, np.int64))  # 8 bytes each
    save_graph(
        folder / "greedy/1/model.onnx",
        [
            helper.make_node("Div", ["bytes", "eight"], ["numbers"]),
            helper.make_node("ConstantOfShape", ["numbers"], ["ones"], value=one),
            helper.make_node("ReduceSum", ["ones"], ["sum"], keepdims=1),
        ],
        [tensor("bytes", [1], TensorProto.INT64)],
        [tensor("sum", [1], TensorProto.INT64)],
        [numpy_helper.from_array(np.array([8]), "eight")],
        None,
    )


def test_a_worker_that_the_kernel_kills_is_replaced(
    engine: Engine, models_dir: Path, port: int
) -> None:
    """Two workers: the one that wanted too much is gone, the container is not."""
    save_greedy(models_dir)
    options = ("--memory=400m", "--memory-swap=400m")
    with engine.running(
        *engine.locked_down, *options, mounted(models_dir), at(port), workers=2
    ) as it:
        url = f"http://127.0.0.1:{port}"
        it.wait_until_ready(url)
        with pytest.raises(httpx.TransportError):
            want(url, 2**30)
        it.wait_for("ended with -9")
        assert_answers(url)
        assert it.stop() == 0


def test_a_container_that_the_kernel_kills_is_started_again(
    engine: Engine, models_dir: Path, port: int
) -> None:
    save_greedy(models_dir)
    options = (*engine.locked_down, *SMALL, "--restart=on-failure:2", mounted(models_dir), at(port))
    with engine.running(*options) as container:
        url = f"http://127.0.0.1:{port}"
        container.wait_until_ready(url)
        with pytest.raises(httpx.TransportError):
            want(url, 2**30)
        container.wait_until_ready(url)
        assert_answers(url)
        assert container.state["RestartCount"] == 1


def want(url: str, amount: int) -> None:
    """Ask the greedy model for so many bytes."""
    sent = {"name": "bytes", "shape": [1], "datatype": "INT64", "data": [amount]}
    httpx.post(f"{url}/v2/models/greedy/infer", json={"inputs": [sent]}, timeout=30)


def assert_answers(url: str) -> None:
    rows = np.array([[1.0, 2, 3, 4]])
    reply = httpx.post(f"{url}/predict", content=body("toy", rows.tolist()), timeout=30)
    (prediction,) = reply.json()["predictions"]
    got = list(prediction["probabilities"].values())
    assert got == pytest.approx(toy_answer(rows)[0].tolist(), abs=1e-6)


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (
            ("--cpus=1", "--memory=512m"),
            "a quota of 1, memory with a limit of 512 MiB: workers: 1,",
        ),
        pytest.param(
            ("--cpus=2", "--memory=512m"),
            "a quota of 2, memory with a limit of 512 MiB: workers: 2,",
            marks=TWO_CPUS,
        ),
        pytest.param(
            ("--cpus=2", "--memory=300m"),
            "a quota of 2, memory with a limit of 300 MiB: workers: 1,",
            marks=TWO_CPUS,
        ),
        (("--cpus=0.5",), "a quota of 0.5, memory with no limit: workers: 1,"),
        (("--cpuset-cpus=0",), "1 CPUs with no quota, memory with no limit: workers: 1,"),
    ],
)
def test_workers_and_threads_come_from_the_limits(
    engine: Engine, limits: tuple[str, ...], said: str
) -> None:
    with engine.running(*limits, "--network=none") as container:
        container.wait_for(said)


def test_a_volume_replaces_the_models_and_is_followed(
    engine: Engine, models_dir: Path, port: int
) -> None:
    options = (*engine.locked_down, mounted(models_dir), at(port))
    with engine.running(*options, workers=1) as container:
        url = f"http://127.0.0.1:{port}"
        container.wait_until_ready(url)
        assert_answers(url)
        assert [each["model"] for each in httpx.get(f"{url}/models").json()["models"]] == ["toy"]
        save_toy(models_dir, 2, card=toy_card())
        container.wait_for("toy version 2: ready")
        until = time.monotonic() + 10  # it says so before the swap
        request = body("toy", [[1, 2, 3, 4]])
        while httpx.post(f"{url}/predict", content=request).json()["version"] != 2:
            assert time.monotonic() < until


def test_texts_change_their_case_as_converters_want_it(
    engine: Engine, models_dir: Path, port: int
) -> None:
    """ONNX Runtime takes en_US.UTF-8 where a file says no locale: TF-IDF by skl2onnx does not."""
    lower = helper.make_node("StringNormalizer", ["text"], ["lower"], case_change_action="LOWER")
    (inputs, outputs) = ([tensor(name, ["n"], TensorProto.STRING)] for name in ("text", "lower"))
    save_graph(models_dir / "lower/1/model.onnx", [lower], inputs, outputs, [], None)
    with engine.running(*engine.locked_down, mounted(models_dir), at(port), workers=1) as container:
        url = f"http://127.0.0.1:{port}"
        container.wait_until_ready(url)
        reply = httpx.post(f"{url}/predict", content=body("lower", ["ŁÓDŹ", "Rome"]))
        assert reply.json()["predictions"] == [{"lower": "łódź"}, {"lower": "rome"}]


@pytest.mark.parametrize(
    ("arguments", "variables", "port", "path"),
    [
        (("serve",), (), 8080, "/ping"),
        (("serve",), ("SAGEMAKER_BIND_TO_PORT=7000",), 7000, "/ping"),
        ((), ("PORT=9000", "K_SERVICE=torchlit"), 9000, "/health/live"),
        ((), ("AIP_HTTP_PORT=7080", "AIP_HEALTH_ROUTE=/v1/a", "AIP_MODE=x"), 7080, "/v1/a"),
    ],
    ids=["SageMaker", "SageMaker's pipelines", "Cloud Run", "Vertex AI"],
)
def test_platforms_start_it_as_it_is(
    engine: Engine, arguments: tuple[str, ...], variables: tuple[str, ...], port: int, path: str
) -> None:
    environ = [f"--env={each}" for each in variables]
    options = (*engine.locked_down, "--network=none", *environ)
    with engine.running(*options, arguments=arguments) as container:
        container.wait_for(f" serves http://0.0.0.0:{port}")
        code = ASK.replace("8080", str(port)) + f"print(ask({path!r})[0])"
        assert container.python(code) == "200\n"
        assert (
            engine.run("exec", container.identity, "python", "-m", "service", "health").returncode
            == 0
        )


TWO_WORKERS = {"workers": 2}


@pytest.mark.parametrize(
    ("options", "settings", "sentence"),
    [
        ((), {"prot": 1}, "TORCHLIT_PROT: no such setting; did you mean TORCHLIT_PORT?"),
        (
            ("--env=PORT=http",),
            {},
            "PORT: expected a whole number from 0 to 65535, got 'http'",
        ),
        (
            (),
            {"models_dir": "/volume"},
            "TORCHLIT_MODELS_DIR: /volume: expected a folder of models, got: "
            "No such file or directory",
        ),
        (
            ("--tmpfs=/empty",),
            {"models_dir": "/empty"} | TWO_WORKERS,
            "TORCHLIT_MODELS_DIR: expected folders <name>/<version>/model.onnx, got none in /empty",
        ),
        ((), {"device": "cuda"}, "TORCHLIT_DEVICE: expected cuda, but ONNX Runtime cannot run"),
        (
            (),
            {"device": "cuda"} | TWO_WORKERS,
            "TORCHLIT_DEVICE: expected cuda, but ONNX Runtime cannot run",
        ),
        (
            (),
            {"metrics_dir": "/metrics"},
            "TORCHLIT_METRICS_DIR: /metrics: cannot be written: ",
        ),
        (
            (),
            {"metrics_dir": "/metrics"} | TWO_WORKERS,
            "TORCHLIT_METRICS_DIR: /metrics: cannot be written: ",
        ),
        ((), {"default_model": "iri"}, "TORCHLIT_DEFAULT_MODEL: expected one of housing, iris, "),
    ],
)
def test_wrong_settings_stop_it_with_one_sentence(
    engine: Engine, options: tuple[str, ...], settings: dict[str, object], sentence: str
) -> None:
    options = (*engine.locked_down, "--network=none", *options)
    with engine.running(*options, **settings) as container:
        assert container.exit_status() == 1
        lines = container.log.splitlines()
    (said,) = [line for line in lines if " INFO " not in line]
    assert said.startswith(f"torchlit: {sentence}")


def test_kubernetes_runs_the_manifest(engine: Engine, tmp_path: Path, port: int) -> None:
    """`podman kube play`, with what it cannot do taken out: see below."""
    if not engine.is_podman:
        pytest.skip("Docker plays no manifests")
    manifest = yaml.safe_load((ROOT / "deploy/kubernetes/deployment.yaml").read_text())
    pod = manifest["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    container["image"] = IMAGE
    container["imagePullPolicy"] = "Never"
    container["ports"] = [{"containerPort": PORT, "hostPort": port, "hostIP": "127.0.0.1"}]
    del container["livenessProbe"]  # it would ask curl, which the image has not
    file = tmp_path / "deployment.yaml"
    file.write_text(yaml.safe_dump(manifest))
    engine("kube", "play", str(file))
    try:
        (name,) = engine(
            "ps", "--filter=label=app.kubernetes.io/name=torchlit", "--format={{.Names}}"
        ).split()
        played = Container(engine, name)
        url = f"http://127.0.0.1:{port}"
        played.wait_until_ready(url)
        for probe in ("startupProbe", "readinessProbe"):
            asked = container[probe]["httpGet"]
            assert httpx.get(url + asked["path"]).status_code == 200
        reply = httpx.post(f"{url}/predict", content=REQUESTS[0].read_bytes())
        assert reply.status_code == 200
        log = played.log.splitlines()
        assert all(json.loads(line)["level"] == "INFO" for line in log)
        status = played.exec("cat", "/proc/1/status")
        assert "CapEff:\t0000000000000000" in status
        assert "NoNewPrivs:\t1" in status
        assert played.exec("id", "-u") == "10001\n"
        assert played.stop() == 0
    finally:
        engine("kube", "down", str(file), check=False)
