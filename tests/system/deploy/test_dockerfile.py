"""The Dockerfile, read by hadolint."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

pytestmark = pytest.mark.deploy


def hadolint(dockerfile: Path) -> subprocess.CompletedProcess[str]:
    program = os.environ.get("HADOLINT", "hadolint")
    return subprocess.run([program, "--no-color", str(dockerfile)], capture_output=True, text=True)


def test_hadolint_has_nothing_to_say(tmp_path: Path) -> None:
    done = hadolint(ROOT / "Dockerfile")
    assert done.returncode == 0, done.stdout + done.stderr
    wrong = tmp_path / "Dockerfile"
    wrong.write_text((ROOT / "Dockerfile").read_text().replace("USER 10001:10001", "USER root"))
    assert "DL3002" in hadolint(wrong).stdout  # the last user is not to be root
