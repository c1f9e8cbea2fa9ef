"""Model: one ONNX Runtime session on one execution provider. Opened, self-tested, run."""

import ctypes
import logging
import math
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from time import perf_counter, thread_time
from typing import Any, Self

import numpy as np
import onnxruntime as ort
from msgspec import Struct
from numpy.typing import NDArray

from service.card import METADATA_KEY, PROBABILITY_TOLERANCE, VALUE_TOLERANCE, Card
from service.errors import InferenceFailed, ModelError, SelfTestFailed, StartupError

logger = logging.getLogger("torchlit.model")

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
PROVIDER_DEVICE = {CPU: "cpu", CUDA: "cuda"}

CHEAP_BATCH_S = 0.001  # a batch up to this long may run in the event loop: a thread hop costs more

_DTYPES: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int8)": np.int8,
    "tensor(int16)": np.int16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(uint8)": np.uint8,
    "tensor(uint16)": np.uint16,
    "tensor(uint32)": np.uint32,
    "tensor(uint64)": np.uint64,
    "tensor(bool)": np.bool_,
    "tensor(string)": np.object_,
}

_CARRIED = "numbers, booleans or strings"


class Tensor(Struct, frozen=True):
    """An input or output of the graph: `shape` as the graph says it, -1 where it is open.

    Strings are arrays of objects, each a `str`.
    """

    name: str
    dtype: type[np.generic]
    shape: tuple[int, ...]


class Model:
    """An ONNX file, ready to run. Thread-safe: ONNX Runtime sessions are.

    It is batched if the first dimension of all inputs and outputs is open and is the number of
    rows, as it is for Triton (its documentation, "Auto-Generated Model Configuration"). Otherwise
    each request is run by itself.
    """

    def __init__(
        self,
        session: ort.InferenceSession,
        card: Card | None,
        inputs: list[Tensor],
        outputs: list[Tensor],
        *,
        is_batched: bool,
        left_out: dict[str, str] | None = None,
    ) -> None:
        """Take the finished parts; use `Model.open`."""
        self._session = session
        self._input_names = [each.name for each in inputs]
        self._output_names = [each.name for each in outputs]
        self.card = card
        self.inputs = inputs
        self.outputs = outputs
        self.left_out = left_out or {}  # outputs that no protocol can carry: name -> type
        self.is_batched = is_batched
        self.is_open_inside = any(-1 in each.shape[is_batched:] for each in inputs)
        self.why_no_rows = self._why_no_rows()  # POST /predict cannot ask it; empty if it can
        self.input = inputs[0]  # the only one of a model that takes rows
        self.row_size = math.prod(self.input.shape[1:])  # how many numbers one row has
        # The nested form of one instance, e.g. (28, 28) where the graph takes (784,).
        self.row_shape = card.image.shape if card and card.image else self.input.shape[1:]
        self.feature_names = [feature.name for feature in card.features] if card else []
        self.provider: str = session.get_providers()[0]
        self.threads: int = session.get_session_options().intra_op_num_threads
        self.takes_zeros = True  # as far as it was tried
        self.saw_nonfinite = False  # whether an answer ever was NaN or infinite
        self.batch_seconds = 0.0  # one run of the largest batch, as measured by `measure`
        self.row_seconds = 0.0  # one run of a single row, as measured by `measure`

    @classmethod
    def open(cls, path: Path, *, device: str = "cpu", threads: int = 1) -> Self:
        """Open the file at `path` and check that it can be served.

        Raises ModelError when the file is not a model, has an input or only outputs that no
        protocol can carry, or contradicts its card; StartupError when `device` is "cuda" and
        ONNX Runtime runs it elsewhere.
        """
        session = _open_session(path, device, threads)
        text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
        card = None if text is None else Card.from_json(text)
        nodes = session.get_inputs()
        inputs = [_tensor(node) for node in nodes]
        outputs = [_tensor(node) for node in session.get_outputs() if node.type in _DTYPES]
        left_out = {node.name: node.type for node in session.get_outputs()}
        for each in outputs:
            del left_out[each.name]
        if not inputs:
            raise ModelError("expected an input, got a graph that has none")
        if not outputs:
            raise ModelError(f"expected an output that is a tensor of {_CARRIED}, got {left_out}")
        firsts = {node.shape[0] if node.shape else 0 for node in nodes}  # a name, None or a size
        is_batched = len(firsts) == 1 and all(
            each.shape[:1] == (-1,) for each in inputs + [one for one in outputs if one.shape]
        )
        model = cls(session, card, inputs, outputs, is_batched=is_batched, left_out=left_out)
        model._check_card()
        if card is None and is_batched and not model._answers_row_by_row():
            model = cls(session, card, inputs, outputs, is_batched=False, left_out=left_out)
        return model

    def _why_no_rows(self) -> str:
        if len(self.inputs) > 1:
            return f"it has {len(self.inputs)} inputs"
        if not self.is_batched:
            return "it takes no batch of rows"
        if self.is_open_inside:
            return "the shape of its rows is open"
        if np.dtype(self.inputs[0].dtype).kind not in "fiu":
            return "its input is not numbers"
        return ""

    def run(self, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Answer `inputs`, an array for each input of the graph -> an array for each output.

        Raises InferenceFailed when the session raises or, of a batched model, when an output has
        not one row for each row.
        """
        feed = dict(zip(self._input_names, inputs, strict=True))
        try:
            outputs: list[NDArray[Any]] = self._session.run(self._output_names, feed)
        except Exception as error:  # ONNX Runtime raises its own, undocumented classes
            raise InferenceFailed("the model failed on this input") from error
        for output in outputs:
            if self.is_batched and output.shape[:1] != inputs[0].shape[:1]:
                raise InferenceFailed("the model did not answer with one row for each row")
            if output.dtype.kind == "f" and not np.isfinite(output).all():
                self.saw_nonfinite = True
        return outputs

    def check_finite(self, outputs: Sequence[NDArray[Any]]) -> None:
        """Raise InferenceFailed if an answer of `run` is NaN or infinite, which JSON has not."""
        if self.saw_nonfinite and not all(
            np.isfinite(output).all() for output in outputs if output.dtype.kind == "f"
        ):
            raise InferenceFailed("the model answered NaN or infinity for this input")

    def close(self) -> None:
        """Let the session and its memory go; it can run no more."""
        self._session = None

    def self_test(self) -> None:
        """Run the card's examples; raises SelfTestFailed unless they answer as PyTorch did.

        Without a card a row of zeros is run. If that fails nobody knows whether the model is
        broken, or takes no zeros, as one that knows its categories.
        """
        if self.card is None:
            try:
                self._run_zeros(1)
            except SelfTestFailed:
                self.takes_zeros = False
            return
        relative, absolute = VALUE_TOLERANCE, VALUE_TOLERANCE  # absolute for values near zero
        if self.card.task == "classification":
            relative, absolute = 0.0, PROBABILITY_TOLERANCE
        for example in self.card.examples:
            rows = np.array([example.input], dtype=self.input.dtype)
            try:
                outputs = self.run([rows.reshape(1, *self.input.shape[1:])])
            except InferenceFailed as error:
                raise SelfTestFailed(f"example {example.name!r}: {error}") from error
            answer = np.concatenate([output.ravel() for output in outputs])
            expected = example.output + example.interval
            if not np.allclose(answer, expected, rtol=relative, atol=absolute):
                raise SelfTestFailed(
                    f"example {example.name!r}: expected {_short(expected)} as PyTorch "
                    f"answered, got {_short(answer.tolist())}"
                )

    def measure(self, rows: int) -> None:
        """Set `batch_seconds`, of `rows` rows, and `row_seconds`, after the self-test.

        Where the calling thread does all the work, its CPU time counts: a machine that is busy,
        as it may be when a model is opened while others serve, makes no model dearer. Where it
        takes no zeros, or the shape of a row is open, nobody knows: infinity.
        """
        if self.is_open_inside or not self.takes_zeros:
            self.batch_seconds = self.row_seconds = math.inf
            return
        self.row_seconds = self.batch_seconds = self._best_of_two(1)
        if self.is_batched:
            self.batch_seconds = self._best_of_two(rows)

    def _best_of_two(self, rows: int) -> float:
        clock = thread_time if self.provider == CPU and self.threads == 1 else perf_counter
        seconds = []
        for _ in range(2):
            start = clock()
            self._run_zeros(rows)
            seconds.append(clock() - start)
        return min(seconds)

    @property
    def is_cheap(self) -> bool:
        """Whether its largest batch costs less than handing it to a thread is worth."""
        return self.batch_seconds <= CHEAP_BATCH_S

    @property
    def max_rows_in_loop(self) -> int:
        """How many rows cost less, run together, than a thread is worth; more rows may too."""
        return int(CHEAP_BATCH_S / self.row_seconds) if self.row_seconds else 0

    def _run_zeros(self, rows: int) -> None:
        try:
            outputs = self._session.run(self._output_names, self._zeros(rows))
        except Exception as error:
            raise SelfTestFailed(f"{rows} rows of zeros: the model failed") from error
        for output in outputs:
            if self.is_batched and output.shape[:1] != (rows,):
                raise SelfTestFailed(
                    f"{rows} rows of zeros: expected {rows} rows, got shape {output.shape}"
                )

    def _zeros(self, rows: int) -> dict[str, NDArray[Any]]:
        """Return inputs of zeros, or empty strings: `rows` of them if it is batched."""
        feed = {}
        for each in self.inputs:
            shape = [1 if size == -1 else size for size in each.shape]
            if self.is_batched:
                shape[0] = rows
            feed[each.name] = np.full(shape, "" if each.dtype is np.object_ else 0, each.dtype)
        return feed

    def _answers_row_by_row(self) -> bool:
        """Whether rows have answers of their own, whatever is beside them, as far as is seen.

        Two and three rows must have as many answers, and a row of zeros beside rows of ones and
        twos the one it has alone.
        """
        try:
            alone, two, three = (
                self._session.run(self._output_names, self._ramp(rows)) for rows in (1, 2, 3)
            )
        except Exception:  # ONNX Runtime raises its own, undocumented classes
            return True  # the self-test will say what is wrong
        counts = [{output.shape[:1] for output in outputs} for outputs in (two, three)]
        if counts != [{(2,)}, {(3,)}]:
            return False
        return all(_alike(one[:1], many[:1]) for one, many in zip(alone, three, strict=True))

    def _ramp(self, rows: int) -> dict[str, NDArray[Any]]:
        """Return inputs of zeros in the first row, ones in the second and so on."""
        feed = self._zeros(rows)
        for array in feed.values():
            if array.dtype.kind in "fiu":
                array += np.arange(rows).astype(array.dtype).reshape(-1, *[1] * (array.ndim - 1))
        return feed

    def _check_card(self) -> None:
        card = self.card
        if card is None:
            return
        if self.why_no_rows:
            raise ModelError(
                f"expected a batch of rows of numbers as the card says: {self.why_no_rows}"
            )
        if self.row_size != card.input_size:
            raise ModelError(
                f"input {self.input.name}: expected {card.input_size} numbers a row as the card "
                f"says, got shape {self.input.shape}"
            )
        expected: list[tuple[int, ...]] = [(-1, card.output_size)]
        if card.interval:
            expected.append((-1, card.output_size, 2))
        if [output.shape for output in self.outputs] != expected:
            got = ", ".join(f"{output.name} {output.shape}" for output in self.outputs)
            raise ModelError(f"expected outputs of shapes {expected} as the card says, got {got}")


def choose_providers(device: str, available: list[str]) -> list[str]:
    """Return the execution providers to try, of those that ONNX Runtime was built with.

    Raises StartupError when `device` is "cuda" and there is no driver.
    """
    if device == "cpu" or CUDA not in available:
        return [CPU]
    if problem := driver_problem():
        if device == "cuda":
            raise StartupError(f"TORCHLIT_DEVICE: expected cuda, but {problem}")
        _warn_once(f"{problem}: models run on the CPU")
        return [CPU]
    ort.preload_dlls()  # those that came as wheels; what is loaded is not loaded again
    return [CUDA, CPU]


@cache
def driver_problem() -> str:
    """Say why NVIDIA's driver cannot be used, nothing if it can.

    ONNX Runtime would find out with each model, and tell of it on stderr in its own words.
    """
    if sys.platform != "linux":
        return ""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        return f"NVIDIA's driver is not here ({error})"
    return ""


@cache
def _warn_once(sentence: str) -> None:
    logger.warning("%s", sentence)


def _open_session(path: Path, device: str, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what it says is in the exception too
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers = choose_providers(device, ort.get_available_providers())
    try:
        external = _external_data(path)
        options.add_external_initializers_from_files_in_memory(
            list(external), list(external.values()), [len(data) for data in external.values()]
        )
        session = ort.InferenceSession(path, options, providers=providers)
    except Exception as error:  # ONNX Runtime raises its own, undocumented classes
        raise ModelError(f"{path.name}: not a model that ONNX Runtime can open") from error
    if device == "cuda" and session.get_providers()[0] != CUDA:
        raise StartupError(
            "TORCHLIT_DEVICE: expected cuda, but ONNX Runtime cannot run on CUDA here; "
            "install the gpu extra and a driver, or use auto or cpu"
        )
    return session


def _external_data(path: Path) -> dict[str, bytes]:
    """Read the files beside a model that hold its weights, by name; they begin with its name.

    ONNX Runtime would map them into memory, and then a file that is overwritten or cut short
    while it is served ends the process (SIGBUS), or changes the answers.
    """
    files = (file for file in path.parent.glob(f"{path.name}?*") if file.is_file())
    return {file.name: file.read_bytes() for file in files}


def _tensor(node: Any) -> Tensor:
    """Read an input or output of the graph."""
    if node.type not in _DTYPES:
        raise ModelError(f"{node.name}: expected a tensor of {_CARRIED}, got {node.type}")
    shape = tuple(size if isinstance(size, int) else -1 for size in node.shape)
    return Tensor(name=node.name, dtype=_DTYPES[node.type], shape=shape)


def _alike(one: NDArray[Any], other: NDArray[Any]) -> bool:
    """Whether two answers are equal but for rounding."""
    if one.dtype.kind != "f":
        return np.array_equal(one, other)
    tolerance = 1e-2 if one.dtype == np.float16 else VALUE_TOLERANCE
    return np.allclose(one, other, rtol=tolerance, atol=tolerance, equal_nan=True)


def _short(numbers: list[float]) -> str:
    shown = ", ".join(f"{number:.6g}" for number in numbers[:10])
    return f"[{shown}{', ...' if len(numbers) > 10 else ''}]"
