"""Programs of other people, where `make test-programs` put them or the system has them."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[3]
INSTALLED = ROOT / ".venv/programs"  # from PyPI
UNPACKED = ROOT / ".cache/programs"  # from Debian
PYTHON = INSTALLED / "bin/python"


def environment(**more: str) -> dict[str, str]:
    """Return an environment in which the programs are found, and their libraries."""
    unpacked = [UNPACKED / folder for folder in ("usr/sbin", "usr/bin", "bin")]
    libraries = [*UNPACKED.glob("usr/lib/*-linux-gnu"), *UNPACKED.glob("lib/*-linux-gnu")]
    return {
        **os.environ,
        "PATH": ":".join([*map(str, [INSTALLED / "bin", *unpacked]), os.environ["PATH"]]),
        "LD_LIBRARY_PATH": ":".join(map(str, libraries)),
        **more,
    }


def run(*command: object, stdin: bytes = b"", **more: str) -> bytes:
    """Run a program with these variables in its environment; return what it printed."""
    done = subprocess.run(
        [str(part) for part in command],
        input=stdin,
        capture_output=True,
        check=False,
        timeout=60,
        env=environment(**more),
    )
    assert done.returncode == 0, (done.stdout + done.stderr).decode(errors="replace")
    return done.stdout
