"""`python -m service health`, as the health check of a container runs it."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from processes import environment, running


def health(**settings: object) -> tuple[int, str]:
    """Run the command; return its exit status and what it says."""
    done = subprocess.run(
        [sys.executable, "-m", "service", "health"],
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.stdout == ""
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    "host",
    [
        "0.0.0.0",
        pytest.param("127.0.0.1", marks=pytest.mark.slow),
        pytest.param("::", marks=pytest.mark.slow),
    ],
)
def test_a_service_that_is_ready_is_healthy(models_dir: Path, host: str) -> None:
    with running(models_dir=models_dir, host=host) as service:
        port = service.url.rpartition(":")[2]
        assert health(host=host, port=port) == (0, "")


@pytest.mark.slow
def test_one_that_has_a_failed_model_is_not(models_dir: Path) -> None:
    broken = models_dir / "broken/1/model.onnx"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"")
    with running(models_dir=models_dir) as service:
        status, said = health(port=service.url.rpartition(":")[2])
    assert status == 1
    assert "/health/ready says 503: " in said
    assert "broken/1: model.onnx: not a model" in said


def test_a_key_is_sent_where_health_needs_one(models_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# those of the mobile app\n0123456789abcdef\n")
    protected = {"api_keys_file": file, "protect_health": True}
    with running(models_dir=models_dir, **protected) as service:
        port = service.url.rpartition(":")[2]
        assert health(port=port, **protected) == (0, "")
        status, said = health(port=port)
        assert status == 1
        assert "says 401" in said


def test_nobody_there_is_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
    status, said = health(port=port, protect_health=True)
    assert status == 1
    assert said == f"torchlit: 127.0.0.1:{port}: no answer: [Errno 111] Connection refused\n"


def test_something_else_there_is_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        command = [sys.executable, "-m", "service", "health"]
        asking = subprocess.Popen(
            command, env=environment(port=port), stderr=subprocess.PIPE, text=True
        )
        connection, _ = other.accept()
        with connection:
            connection.recv(1000)
            connection.sendall(b"SSH-2.0-OpenSSH\r\n")
        _, said = asking.communicate(timeout=20)
    assert asking.returncode == 1
    assert said == f"torchlit: 127.0.0.1:{port}: no answer: SSH-2.0-OpenSSH\n"


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
