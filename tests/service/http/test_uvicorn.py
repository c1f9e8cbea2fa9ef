"""The version of uvicorn whose parts are used that are not public: others may have changed them."""

import tomllib
from importlib.metadata import version
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[3]


def test_the_uvicorn_that_is_installed_is_the_one_that_the_service_was_written_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (bound,) = (
        each for each in map(Requirement, project["dependencies"]) if each.name == "uvicorn"
    )
    installed = version("uvicorn")
    assert bound.specifier.contains(installed), (
        f"expected uvicorn {bound.specifier}, got {installed}: service/http/connection.py "
        "and service/process/worker.py use parts of it that are not public (HttpToolsProtocol, "
        "RequestResponseCycle, STATUS_LINE, Server.startup and shutdown); compare "
        "those with the new version, run the tests, then move the bound in pyproject.toml"
    )
    assert len(list(bound.specifier)) == 2, "the bound is one minor version"
