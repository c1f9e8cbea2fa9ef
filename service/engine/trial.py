"""Rows are run alone and together: may callers share a batch, and what does a row cost.

Nothing is believed that was not tried. Random rows, the same on every machine, run alone, in
pairs, in threes and in growing batches, in several orders; each must get the answer that it gets
alone. What fails is not batched. Where TRIAL_S or TRIAL_BYTES end a trial, batches are as large as
those that were tried; without any there are none.
"""

import math
from collections.abc import Sequence
from random import Random
from typing import Any

import onnxruntime as ort
from msgspec import Struct
from msgspec.structs import replace

from service.engine import single_rows
from service.engine.answers import Mixed, Uncounted, are_alike, differ, difference
from service.engine.classifier import Classifier, Watch
from service.engine.file import ModelFile
from service.engine.graph import (
    known_numbers,
    known_whole_numbers,
    known_words,
    why_rows_mix,
    why_values_are_sizes,
)
from service.engine.providers import CPU
from service.engine.spec import Spec, Tensor
from service.engine.trial_rows import (
    ODD,
    ROWS,
    SCALED,
    Arrays,
    Size,
    Style,
    TrialRows,
    all_of,
    different,
    joined,
    own,
)
from service.engine.trial_runner import TRIAL_BYTES, TRIAL_S, RunFailed, Runner, Stopped

_ORDERS = ((0,), (0, 1), (1, 0), (0, 1, 2), (2, 1, 0))  # of the rows, in the small batches
_SIZES = (5, 8, 32, 48, 224, 256)  # for inner dimensions that are open; two that work are enough
_LARGEST_SIZE = 4096  # of those that are taken from the weights
_TOO_MUCH = f"to try rows together takes more than {TRIAL_S:g} s or {TRIAL_BYTES >> 20} MiB"
_STEP = 32  # how many times larger the next batch is


class Trial(Struct, frozen=True):
    """What was seen. Times are in seconds, None where they cannot be known."""

    is_batched: bool  # rows of several callers may share a run
    why: str  # or why not
    outputs: list[Tensor] = []  # as they were seen
    largest_batch: int = 1  # the most rows that were run together
    answers_rows: bool = True  # no run was seen that did not answer each row
    is_one_by_one: bool = False  # a run takes a single row
    is_steady: bool = True  # the same row had the same answer each time
    is_optimized: bool = True  # ONNX Runtime may rewrite the graph; else rows were not steady
    is_short: bool = False  # of memory, files or threads: another trial may see more
    failure: str = ""  # why no row could be run, if none could
    takes_zeros: bool = False
    example: tuple[Any, ...] = ()  # a value for each input that is a column; they are answered
    takes_missing: tuple[str, ...] = ()  # inputs that take NaN for a value that is not known
    row_s: float | None = None
    batch_s: float | None = None  # of the largest batch
    classifier: Classifier | None = None  # as the outputs of a file without a card look
    doubts: list[str] = []  # of that


class Unsteady(Mixed):
    """The same row gets other answers each time."""


class FailedTogether(Exception):
    """Rows that can be run alone cannot be run together."""


def try_out(
    session: ort.InferenceSession, spec: Spec, file: ModelFile, max_batch_size: int
) -> Trial:
    """Run rows alone and together, up to `max_batch_size`; the session should have one thread.

    Raises nothing: what fails is a part of what was seen.
    """
    maker = _maker(spec, file)
    watch = Watch(spec, file)
    with Runner(session, spec, watch) as runner:
        if why := spec.why_no_batch:
            trial = _try_requests(runner, maker, why)
        else:
            trial = _try_rows(_Rows(runner, maker, file), max_batch_size)
        has_zeros = single_rows.takes_zeros(runner, maker)
        example = single_rows.example(runner, maker, has_zeros=has_zeros)
        takes_missing = single_rows.takes_missing(runner, maker, file)
        runner.give_back_memory()
    has_shapes = all(each.has_shape for each in spec.inputs)
    outputs = [
        _as_seen(each, runner.shapes[place]) if has_shapes or each.has_shape else each
        for place, each in enumerate(spec.outputs)
    ]
    # On other devices the largest batch is found by taking all their memory.
    is_short = runner.is_short and (runner.provider == CPU or not trial.is_batched)
    return replace(
        trial,
        outputs=outputs,
        takes_zeros=has_zeros,
        example=example,
        takes_missing=takes_missing,
        is_short=is_short,
        classifier=watch.classifier,
        doubts=list(watch.doubts),
    )


def _maker(spec: Spec, file: ModelFile) -> TrialRows:
    words, numbers, whole = known_words(file), known_numbers(file), known_whole_numbers(file)
    known = [own(words, numbers, whole)] if words or numbers or whole else []
    return TrialRows(spec, are_sizes=bool(why_values_are_sizes(file)), first=known)


def measured(session: ort.InferenceSession, spec: Spec, file: ModelFile, trial: Trial) -> Trial:
    """Return the trial with the times of another session of the same file."""
    if trial.row_s is None or trial.batch_s is None or trial.batch_s > TRIAL_S / 4:
        return trial
    maker = _maker(spec, file)
    with Runner(session, spec) as runner:
        for style in maker.styles[:2]:
            try:
                row = maker.row(style, all_of(1), 0)
                row_s = runner.best_of_two(row)
                batch_s = runner.best_of_two(joined([row] * trial.largest_batch))
            except (Stopped, RunFailed):
                continue
            return replace(trial, row_s=row_s, batch_s=batch_s)
    return trial


def _try_requests(runner: Runner, maker: TrialRows, why: str) -> Trial:
    """Run what cannot be rows, as it would be sent."""
    spec = maker.spec
    seconds: float | None = None
    is_steady = True
    failure = ""
    for size in _SIZES[:1] if spec.is_closed else _SIZES[:2]:
        if maker.bytes(all_of(size)) > TRIAL_BYTES / 4:
            failure = "its inputs are too large to try"
            break
        for style in maker.styles[:2]:
            try:
                row = maker.row(style, all_of(size), 0)
                (first, one), (again, other) = runner.timed(row), runner.timed(row)
                seconds = min(one, other)
                is_steady = is_steady and are_alike(first, again)
                break
            except Stopped:
                failure = _TOO_MUCH
                break
            except RunFailed as error:
                failure = str(error)
    if not spec.is_closed:
        seconds = None
    return Trial(
        is_batched=False,
        why=why,
        answers_rows=spec.is_fixed_at_one
        and all(shape[:1] == (1,) for shapes in runner.shapes for shape in shapes),
        is_one_by_one=spec.is_fixed_at_one,
        is_steady=is_steady,
        failure="" if any(runner.shapes) else failure,
        row_s=seconds,
        batch_s=seconds,
    )


def _try_rows(rows: "_Rows", max_batch_size: int) -> Trial:
    """Try what may be rows, as far as the shapes say."""
    seen = Trial(is_batched=False, why="")
    why = ""
    try:
        why = rows.why_not(max_batch_size)
    except (Mixed, FailedTogether) as error:
        why = str(error)
        seen = Trial(
            is_batched=False,
            why=why,
            answers_rows=not isinstance(error, Uncounted),
            is_one_by_one=isinstance(error, FailedTogether),
            is_steady=not isinstance(error, Unsteady),
        )
    except Stopped:  # large rows: what was tried is enough for batches of that size
        if not rows.is_settled:
            why = _TOO_MUCH
    why = why_rows_mix(rows.file) or why
    if why:
        return replace(seen, why=why, failure="" if rows.has_run else rows.failure or why)
    return Trial(
        is_batched=True,
        why=f"rows of a trial had the same answers alone and in batches of up to {rows.largest}",
        largest_batch=max(1, min(rows.largest, max_batch_size)),
        row_s=None if rows.spec.is_open_inside else rows.row_s,
        batch_s=None if rows.spec.is_open_inside else rows.batch_s or rows.row_s * rows.largest,
    )


class _Rows:
    """The trial of a model whose first dimension may be rows.

    Its methods raise Mixed, FailedTogether and Stopped; what is seen until then stays.
    """

    def __init__(self, runner: Runner, maker: TrialRows, file: ModelFile) -> None:
        self._runner = runner
        self._maker = maker
        # Large numbers would be large sizes, or places that a device does not check.
        is_safe = runner.provider == CPU and not maker.are_sizes
        self._styles = maker.styles if is_safe else maker.styles[:2]
        self.spec = maker.spec
        self.file = file
        self._differ = False  # whether two rows ever had different answers
        self.has_run = False
        self.failure = ""  # of the last row that could not be run
        self.are_pairs_tried = False  # in both orders
        self.largest = 1  # the most rows that were run together
        self.row_s = math.inf
        self.batch_s: float | None = None

    @property
    def is_settled(self) -> bool:
        """Whether enough was tried for batches of `largest`, though not all."""
        return self.are_pairs_tried and self._differ and not self.spec.is_open_inside

    def why_not(self, max_batch_size: int) -> str:
        """Try everything; return why that shows nothing, if so."""
        tries = self._inner_sizes()
        if self.spec.is_open_inside and not tries:
            return f"rows of no size that was tried could be run: {self.failure}"
        size = tries[0] if tries else all_of(1)
        found = [rows for style in self._styles if (rows := self._try(style, size)) is not None]
        if not found:
            which = "not every" if self.has_run else "no"
            return f"{which} row of a trial could be run: {self.failure}"
        if not self._differ:
            self._try(ODD, size)
        if not self._differ:
            return "all rows of a trial had the same answer, which shows nothing"
        self._grow(*found[0], max_batch_size)
        return ""

    def _inner_sizes(self) -> list[Size]:
        """Return those that work, of the inner dimensions: two, and one more if they may differ.

        If one alone works, and all others fail, the weights want it so.
        """
        if not self.spec.is_open_inside:
            return []
        of_weights = {each for each in self.file.graph.sizes if 0 < each <= _LARGEST_SIZE}
        working: list[Size] = []
        for number in (*_SIZES, *sorted(of_weights - set(_SIZES))):
            if len(working) == 2:
                break
            if any(self._try(style, all_of(number)) for style in self._styles[:2]):
                working.append(all_of(number))
        if working:
            self._try(SCALED, different)
        return working

    def _try(self, style: Style, size: Size) -> tuple[list[Arrays], list[Arrays]] | None:
        """Run rows alone and in small batches; return them and their answers.

        None if one cannot be run alone.
        """
        if 2 * ROWS * self._maker.bytes(size) > TRIAL_BYTES:  # alone, and together
            raise Stopped
        rows: list[Arrays] = []
        answers: list[Arrays] = []
        for number in range(ROWS):
            row = self._maker.row(style, size, number)
            try:
                answer, seconds = self._runner.timed(row)
            except RunFailed as error:
                self.failure = str(error)
                return None
            self.has_run = True
            self.row_s = min(self.row_s, seconds)
            rows.append(row)
            answers.append(answer)
        # An answer without elements cannot be wrong.
        is_empty = not any(one.size for one in answers[0])
        self._differ = self._differ or is_empty or differ(answers, self._runner.provider)
        for order in _ORDERS:
            self._run_together(rows, answers, order)
            self.are_pairs_tried = self.are_pairs_tried or order == (1, 0)
        return rows, answers

    def _grow(self, rows: list[Arrays], answers: list[Arrays], most: int) -> None:
        """Run ever larger batches, while they fit into what the trial may cost."""
        order = Random(most).choices(range(ROWS), k=most)  # never the same again and again
        while self.largest < most:
            fits = min(
                TRIAL_BYTES * self.largest // max(self._runner.used_bytes, 1),
                int(self._runner.seconds_left / 2 / self.row_s) if self.row_s else most,
                self.largest * _STEP,
                most,
            )
            if fits < min(2 * self.largest, most):
                break
            try:
                self._run_together(rows, answers, order[:fits])
            except (FailedTogether, Stopped):
                break
        largest = joined([rows[place] for place in order[: self.largest]])
        try:
            self.batch_s = self._runner.best_of_two(largest)
        except Stopped:
            self.batch_s = self.row_s * self.largest  # about

    def _run_together(
        self, rows: list[Arrays], answers: list[Arrays], order: Sequence[int]
    ) -> None:
        count = len(order)
        if self._runner.used_bytes * count > 1.25 * TRIAL_BYTES * self.largest:
            raise Stopped  # as a single operation may take all of it before it can be stopped
        try:
            together = self._runner.timed(joined([rows[place] for place in order]))[0]
        except RunFailed as error:
            failure = f"a row can be run alone, {count} together fail: {error}"
            raise FailedTogether(failure) from error
        alone = [answers[place] for place in order]
        if why := difference(self.spec.outputs, alone, together, self._runner.provider):
            if count == 1 and not isinstance(why, Uncounted):
                raise Unsteady("the same row gets other answers each time")
            raise why
        self.largest = max(self.largest, count)


def _as_seen(declared: Tensor, shapes: list[tuple[int, ...]]) -> Tensor:
    """Return an output with the shape that its answers had, where that is not as declared."""
    if not shapes:
        return declared
    if len({len(shape) for shape in shapes}) > 1:
        return replace(declared, shape=(), has_shape=False)
    seen = [set(sizes) for sizes in zip(*shapes, strict=True)]
    is_alike = declared.has_shape and len(declared.shape) == len(seen)
    sizes = []
    for place, found in enumerate(seen):
        size = declared.shape[place] if is_alike else min(found)
        is_row = not is_alike and place == 0
        sizes.append(size if found == {size} and not is_row else -1)
    return replace(declared, shape=tuple(sizes), has_shape=True)
