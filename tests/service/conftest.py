import gzip
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from service.settings import Settings
from tests.support.toys import Client, save_mean, save_toy, serving, toy_card
from training.data import data_dir


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
def held_out() -> tuple[NDArray[Any], NDArray[Any]]:
    """500 digits of MNIST that nothing was trained on, uint8 (500, 28, 28), and what they are.

    Read without training.mnist: torch takes seconds, and so do the 60,000 others.
    """
    found = []
    for name, head in (("images-idx3", 16), ("labels-idx1", 8)):  # bytes before the values
        path = data_dir() / f"mnist/t10k-{name}-ubyte.gz"
        if not path.exists():
            pytest.skip(f"the data folder {data_dir()} has no {path.name}")
        with gzip.open(path) as file:
            found.append(np.frombuffer(file.read(head + 500 * 784)[head:], np.uint8))
    images, labels = found
    return images.reshape(500, 28, 28), labels[:500]
