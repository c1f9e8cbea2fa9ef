from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from service.settings import Settings
from tests.support.toys import save_mean, save_toy, serving, toy_card


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    """A models folder with toy (named features, labels) and mean (an image, one value)."""
    folder = tmp_path / "models"
    save_toy(folder, card=toy_card())
    save_mean(folder)
    return folder


@pytest.fixture
async def client(models_dir: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(Settings(models_dir=models_dir)) as client:
        yield client
