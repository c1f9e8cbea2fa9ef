"""`python -m service score MODEL INPUT OUTPUT`: answer each row of a file, as POST /predict would.

    a line -> a row -> a batch -> the model -> predictions -> a line

What is held in memory is one batch, whatever the size of the file. A file that is read from the
disk and written to it can be stopped in any way: the same command goes on where it was.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from service.catalog.opening import open_tested
from service.catalog.place import Place, find, sentence
from service.commands.score.identity import Identity, identity_of
from service.commands.score.layout import Layout
from service.commands.score.options import Job
from service.commands.score.output import Mark, Part
from service.commands.score.rows import Source
from service.commands.score.scoring import Scoring, go_on
from service.commands.score.whole import open_whole
from service.commands.terminal import Stdout
from service.engine.model import Model
from service.errors import (
    CannotScore,
    InferenceFailed,
    ModelError,
    UnknownValue,
)
from service.formats.lines import Bad, Row
from service.formats.predictions import predictions
from service.formats.registry import Format
from service.inference import run_rows
from service.settings import Settings, machine


def score_by_rows(job: Job, formats: tuple[Format, Format], settings: Settings) -> int:
    """Score a file of a format into one; return the exit status. Raises as command.score."""
    part = None if job.output == "-" else Part(Path(job.output), force=job.force)
    if part is not None:
        part.check()
    with _open_input(job, part) as file, contextlib.ExitStack() as stack:
        place = find(job.model, settings)
        model, identity = _open_model(place, job, formats, settings)
        source = Source(file, formats[0], model, settings, keep=job.keep)
        layout = Layout(formats[1], model, source.rows.kept_names if job.keep else None)
        mark = Mark(job=identity)
        unit = source.rows.unit
        if part is not None:
            stack.enter_context(part)
            mark = go_on(part, source.pass_to, unit, mark, force=job.force)
        scoring = Scoring(
            part or Stdout(),
            mark,
            source.size,
            is_resumable=source.is_file,
            strict=job.strict,
        )
        return scoring.run(Rows(source, layout, scoring).answer, job.input, unit, place.name)


@contextlib.contextmanager
def _open_input(job: Job, part: Part | None) -> Iterator[BinaryIO]:
    """Yield the input. Raises CannotScore where it cannot be read, then and later."""
    try:
        is_stdin = job.input == "-"
        with open_whole(0 if is_stdin else job.input) as file:
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
    except ModelError as error:
        raise CannotScore(sentence(place, error)) from error
    names = " ".join(each.name for each in formats)
    identity = identity_of(model, settings, formats=names, keep=job.keep, strict=job.strict)
    if model.why_no_rows:
        raise CannotScore(f"{place.name}: expected one that takes rows, but {model.why_no_rows}")
    return model, identity


class Rows:
    """The way from the first batch to the last."""

    def __init__(self, source: Source, layout: Layout, scoring: Scoring) -> None:
        """Take the finished parts."""
        self._source = source
        self._layout = layout
        self._scoring = scoring

    def answer(self) -> None:
        """Answer all rows. Raises what `score` raises."""
        if not self._scoring.written:
            self._scoring.write(self._layout.head())
        batch: list[Row] = []
        taken = 0  # rows since the last mark; also bad ones, as a file may have no others
        for each in self._source.rows:
            taken += 1
            if isinstance(each, Bad):
                self._scoring.refuse(each.why)
            else:
                batch.append(each)
            if taken == self._source.batch_size:
                self._answer(batch)
                batch, taken = [], 0
        self._answer(batch)

    def _answer(self, batch: list[Row]) -> None:
        """Answer a batch, which ends where the source is, and say how far it is."""
        answered = self._predict(batch) if batch else []
        lines = self._layout.lines([row for row, _ in answered], [each for _, each in answered])
        self._scoring.write(lines, len(answered))
        tape = self._source.tape
        self._scoring.passed(tape.sha256.hexdigest(), tape.offset, tape.number)

    def _predict(self, batch: list[Row]) -> list[tuple[Row, dict[str, Any]]]:
        """Return rows with their predictions; those that the model fails on are bad ones."""
        model = self._source.model
        try:
            outputs = run_rows(model, model.rows_of([row.values for row in batch]))
        except (InferenceFailed, UnknownValue) as error:
            if len(batch) == 1:
                (row,) = batch
                self._scoring.refuse(f"{self._source.rows.unit} {row.line}: {error}")
                return []
            return [answered for row in batch for answered in self._predict([row])]
        answers = predictions(model, outputs)
        return list(zip(batch, answers, strict=True))
