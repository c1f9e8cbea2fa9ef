"""`python -m service score MODEL INPUT OUTPUT`: answer each row of a file, as POST /predict would.

    a line -> a row -> a batch -> the model -> predictions -> a line

What is held in memory is one batch, whatever the size of the file. A file that is read from the
disk and written to it can be stopped in any way: the same command goes on where it was.
"""

import contextlib
import os
from collections.abc import Iterator
from importlib.metadata import version as version_of
from pathlib import Path
from time import monotonic
from typing import Any, BinaryIO, TypeAlias

import msgspec
from msgspec import Struct

from service.catalog.opening import open_tested
from service.catalog.place import Place, files_of, find, sentence
from service.commands.score.layout import Layout
from service.commands.score.output import Mark, Part
from service.commands.score.progress import Progress
from service.commands.score.rows import Source, are_batched
from service.commands.terminal import Stdout, say
from service.engine.model import Model
from service.engine.providers import RUNTIME_VERSION
from service.errors import (
    CannotScore,
    InferenceFailed,
    InvalidInput,
    ModelError,
    ServiceError,
    UnknownValue,
)
from service.formats.lines import Bad, Row
from service.formats.predictions import predictions
from service.formats.registry import BY_SUFFIX, CSV, FORMATS, JSON_LINES, Format
from service.inference import run_rows
from service.settings import Settings, machine

COMPRESSED = {".gz", ".zip", ".bz2", ".xz", ".zst", ".parquet", ".xlsx"}
SAVE_EVERY_S = 1.0  # how far it is; as much is computed again after a crash
SOME_BAD = 3  # exit status: finished, without the rows that were bad

# What the bytes of the result depend on, by what it is, as the job of a Mark.
Identity: TypeAlias = dict[str, str | int | bool]

_BY_NAME = {format.name: format for format in FORMATS if format.rows is not None}
*_SOME, _LAST = _BY_NAME
_NAMES = f"{', '.join(_SOME)} or {_LAST}"


class Job(Struct, frozen=True, kw_only=True):
    """What the command line says."""

    model: str
    input: str
    output: str
    format: str | None = None
    keep: bool = False
    strict: bool = False
    force: bool = False


def score(job: Job, settings: Settings) -> int:
    """Score a file; return the exit status: 3 if rows were bad, which are left out.

    Raises ServiceError, BrokenPipeError when nobody reads stdout any more, and KeyboardInterrupt,
    which says so if the same job would go on.
    """
    formats = _formats(job)
    part = None if job.output == "-" else Part(Path(job.output), force=job.force)
    if part is not None:
        part.check()
    with _open_input(job, part) as file, contextlib.ExitStack() as stack:
        place = find(job.model, settings)
        model, identity = _open_model(place, job, formats, settings)
        source = Source(file, formats[0], model, settings, keep=job.keep)
        layout = Layout(formats[1], model, source.rows.kept_names if job.keep else None)
        mark = Mark(job=identity)
        if part is not None:
            stack.enter_context(part)
            mark = _go_on(part, source, mark, force=job.force)
        scoring = Scoring(source, layout, part or Stdout(), mark, strict=job.strict)
        return scoring.run(job.input, place.name)


def _formats(job: Job) -> tuple[Format, Format]:
    """Return the formats of input and output. Raises CannotScore."""
    suffixes = [Path(each).suffix.lower() for each in (job.input, job.output)]
    instead = (
        "decompress or convert it before, into - (stdin) too",
        "write to - (stdout) and compress it",
    )
    for path, suffix, how in zip((job.input, job.output), suffixes, instead, strict=True):
        if suffix in COMPRESSED:
            raise CannotScore(f"{path}: expected CSV or JSON Lines, got {suffix}: {how}")
    of_input, of_output = (BY_SUFFIX.get(each) for each in suffixes)
    if job.format is not None and job.format not in _BY_NAME:
        raise CannotScore(f"--format: expected {_NAMES}, got {job.format!r}")
    said = _BY_NAME.get(job.format or "")
    source = of_input or said or of_output
    result = of_output or said or of_input
    if result is not None and result not in (CSV, JSON_LINES):  # others are of input alone
        result = JSON_LINES
    if source is None or result is None:
        raise CannotScore(f"--format: expected {_NAMES}, as no file has such a suffix")
    if job.keep and source is not CSV and result is CSV:
        raise CannotScore("--keep: expected JSON Lines as OUTPUT, as fields are no columns of CSV")
    return source, result


@contextlib.contextmanager
def _open_input(job: Job, part: Part | None) -> Iterator[BinaryIO]:
    """Yield the input. Raises CannotScore where it cannot be read, then and later."""
    try:
        is_stdin = job.input == "-"
        with open(0 if is_stdin else job.input, "rb", closefd=not is_stdin) as file:
            status = os.fstat(file.fileno())
            for path in part.files if part is not None else ():
                if path.exists() and os.path.samestat(status, path.stat()):
                    raise CannotScore(f"{path}: expected another file than the one that is read")
            yield file
    except BrokenPipeError:
        raise
    except OSError as error:
        raise CannotScore(f"{job.input}: cannot be read: {error.strerror}") from error


def _open_model(
    place: Place, job: Job, formats: tuple[Format, Format], settings: Settings
) -> tuple[Model, Identity]:
    """Return the model, and all that the bytes of the result depend on but for the input.

    Raises CannotScore for a model that takes no rows.
    """
    try:
        # The answers may depend on how many threads there are, in their last bit.
        threads = machine.available().threads(1)
        model = open_tested(place.path, place.model, settings, threads, only_slow_in_threads=False)
        files = files_of(place.path)
    except ModelError as error:
        raise CannotScore(sentence(place, error)) from error
    if model.why_no_rows:
        raise CannotScore(f"{place.name}: expected one that takes rows, but {model.why_no_rows}")
    return model, {
        "the model": " ".join(each.sha256 for each in files),
        "the formats": " ".join(each.name for each in formats),
        "--keep": job.keep,
        "--strict": job.strict,
        "TORCHLIT_MAX_BATCH_SIZE": settings.max_batch_size,
        "whether rows are run together": are_batched(model, settings),
        "what may be missing": " ".join(sorted(model.takes_missing)),
        "TORCHLIT_MAX_BODY_BYTES": settings.max_body_bytes,
        "TORCHLIT_MAX_IMAGE_PIXELS": settings.max_image_pixels,
        "the execution provider": model.provider,
        "the number of threads": model.threads,
        "torchlit": version_of("torchlit"),
        "ONNX Runtime": RUNTIME_VERSION,
        "Pillow": version_of("pillow"),
    }


def _go_on(part: Part, source: Source, new: Mark, *, force: bool) -> Mark:
    """Go on where the same job was stopped, else begin at `new`; return how far it is.

    Raises CannotScore where that would cost what another job has done, unless `force`.
    """
    if found := part.mark():
        changed = [what for what, value in new.job.items() if found.job.get(what) != value]
        if not changed and source.pass_to(found):
            part.go_on(found.output_bytes)
            say(f"goes on after {source.rows.unit} {found.lines}")
            return found
        what = " and ".join(changed or ["the input"])
        if not force:
            raise CannotScore(
                f"{part.path}: holds {found.rows} rows of a job that was stopped, but {what} "
                "changed since: set that back to go on, choose another OUTPUT, or begin anew with "
                "--force"
            )
        say(f"begins anew, as {what} changed")
    part.begin()
    return new


class Scoring:
    """The way from the first batch to the last."""

    def __init__(
        self, source: Source, layout: Layout, output: Part | Stdout, mark: Mark, *, strict: bool
    ) -> None:
        """Take the finished parts; `mark` is where source and output are."""
        self._source = source
        self._layout = layout
        self._output = output
        self._strict = strict
        self._resumable = output if isinstance(output, Part) and source.is_file else None
        self._mark = mark
        self._bad = mark.bad
        self._saved = monotonic()
        self._progress = Progress(source.size, mark.rows)

    def run(self, input: str, name: str) -> int:
        """Answer all rows; return the exit status. Raises what `score` raises."""
        try:
            self._answer_all()
            rows = self._source.rows
            if not (self._mark.rows or self._bad):
                raise InvalidInput(f"{input}: expected a {rows.unit} for each instance, got none")
            if isinstance(self._output, Part):
                self._output.finish()
        except KeyboardInterrupt:
            raise KeyboardInterrupt(*(["run it again to go on"] if self._leave() else [])) from None
        except BaseException:
            self._leave()
            raise
        finally:
            self._progress.clear()
        left_out = f"; bad rows left out: {self._bad}" if self._bad else ""
        say(f"{self._mark.rows} rows scored with {name}{self._progress.pace}{left_out}")
        return SOME_BAD if self._bad else 0

    def _answer_all(self) -> None:
        if not self._mark.output_bytes:
            self._write(self._layout.head())
        batch: list[Row] = []
        taken = 0  # rows since the last mark; also bad ones, as a file may have no others
        for each in self._source.rows:
            taken += 1
            if isinstance(each, Bad):
                self._refuse(each)
            else:
                batch.append(each)
            if taken == self._source.batch_size:
                self._answer(batch)
                batch, taken = [], 0
        self._answer(batch)

    def _answer(self, batch: list[Row]) -> None:
        """Answer a batch, which ends where the source is, and say how far it is."""
        answered = self._predict(batch) if batch else []
        self._write(
            self._layout.lines([row for row, _ in answered], [answer for _, answer in answered])
        )
        tape = self._source.tape
        self._mark = msgspec.structs.replace(
            self._mark,
            input_sha256=tape.sha256.hexdigest(),
            input_bytes=tape.offset,
            lines=tape.number,
            rows=self._mark.rows + len(answered),
            bad=self._bad,
        )
        if self._resumable is not None and monotonic() - self._saved >= SAVE_EVERY_S:
            self._resumable.save(self._mark)
            self._saved = monotonic()
        self._progress.show(self._mark)

    def _predict(self, batch: list[Row]) -> list[tuple[Row, dict[str, Any]]]:
        """Return rows with their predictions; those that the model fails on are bad ones."""
        model = self._source.model
        try:
            outputs = run_rows(model, model.rows_of([row.values for row in batch]))
        except (InferenceFailed, UnknownValue) as error:
            if len(batch) == 1:
                (row,) = batch
                self._refuse(Bad(row.line, f"{self._source.rows.unit} {row.line}: {error}"))
                return []
            return [answered for row in batch for answered in self._predict([row])]
        answers = predictions(model, outputs)
        return list(zip(batch, answers, strict=True))

    def _refuse(self, bad: Bad) -> None:
        if self._strict:
            raise CannotScore(bad.why)
        self._bad += 1
        self._progress.clear()
        say(bad.why)

    def _write(self, data: bytes) -> None:
        self._output.write(data)
        self._mark = msgspec.structs.replace(
            self._mark, output_bytes=self._mark.output_bytes + len(data)
        )

    def _leave(self) -> bool:
        """Keep what can be gone on with, and nothing else; return whether anything was kept."""
        if self._resumable is not None and (self._mark.rows or self._mark.bad):
            with contextlib.suppress(ServiceError):
                self._resumable.save(self._mark)
            return True
        if isinstance(self._output, Part):
            self._output.drop()
        return False
