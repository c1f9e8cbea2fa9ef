"""What DESIGN.md says of the house is held against the house."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
DESIGN = (ROOT / "DESIGN.md").read_text()


def imported(path: Path) -> set[str]:
    """Return the modules of the service that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "service":
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("service."):
            names.add(node.module.split(".")[1])
    return names


def test_imports_go_from_right_to_left_only() -> None:
    listed = re.search(r"^    service/ (.*?);", DESIGN, re.M | re.S)
    assert listed is not None
    order = listed[1].split()
    modules = {path.stem: path for path in (ROOT / "service").glob("*.py")}
    assert sorted(order) == sorted(modules.keys() - {"__init__"})
    for place, name in enumerate(order):
        assert imported(modules[name]) <= set(order[:place]), name
