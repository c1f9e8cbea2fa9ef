import random
from collections.abc import AsyncIterator, Callable
from functools import cache
from pathlib import Path

import pytest
from onnx import TensorProto

from service.batch import Scorer
from service.settings import Settings
from tests.support.classifiers import save_classifier
from tests.support.toys import (
    Client,
    save_bounded,
    save_columns,
    save_fussy,
    save_imputed,
    save_lengths,
    save_same,
    save_seen,
    save_table,
    save_toy,
    serving,
    toy_card,
)


@pytest.fixture(scope="module")
def batch_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with a model for each kind of input and of answer."""
    folder = tmp_path_factory.mktemp("models")
    save_toy(folder, card=toy_card())
    save_columns(folder)
    save_imputed(folder)
    save_bounded(folder, 2)
    save_fussy(folder)
    save_lengths(folder)
    save_table(folder)
    save_seen(folder, side=2)
    save_classifier(folder, [7, -1, 3], is_zipped=True, beside="twice")
    save_classifier(folder, ["ok", "error", "label"], name="taken")
    save_same(folder, ["n", 2, 3])
    save_same(folder, ["n", 1], TensorProto.STRING, name="words")
    save_same(folder, ["n", 2], TensorProto.FLOAT16, name="halves")
    save_same(folder, ["n", 2], TensorProto.UINT8, name="bytes")
    return folder


@pytest.fixture(scope="module")
def scorer(batch_dir: Path) -> Callable[[str], Scorer]:
    """Return what opens one of the models, once."""
    return cache(lambda name: Scorer(name, Settings(models_dir=batch_dir)))


@pytest.fixture(scope="module")
async def batch_client(batch_dir: Path) -> AsyncIterator[Client]:
    async with serving(Settings(models_dir=batch_dir)) as client:
        yield client


@pytest.fixture
def chance() -> random.Random:
    return random.Random(22)
