from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.batch import Scorer
from service.settings import Settings
from tests.system.engines.programs import ROOT

FILES, ROWS = 30, 2_000
NAMES = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
BAD_EVERY = 997  # rows: has no petal width

Answers = dict[int, dict[str, Any]]


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with flowers in many files, some of them bad."""
    folder = tmp_path_factory.mktemp("data") / "flowers"
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(FILES):
        ids = np.arange(ROWS) + number * ROWS
        columns = {name: random.uniform(0, 8, ROWS).round(1) for name in NAMES}
        widths = pa.array(columns[NAMES[-1]], mask=ids % BAD_EVERY == 0)
        table = pa.table({"id": ids, **columns, NAMES[-1]: widths})
        pq.write_table(table, folder / f"{number:02}.parquet")
    return folder


@pytest.fixture
def folder(data: Path, tmp_path: Path) -> Path:
    """Return where a reader would be: a folder with the models and the flowers."""
    (tmp_path / "models").symlink_to(ROOT / "models")
    (tmp_path / "flowers").symlink_to(data)
    return tmp_path


@pytest.fixture(scope="session")
def right(data: Path) -> pa.Table:
    """Return the flowers' numbers, and the answers of one Scorer in this process."""
    table = pq.read_table(data).sort_by("id")
    answers = Scorer("iris", Settings(models_dir=ROOT / "models"))(table)
    assert answers.num_rows == FILES * ROWS
    assert 0 < answers.num_rows - answers["error"].null_count < 100
    return answers.add_column(0, "id", table["id"])


@pytest.fixture(scope="session")
def check(right: pa.Table) -> Any:
    def check(path: Path) -> None:
        """Hold Parquet against it: each row once, with the same answer in each bit."""
        got = pq.read_table(path).sort_by("id").select(right.column_names)
        got = got.cast(right.schema)  # nothing changes but how texts are held
        assert got.equals(right)

    return check
