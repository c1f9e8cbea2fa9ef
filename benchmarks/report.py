"""What is printed: facts about the machine, numbers with their spread, tables, notes."""

import math
import platform
import re
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

from benchmarks.processes import ALL_CORES

PACKAGES = (
    *("uvicorn", "uvloop", "httptools", "litestar", "msgspec", "pysimdjson", "numpy"),
    *("onnxruntime", "fastapi", "pydantic"),
)

Key = TypeVar("Key")
Result = TypeVar("Result")


def say(text: str) -> None:
    """Say on stderr what is being run."""
    print(text, file=sys.stderr, flush=True)


def in_turn(rounds: int, measures: Mapping[Key, Callable[[], Result]]) -> dict[Key, list[Result]]:
    """Call each measure once a round: the machine's own speed drifts, and so hits all alike."""
    results: dict[Key, list[Result]] = {key: [] for key in measures}
    for _ in range(rounds):
        for key, measure in measures.items():
            results[key].append(measure())
    return results


def spread(values: Sequence[float], digits: int = 0) -> str:
    """Return the median of the rounds, with the least and the most if there are several."""
    median = f"{statistics.median(values):,.{digits}f}"
    if len(values) == 1:
        return median
    return f"{median} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


def ratio(ours: Sequence[float], theirs: Sequence[float], target: str = "") -> str:
    """Return the ratio of each round's two numbers, as `spread` does, beside its target."""
    each = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    return spread(each, 2) + (f"; target {target}" if target else "")


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that is at least as large as `share` (0 to 1) of them."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table: the first column to the left, numbers to the right."""
    rule = ["---"] + ["---:"] * (len(header) - 1)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *rows))


def facts(command: str) -> str:
    """Return what the numbers depend on, as a list; no date."""
    wrk = subprocess.run(["wrk", "-v"], capture_output=True, text=True).stdout.split(" [")[0]
    return machine(command, PACKAGES, wrk)


def machine(command: str, packages: Sequence[str], *programs: str) -> str:
    """Return what the numbers of a command depend on, as a list."""
    model = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    processor = model[1] if model else platform.machine()
    return (
        f"- Machine: {processor}, {len(ALL_CORES)} cores, Linux {platform.release()}\n"
        f"- {', '.join([f'Python {platform.python_version()}', *programs])}\n"
        f"- Packages: {', '.join(f'{each} {version(each)}' for each in packages)}\n"
        f"- Command: `{command}`"
    )


def notes(text: str, part: str) -> str:
    """Return what was written by hand below "## part" in `text`; empty if nothing was."""
    found = re.search(rf"^## {re.escape(part)}$(.*?)(?=^## |\Z)", text, re.M | re.S)
    return found[1].strip() if found else ""
