"""`python -m service score`: which way the rows of a job go.

In columns, where INPUT is CSV, Parquet, Arrow or images, and OUTPUT one of the first three. Row by
row, where one of them is JSON Lines or MessagePack, and from CSV to CSV without pyarrow.
"""

from importlib.util import find_spec
from pathlib import Path

from service.commands.interrupts import no_interrupt
from service.commands.score.columns.processes import Processes
from service.commands.score.options import Job
from service.commands.score.suffixes import (
    BY_NAME,
    CSV,
    IMAGES,
    KINDS,
    Kind,
    files_in,
    is_several,
    kind_of,
    suffix_of,
)
from service.errors import CannotScore
from service.formats.registry import BY_SUFFIX, FORMATS
from service.settings import Settings

_COMPRESSED = {".gz", ".zip", ".bz2", ".xz", ".zst", ".xlsx"}
_BY_ROWS = {each.name: each for each in FORMATS if each.rows is not None}
*_SOME, _LAST = sorted({*_BY_ROWS, *BY_NAME})
_NAMES = f"{', '.join(_SOME)} or {_LAST}"
_ON_STDOUT = {"parquet": "csv", "arrow": "arrows"}  # their end cannot be written before the rest


def score(job: Job, settings: Settings) -> int:
    """Score files; return the exit status: 3 if rows were bad, which are left out.

    Raises ServiceError, BrokenPipeError when nobody reads stdout any more, and KeyboardInterrupt,
    which says so if the same job would go on.
    """
    source, result = _formats(job)
    if source in _BY_ROWS and (result in ("jsonl", "msgpack") or source != CSV.name):
        return _row_by_row(job, source, result, settings)
    if result not in BY_NAME:
        raise CannotScore(f"{job.output}: expected CSV, Parquet or Arrow, as INPUT is {source}")
    if find_spec("pyarrow") is None:
        return _without_pyarrow(job, source, result, settings)
    if job.cluster is not None and find_spec("ray") is None:
        raise CannotScore("--on: expected Ray: install the extra ray")
    with Processes(1 if job.cluster else job.processes) as processes:  # they import while we do
        return _in_columns(job, source, result, settings, processes)


def _in_columns(
    job: Job, source: str, result: str, settings: Settings, processes: Processes
) -> int:
    with no_interrupt():
        from service.commands.score.columns.job import Plan, score_in_columns

    suffix = suffix_of(job.output)
    plan = Plan(
        model=job.model,
        input=job.input,
        output=job.output,
        input_kind=_kind(source),
        output_kind=BY_NAME[result],
        output_suffix=suffix if suffix in BY_NAME[result].suffixes else BY_NAME[result].suffixes[0],
        is_several=is_several(job.input),
        is_folder=_is_folder(job, source),
        workers=job.processes,
        on=job.cluster,
        keep=job.keep,
        strict=job.strict,
        force=job.force,
    )
    return score_in_columns(plan, settings, processes)


def _formats(job: Job) -> tuple[str, str]:
    """Return the formats of input and output, by their names. Raises CannotScore."""
    instead = (
        "decompress or convert it before, into - (stdin) too",
        "write to - (stdout) and compress or convert it",
    )
    for path, how in zip((job.input, job.output), instead, strict=True):
        if not path:  # the folder where it runs, to Path
            raise CannotScore("INPUT and OUTPUT: expected paths, or -, got ''")
        suffix = Path(path).suffix.lower()
        if suffix in _COMPRESSED and kind_of(path) is None and not is_several(path):
            expected = "expected CSV, JSON Lines, Parquet or Arrow"
            raise CannotScore(f"{path}: {expected}, got {suffix}: {how}")
    if job.format is not None and job.format not in {*_BY_ROWS, *BY_NAME}:
        raise CannotScore(f"--format: expected {_NAMES}, got {job.format!r}")
    of_input, of_output = _of_input(job.input), _of(job.output)
    source = of_input or job.format or of_output
    result = of_output or job.format or of_input
    if source is None or result is None:
        raise CannotScore(f"--format: expected {_NAMES}, as no file has such a suffix")
    if result == IMAGES.name:
        if of_output is not None:
            raise CannotScore(f"{job.output}: expected a table, got images")
        result = CSV.name
    if job.output == "-" and result in _ON_STDOUT:
        if result == job.format and of_input is not None:
            raise CannotScore(
                f"--format: expected csv or arrows for stdout, got {result}, which has to be a file"
            )
        result = _ON_STDOUT[result]
    return source, result


def _of_input(input: str) -> str | None:
    """Return the format of INPUT, None where no suffix says it. Raises CannotScore."""
    if not is_several(input):
        return _of(input)
    found = next(iter(files_in(input)), None)
    if found is None:
        raise CannotScore(f"{input}: expected files of CSV, Parquet, Arrow or images, got none")
    return found.kind.name


def _of(path: str) -> str | None:
    """Return the format of a file, None where its suffix says none."""
    if kind := kind_of(path):
        return kind.name
    format = BY_SUFFIX.get(Path(path).suffix.lower())
    return None if format is None else format.name


def _kind(name: str) -> Kind:
    return next(each for each in KINDS if each.name == name)


def _is_folder(job: Job, source: str) -> bool:
    """Whether OUTPUT is to be a folder: of tables, where no suffix says that they become one."""
    is_table = source != IMAGES.name
    return is_table and is_several(job.input) and job.output != "-" and _of(job.output) is None


def _row_by_row(job: Job, source: str, result: str, settings: Settings) -> int:
    if result not in _BY_ROWS:
        raise CannotScore(f"{job.output}: expected CSV or JSON Lines, as INPUT is {source}")
    if is_several(job.input):
        raise CannotScore(f"{job.input}: expected one file, as OUTPUT is {result}")
    if kind_of(job.input) == CSV and suffix_of(job.input) != ".csv":
        raise CannotScore(f"{job.output}: expected CSV, Parquet or Arrow, as INPUT is compressed")
    if suffix_of(job.output) in CSV.suffixes[1:]:
        raise CannotScore(f"{job.output}: expected CSV or JSON Lines that is not compressed")
    if job.cluster is not None:
        raise CannotScore(f"--on: expected CSV, Parquet or Arrow as OUTPUT, got {result}")
    if job.processes > 1:
        raise CannotScore(f"--workers: expected 1 from {source} to {result}, got {job.workers}")
    if result != CSV.name:  # others are of input alone
        result = "jsonl"
    if job.keep and source != CSV.name and result == CSV.name:
        raise CannotScore("--keep: expected JSON Lines as OUTPUT, as fields are no columns of CSV")
    with no_interrupt():
        from service.commands.score.job import score_by_rows

    return score_by_rows(job, (_BY_ROWS[source], _BY_ROWS[result]), settings)


def _without_pyarrow(job: Job, source: str, result: str, settings: Settings) -> int:
    """Score row by row what can be. Raises CannotScore."""
    for path, format in ((job.input, source), (job.output, result)):
        is_plain = format == CSV.name and suffix_of(path) not in CSV.suffixes[1:]
        if not is_plain or is_several(path):
            what = suffix_of(path) or format
            raise CannotScore(f"{path}: expected pyarrow for {what}: install the extra batch")
    if job.cluster is not None:
        raise CannotScore("--on: expected pyarrow: install the extra batch")
    if job.processes > 1:
        raise CannotScore("--workers: expected pyarrow for several: install the extra batch")
    return _row_by_row(job, source, result, settings)
