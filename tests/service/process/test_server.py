"""The real process, over real sockets."""

import asyncio
import contextlib
import fcntl
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from onnx import TensorProto, helper

from tests.support.clients import address, ask, ask_until_sent_away, counted, distinct_rows_from
from tests.support.onnx_graphs import save
from tests.support.processes import Process, environment, running
from tests.support.toys import body, save_dear, save_toy, tensor, toy_answer, toy_card


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """The service with toy, which in the end leaves with 0 and has met no bug."""
    folder = tmp_path_factory.mktemp("models")
    save_toy(folder, card=toy_card())
    with running(models_dir=folder) as service:
        yield service
        assert service.stop() == 0
    assert "Traceback" not in "".join(service.log)


def start_fails(**settings: object) -> str:
    """Start the service; return the one line it leaves with exit status 1."""
    done = subprocess.run(
        [sys.executable, "-m", "service"],
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("torchlit: ")]
    return line


def test_it_serves_and_leaves_with_0_when_told_to(models_dir: Path) -> None:
    with running(models_dir=models_dir, drain_s=0.2) as service:
        reply = service.post("/predict", content=body("toy", [[1, 2, 3, 4]]))
        assert reply.status_code == 200
        assert "server" not in reply.headers
        assert service.stop() == 0
    log = "".join(service.log)
    assert "Traceback" not in log
    used = r"\d+ CPUs with .*, memory with .*: workers: 1, threads of a slow model in each: \d$"
    assert re.search(used, log, re.M)


@pytest.mark.slow
def test_a_caller_who_is_alone_does_not_wait_for_a_batch(served: Process) -> None:
    """Not a time: rows that are run where they stand count as having waited for exactly 0 s."""

    def waited_and_batches() -> tuple[float, float]:
        metrics = served.get("/metrics").text
        names = ("torchlit_queue_seconds_sum", "torchlit_batches_total")
        waited, batches = (counted(metrics, f'{name}{{model="toy"') for name in names)
        return waited, batches

    waited, batches = waited_and_batches()
    for n in range(5):
        reply = served.post("/predict", content=body("toy", [[n, 0, 0, 0]]))
        assert reply.status_code == 200
    assert waited_and_batches() == (waited, batches + 5)
    asyncio.run(distinct_rows_from(served.url, 16, 0.3))
    assert waited_and_batches()[0] > waited


@pytest.mark.slow
def test_a_dear_model_delays_neither_health_nor_other_models(models_dir: Path) -> None:
    save_dear(models_dir)

    async def ask_beside_it(service: Process) -> None:
        async with httpx.AsyncClient(base_url=service.url, timeout=30) as client:
            dear = [
                asyncio.create_task(client.post("/predict", content=body("dear", [[n, 0, 0, 0]])))
                for n in range(4)
            ]
            while (
                'torchlit_queue_rows{model="dear",version="1"} 3.0'
                not in (await client.get("/metrics")).text
            ):  # the first runs, the others wait
                assert not any(task.done() for task in dear)
            for _ in range(5):
                assert (await client.get("/health/live")).status_code == 200
                toy = await client.post("/predict", content=body("toy", [[1, 2, 3, 4]]))
                assert toy.status_code == 200
            assert not any(task.done() for task in dear[1:])
            replies = [(await task).json()["predictions"] for task in dear]
            assert [row["output"] for (row,) in replies] == [
                [1500.0 + n, 1500.0, 1500.0, 1500.0] for n in range(4)
            ]

    with running(models_dir=models_dir, max_batch_size=1) as service:
        asyncio.run(ask_beside_it(service))


def test_requests_in_flight_are_answered_after_sigterm(models_dir: Path) -> None:
    async def ask_and_stop(service: Process) -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=service.url) as client:
            asked = [
                asyncio.create_task(client.post("/predict", content=body("toy", [[n, 0, 0, 0]])))
                for n in range(8)
            ]
            waiting = 'torchlit_queue_rows{model="toy",version="1"} 8.0'
            while waiting not in (await client.get("/metrics")).text:
                await asyncio.sleep(0.01)
            service.process.send_signal(signal.SIGTERM)
            return await asyncio.gather(*asked)

    with running(models_dir=models_dir, max_queue_delay_ms=600, drain_s=0.2) as service:
        replies = asyncio.run(ask_and_stop(service))
        assert service.process.wait(timeout=20) == 0
    for number, reply in enumerate(replies):
        probabilities = list(reply.json()["predictions"][0]["probabilities"].values())
        expected = toy_answer(np.array([[number, 0, 0, 0]]))[0]
        assert probabilities == pytest.approx(expected, abs=1e-6)


def test_a_port_in_use_stops_the_start_with_one_sentence(models_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = start_fails(port=port, models_dir=models_dir)
    assert line == (
        f"torchlit: TORCHLIT_HOST, TORCHLIT_PORT: cannot listen on 127.0.0.1:{port}: "
        "Address already in use"
    )


def test_a_misspelt_setting_stops_the_start_and_names_the_nearest() -> None:
    line = start_fails(modelsdir="x")
    assert (
        line == "torchlit: TORCHLIT_MODELSDIR: no such setting; did you mean TORCHLIT_MODELS_DIR?"
    )


@pytest.mark.slow
def test_no_models_folder_stops_the_start(tmp_path: Path) -> None:
    line = start_fails(models_dir=tmp_path / "absent", port=0)
    assert "absent: expected a folder of models, got: No such file or directory" in line
    assert start_fails(models_dir=tmp_path / "absent", workers=2, port=0) == line


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_metrics_folder_that_cannot_be_written_stops_the_start(
    models_dir: Path, tmp_path: Path, workers: int
) -> None:
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file/x"
    line = start_fails(models_dir=models_dir, workers=workers, port=0, metrics_dir=folder)
    assert line.startswith(f"torchlit: TORCHLIT_METRICS_DIR: {tmp_path}/file/x: cannot be written")


@pytest.mark.slow
def test_services_with_one_metrics_folder_leave_each_other_alone(
    models_dir: Path, tmp_path: Path
) -> None:
    """As a new one and the old one at a handover."""
    settings = {"models_dir": models_dir, "workers": 2, "metrics_dir": tmp_path / "x"}
    ok = 'torchlit_requests_total{model="toy",outcome="ok"'

    def ask(service: Process, times: int) -> None:
        for number in range(times):
            service.post("/predict", content=body("toy", [[number, 2, 3, 4]]))

    def shown(service: Process) -> set[float]:
        return {counted(service.get("/metrics").text, ok) for _ in range(6)}  # by both workers

    with running(**settings) as old:
        ask(old, 3)
        with running(**settings) as new:
            ask(new, 5)
            assert shown(old) == {3}
            assert shown(new) == {5}
            assert old.stop() == 0
            pid = re.search(r"process (\d+)\) serves", "".join(new.log))
            assert pid is not None
            new.wait_for(r"(worker \d) .* serves")
            os.kill(int(pid[1]), signal.SIGKILL)
            new.wait_for(r"(worker \d) .* serves")  # and counts on in the file of the dead one
            ask(new, 1)
            assert shown(new) == {6}
            assert new.stop() == 0
    assert list((tmp_path / "x").iterdir()) == []


@pytest.mark.slow
def test_cuda_without_a_gpu_stops_the_start(models_dir: Path) -> None:
    line = start_fails(models_dir=models_dir, device="cuda", port=0)
    assert line.startswith("torchlit: TORCHLIT_DEVICE: expected cuda")


def test_help_lists_every_setting() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "service", "--help"], capture_output=True, text=True, check=True
    )
    assert "TORCHLIT_MAX_QUEUE_DELAY_MS" in done.stdout


@pytest.mark.slow
def test_the_service_needs_neither_torch_nor_training() -> None:
    code = (
        "import sys, service.__main__, service.http.app, service.process.server;"
        "print({'torch', 'training', 'sklearn', 'scipy', 'onnx'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.slow
def test_a_failed_model_does_not_stop_the_others(models_dir: Path) -> None:
    broken = save_toy(models_dir, 2, card=toy_card())
    broken.write_bytes(b"")
    with running(models_dir=models_dir) as service:
        reply = service.post("/predict", content=body("toy", [[1, 2, 3, 4]]))
        assert reply.json()["version"] == 1
        assert service.stop() == 0
    log = "".join(service.log)
    assert "toy/2: model.onnx: expected an ONNX file, got an empty file" in log
    assert "Traceback" not in log


@pytest.mark.parametrize("seconds", [0.3, pytest.param(10, marks=pytest.mark.slow)])
def test_64_clients_get_only_their_own_right_answers(served: Process, seconds: float) -> None:
    def counts() -> tuple[float, float]:
        metrics = served.get("/metrics").text
        alone = counted(metrics, 'torchlit_batch_rows_bucket{le="4.0",model="toy"')
        batches = counted(metrics, 'torchlit_batches_total{model="toy"')
        return counted(metrics, 'torchlit_requests_total{model="toy",outcome="ok"'), batches - alone

    ok, larger = counts()
    answered = asyncio.run(distinct_rows_from(served.url, 64, seconds))
    ok_after, larger_after = counts()
    assert ok_after - ok == answered > 64
    assert larger_after > larger  # some batches hold more than 4 rows


@pytest.mark.slow
def test_several_workers_share_port_and_metrics_and_a_dead_one_is_replaced(
    models_dir: Path,
) -> None:
    with running(models_dir=models_dir, workers=2) as service:
        service.wait_for(r"(worker \d) .* serves")
        asyncio.run(distinct_rows_from(service.url, 8, 0.5))
        ok = 'torchlit_requests_total{model="toy",outcome="ok"'
        before = [counted(service.get("/metrics").text, ok) for _ in range(6)]
        assert len(set(before)) == 1  # whichever worker answers
        assert before[0] > 0
        pid = re.search(r"process (\d+)\) serves", "".join(service.log))
        assert pid is not None
        os.kill(int(pid[1]), signal.SIGKILL)
        service.wait_for(r"(ended with -9)")
        service.wait_for(r"(worker \d) .* serves")
        assert counted(service.get("/metrics").text, ok) == before[0]
        assert service.stop() == 0
    assert "Traceback" not in "".join(service.log)


@pytest.mark.slow
def test_a_replacement_that_cannot_start_leaves_the_others_alone(models_dir: Path) -> None:
    with running(models_dir=models_dir, workers=2) as service:
        service.wait_for(r"(worker \d) .* serves")
        models_dir.rename(models_dir.with_name("gone"))
        pid = re.search(r"process (\d+)\) serves", "".join(service.log))
        assert pid is not None
        os.kill(int(pid[1]), signal.SIGKILL)
        service.wait_for(r"could not start: (TORCHLIT_MODELS_DIR: .*)$")
        service.wait_for(r"(ended with 1)$")
        reply = service.post("/predict", content=body("toy", [[1, 2, 3, 4]]))
        assert reply.status_code == 200
        assert service.stop() == 0


@pytest.mark.slow
def test_workers_do_not_outlive_a_parent_that_was_killed(models_dir: Path) -> None:
    with running(models_dir=models_dir, workers=2, drain_s=0) as service:
        service.wait_for(r"(worker \d) .* serves")
        service.process.kill()
        service.wait_for(r"(worker \d) .* stops")
        service.wait_for(r"(worker \d) .* stops")
        with pytest.raises(httpx.ConnectError):
            service.get("/health/live")


@pytest.mark.slow
def test_a_signal_while_the_models_load_ends_it_with_0(models_dir: Path) -> None:
    command = [sys.executable, "-m", "service"]
    env = environment(port=0, models_dir=models_dir)
    process = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    with process.stderr:
        assert "workers: 1" in process.stderr.readline()
        assert "ready on cpu" in process.stderr.readline()  # the first of two models
        process.terminate()
        assert "Traceback" not in process.stderr.read()
    assert process.wait(timeout=20) == 0


@pytest.mark.parametrize(
    ("workers", "number"),
    [(1, signal.SIGTERM), (2, signal.SIGINT), (1, signal.SIGINT), (2, signal.SIGTERM)],
)
@pytest.mark.slow
def test_a_stop_under_load_loses_no_request(
    models_dir: Path, workers: int, number: signal.Signals
) -> None:
    async def load(service: Process) -> list[tuple[int, bool]]:
        clients = [asyncio.create_task(ask_until_sent_away(service.url)) for _ in range(64)]
        await asyncio.sleep(0.3)
        os.killpg(service.process.pid, number)  # as a terminal does: to every process of it
        return await asyncio.gather(*clients)

    with running(models_dir=models_dir, workers=workers, drain_s=0.2) as service:
        outcomes = asyncio.run(load(service))
        assert service.process.wait(timeout=20) == 0
    assert min(answered for answered, _ in outcomes) > 0
    assert [lost for _, lost in outcomes] == [False] * 64


def metrics_of(service: Process) -> str:
    return httpx.get(f"{service.url}/metrics").text


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_second_interrupt_ends_it_at_once_whoever_waits_for_a_model(
    models_dir: Path, workers: int
) -> None:
    minute = {"drain_s": 60, "max_queue_delay_ms": 60_000, "request_timeout_s": 60}
    with (
        running(models_dir=models_dir, workers=workers, **minute) as service,
        socket.create_connection(("127.0.0.1", int(service.url.rpartition(":")[2]))) as waiting,
    ):
        body = b'{"instances": [[1, 2, 3, 4]]}'
        head = b"POST /predict/toy HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
        waiting.sendall(head + body)
        while 'torchlit_queue_rows{model="toy",version="1"} 1' not in metrics_of(service):
            pass
        os.killpg(service.process.pid, signal.SIGINT)
        draining = '"draining"'
        while draining not in httpx.get(f"{service.url}/health/ready").text:
            pass
        os.killpg(service.process.pid, signal.SIGINT)
        assert service.process.wait(timeout=20) == 0


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.slow
def test_it_stops_when_its_terminal_is_closed(models_dir: Path, workers: int) -> None:
    ours, its = pty.openpty()

    def take_terminal() -> None:
        fcntl.ioctl(its, termios.TIOCSCTTY, 0)

    with running(
        stdin=its, preexec_fn=take_terminal, models_dir=models_dir, workers=workers
    ) as service:
        os.close(its)
        service.process.send_signal(signal.SIGHUP)  # while it is open this is a wish to reload
        ready = f"{service.url}/health/ready"
        assert httpx.get(ready).json()["status"] == "ready"
        os.close(ours)
        assert service.process.wait(timeout=20) == 0


def save_endless(folder: Path) -> Path:
    """Write `folder`/endless: a single operation on so many boxes, which nothing stops.

    Each box is compared with all before it: 200,000 of them are a minute or more.
    """
    half = np.float32(0.5)
    nodes = [
        helper.make_node("Squeeze", ["count"], ["end"]),
        helper.make_node("Range", ["zero", "end", "one"], ["whole"]),
        helper.make_node("Cast", ["whole"], ["low"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["low", "half"], ["high"]),
        helper.make_node("Mul", ["low", "nothing"], ["left"]),
        helper.make_node("Add", ["left", "half"], ["right"]),
        helper.make_node("Reshape", ["low", "column"], ["y1"]),
        helper.make_node("Reshape", ["left", "column"], ["x1"]),
        helper.make_node("Reshape", ["high", "column"], ["y2"]),
        helper.make_node("Reshape", ["right", "column"], ["x2"]),
        helper.make_node("Concat", ["y1", "x1", "y2", "x2"], ["boxes"], axis=2),
        helper.make_node("Reshape", ["low", "row"], ["scores"]),
        helper.make_node("NonMaxSuppression", ["boxes", "scores", "most", "half"], ["chosen"]),
        helper.make_node("Shape", ["chosen"], ["output"]),
    ]
    return save(
        folder,
        "endless",
        nodes,
        [tensor("count", [1], TensorProto.INT64)],
        [tensor("output", [2], TensorProto.INT64)],
        zero=np.int64(0),
        one=np.int64(1),
        half=half,
        nothing=np.float32(0),
        column=np.array([1, -1, 1]),
        row=np.array([1, 1, -1]),
        most=np.array([10**9]),
    )


@contextlib.contextmanager
def endlessly_running(folder: Path, **settings: object) -> Iterator[Process]:
    """A service of which a run goes on that nothing stops, and whose stop takes 6 s at most."""
    save_endless(folder)
    short = {"request_timeout_s": 0.5, "receive_timeout_s": 0.5}
    with running(models_dir=folder, **short, **settings) as service:
        for _ in range(int(str(settings.get("workers", 1))) - 1):
            service.wait_for(r"(worker \d) .* serves")
        data = {"name": "count", "datatype": "INT64", "shape": [1], "data": [200_000]}
        reply = service.post("/v2/models/endless/infer", json={"inputs": [data]})
        assert reply.status_code == 504
        yield service


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_that_does_not_end_is_cut_off_at_a_stop(models_dir: Path, workers: int) -> None:
    with endlessly_running(models_dir, workers=workers) as service:
        status = service.stop()
    assert status == (70 if workers == 1 else 0)
    assert "was to end within 5.5 s: what still runs is cut off" in "".join(service.log)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_second_interrupt_waits_for_no_run(models_dir: Path, workers: int) -> None:
    with endlessly_running(models_dir, workers=workers, drain_s=3600) as service:
        os.killpg(service.process.pid, signal.SIGINT)
        while '"draining"' not in service.get("/health/ready").text:
            pass
        os.killpg(service.process.pid, signal.SIGINT)
        assert service.process.wait(timeout=20) == 0


@pytest.mark.slow
def test_a_worker_with_a_run_that_does_not_end_dies_with_its_parent(models_dir: Path) -> None:
    with endlessly_running(models_dir, workers=2) as service:
        port = int(service.url.rpartition(":")[2])
        service.process.kill()
        service.wait_for(r"(what still runs is cut off)")
        for _ in range(200):
            try:
                socket.create_server(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.1)
        else:
            raise AssertionError("a worker holds the port")


@pytest.mark.slow
def test_a_worker_that_hangs_is_replaced(models_dir: Path) -> None:
    short = {"request_timeout_s": 0.5}
    with running(models_dir=models_dir, workers=2, **short) as service:
        pid = int(service.wait_for(r"process (\d+)\) serves"))
        os.kill(pid, signal.SIGSTOP)
        service.wait_for(rf"process {pid}\) (hangs, and is replaced)")
        service.wait_for(r"(worker \d) .* serves")
        assert service.stop() == 0


def test_a_client_that_leaves_in_the_middle_is_no_event(served: Process) -> None:
    with socket.create_connection(address(served.url)) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    with socket.create_connection(address(served.url)) as connection:
        connection.sendall(b"\x16\x03\x01 this is not HTTP\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 400")
    reply = served.post("/predict", content=body("toy", [[1, 2, 3, 4]]))
    assert reply.status_code == 200


def test_clients_are_told_how_long_a_connection_is_kept(served: Process) -> None:
    """A second less than it is: what is sent on the last moment has to arrive."""

    async def heads(url: str) -> list[bytes]:
        reader, writer = await asyncio.open_connection(*address(url))
        content = body("toy", [[1, 2, 3, 4]])
        found = [(await ask(reader, writer, content))[0] for _ in range(2)]  # the second directly
        writer.close()
        return found

    for head in asyncio.run(heads(served.url)):
        assert head.count(b"\r\nkeep-alive: timeout=74\r\n") == 1
    for path in ("/health/live", "/no/such/path"):
        assert served.get(path).headers["keep-alive"] == "timeout=74"
    last = httpx.get(served.url + "/health/live", headers={"connection": "close"})
    assert "keep-alive" not in last.headers


@pytest.mark.parametrize(
    ("request_line", "reply"),
    [
        (b"OPTIONS * HTTP/1.1\r\nHost: x", b"HTTP/1.1 200 OK\r\n"),
        (b"OPTIONS / HTTP/1.0", b"HTTP/1.1 204 No Content\r\n"),  # HAProxy's, unless it is set
        (b"OPTIONS /health/ready HTTP/1.1\r\nHost: x", b"HTTP/1.1 204 No Content\r\n"),
    ],
)
def test_load_balancers_may_ask_for_options(
    served: Process, request_line: bytes, reply: bytes
) -> None:
    with socket.create_connection(address(served.url), timeout=5) as connection:
        connection.sendall(request_line + b"\r\n\r\n")
        head = connection.recv(1000)
    assert head.startswith(reply)
    assert b"\r\nallow: GET, " in head


@pytest.mark.slow
def test_two_colons_are_served_to_both_families(models_dir: Path) -> None:
    with running(models_dir=models_dir, host="::") as service:
        port = address(service.url)[1]
        for host in ("127.0.0.1", "[::1]"):
            assert httpx.get(f"http://{host}:{port}/health/ready").status_code == 200
        health = [sys.executable, "-m", "service", "health"]
        assert subprocess.run(health, env=environment(host="::", port=port)).returncode == 0


@pytest.mark.promtool
def test_promtool_finds_nothing_to_say_about_the_metrics(models_dir: Path) -> None:
    with running(models_dir=models_dir, workers=2) as service:
        service.post("/predict", content=body("toy", [[1, 2, 3, 4]]))
        metrics = service.get("/metrics").text
    done = subprocess.run(
        [os.environ.get("PROMTOOL", "promtool"), "check", "metrics"],
        input=metrics,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.slow
def test_any_worker_tells_what_all_hold_and_cpu_time_outlives_one(models_dir: Path) -> None:
    settings = {"workers": 2, "max_connections": 50, "max_queue_rows": 100}

    def scrape() -> str:
        return service.get("/metrics").text

    def wait_until(series: str, expected: float) -> None:
        until = time.monotonic() + 20
        while counted(scrape(), f"{series} ") != expected:
            assert time.monotonic() < until, series
            time.sleep(0.05)

    with running(models_dir=models_dir, **settings) as service:
        pid = service.wait_for(r"process (\d+)\) serves")  # of the second
        wait_until("torchlit_workers", 2)
        wait_until("torchlit_connections_limit", 100)
        toy = '{model="toy",version="1"}'
        assert f"torchlit_queue_limit_rows{toy} 200.0" in scrape()
        with contextlib.ExitStack() as stack:
            for _ in range(10):
                stack.enter_context(socket.create_connection(address(service.url)))
            wait_until("torchlit_connections", 10)
        wait_until("torchlit_connections", 0)
        cpu = [counted(scrape(), "process_cpu_seconds_total")]
        os.kill(int(pid), signal.SIGKILL)
        wait_until("torchlit_workers", 1)
        while counted(text := scrape(), "torchlit_connections_limit") < 100:
            assert f"torchlit_model_ready{toy} 1.0" in text
            cpu.append(counted(text, "process_cpu_seconds_total"))
        cpu.append(counted(text, "process_cpu_seconds_total"))
        assert cpu == sorted(cpu)
        assert cpu[0] > 0  # two workers began
