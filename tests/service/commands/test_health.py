"""`python -m service health`, as the health check of a container runs it."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.__main__ import main
from service.commands import health as module
from tests.support.processes import environment, running

Health = Callable[..., tuple[int, str]]


@pytest.fixture
def health(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Health:
    """Run the command; give its exit status and what it says."""

    def health(**settings: object) -> tuple[int, str]:
        for name, value in environment(**settings).items():
            monkeypatch.setenv(name, value)
        status = main(["health"])
        said = capfd.readouterr()
        assert said.out == ""
        return status, said.err

    return health


@pytest.mark.slow
@pytest.mark.parametrize("host", ["127.0.0.1", "::"])
def test_a_service_that_is_ready_is_healthy(models_dir: Path, health: Health, host: str) -> None:
    with running(models_dir=models_dir, host=host) as service:
        port = service.url.rpartition(":")[2]
        assert health(host=host, port=port) == (0, "")


@pytest.mark.slow
def test_one_that_has_a_failed_model_is_not(models_dir: Path, health: Health) -> None:
    broken = models_dir / "broken/1/model.onnx"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"")
    with running(models_dir=models_dir) as service:
        status, said = health(port=service.url.rpartition(":")[2])
    assert status == 1
    assert "/health/ready says 503: " in said
    assert "broken/1: model.onnx: expected an ONNX file, got an empty file" in said


@pytest.mark.slow
def test_a_key_is_sent_where_health_needs_one(
    models_dir: Path, tmp_path: Path, health: Health
) -> None:
    file = tmp_path / "keys"
    file.write_text("# those of the mobile app\n0123456789abcdef\n")
    with running(
        models_dir=models_dir, host="0.0.0.0", api_keys_file=file, protect_health=True
    ) as service:
        port = service.url.rpartition(":")[2]
        status, said = health(port=port)
        assert status == 1
        assert "says 401" in said
        assert health(port=port, host="0.0.0.0", api_keys_file=file) == (0, "")


def test_nobody_there_is_one_sentence(health: Health) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
    status, said = health(port=port, protect_health=True)
    assert status == 1
    assert said == f"torchlit: 127.0.0.1:{port}: no answer: [Errno 111] Connection refused\n"


@pytest.mark.parametrize("host", ["a..b", "foo bar"])
def test_a_host_that_is_no_name_is_one_sentence(health: Health, host: str) -> None:
    status, said = health(host=host)
    assert status == 1
    assert said.startswith(f"torchlit: {host}:8000: no answer: ")
    assert said.count("\n") == 1


@pytest.fixture
def other() -> Iterator[Callable[[list[bytes]], int]]:
    """Somebody who answers a connection with bytes, and waits until it is closed; its port."""
    threads = []
    servers = []

    def other(answer: list[bytes], asked: list[bytes] | None = None) -> int:
        server = socket.create_server(("127.0.0.1", 0))
        servers.append(server)

        def run() -> None:
            connection, _ = server.accept()
            with connection:
                request = connection.recv(10_000)
                if asked is not None:
                    asked.append(request)
                with contextlib.suppress(OSError):
                    for part in answer:
                        connection.sendall(part)
                        if len(answer) > 1 and closed.wait(0.02):
                            break
                    connection.shutdown(socket.SHUT_WR)
                    connection.recv(1)

        closed = threading.Event()
        thread = threading.Thread(target=run)
        thread.start()
        threads.append((thread, closed))
        return int(server.getsockname()[1])

    yield other
    for thread, closed in threads:
        closed.set()
        thread.join()
    for server in servers:
        server.close()


def test_something_else_there_is_one_sentence(health: Health, other: Callable[..., int]) -> None:
    port = other([b"SSH-2.0-\x1b[31mOpenSSH\r\n"])
    assert health(port=port) == (
        1,
        f"torchlit: 127.0.0.1:{port}: answers, but not as HTTP: SSH-2.0-\\x1b[31mOpenSSH\n",
    )


HEAD = b"HTTP/1.1 200 OK\r\n%bConnection: close\r\n\r\n"


@pytest.mark.parametrize(
    "begin", [b"", HEAD % b"", HEAD % b"Content-Length: 5000\r\n"], ids=["head", "body", "length"]
)
def test_who_answers_a_byte_now_and_then_is_given_up(
    health: Health, other: Callable[..., int], monkeypatch: pytest.MonkeyPatch, begin: bytes
) -> None:
    monkeypatch.setattr(module, "TIMEOUT_S", 0.1)
    port = other([begin, *[b"H"] * 1000])
    assert health(port=port) == (1, f"torchlit: 127.0.0.1:{port}: no answer: timed out\n")


@pytest.mark.parametrize(
    "answer", [b'{"message":"No API key found in request"}', b'{"error":"forbidden"}', b"[]"]
)
def test_a_key_is_not_sent_to_others(
    health: Health, other: Callable[..., int], answer: bytes
) -> None:
    asked: list[bytes] = []
    head = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: %d\r\n\r\n" % len(answer)
    port = other([head + answer], asked)
    status, said = health(port=port, api_keys="0123456789abcdef", protect_health=True)
    assert status == 1
    assert "says 401" in said
    assert len(asked) == 1
    assert b"0123456789abcdef" not in asked[0]


def test_it_imports_little() -> None:
    code = (
        "import os, sys, service.__main__ as main;"
        "os.environ['TORCHLIT_PORT'] = '1'; main.main(['health']);"
        "print({'numpy', 'onnxruntime', 'litestar', 'uvicorn', 'asyncio'} & sys.modules.keys())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=dict(os.environ), capture_output=True, text=True
    )
    assert done.stdout.strip() == "set()"
