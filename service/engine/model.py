"""Model: an ONNX file that was opened and tried. It runs, and nothing of it changes."""

import math
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import onnxruntime as ort
from msgspec.structs import replace
from numpy.typing import NDArray

from service.batching import check_rows
from service.card import METADATA_KEY, PROBABILITY_TOLERANCE, VALUE_TOLERANCE, Card
from service.engine.assignment import assignment_of
from service.engine.checks import check_inputs, check_outputs
from service.engine.classifier import of_card
from service.engine.columns import form_of, why_no_columns
from service.engine.contents import File, Pins, read_contents
from service.engine.graph import why_cost_depends_on_values
from service.engine.plain_outputs import with_plain_outputs
from service.engine.providers import device_of
from service.engine.session import knows_not, open_session, what_failed, what_is_short
from service.engine.spec import Batching, Missing, Spec, Tensor, spec_of
from service.engine.trial import Trial, measured, try_out
from service.engine.trial_runner import resident_bytes
from service.errors import InferenceFailed, OutOfResources, SelfTestFailed, UnknownValue

_LEFT_BEHIND = 2**26  # bytes
LONGEST_EXAMPLE_S = 60  # that a self-test runs
FAST_BATCH_S = 0.001  # a batch up to this long may run in the event loop: a thread hop costs more
NOT_FINITE = "the model answered NaN or infinity for this input: ask /v2 in binary"
_SHORT_TRIAL = "there was too little memory, files or threads to try it"


class Stop:
    """Ends a run from another thread, between two of its operations."""

    def __init__(self) -> None:
        self.options = ort.RunOptions()

    def set(self) -> None:
        """End the run, and those that begin before `clear`."""
        self.options.terminate = True

    def clear(self) -> None:
        """Let runs go on."""
        self.options.terminate = False

    @property
    def is_set(self) -> bool:
        """Whether runs are ended."""
        return bool(self.options.terminate)


class Model:
    """An ONNX file, ready to run. Thread-safe: ONNX Runtime sessions are."""

    def __init__(
        self,
        session: ort.InferenceSession,
        card: Card | None,
        spec: Spec,
        trial: Trial,
        *,
        max_batch_size: int = 64,
        batching: Batching | None = None,
        missing: Missing | None = None,
        why_slow: str = "",
        short_of: str = "",
        files: Sequence[File] = (),
    ) -> None:
        """Take the finished parts; use `Model.open`.

        why_slow: why it must not run in the event loop, whatever a batch costs.
        short_of: what was short when it was opened, so that it may do better another time.
        files: that it was opened from, the .onnx first.
        """
        self._session = session
        self._input_names = [each.name for each in spec.inputs]
        self._output_names = [each.name for each in spec.outputs]
        self.card = card
        self.trial = trial
        self.files = files
        self.classifier = of_card(card, trial.classifier) if card else trial.classifier
        self.inputs = spec.inputs
        self.outputs = spec.outputs  # as the graph declares them; as seen: trial.outputs
        self.left_out = spec.left_out  # outputs that no protocol can carry: name -> type
        self.is_open_inside = spec.is_open_inside
        # Whether the graph says that all inputs have the same rows; else they may be broadcast.
        self.has_named_rows = any(each[:1] != ("",) for each in spec.dimensions)
        self.input_named = {each.name: each for each in spec.inputs}
        self.input = spec.inputs[0]  # the only one of a model that has a card
        # The inputs that take NaN for a value that is missing.
        self.takes_missing = _take_missing(spec, trial, missing)
        self.form = form = form_of(spec, card, self.takes_missing, trial.example)
        self.row_dtype, self.row_dims = form.dtype, form.dims
        self.has_open_rows = form.is_open
        self._is_flat, self._is_single = len(form.dims) == 1, len(spec.inputs) == 1
        # How many values one row has; -1: each may have its own, and a shape.
        self.row_size = -1 if form.is_open else math.prod(form.dims)
        # The nested form of one instance, e.g. (28, 28) where the graph takes (784,).
        self.row_shape = card.image.shape if card and card.image else form.dims
        self.columns = form.columns  # of the values of a row, where they have names
        self.column_names = [each.name for each in form.columns]
        self.assignment = assignment_of(session)
        self.provider = self.assignment.provider
        self.device = device_of(self.provider)
        self.threads: int = session.get_session_options().intra_op_num_threads
        self.is_batched, self.why_batching = _verdict(spec, trial, batching)
        most = trial.largest_batch if trial.is_batched else max_batch_size
        self.largest_batch = most if self.is_batched else 1
        # How many values each output has, and whether that is for each row; None: it is open.
        self.output_values = [
            _values(each, trial.is_one_by_one) for each in trial.outputs or spec.outputs
        ]
        self.why_no_rows = _why_no_rows(spec, trial, batching)
        is_known = self.is_batched or spec.is_closed
        self.row_s = trial.row_s if is_known else None
        self.batch_s = trial.batch_s if is_known else None
        self.why_slow = why_slow
        self.short_of = short_of or (_SHORT_TRIAL if trial.is_short else "")

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        device: str = "cpu",
        may_fall_back: bool = True,
        threads: int = 1,
        max_batch_size: int = 64,
        batching: Batching | None = None,
        missing: Missing | None = None,
        only_slow_in_threads: bool = True,
        short_of: str = "",
        trial: Trial | None = None,
        pins: Pins | None = None,
    ) -> Self:
        """Open the file at `path`, try it, and check that it can be served; `self_test` is next.

        Only a model that is slow gets more than one thread, unless `only_slow_in_threads` is
        false; all are tried on one, so that the verdict is that of every machine.

        may_fall_back: whether nodes that `device` has no operator for may run on the CPU.
        trial: what another process saw of this file; it is not tried again then.
        pins: what its files must be, whatever stands at their paths once they are read.
        Raises NotApproved where they differ from their pins, ModelError when the file is not a
        model, has an input or only outputs that no protocol can carry, contradicts its card, or has
        nodes that fall back and may not; StartupError when `device` is one and ONNX Runtime runs
        it elsewhere.
        """
        contents = with_plain_outputs(read_contents(path, pins))
        file = contents.file
        opened = partial(open_session, contents, device=device, may_fall_back=may_fall_back)
        session = opened(threads=1, is_optimized=trial is None or trial.is_optimized)
        text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
        card = None if text is None else Card.from_json(text)
        spec = spec_of(session, file.graph)
        if card is not None:
            check_inputs(card, spec)
        before = resident_bytes()
        if trial is None:
            trial = try_out(session, spec, file, max_batch_size)
            if not trial.is_steady:  # as networks in training mode, whose statistics are rewritten
                plain = opened(threads=1, is_optimized=False)
                as_written = try_out(plain, spec, file, max_batch_size)
                if as_written.is_steady:
                    session, trial = plain, replace(as_written, is_optimized=False)
        if card is not None:
            check_outputs(card, spec, trial)
        if resident_bytes() - before > _LEFT_BEHIND:
            del session  # a run that was stopped keeps what it took
            session = opened(threads=1, is_optimized=trial.is_optimized)
        finished = partial(
            cls,
            card=card,
            spec=spec,
            max_batch_size=max_batch_size,
            batching=batching,
            missing=missing,
            why_slow=why_cost_depends_on_values(file, spec),
            short_of=short_of,
            files=contents.files,
        )
        model = finished(session=session, trial=trial)
        if threads > 1 and not (only_slow_in_threads and model.is_fast):
            model.close()
            del session  # its memory is free before there are two of it
            session = opened(threads=threads, is_optimized=trial.is_optimized)
            model = finished(session=session, trial=measured(session, spec, file, trial))
        return model

    @property
    def is_fast(self) -> bool:
        """Whether its largest batch costs less than handing it to a thread is worth."""
        return not self.why_slow and self.batch_s is not None and self.batch_s <= FAST_BATCH_S

    @property
    def max_rows_in_loop(self) -> int:
        """How many rows cost less, run together, than a thread is worth; more rows may too."""
        if self.why_slow or self.row_s is None:
            return 0
        return int(FAST_BATCH_S / self.row_s) if self.row_s else self.largest_batch

    def run(self, inputs: Sequence[NDArray[Any]], stop: Stop | None = None) -> list[NDArray[Any]]:
        """Answer `inputs`, an array for each input of the graph -> an array for each output.

        Raises InferenceFailed when the session raises, or is told to `stop`; UnknownValue.
        """
        feed = dict(zip(self._input_names, inputs, strict=True))
        options = None if stop is None else stop.options
        try:
            outputs: list[NDArray[Any]] = self._session.run(self._output_names, feed, options)
        except Exception as error:  # ONNX Runtime raises its own, undocumented classes
            if operator := knows_not(error):
                raise UnknownValue(
                    f"expected values that the model knows: its {operator} got one, in one of "
                    f"{len(inputs[0])} instances, that was not in its training"
                ) from error
            sentence = "the model failed on this input"
            raise InferenceFailed(sentence, what_failed(error)) from error
        return outputs

    def rows_of(self, values: Any) -> NDArray[Any]:
        """Return n lists of values, or an array of them, as rows: see `RowForm.rows_of`."""
        if self.has_open_rows:
            return self.form.rows_of(values)
        rows = np.array(values, self.row_dtype)  # the same, without a further call
        return rows if rows.ndim == 2 and self._is_flat else rows.reshape(-1, *self.row_dims)

    def inputs_of(self, rows: NDArray[Any]) -> list[NDArray[Any]]:
        """Return what `run` takes for rows (n, *row_dims)."""
        return [rows] if self._is_single else self.form.inputs_of(rows)

    def close(self) -> None:
        """Let the session and its memory go; it can run no more."""
        self._session = None

    def self_test(self) -> None:
        """Run the card's examples; raises SelfTestFailed unless they answer as it says.

        Raises OutOfResources where there is too little memory to run them. One that takes longer
        than LONGEST_EXAMPLE_S is stopped.
        """
        if self.card is None:
            return
        if not self.trial.answers_rows:
            raise SelfTestFailed(
                f"expected an answer for each row as the card says, but {self.trial.why}"
            )
        relative, absolute = VALUE_TOLERANCE, VALUE_TOLERANCE  # absolute for values near zero
        if self.card.task == "classification":
            relative, absolute = 0.0, PROBABILITY_TOLERANCE
        for example in self.card.examples:
            try:
                outputs = self._run_example(self.inputs_of(self.rows_of([example.input])))
                check_rows(outputs, 1)
            except (InferenceFailed, UnknownValue) as error:
                if short := what_is_short(error.__cause__):
                    raise OutOfResources(f"example {example.name!r}: {short}") from error
                raise SelfTestFailed(f"example {example.name!r}: {error}") from error
            answer = self.numbers_of(outputs)
            expected = example.output + example.interval
            if not np.allclose(answer, expected, rtol=relative, atol=absolute):
                raise SelfTestFailed(
                    f"example {example.name!r}: expected {_short(expected)} as the card says, "
                    f"got {_short(answer.tolist())}"
                )

    def numbers_of(self, outputs: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """Return what an example of the card has of an answer: the scores, or all values."""
        if self.classifier is not None:
            outputs = [outputs[self.classifier.scores]]
        return np.concatenate([output.ravel() for output in outputs])

    def _run_example(self, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """As `run`, but not for ever. Raises InferenceFailed that says so."""
        stop = Stop()
        timer = threading.Timer(LONGEST_EXAMPLE_S, stop.set)
        timer.daemon = True
        timer.start()
        try:
            return self.run(inputs, stop)
        except InferenceFailed as error:
            if stop.is_set:
                raise InferenceFailed(f"it ran for more than {LONGEST_EXAMPLE_S} s") from error
            raise
        finally:
            timer.cancel()


def are_finite(outputs: Sequence[NDArray[Any]]) -> bool:
    """Whether no answer is NaN or infinite, which JSON has not."""
    return all(np.isfinite(output).all() for output in outputs if output.dtype.kind == "f")


def check_finite(outputs: Sequence[NDArray[Any]]) -> None:
    """Raise InferenceFailed if an answer is NaN or infinite."""
    if not are_finite(outputs):
        raise InferenceFailed(NOT_FINITE)


def _take_missing(spec: Spec, trial: Trial, missing: Missing | None) -> frozenset[str]:
    """Return the names of the inputs that take NaN for a value that is missing."""
    if missing is None:
        return frozenset(trial.takes_missing)
    floats = [each.name for each in spec.inputs if np.dtype(each.dtype).kind == "f"]
    return frozenset(floats if missing == "allow" else ())


def _values(tensor: Tensor, is_one_by_one: bool) -> tuple[int | None, bool]:
    shape = tensor.shape if tensor.has_shape else (-1, -1)
    is_of_row = len(shape) > 0 and (shape[0] == -1 or is_one_by_one)
    sizes = shape[1:] if is_of_row else shape
    return None if -1 in sizes else math.prod(sizes), is_of_row


def _verdict(spec: Spec, trial: Trial, batching: Batching | None) -> tuple[bool, str]:
    """Return whether callers may share a run, and why or why not."""
    if batching is None:
        return trial.is_batched, trial.why
    if batching == "rows" and spec.why_no_batch:
        return False, f"TORCHLIT_BATCHING says rows, but {spec.why_no_batch}"
    is_overruled = (batching == "rows") != trial.is_batched
    return batching == "rows", (
        f"TORCHLIT_BATCHING says {batching}" + f", though {trial.why}" * is_overruled
    )


def _why_no_rows(spec: Spec, trial: Trial, batching: Batching | None) -> str:
    """Say why POST /predict cannot ask the model; nothing if it can."""
    if len(spec.inputs) > 1 and (why := why_no_columns(spec.inputs)):
        return why
    if spec.why_no_batch and not spec.is_fixed_at_one:
        return spec.why_no_batch
    if not trial.answers_rows and batching != "rows":
        return trial.why
    return ""


def _short(numbers: Sequence[float]) -> str:
    shown = ", ".join(f"{number:.6g}" for number in numbers[:10])
    return f"[{shown}{', ...' if len(numbers) > 10 else ''}]"
