"""`score --on ray` on a cluster of a head and three nodes, one of which is killed."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import csv

from tests.system.engines.clusters import Cluster, cluster
from tests.system.engines.conftest import NAMES
from tests.system.engines.programs import (
    PYTHON,
    ROOT,
    Program,
    called,
    descendants,
    kill,
    started_command,
)

ROWS = 2_000_000
SOME_BAD = 3  # exit status
NODES = 3
ON_RAY = ("--on", "ray", "--workers", "auto")

pytestmark = pytest.mark.engines


@pytest.fixture(scope="module")
def ray() -> Iterator[Cluster]:
    with cluster(NODES, 1) as cluster_of_nodes:
        yield cluster_of_nodes


@pytest.fixture(scope="module")
def flowers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return CSV, every 9,999th row of which has no number for a width."""
    random = np.random.default_rng(1)
    columns = {name: random.uniform(0, 8, ROWS).round(1) for name in NAMES}
    texts = pa.array(columns[NAMES[-1]]).cast(pa.string()).to_numpy(zero_copy_only=False)
    texts[::9_999] = "wide"
    path = tmp_path_factory.mktemp("flowers") / "flowers.csv"
    csv.write_csv(pa.table({**columns, NAMES[-1]: texts}), path)
    return path


def score(folder: Path, *arguments: object, **settings: str) -> tuple[int, list[str]]:
    """Return the exit status and what is said without how fast it was."""
    with scoring(folder, *arguments, **settings) as program:
        status = program.process.wait(timeout=120)
        return status, said(program)


def scoring(folder: Path, *arguments: object, **settings: str) -> Any:
    command = [PYTHON, "-m", "service", "score", *map(str, arguments)]
    return started_command(command, folder, TORCHLIT_MODELS_DIR=str(ROOT / "models"), **settings)


def said(program: Program) -> list[str]:
    """Return what is said; Ray has words of its own for a machine that is gone."""
    lines = program.log.read_text().splitlines()
    return [re.sub(r", \d+ a second", "", each) for each in lines if each.startswith("torchlit: ")]


@pytest.mark.parametrize("result", ["answers.parquet", "answers.csv.gz"])
def test_answers_of_parquet_are_the_bytes_of_one_process(
    folder: Path, data: Path, ray: Cluster, result: str
) -> None:
    alone = score(folder, "iris", data, result, "--keep")
    (folder / result).rename(folder / "alone")
    on = score(folder, "iris", data, result, "--keep", *ON_RAY, **ray.settings)
    assert alone == on
    assert on[0] == SOME_BAD
    assert (folder / result).read_bytes() == (folder / "alone").read_bytes()


def test_images_are_sent_by_their_bytes(folder: Path, ray: Cluster) -> None:
    images = folder / "images"
    images.mkdir()
    random = np.random.default_rng(2)
    for number in range(200):
        Image.fromarray(random.integers(0, 255, (40, 40), np.uint8)).save(images / f"{number}.png")
    (images / "none.png").write_bytes(b"nothing")
    alone = score(folder, "mnist", images, "alone.csv")
    on = score(folder, "mnist", images, "on.csv", *ON_RAY, **ray.settings)
    assert alone == on
    assert (folder / "on.csv").read_bytes() == (folder / "alone.csv").read_bytes()


def test_a_node_that_is_killed_costs_no_row(folder: Path, flowers: Path, ray: Cluster) -> None:
    alone = score(folder, "iris", flowers, "alone.csv")
    part = folder / "on.csv.part"
    arguments = ("iris", flowers, "on.csv", "--on", "ray", "--workers", NODES)
    with scoring(folder, *arguments, **ray.settings) as program:
        whole = (folder / "alone.csv").stat().st_size
        program.wait_until(lambda: part.exists() and part.stat().st_size > whole / 10)
        of_node = descendants(ray.raylets[0])
        assert len(called(of_node, "ray::Answerer")) == 1
        for pid in (ray.raylets[0], *of_node):
            kill(pid)
        assert part.stat().st_size < whole / 2
        status = program.process.wait(timeout=120)
        assert (status, said(program)) == alone
    assert status == SOME_BAD
    assert (folder / "on.csv").read_bytes() == (folder / "alone.csv").read_bytes()


def test_a_cluster_that_is_not_there_is_said(folder: Path, flowers: Path) -> None:
    status, text = score(folder, "iris", flowers, "on.csv", "--on", "ray=127.0.0.2:1")
    assert status == 1
    assert text == ["torchlit: --on: expected a cluster at 127.0.0.2:1, got: Connection refused"]
    assert not list(folder.glob("on.csv*"))
