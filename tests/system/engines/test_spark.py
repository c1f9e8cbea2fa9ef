"""Spark answers rows with executors of its own, one of which is killed."""

import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.system.engines.conftest import FILES
from tests.system.engines.programs import (
    PYTHON,
    blocks,
    called,
    descendants,
    kill,
    packages,
    run,
    started,
)

EXECUTOR = "CoarseGrainedExecutorBackend"
SPLIT_BYTES = 2**17  # of a task: each file is one
CLUSTER = "local-cluster[2,1,1024]"  # two executors with one core and 1,024 MB
OPTIONS = (
    f"--conf spark.sql.files.maxPartitionBytes={SPLIT_BYTES}",
    f"--conf spark.sql.files.openCostInBytes={SPLIT_BYTES}",
    "--conf spark.ui.enabled=false",
    "pyspark-shell",
)

pytestmark = pytest.mark.engines


def settings(tmp_path: Path, master: str) -> dict[str, str]:
    """Return what Spark reads of the environment."""
    home = tmp_path / "spark"  # which its executors write to
    home.mkdir()
    for path in (packages() / "pyspark").iterdir():
        (home / path.name).symlink_to(path)
    return {
        "SPARK_HOME": str(home),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "PYSPARK_PYTHON": str(PYTHON),
        "PYSPARK_SUBMIT_ARGS": " ".join([f"--master {master}", *OPTIONS]),
    }


def test_an_executor_that_is_killed_costs_no_row(
    folder: Path, check: Callable[[Path], None]
) -> None:
    with started(blocks()["Spark"], folder, **settings(folder, CLUSTER)) as program:

        def executors() -> set[int]:
            return set(called(descendants(program.pid), EXECUTOR))

        def committed() -> int:
            return len(list(folder.glob("answers/_temporary/0/task_*")))

        program.wait_until(lambda: committed() > 2 and len(executors()) == 2)
        before = executors()
        kill(min(before))
        assert committed() < FILES / 2
        program.wait_until(lambda: bool(executors() - before))
        program.wait()
    assert (folder / "answers/_SUCCESS").exists()
    check(folder / "answers")


def test_columns_go_back_by_position(folder: Path, right: pa.Table) -> None:
    """What the page warns of: Spark looks at types alone."""
    names = ["probability", "setosa"]
    swapped = re.sub(
        r"(?<=yield from )answered",
        'answered.select(["label", "setosa", "probability", *answered.column_names[3:]])',
        blocks()["Spark"],
    )
    run(swapped, folder, **settings(folder, "local[2]"))
    got = pq.read_table(folder / "answers").sort_by("id").select(names)
    assert got.equals(right.select(names[::-1]).rename_columns(names))
