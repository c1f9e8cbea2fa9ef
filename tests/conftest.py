from pathlib import Path

import pytest

from training import housing, mnist
from training.data import data_dir

FILES = [
    housing.FILE,
    mnist.TRAIN_IMAGES,
    mnist.TRAIN_LABELS,
    mnist.TEST_IMAGES,
    mnist.TEST_LABELS,
]


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The data folder; the test is skipped where it does not hold the real files."""
    for file in FILES:
        if not (data_dir() / file.path).exists():
            pytest.skip(f"the data folder {data_dir()} has no {file.path}")
    return data_dir()
