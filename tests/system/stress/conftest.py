import resource
from pathlib import Path

import pytest

from tests.support.toys import save_toy, toy_card

DESCRIPTORS = 8192  # the largest of these tests opens 1,100 connections, from both ends


@pytest.fixture(scope="session", autouse=True)
def descriptors() -> None:
    """Let this process, and the services that it starts, open as many files as they need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    """A models folder with toy."""
    folder = tmp_path / "models"
    save_toy(folder, card=toy_card())
    return folder
