import re
import sys
from pathlib import Path

import pytest

from service.__main__ import main
from tests.support.processes import environment
from tests.support.scoring import Run


@pytest.fixture
def way(request: pytest.FixtureRequest) -> str:
    """How CSV is scored: "rows", as without pyarrow, or "columns"."""
    return str(getattr(request, "param", "rows"))


@pytest.fixture
def run(
    way: str,
    tmp_path: Path,
    models_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Run:
    """Score in this process, in `tmp_path`; give the exit status and what stands on stderr."""
    monkeypatch.chdir(tmp_path)
    if way == "rows":
        monkeypatch.setitem(sys.modules, "pyarrow", None)

    def run(*arguments: str, **settings: object) -> tuple[int, str]:
        for name, value in environment(
            **{"models_dir": models_dir, "versions": "all", "max_batch_size": 64}
            | {"max_body_bytes": 2**24, "max_image_pixels": 2**24}
            | settings
        ).items():
            monkeypatch.setenv(name, value)
        status = main(["score", *arguments])
        said = capfd.readouterr()
        assert said.out == ""
        return status, re.sub(r", \d+ a second", "", said.err)  # of a machine that is busy

    return run
