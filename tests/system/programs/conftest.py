"""A real service process, real proxies before it, and what is sent to them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.support.processes import Process, running
from tests.support.toys import save_dear, save_mean, save_sum, save_toy, toy_card
from tests.system.programs import proxies


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    folder = tmp_path_factory.mktemp("models")
    save_toy(folder, card=toy_card())
    save_mean(folder)
    save_sum(folder)
    save_dear(folder)
    with running(models_dir=folder) as service:
        yield service


@pytest.fixture(scope="session")
def nginx(service: Process, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with proxies.running("nginx", service.url, tmp_path_factory.mktemp("nginx")) as url:
        yield url


@pytest.fixture(scope="session")
def haproxy(service: Process, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with proxies.running("haproxy", service.url, tmp_path_factory.mktemp("haproxy")) as url:
        yield url


@pytest.fixture(params=["nginx", "haproxy"])
def proxy(request: pytest.FixtureRequest) -> str:
    """The URL of each proxy before the service."""
    url: str = request.getfixturevalue(request.param)
    return url


@pytest.fixture(scope="session")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PNG of 2 x 3 pixels, for the model `mean`, which answers 2.5."""
    path = tmp_path_factory.mktemp("pictures") / "ramp.png"
    image = Image.new("L", (3, 2))
    image.putdata(range(6))
    image.save(path)
    return path
