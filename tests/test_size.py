"""No module is longer than a reader holds in mind, unless it says why."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted(
    path for folder in ("service", "training") for path in ROOT.glob(f"{folder}/**/*.py")
)
MOST_LINES = 400


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_long_module_says_why(path: Path) -> None:
    text = path.read_text()
    reason = ast.get_docstring(ast.parse(text)) or ""
    assert len(text.splitlines()) <= MOST_LINES or f"more than {MOST_LINES} lines" in reason
