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


OF_TRAINING = ("tests/training", "tests/test_real_models.py")
# What takes seconds to import, as it needs PyTorch or scikit-learn, and its marker.
DEAR = {
    "training": OF_TRAINING,
    "slow": ("tests/service/test_skl2onnx.py",),
    "stress": ("tests/system/stress",),
}


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out what is dear to import where its marker is not asked for."""
    place = collection_path.relative_to(config.rootpath).as_posix()
    is_left_out = any(
        f"not {marker}" in config.option.markexpr and place.startswith(places)
        for marker, places in DEAR.items()
    )
    return is_left_out or None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs PyTorch: it takes seconds, and changes rarely."""
    for item in items:
        if item.nodeid.startswith(OF_TRAINING):
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
