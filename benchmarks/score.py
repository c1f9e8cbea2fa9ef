"""Rows a second of `score` with one and two processes, as it was at an older commit (`--against`),
of Spark and of Ray Data, each on the same two cores. All answered the same rows alike before a
number is printed. `score` reads and writes one file, the engines a folder of ten; what was before
gets a tenth of the rows, as CSV.

`rows/s` is of the whole command; `without start` is of what it took beyond the same command with
the fewest rows. Median of the rounds (least to most). Memory is that of all processes at its peak.
"""

import argparse
import inspect
import os
import shlex
import signal
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pyarrow.compute as pc
from msgspec import Struct

from benchmarks.older import checked_out
from benchmarks.processes import ROOT, BenchmarkError
from benchmarks.report import in_turn, machine, ratio, say, spread, table
from benchmarks.score_inputs import FILES, Inputs, images_in, read_back, rows_in
from benchmarks.trees import Ran, ran
from service.batch import Scorer
from service.settings import Settings

AGAINST = "a3de6e6"  # the last commit that scored row by row alone
MODELS = {"iris": "probability", "housing": "value"}  # and a column of the answers
SUFFIXES = (".csv", ".parquet")
ROWS, FEWEST = 10_000_000, 1_000
IMAGES, FEW_IMAGES = 2_000, 10
TOLERANCE = 1e-6  # of a mean: sums of floats in another order
PACKAGES = ("pyarrow", "pyspark", "ray", "onnxruntime", "numpy")
THEN = "row by row, then"
ALONE, TWO = "`score`", "`score --workers 2`"
SPARK, RAY = "Spark, two cores", "Ray Data, two actors"


class Way(Struct, frozen=True):
    """A way to answer rows: a program, given its input and output, and what it reads."""

    program: tuple[str, ...]
    reads: str  # of Inputs
    writes: str  # a suffix, or nothing for a folder
    folder: Path = ROOT

    def run(self, inputs: Inputs, at: Path) -> Ran:
        """Answer rows. Raises BenchmarkError where the program fails."""
        given = {"input": getattr(inputs, self.reads), "output": self.output(at)}
        command = [each.format(**given) for each in self.program]
        return ran(command, folder=self.folder, environment=_environment(self.folder))

    def output(self, at: Path) -> Path:
        """Return where the answers are."""
        return at / f"answers{self.writes}"


def main() -> int:
    """Print the tables as Markdown, and say on stderr what is being run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.score", description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS, help=f"of each table; {ROWS}")
    parser.add_argument("--images", type=int, default=IMAGES, help=f"PNG; {IMAGES}")
    parser.add_argument("--rounds", type=int, default=1, help="of each comparison; 1")
    parser.add_argument(
        "--models", nargs="+", choices=MODELS, default=list(MODELS), help="whose rows; all"
    )
    parser.add_argument("--against", default=AGAINST, help=f"commit; {AGAINST}")
    options = parser.parse_args()
    if options.rows < FEWEST * FILES or options.images <= FEW_IMAGES or options.rounds < 1:
        parser.error(
            f"expected --rows from {FEWEST * FILES}, --images above {FEW_IMAGES}, one round"
        )
    for each in (signal.SIGINT, signal.SIGTERM):  # an exception, so that every program is ended
        signal.signal(each, lambda number, _: sys.exit(128 + number))
    command = shlex.join(["python", "-m", "benchmarks.score", *sys.argv[1:]])
    print(f"{inspect.getdoc(sys.modules[__name__])}\n\n{machine(command, PACKAGES)}\n", flush=True)
    try:
        with tempfile.TemporaryDirectory() as name, checked_out(options.against) as older:
            for block in blocks(options, Path(name), older):
                print(block, end="\n\n", flush=True)
    except BenchmarkError as error:
        say(f"stopped: {error}")
        return 1
    return 0


def blocks(options: argparse.Namespace, folder: Path, older: Path) -> Iterator[str]:
    """Yield a table for each model and format, then that of images."""
    for model in options.models:
        column = MODELS[model]
        names = list(Scorer(model, Settings(models_dir=ROOT / "models")).model.column_names)
        for suffix in SUFFIXES:
            say(f"{model}, {suffix}: makes {options.rows} rows")
            with tempfile.TemporaryDirectory(dir=folder) as name:
                inputs = rows_in(Path(name) / "rows", names, suffix, options.rows)
                few = rows_in(Path(name) / "few", names, suffix, FEWEST)
                yield f"### {model}, {suffix}, {options.rows:,} rows"
                ways = ways_of(model, suffix, older)
                yield of_rows(ways, column, inputs, few, options.rounds)
    yield f"### Images, {options.images:,} PNG of 200 x 200"
    yield of_images(folder, options.images, options.rounds)


def ways_of(model: str, suffix: str, older: Path) -> dict[str, Way]:
    """Return the ways to answer rows of a model."""
    engine = (model, "{input}", suffix[1:], "{output}")
    score = (sys.executable, "-m", "service", "score", model, "{input}", "{output}")
    module = (sys.executable, "-m")
    ways = {
        THEN: Way(score, "first", suffix, older),
        ALONE: Way(score, "file", suffix),
        TWO: Way((*score, "--workers", "2"), "file", suffix),
        SPARK: Way((*module, "benchmarks.rows_in_spark", *engine), "folder", ""),
        RAY: Way((*module, "benchmarks.rows_in_ray", *engine), "folder", ""),
    }
    if suffix != ".csv":
        del ways[THEN]
    return ways


def of_rows(ways: dict[str, Way], column: str, inputs: Inputs, few: Inputs, rounds: int) -> str:
    """Return the table of some rows, answered in each way. Raises BenchmarkError."""
    starts = {name: _answer(name, way, few, column)[0].seconds for name, way in ways.items()}
    means: dict[str, float] = {}

    def run(name: str, way: Way) -> Ran:
        took, means[name] = _answer(name, way, inputs, column)
        return took

    runs = in_turn(rounds, {name: partial(run, name, way) for name, way in ways.items()})
    whole = {name: each for name, each in means.items() if name != THEN}
    if max(whole.values()) - min(whole.values()) > TOLERANCE:
        raise BenchmarkError(f"expected equal answers, got means of {column} of {whole}")
    rates = {
        name: [_rows(ways[name], inputs) / each.seconds for each in took]
        for name, took in runs.items()
    }
    first = THEN if THEN in ways else ALONE
    rows = []
    for name, took in runs.items():
        beyond = _rows(ways[name], inputs) - _rows(ways[name], few)
        seconds = [each.seconds - starts[name] for each in took]
        warm = spread([beyond / each for each in seconds]) if min(seconds) > 0 else "-"
        beside = ratio(rates[name], rates[first])
        memory = spread([each.peak_mb for each in took])
        rows.append([name, spread(rates[name]), beside, warm, memory])
    return table(["", "rows/s", f"to {first}", "without start", "peak MB"], rows)


def _answer(name: str, way: Way, inputs: Inputs, column: str) -> tuple[Ran, float]:
    """Return what it took, and the mean of a column of the answers. Raises BenchmarkError."""
    rows = _rows(way, inputs)
    say(f"{name}: {rows} rows")
    with tempfile.TemporaryDirectory(dir=inputs.file.parent) as at:
        took = way.run(inputs, Path(at))
        answers = read_back(way.output(Path(at)))[column]
    if len(answers) - answers.null_count != rows:
        raise BenchmarkError(f"{name}: expected {rows} answers, got {len(answers)}")
    return took, float(pc.mean(answers).as_py())


def _rows(way: Way, inputs: Inputs) -> int:
    return inputs.rows // FILES if way.reads == "first" else inputs.rows


def of_images(folder: Path, count: int, rounds: int) -> str:
    """Return the table of images."""
    images, few = (
        Inputs(folder / f"{each}.png", images_in(folder / f"{each}.png", each), each)
        for each in (count, FEW_IMAGES)
    )
    score = (sys.executable, "-m", "service", "score", "mnist", "{input}", "{output}")
    ways = {
        ALONE: Way(score, "folder", ".csv"),
        TWO: Way((*score, "--workers", "2"), "folder", ".csv"),
    }
    return of_rows(ways, "probability", images, few, rounds)


def _environment(folder: Path) -> dict[str, str]:
    inherited = {name: text for name, text in os.environ.items() if name[:9] != "TORCHLIT_"}
    return inherited | {
        "PYTHONPATH": str(folder),
        "TORCHLIT_MODELS_DIR": str(ROOT / "models"),
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_LOCAL_IP": "127.0.0.1",
        "RAY_USAGE_STATS_ENABLED": "0",
    }


if __name__ == "__main__":
    sys.exit(main())
