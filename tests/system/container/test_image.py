"""What is in the image, and what is not."""

import json
import re
from typing import Any

import pytest

from tests.system.container.engine import IMAGE, PORT, ROOT, Engine
from tests.system.container.supply_chain import LICENCES, licences, packages

pytestmark = pytest.mark.container

MOST_BYTES = 150_000_000  # of the layers above the base image


@pytest.fixture(scope="module")
def config(engine: Engine) -> dict[str, Any]:
    (found,) = json.loads(engine("image", "inspect", IMAGE))
    config: dict[str, Any] = found["Config"]
    return {"Healthcheck": found.get("Healthcheck")} | config  # podman has it beside the others


def inside(engine: Engine, code: str) -> str:
    """Run a shell script as root in a container of the image; return what it prints."""
    options = ("--rm", "--network=none", "--user=0", "--entrypoint=sh")
    return engine("run", *options, IMAGE, "-euc", code)


def test_the_layers_above_the_base_are_small(engine: Engine, figures: list[str]) -> None:
    base = engine.layers(engine.base)
    layers = engine.layers(IMAGE)[: -len(base)]
    figures.append(f"base: {sum(each.size for each in base) / 1e6:.0f} MB  {engine.base}")
    for each in reversed(layers):
        if each.size > 0:
            (*_, place) = re.findall(r"(/\S+)", each.made_by)
            figures.append(f"layer: {each.size / 1e6:7.2f} MB  {place}")
    total = sum(each.size for each in layers)
    figures.append(f"above the base: {total / 1e6:.1f} MB (at most {MOST_BYTES / 1e6:.0f})")
    assert 50_000_000 < total < MOST_BYTES


def test_it_says_how_to_run_stop_and_check_it(config: dict[str, Any]) -> None:
    assert config["User"] == "10001:10001"
    assert config["StopSignal"] == "SIGTERM"
    assert list(config["ExposedPorts"]) == [f"{PORT}/tcp"]
    assert config["Entrypoint"] == ["/venv/bin/python", "-m", "service"]
    assert config["Cmd"] == ["serve"]
    assert config["Healthcheck"]["Test"] == ["CMD", "/venv/bin/python", "-m", "service", "health"]
    assert config["Labels"]["com.amazonaws.sagemaker.capabilities.accept-bind-to-port"] == "true"
    version = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.M)
    assert version is not None
    assert config["Labels"]["org.opencontainers.image.version"] == version[1]


def test_its_user_owns_nothing_that_is_served(engine: Engine) -> None:
    mine = inside(engine, "find /venv /app /models ! -user 0 -o -perm /022 ! -type l | head")
    assert mine == ""


def test_neither_torch_nor_build_tools_nor_caches_are_in_it(engine: Engine) -> None:
    unwanted = "torch onnx training tests pip setuptools faker polyfactory pygments/lexers/_php*"
    found = inside(
        engine,
        f"cd /venv/lib/python3*/site-packages; ls -d {unwanted} 2>/dev/null || true;"
        "ls -d /app/training /app/tests /app/deploy 2>/dev/null || true;"
        "for each in gcc cc ld strip make; do command -v $each || true; done;"
        "ls -A /root/.cache /tmp /src 2>/dev/null || true;"
        "find / -xdev -name state_dict.pt -o -xdev -name history.json -o -xdev -name .git",
    )
    assert [line for line in found.splitlines() if not line.endswith(":") and line] == []


def test_all_code_is_compiled_already(engine: Engine) -> None:
    """Nothing can be written there, so each start would compile it again."""
    code = r"""
import importlib.util, pathlib, sys
roots = [pathlib.Path("/app"), *pathlib.Path("/venv/lib").glob("python3*/site-packages")]
files = [file for root in roots for file in root.rglob("*.py")]
caches = [pathlib.Path(importlib.util.cache_from_source(str(file))) for file in files]
print(len(files), [str(file) for file, cache in zip(files, caches) if not cache.exists()])
"""
    found = engine(*("run", "--rm", "--network=none", "--entrypoint=python", IMAGE, "-c", code))
    count, missing = found.split(" ", 1)
    assert int(count) > 500
    assert missing.strip() == "[]"


def test_every_licence_is_listed(engine: Engine) -> None:
    found = packages(engine)
    assert len(found) > 25
    assert [name for name, _, licence in found if not licence] == []
    assert LICENCES.read_text() == licences(engine), "run `make licences`"
