import gc
import os
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

# As the service and the training have it: a tenth of a run was threads that waited for each other.
# Before NumPy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Also where PYTHONDONTWRITEBYTECODE is set, as in images: else each worker rewrites the asserts of
# all tests in every run, and each process that a test starts compiles the service again.
sys.dont_write_bytecode = False


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs PyTorch: it takes seconds, and changes rarely."""
    for item in items:
        if item.nodeid.startswith(("tests/training/", "tests/test_real_models.py")):
            item.add_marker(pytest.mark.training)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Let the garbage collector pass over what lives to the end: all of torch, and every test.

    While that is loaded, too: to look through it again and again took a seventh of the time.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The data folder; the test is skipped where it does not hold the real files."""
    # Here and not above: torch takes seconds, and a run's first process tests nothing.
    from training import housing, mnist
    from training.data import data_dir

    for file in (
        housing.FILE,
        mnist.TRAIN_IMAGES,
        mnist.TRAIN_LABELS,
        mnist.TEST_IMAGES,
        mnist.TEST_LABELS,
    ):
        if not (data_dir() / file.path).exists():
            pytest.skip(f"the data folder {data_dir()} has no {file.path}")
    return data_dir()
