import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.toys import save_toy, toy_card
from tests.system.container.engine import Engine

FIGURES = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """The engine, with the image built from the Dockerfile."""
    engine = Engine(tmp_path_factory.mktemp("engine"))
    engine.need_base()
    engine.build()
    return engine


@pytest.fixture
def port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        number: int = other.getsockname()[1]
    return number


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    """A models folder with toy."""
    folder = tmp_path / "models"
    save_toy(folder, card=toy_card())
    return folder


@pytest.fixture(scope="session")
def figures(pytestconfig: pytest.Config) -> list[str]:
    """Lines that are printed at the end."""
    return pytestconfig.stash.setdefault(FIGURES, [])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
    lines = terminalreporter.config.stash.get(FIGURES, [])
    if lines:
        terminalreporter.section("figures of the image")
    for line in lines:
        terminalreporter.write_line(line)
