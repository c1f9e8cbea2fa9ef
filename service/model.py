"""Model: one ONNX Runtime session on one execution provider. Opened, self-tested, run."""

import logging
import math
import os
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

_NUMERIC: dict[str, type[np.generic]] = {
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
}


class Tensor(Struct, frozen=True):
    """An input or output of the graph: `shape` without the batch dimension, -1 if unknown."""

    name: str
    dtype: type[np.generic]
    shape: tuple[int, ...]


class Model:
    """An ONNX file, ready to run rows. Thread-safe: ONNX Runtime sessions are."""

    def __init__(
        self, session: ort.InferenceSession, card: Card | None, input: Tensor, outputs: list[Tensor]
    ) -> None:
        """Take the finished parts; use `Model.open`."""
        self._session = session
        self._output_names = [output.name for output in outputs]
        self.card = card
        self.input = input
        self.outputs = outputs
        self.row_size = math.prod(input.shape)  # how many numbers one row has
        # The nested form of one instance, e.g. (28, 28) where the graph takes (784,).
        self.row_shape = card.image.shape if card and card.image else input.shape
        self.feature_names = [feature.name for feature in card.features] if card else []
        self.provider: str = session.get_providers()[0]
        self.batch_seconds = 0.0  # one run of the largest batch, as measured by `measure`
        self.row_seconds = 0.0  # one run of a single row, as measured by `measure`

    @classmethod
    def open(cls, path: Path, *, device: str = "cpu", threads: int = 1) -> Self:
        """Open the file at `path` and check that it can be served.

        Raises ModelError when the file is not a model, its inputs and outputs do not fit or
        contradict its card; StartupError when `device` is "cuda" and ONNX Runtime runs it
        elsewhere.
        """
        session = _open_session(path, device, threads)
        text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
        card = None if text is None else Card.from_json(text)
        inputs, outputs = session.get_inputs(), session.get_outputs()
        if len(inputs) != 1:
            names = ", ".join(each.name for each in inputs)
            raise ModelError(f"expected one input, got {len(inputs)}: {names}")
        rows = _tensor(inputs[0])
        if isinstance(inputs[0].shape[0], int) or -1 in rows.shape:
            raise ModelError(
                f"input {rows.name}: expected an open batch dimension and a fixed row shape, "
                f"got {inputs[0].shape}"
            )
        model = cls(session, card, rows, [_tensor(each) for each in outputs])
        model._check_card()
        return model

    def run(self, rows: NDArray[Any]) -> list[NDArray[Any]]:
        """Answer `rows`: (n, row_size) of the input's dtype -> one array (n, ...) per output.

        Raises InferenceFailed when the session raises, when an answer is NaN or infinite, or
        when it has not one row for each of `rows`.
        """
        feed = {self.input.name: rows.reshape(len(rows), *self.input.shape)}
        try:
            outputs: list[NDArray[Any]] = self._session.run(self._output_names, feed)
        except Exception as error:  # ONNX Runtime raises its own, undocumented classes
            raise InferenceFailed("the model failed on this input") from error
        for output in outputs:
            if output.shape[:1] != rows.shape[:1]:
                raise InferenceFailed("the model did not answer with one row for each row")
            if output.dtype.kind == "f" and not np.isfinite(output).all():
                raise InferenceFailed("the model answered NaN or infinity for this input")
        return outputs

    def close(self) -> None:
        """Let the session and its memory go; it can run no more."""
        self._session = None

    def self_test(self) -> None:
        """Run the card's examples; raises SelfTestFailed unless they answer as PyTorch did."""
        if self.card is None:
            self._run_zeros(1)
            return
        relative, absolute = VALUE_TOLERANCE, VALUE_TOLERANCE  # absolute for values near zero
        if self.card.task == "classification":
            relative, absolute = 0.0, PROBABILITY_TOLERANCE
        for example in self.card.examples:
            rows = np.array([example.input], dtype=self.input.dtype)
            try:
                answer = np.concatenate([output.ravel() for output in self.run(rows)])
            except InferenceFailed as error:
                raise SelfTestFailed(f"example {example.name!r}: {error}") from error
            expected = example.output + example.interval
            if not np.allclose(answer, expected, rtol=relative, atol=absolute):
                raise SelfTestFailed(
                    f"example {example.name!r}: expected {_short(expected)} as PyTorch "
                    f"answered, got {_short(answer.tolist())}"
                )

    def measure(self, rows: int) -> None:
        """Set `batch_seconds`, of `rows` rows, and `row_seconds`, after the self-test.

        Where the calling thread does all the work, its CPU time counts: a machine that is busy,
        as it may be when a model is opened while others serve, makes no model dearer.
        """
        self.batch_seconds = self._best_of_two(rows)
        self.row_seconds = self._best_of_two(1)

    def _best_of_two(self, rows: int) -> float:
        threads = self._session.get_session_options().intra_op_num_threads
        clock = thread_time if self.provider == CPU and threads == 1 else perf_counter
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
            zeros = np.zeros((rows, *self.input.shape), self.input.dtype)
            outputs = self._session.run(self._output_names, {self.input.name: zeros})
        except Exception as error:
            raise SelfTestFailed(f"{rows} rows of zeros: the model failed") from error
        for output in outputs:
            if output.shape[:1] != (rows,):
                raise SelfTestFailed(
                    f"{rows} rows of zeros: expected {rows} rows, got shape {output.shape}"
                )

    def _check_card(self) -> None:
        card = self.card
        if card is None:
            return
        if self.row_size != card.input_size:
            raise ModelError(
                f"input {self.input.name}: expected {card.input_size} numbers a row as the card "
                f"says, got shape {self.input.shape}"
            )
        expected = [(card.output_size,)] + ([(card.output_size, 2)] if card.interval else [])
        if [output.shape for output in self.outputs] != expected:
            got = ", ".join(f"{output.name} {output.shape}" for output in self.outputs)
            raise ModelError(f"expected outputs of shapes {expected} as the card says, got {got}")


def available_cpus() -> int:
    """Return how many CPUs this process may use: its affinity and its cgroup's quota."""
    # macOS has no affinity.
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for quota_file, period_file in (
        ("/sys/fs/cgroup/cpu.max", None),
        ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu/cpu.cfs_period_us"),
    ):
        quota = _quota(Path(quota_file), Path(period_file) if period_file else None)
        if quota is not None:
            return max(1, min(cpus, math.ceil(quota)))
    return cpus


def _quota(quota_file: Path, period_file: Path | None) -> float | None:
    """Read a CPU quota of cgroup v2 ("quota period" in one file) or v1 (two files)."""
    try:
        words = quota_file.read_text().split()
        period = period_file.read_text() if period_file else words[1]
    except OSError:
        return None
    if words[0] in ("max", "-1"):
        return None
    return float(words[0]) / float(period)


def _open_session(path: Path, device: str, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what it says is in the exception too
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers = [CPU]
    if device in ("auto", "cuda") and CUDA in ort.get_available_providers():
        providers = [CUDA, CPU]
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
    """Read an input or output of the graph; its first dimension is the batch."""
    if node.type not in _NUMERIC:
        raise ModelError(f"{node.name}: expected a tensor of numbers, got {node.type}")
    if not node.shape:
        raise ModelError(f"{node.name}: expected a batch dimension, got a single number")
    shape = tuple(size if isinstance(size, int) else -1 for size in node.shape[1:])
    return Tensor(name=node.name, dtype=_NUMERIC[node.type], shape=shape)


def _short(numbers: list[float]) -> str:
    shown = ", ".join(f"{number:.6g}" for number in numbers[:10])
    return f"[{shown}{', ...' if len(numbers) > 10 else ''}]"
