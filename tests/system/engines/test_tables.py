"""DuckDB and Polars hand tables over by way of Arrow."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.system.engines.programs import blocks, run

pytestmark = pytest.mark.engines


@pytest.mark.parametrize("engine", ["DuckDB", "Polars"])
def test_tables_are_answered_in_place(
    engine: str, folder: Path, check: Callable[[Path], None]
) -> None:
    run(blocks()[engine], folder)
    check(folder / "answers.parquet")


def test_every_program_of_the_page_is_run() -> None:
    assert set(blocks()) == {"DuckDB", "Polars", "Spark", "Ray Data", "Serve on a Ray cluster"}
