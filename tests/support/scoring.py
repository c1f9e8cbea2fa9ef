"""Files that `score` reads and writes."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

NAMES = ["a", "b", "c", "d"]
ROWS = [[1.5, 2, 3, 4], [0, -1, 2.25, 1e-3], [3, 1, 0, 0], [1, 1, 1, 1], [9, 8, 7, 6], [2, 0, 1, 0]]

Run: TypeAlias = Callable[..., tuple[int, str]]  # score; give the exit status and stderr
Become: TypeAlias = Callable[[int, int], None]  # let a file be one of the standard streams


def csv_text(rows: list[list[Any]], header: list[str] | None = None) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(([header] if header else []) + rows)
    return text.getvalue()


def table(path: str) -> list[list[str]]:
    with open(path, newline="") as file:
        return list(csv.reader(file))


def values(path: str) -> list[list[Any]]:
    """The cells of a table, as numbers where they are."""
    return [[_value(cell) for cell in row] for row in table(path)]


def _value(cell: str) -> float | str:
    try:
        return float(cell)
    except ValueError:
        return cell


def json_lines(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]
