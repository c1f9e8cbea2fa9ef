"""What a worker process does before its first task."""

import subprocess
import sys
from pathlib import Path

ASKS_FOR_PANDAS = """
import sys
from importlib.util import find_spec

from service.commands.score.columns.worker import be_small

finders = list(sys.meta_path)
be_small()
be_small()
import pyarrow as pa

pa.array([1]).to_numpy()
print("pandas" in sys.modules, sys.meta_path == finders, find_spec("pandas") is None)
import pandas
"""


def test_arrow_loads_no_pandas_and_others_may(tmp_path: Path) -> None:
    (tmp_path / "pandas.py").write_text("print('loaded')\n__version__ = '0'\n")
    said = subprocess.run(
        [sys.executable, "-W", "error", "-c", ASKS_FOR_PANDAS],
        env={"PYTHONPATH": f"{tmp_path}:{Path.cwd()}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout == "False True False\nloaded\n"
