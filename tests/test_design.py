"""What DESIGN.md says of the house is held against the house."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
DESIGN = (ROOT / "DESIGN.md").read_text()


def imported(room: Path) -> set[str]:
    """Return the rooms of the service, modules or packages, that one imports, anywhere in it."""
    names = set()
    for path in room.rglob("*.py") if room.is_dir() else [room]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "service":
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("service."):
                names.add(node.module.split(".")[1])
    return names - {room.stem}


def test_imports_go_from_right_to_left_only() -> None:
    listed = re.search(r"^    service/ (.*?);", DESIGN, re.M | re.S)
    assert listed is not None
    order = listed[1].split()
    rooms = {path.stem: path for path in (ROOT / "service").glob("*.py")}
    rooms |= {path.parent.name: path.parent for path in (ROOT / "service").glob("*/__init__.py")}
    assert sorted(order) == sorted(rooms.keys() - {"__init__"})
    for place, name in enumerate(order):
        assert imported(rooms[name]) <= set(order[:place]), name


def test_only_the_engine_imports_onnx_runtime() -> None:
    service = ROOT / "service"
    importing = {
        path.relative_to(service).parts[0]
        for path in service.rglob("*.py")
        if re.search(r"^ *(import|from) onnxruntime", path.read_text(), re.M)
    }
    assert importing == {"engine"}


def test_the_modules_of_the_engine_are_listed_in_the_order_of_their_imports() -> None:
    listed = re.search(r"onnxruntime is imported: ([a-z_ ]+)$", DESIGN, re.M)
    assert listed is not None
    order = listed[1].split()
    modules = {path.stem: path for path in (ROOT / "service/engine").glob("*.py")}
    assert sorted(order) == sorted(modules.keys() - {"__init__"})
    for place, name in enumerate(order):
        found = re.findall(r"^from service\.engine\.(\w+)", modules[name].read_text(), re.M)
        assert set(found) <= set(order[:place]), name
