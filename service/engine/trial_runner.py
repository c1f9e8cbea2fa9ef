"""Runs of a session that may cost only so much time and memory together."""

import contextlib
import ctypes
import os
import re
import threading
from collections.abc import Callable, Sequence
from math import inf
from time import clock_gettime, perf_counter
from typing import Any, Self

import onnxruntime as ort
from numpy.typing import NDArray

from service.engine.providers import CPU
from service.engine.session import short, what_is_short
from service.engine.spec import Spec
from service.engine.trial_rows import Arrays
from service.errors import OutOfResources

# What a trial may cost. A run is stopped between two operations, so a little more may be used.
TRIAL_S = 0.8  # of the thread's CPU time where the session runs on it, else of the clock
TRIAL_BYTES = 192 * 2**20  # above what the process has when it begins

_WORTH_GIVING_BACK = 2**24
_CHECK_S = 0.005  # between two checks of what is used


class Stopped(Exception):
    """The runs may cost no more."""


class RunFailed(Exception):
    """A run failed; the message is what ONNX Runtime said of it."""


class Runner:
    """Runs a session, and stops it when the runs together cost too much. `with` it."""

    def __init__(
        self,
        session: ort.InferenceSession,
        spec: Spec,
        watch: Callable[[Arrays], None] | None = None,
    ) -> None:
        """Take a session; what it uses counts from `with` on. `watch` is shown each answer."""
        self._session = session
        self._names = [each.name for each in spec.inputs]
        self._outputs = [each.name for each in spec.outputs]
        self._watch_answers = watch
        self.provider: str = session.get_providers()[0]
        self.shapes: list[list[tuple[int, ...]]] = [[] for _ in spec.outputs]  # of all answers
        # A busy machine makes no model slower where this thread does all the work.
        is_alone = self.provider == CPU and session.get_session_options().intra_op_num_threads == 1
        self._clock = _clock_of_this_thread() if is_alone else perf_counter
        self._options = ort.RunOptions()
        self._done = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="trial", daemon=True)
        self._most_bytes = 0
        self.is_short = False  # whether a run failed for want of what may be there another time
        self._least: tuple[dict[str, NDArray[Any]] | None, float] = None, inf  # that was run

    def __enter__(self) -> Self:
        give_back_free_memory()  # else what is taken of it would not be seen
        self._start = self._clock()
        self._statm = _open_statm()
        self._bytes_before = _resident_bytes(self._statm)
        try:
            self._watcher.start()
        except RuntimeError as error:
            self._close()
            raise OutOfResources("no thread can be started to try it") from error
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._watcher.join()
        self._close()

    def _close(self) -> None:
        if self._statm is not None:
            os.close(self._statm)

    @property
    def seconds_left(self) -> float:
        """How long runs may still take."""
        return self._start + TRIAL_S - self._clock()

    @property
    def used_bytes(self) -> int:
        """How much memory was used at most."""
        self._most_bytes = max(self._most_bytes, _resident_bytes(self._statm))
        return self._most_bytes - self._bytes_before

    def timed(self, inputs: Sequence[NDArray[Any]]) -> tuple[Arrays, float]:
        """Return what the session answers, and the seconds that it took.

        Raises Stopped and RunFailed.
        """
        if self._is_over():
            raise Stopped
        feed = dict(zip(self._names, inputs, strict=True))
        start = self._clock()
        try:
            outputs: Arrays = self._session.run(self._outputs, feed, self._options)
        except Exception as error:  # ONNX Runtime raises its own, undocumented classes
            if self._options.terminate:
                raise Stopped from None
            self.is_short = self.is_short or self._may_pass(error)
            raise RunFailed(short(error)) from error
        seconds = self._clock() - start
        if seconds < self._least[1]:
            self._least = feed, seconds
        for seen, output in zip(self.shapes, outputs, strict=True):
            seen.append(output.shape)
        if self._watch_answers is not None:
            self._watch_answers(outputs)
        return outputs, seconds

    def best_of_two(self, inputs: Sequence[NDArray[Any]]) -> float:
        """Return the seconds of the faster of two runs; of one, where no more may be used."""
        seconds = self.timed(inputs)[1]
        if seconds > self.seconds_left:
            return seconds
        return min(seconds, self.timed(inputs)[1])

    def _may_pass(self, error: Exception) -> bool:
        """Whether something was short, and not more was wanted than runs may use anyway."""
        wanted = re.search(r"requested buffer of size (\d+)", str(error))
        is_much = wanted is not None and int(wanted[1]) > TRIAL_BYTES and self.provider == CPU
        return bool(what_is_short(error)) and not is_much

    def give_back_memory(self) -> None:
        """Let the session give back what it keeps for more runs of that size; runs the least."""
        least, seconds = self._least
        if least is None or seconds > TRIAL_S / 4 or self.used_bytes < _WORTH_GIVING_BACK:
            return
        options = ort.RunOptions()
        device = "cpu" if self.provider == CPU else "gpu"
        # onnxruntime_run_options_config_keys.h, kOrtRunOptionsConfigEnableMemoryArenaShrinkage
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", f"{device}:0")
        with contextlib.suppress(Exception):  # ONNX Runtime raises its own, undocumented classes
            self._session.run(self._outputs, least, options)

    def _watch(self) -> None:
        while not self._done.wait(_CHECK_S):
            if self._is_over():
                self._options.terminate = True
                return

    def _is_over(self) -> bool:
        return self.seconds_left < 0 or self.used_bytes > TRIAL_BYTES


def _clock_of_this_thread() -> Callable[[], float]:
    """Return a clock of the CPU time of this thread, which other threads can read too."""
    try:
        from time import pthread_getcpuclockid
    except ImportError:  # macOS
        return perf_counter
    clock = pthread_getcpuclockid(threading.get_ident())
    return lambda: clock_gettime(clock)


def give_back_free_memory() -> None:
    """Let the C library return free memory to the system: glibc keeps it else."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def resident_bytes() -> int:
    """Return how much memory the process has; 0 where the system does not say."""
    statm = _open_statm()
    try:
        return _resident_bytes(statm)
    finally:
        if statm is not None:
            os.close(statm)


def _open_statm() -> int | None:
    try:
        return os.open("/proc/self/statm", os.O_RDONLY)
    except OSError:
        return None


def _resident_bytes(statm: int | None) -> int:
    if statm is None:
        return 0
    return int(os.pread(statm, 100, 0).split()[1]) * os.sysconf("SC_PAGE_SIZE")
