"""`python -m service score MODEL INPUT OUTPUT`: answer each row of a file, as POST /predict would.

    a line -> inputs.row -> a batch -> model.run -> predictions -> a line

What is held in memory is one batch, whatever the size of the file. A file that is read from the
disk and written to it can be stopped in any way: the same command goes on where it was.
"""

import contextlib
import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.metadata import version as version_of
from itertools import product
from pathlib import Path
from time import monotonic
from typing import Any, BinaryIO

import msgspec
from msgspec import Struct

from service.batching import check_rows
from service.catalog.opening import Place, files_of, find, open_tested, sentence
from service.commands.score.output import Mark, Part
from service.commands.score.rows import Bad, CsvRows, JsonRows, Lines, Row
from service.commands.terminal import STDERR, Stdout, say, show
from service.engine.model import Model, check_finite
from service.engine.providers import RUNTIME_VERSION
from service.errors import InferenceFailed, InvalidInput, ModelError, ServiceError
from service.http.platforms.invocations import csv_of
from service.http.request import encode
from service.http.rest.predict import predictions
from service.settings import Settings
from service.settings import machine as resources

CSV, JSON_LINES = "csv", "jsonl"
FORMATS = {".csv": CSV, ".jsonl": JSON_LINES, ".ndjson": JSON_LINES}  # by suffix
PACKED = {".gz", ".zip", ".bz2", ".xz", ".zst", ".parquet", ".xlsx"}

SAVE_EVERY_S = 1.0  # how far it is; as much is computed again after a crash
SHOW_EVERY_S = 0.5

SOME_BAD = 3  # exit status: finished, without the rows that were bad

# What the bytes of the result depend on, by what it is, as the job of a Mark.
Identity = dict[str, str | int | bool]


class CannotScore(ServiceError):
    """The file cannot be scored, or not to its end."""


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
        layout = Layout(formats[1], model, source.kept_names if job.keep else None)
        mark = Mark(job=identity)
        if part is not None:
            stack.enter_context(part)
            mark = _go_on(part, source, identity, force=job.force)
        scoring = Scoring(source, layout, part or Stdout(), mark, strict=job.strict)
        return scoring.run(job.input, place.name)


def _formats(job: Job) -> tuple[str, str]:
    """Return the formats of input and output. Raises CannotScore."""
    suffixes = [Path(each).suffix.lower() for each in (job.input, job.output)]
    instead = ("unpack or convert it before, into - (stdin) too", "write to - (stdout) and pack it")
    for path, suffix, how in zip((job.input, job.output), suffixes, instead, strict=True):
        if suffix in PACKED:
            raise CannotScore(f"{path}: expected CSV or JSON Lines, got {suffix}: {how}")
    said = [FORMATS.get(each) for each in suffixes]
    of_input = said[0] or job.format or said[1]
    of_output = said[1] or job.format or said[0]
    if of_input is None or of_output is None:
        raise CannotScore("--format: expected csv or jsonl, as no file has such a suffix")
    if job.keep and (of_input, of_output) == (JSON_LINES, CSV):
        raise CannotScore("--keep: expected JSON Lines as OUTPUT, as fields are no columns of CSV")
    return of_input, of_output


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
    place: Place, job: Job, formats: tuple[str, str], settings: Settings
) -> tuple[Model, Identity]:
    """Return the model, and all that the bytes of the result depend on but for the input.

    Raises CannotScore for a model that cannot be asked.
    """
    try:
        # The answers may depend on how many threads there are, in their last bit.
        threads = resources.available().threads(1)
        model = open_tested(place.path, place.model, settings, threads, only_slow_in_threads=False)
        files = files_of(place.path)
    except ModelError as error:
        raise CannotScore(sentence(place, error)) from error
    if model.why_no_rows:
        raise CannotScore(
            f"{place.name}: expected one that takes rows of numbers, but {model.why_no_rows}"
        )
    return model, {
        "the model": " ".join(each.sha256 for each in files),
        "the formats": " ".join(formats),
        "--keep": job.keep,
        "--strict": job.strict,
        "TORCHLIT_MAX_BATCH_SIZE": settings.max_batch_size,
        "whether rows are run together": _are_batched(model, settings),
        "TORCHLIT_MAX_BODY_BYTES": settings.max_body_bytes,
        "TORCHLIT_MAX_IMAGE_PIXELS": settings.max_image_pixels,
        "the execution provider": model.provider,
        "the number of threads": model.threads,
        "torchlit": version_of("torchlit"),
        "ONNX Runtime": RUNTIME_VERSION,
        "Pillow": version_of("pillow"),
    }


def _are_batched(model: Model, settings: Settings) -> bool:
    """Whether rows are run together: not where a whole batch was not tried, or must not be.

    Of a model with large rows the largest batch depends on the machine, and answers in their last
    bit on the batch.
    """
    return model.is_batched and model.largest_batch == settings.max_batch_size


class Source:
    """The rows of the input. `lines` says how much of it was read."""

    def __init__(
        self, file: BinaryIO, format: str, model: Model, settings: Settings, *, keep: bool
    ) -> None:
        """Read the header, if there is one. Raises InvalidInput for one that does not fit."""
        status = os.fstat(file.fileno())
        self.model = model
        self.batch_size = settings.max_batch_size if _are_batched(model, settings) else 1
        self.is_file = stat.S_ISREG(status.st_mode)
        self._start = file.tell() if self.is_file else 0  # others may have read of it before
        self.size = status.st_size - self._start if self.is_file else 0  # bytes
        self._file = file
        self._longest = settings.max_body_bytes
        self._max_image_pixels = settings.max_image_pixels
        self._format, self._keep = format, keep
        self._begin()

    def _begin(self) -> None:
        self.lines = Lines(self._file, self._longest, self._start)
        self.kept_names: list[str] = []
        self.rows: CsvRows | JsonRows
        if self._format == CSV:
            self.rows = CsvRows(self.lines, self.model)
            self.kept_names = self.rows.kept_names
        else:
            self.rows = JsonRows(
                self.lines, self.model, keep=self._keep, max_image_pixels=self._max_image_pixels
            )

    @property
    def has_header(self) -> bool:
        """Whether the input says what its columns are, so that no rows are an answer too."""
        return isinstance(self.rows, CsvRows) and self.rows.has_header

    def pass_to(self, mark: Mark) -> bool:
        """Read up to a mark; if that is not what was read then, read from the beginning again."""
        if not self.is_file:
            return False
        self.lines.pass_to(mark.lines, mark.input_bytes)
        if self.lines.sha256.hexdigest() == mark.input_sha256:
            return True
        self._file.seek(self._start)
        self._begin()
        return False


def _go_on(part: Part, source: Source, identity: Identity, *, force: bool) -> Mark:
    """Go on where the same job was stopped, else begin; return how far it is.

    Raises CannotScore where that would cost what another job has done, unless `force`.
    """
    found = part.mark()
    if found is None:
        part.begin()
        return Mark(job=identity)
    changed = [what for what, value in identity.items() if found.job.get(what) != value]
    if not changed and source.pass_to(found):
        part.go_on(found.output_bytes)
        say(f"goes on after line {found.lines}")
        return found
    what = " and ".join(changed or ["the input"])
    if not force:
        raise CannotScore(
            f"{part.path}: holds {found.rows} rows of a job that was stopped, but {what} changed "
            "since: set that back to go on, choose another OUTPUT, or begin anew with --force"
        )
    say(f"begins anew, as {what} changed")
    part.begin()
    return Mark(job=identity)


class Layout:
    """How answers become bytes."""

    def __init__(self, format: str, model: Model, kept: list[str] | None) -> None:
        """Take the names of the columns that are kept, None if nothing is.

        Raises CannotScore where two columns, or two fields of JSON, would have the same name.
        """
        self._is_csv = format == CSV
        self._kept = kept
        self._names = ["line", *(kept or ()), *_columns(model)] if self._is_csv else []
        if self._is_csv:
            _check("column", self._names, "rename one, or write JSON Lines (.jsonl)")
        else:
            _check("column", kept or (), "rename one in INPUT")
            own = ["line"] if kept is None else ["line", "kept"]
            _check("field", own + _fields(model), "rename that output of the model")

    def head(self) -> bytes:
        """Return what stands before all answers."""
        return csv_of([{"names": self._names}]) if self._is_csv else b""

    def lines(self, rows: Sequence[Row], answers: Sequence[dict[str, Any]]) -> bytes:
        """Return a line for each row and its answer."""
        if not self._is_csv:
            return b"".join(
                encode({"line": row.line, **self._kept_of(row), **answer}) + b"\n"
                for row, answer in zip(rows, answers, strict=True)
            )
        return csv_of(
            [
                {"line": row.line, "kept": [] if self._kept is None else row.kept, "is": answer}
                for row, answer in zip(rows, answers, strict=True)
            ]
        )

    def _kept_of(self, row: Row) -> dict[str, Any]:
        if self._kept is None:
            return {}
        if isinstance(row.kept, list):
            return {"kept": dict(zip(self._kept, row.kept, strict=True))}
        return {"kept": row.kept}


def _check(what: str, names: Sequence[str], advice: str) -> None:
    """Raise CannotScore if a name comes twice."""
    for name, count in Counter(names).items():
        if count > 1:
            raise CannotScore(
                f"OUTPUT: {what} {name!r}: expected one of that name, got {count}: {advice}"
            )


def _fields(model: Model) -> list[str]:
    """Return the names of a prediction's fields that are the model's to choose."""
    card = model.card
    if card is None:
        return [output.name for output in model.outputs]
    return [target.name for target in card.targets] if len(card.targets) > 1 else []


def _columns(model: Model) -> list[str]:
    """Return the names of what `csv_of` makes of a prediction. Raises CannotScore."""
    card = model.card
    if card is None:
        outputs = model.trial.outputs
        return [name for output in outputs for name in _places(output.name, output.shape[1:])]
    if card.labels:
        return ["label", "probability", *card.labels]
    of_one = ["value", "lower", "upper"] if card.interval else ["value"]
    if len(card.targets) == 1:
        return of_one
    targets = [target.name for target in card.targets]
    if not card.interval:
        return targets
    return [f"{target}.{name}" for target in targets for name in of_one]


def _places(name: str, shape: tuple[int, ...]) -> list[str]:
    """Return a name for each number of an output: `y`, or `y[0][0]` and so on."""
    if -1 in shape:
        raise CannotScore(f"output {name}: expected a shape for CSV, got an open one: use .jsonl")
    places = product(*map(range, shape))
    return [name + "".join(f"[{index}]" for index in place) for place in places]


class Scoring:
    """The way from the first batch to the last."""

    def __init__(
        self, source: Source, layout: Layout, output: Part | Stdout, mark: Mark, *, strict: bool
    ) -> None:
        """Take the finished parts; `mark` is where source and output are."""
        self._source = source
        self._model = source.model
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
            if not (self._mark.rows or self._bad or self._source.has_header):
                raise InvalidInput(f"{input}: expected a line for each instance, got none")
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
        lines = self._source.lines
        self._mark = msgspec.structs.replace(
            self._mark,
            input_sha256=lines.sha256.hexdigest(),
            input_bytes=lines.offset,
            lines=lines.number,
            rows=self._mark.rows + len(answered),
            bad=self._bad,
        )
        if self._resumable is not None and monotonic() - self._saved >= SAVE_EVERY_S:
            self._resumable.save(self._mark)
            self._saved = monotonic()
        self._progress.show(self._mark)

    def _predict(self, batch: list[Row]) -> list[tuple[Row, dict[str, Any]]]:
        """Return rows with their predictions; those that the model fails on are bad ones."""
        model = self._model
        try:
            outputs = model.run([model.rows_of([row.numbers for row in batch])])
            check_rows(outputs, len(batch))
            check_finite(outputs)
        except InferenceFailed as error:
            if len(batch) == 1:
                (row,) = batch
                self._refuse(Bad(row.line, f"line {row.line}: {error}"))
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


class Progress:
    """How far it is, on a terminal."""

    def __init__(self, size: int, before: int) -> None:
        """Take the size of the input in bytes, 0 if it is not known, and rows of another run."""
        self._size = size
        self._before = self._rows = before
        self._on_terminal = os.isatty(STDERR)
        self._began = self._shown = monotonic()

    def show(self, mark: Mark) -> None:
        """Show it, if it was not shown just now."""
        self._rows = mark.rows
        if not self._on_terminal or monotonic() - self._shown < SHOW_EVERY_S:
            return
        self._shown = monotonic()
        share = f"{mark.input_bytes / self._size:4.0%}, " if self._size else ""
        show(f"\r\033[K{share}{mark.rows} rows{self.pace}")

    def clear(self) -> None:
        """Leave the line to others."""
        if self._on_terminal:
            show("\r\033[K")

    @property
    def pace(self) -> str:
        """How fast it was until now; nothing if that is too short to say."""
        seconds = monotonic() - self._began
        return f", {(self._rows - self._before) / seconds:.0f} a second" if seconds > 1 else ""
