"""Models that answer what they are sent, so that replies say what was read."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from onnx import TensorProto

from tests.support.platforms import of
from tests.support.toys import Client, save_mean, save_same, save_sum, save_toy, toy_card


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models that answer what they are sent, so that replies say what was read."""
    folder = tmp_path_factory.mktemp("models")
    save_same(folder, ["batch", 4])
    save_same(folder, ["batch", 2], TensorProto.INT64, name="whole")
    save_same(folder, ["batch", 1], name="single")
    save_toy(folder, card=toy_card())
    save_mean(folder)
    save_sum(folder)
    return folder


@pytest.fixture(scope="module")
async def same(folder: Path) -> AsyncIterator[Client]:
    async with of(folder, "same") as client:
        yield client


@pytest.fixture(scope="module")
async def whole(folder: Path) -> AsyncIterator[Client]:
    async with of(folder, "whole") as client:
        yield client


@pytest.fixture(scope="module")
async def single(folder: Path) -> AsyncIterator[Client]:
    async with of(folder, "single") as client:
        yield client


@pytest.fixture(scope="module")
async def toy(folder: Path) -> AsyncIterator[Client]:
    async with of(folder, "toy") as client:
        yield client


@pytest.fixture(scope="module")
async def mean(folder: Path) -> AsyncIterator[Client]:
    async with of(folder, "mean") as client:
        yield client
