from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from service.settings import Settings
from tests.support.toys import Client, save_mean, save_toy, serving, toy_card


def save_models(folder: Path) -> Path:
    """Write toy (named features, labels) and mean (an image, one value)."""
    save_toy(folder, card=toy_card())
    save_mean(folder)
    return folder


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    """A models folder with toy and mean."""
    return save_models(tmp_path / "models")


@pytest.fixture
async def client(models_dir: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(Settings(models_dir=models_dir)) as client:
        yield client


@pytest.fixture(scope="module")
async def shared_client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Client]:
    """A client of toy and mean, for the tests of a module that only read."""
    async with serving(Settings(models_dir=save_models(tmp_path_factory.mktemp("models")))) as one:
        yield one


@pytest.fixture(scope="session")
def held_out(real_data: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    """500 digits of MNIST that nothing was trained on, uint8 (500, 28, 28), and what they are."""
    from training import mnist  # here: see real_data

    _, rows = mnist.load()
    digits = rows.inputs[:500].numpy().astype(np.uint8).reshape(-1, 28, 28)
    return digits, rows.targets[:500].numpy()
