"""What CONTRIBUTING.md says is there."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text()


def test_every_file_that_is_named_exists() -> None:
    table = TEXT[TEXT.index("| what | where |") : TEXT.index("The import rule")]
    named = re.findall(r"`([\w/.]+\.(?:py|toml|md|txt))`", table)
    assert len(named) > 10
    missing = [
        name
        for name in named
        if not any((ROOT / folder / name).is_file() for folder in ("", "service", "service/engine"))
    ]
    assert not missing


def test_every_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.M))
    named = set(re.findall(r"make ([a-z]+)", TEXT))
    assert named >= {"test", "check", "bench", "lock"}
    assert named <= targets
