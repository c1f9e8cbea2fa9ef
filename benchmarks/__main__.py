"""Measure the service and its rivals; print Markdown, and say on stderr what is being run."""

import argparse
import inspect
import os
import resource
import shlex
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from benchmarks import (
    binary,
    burst,
    compute,
    grpc,
    metrics,
    older,
    report,
    requests,
    scaling,
    shadow,
    slow,
    start,
    workers,
)
from benchmarks.processes import ALL_CORES, BenchmarkError

PARTS = {
    module.__name__.rpartition(".")[2]: module
    for module in (
        requests,
        older,
        binary,
        grpc,
        burst,
        compute,
        slow,
        shadow,
        metrics,
        start,
        workers,
        scaling,
    )
}
NOTES = Path(__file__).parent / "NOTES.md"
OPEN_FILES = 8192  # of a server, and of wrk, with 1,024 connections


def main() -> int:
    """Run the parts asked for; return the exit status: 1 if a part stopped."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)}; all")
    parser.add_argument("--rounds", type=int, default=3, help="of each comparison; 3")
    parser.add_argument("--seconds", type=int, default=3, help="of each measurement; 3")
    parser.add_argument(
        "--against", default=older.AGAINST, help=f"commit of the part `older`; {older.AGAINST}"
    )
    parser.add_argument("--output", type=Path, help="also write the Markdown to this file")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"part: expected one of {', '.join(PARTS)}, got {', '.join(unknown)}")
    if options.rounds < 1 or options.seconds < 1:
        parser.error("--rounds, --seconds: expected at least 1")
    if shutil.which("wrk") is None or len(ALL_CORES) < 2:
        parser.error("expected wrk (a Debian package) and two cores to run on")
    for each in (signal.SIGINT, signal.SIGTERM):  # an exception, so that every server is ended
        signal.signal(each, lambda number, _: sys.exit(128 + number))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = OPEN_FILES if most == resource.RLIM_INFINITY else min(OPEN_FILES, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, most))

    blocks: list[str] = []

    def emit(block: str) -> None:
        blocks.append(block)
        print(block, end="\n\n", flush=True)

    command = shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]])
    emit(f"# Results\n\n{report.facts(command)}")
    runs = {name: part.run for name, part in PARTS.items()}
    runs["older"] = partial(older.run, against=options.against)
    whole = [
        measure(name, runs[name](options.rounds, options.seconds), emit)
        for name in options.parts or PARTS
    ]
    if options.output is not None:
        beside = options.output.with_name(options.output.name + ".new")
        beside.write_text("\n\n".join(blocks) + "\n")
        os.replace(beside, options.output)
    return 0 if all(whole) else 1


def measure(name: str, tables: Iterable[str], emit: Callable[[str], None]) -> bool:
    """Emit a part's tables, each when it is finished, then its notes; whether it came to its end.

    A part that stops keeps the tables it has, and the next part runs.
    """
    emit(f"## {name}\n\n{inspect.getdoc(PARTS[name])}")
    stopped = None
    try:
        for table in tables:
            emit(table)
    except BenchmarkError as error:
        stopped = str(error)
    except Exception as error:
        traceback.print_exc()
        stopped = f"{type(error).__name__}: {error}"
    if stopped is not None:
        report.say(f"{name} stopped: {stopped}")
        emit(f"**This part stopped:** {stopped}")
    if notes := report.notes(NOTES.read_text(), name):
        emit(notes)
    return stopped is None


if __name__ == "__main__":
    sys.exit(main())
