"""Runs that may cost only so much together."""

import ctypes
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.engine import file
from service.engine.spec import spec_of
from service.engine.trial_runner import TRIAL_BYTES, Runner, Stopped
from tests.support.foreign_models import FOREIGN, save, session
from tests.support.toys import save_toy

ROW = [np.ones((1, 4), np.float32)]


def runner(path: Path, *, inner: Any = None) -> Runner:
    opened = session(path)
    return Runner(inner(opened) if inner else opened, spec_of(opened, file.read(path).graph))


def test_answers_are_those_of_the_session_and_their_shapes_are_noted(tmp_path: Path) -> None:
    path = save(tmp_path, "column", FOREIGN["column"].model)
    with runner(path) as runs:
        outputs, seconds = runs.timed(ROW)
        runs.timed([np.ones((3, 4), np.float32)])
    (expected,) = session(path).run(None, {"x": ROW[0]})
    np.testing.assert_array_equal(outputs[0], expected)
    assert seconds > 0
    assert runs.shapes == [[(1, 1), (3, 1)]]


def test_what_onnx_runtime_raises_goes_on_to_the_caller(tmp_path: Path) -> None:
    with runner(save_toy(tmp_path)) as runs, pytest.raises(Exception, match="Got: 5 Expected: 4"):
        runs.timed([np.ones((1, 5), np.float32)])
    assert runs.shapes == [[]]


class Waiting:
    """A session on a machine that gives it no processor for a while, each time it runs."""

    threads = 1

    def __init__(self, session: Any) -> None:
        self._session = session
        self.get_providers = session.get_providers

    def get_session_options(self) -> Any:
        options = self._session.get_session_options()
        options.intra_op_num_threads = self.threads
        return options

    def run(self, *arguments: Any) -> Any:
        time.sleep(0.005)
        return self._session.run(*arguments)


class InThreads(Waiting):
    threads = 2


@pytest.mark.parametrize(("kind", "counts"), [(Waiting, False), (InThreads, True)])
def test_waiting_for_a_processor_counts_only_where_other_threads_may_work(
    kind: type[Waiting], counts: bool, tmp_path: Path
) -> None:
    with runner(save_toy(tmp_path), inner=kind) as runs:
        assert (runs.best_of_two(ROW) >= 0.005) == counts


def test_nothing_is_run_once_too_much_memory_was_used(tmp_path: Path) -> None:
    threads = threading.active_count()
    with runner(save_toy(tmp_path)) as runs:
        runs.timed(ROW)
        much = np.ones(TRIAL_BYTES + 2**24, np.uint8)
        assert runs.used_bytes > TRIAL_BYTES
        del much  # what was used at most counts
        with pytest.raises(Stopped):
            runs.timed(ROW)
    assert threading.active_count() == threads


BLOCK = 20 * 2**20  # bytes; one that glibc takes from its heap, once it gave a larger one back


def c_library() -> ctypes.CDLL:
    library = ctypes.CDLL(None)
    library.malloc.restype = ctypes.c_void_p
    library.malloc.argtypes = [ctypes.c_size_t]
    library.free.argtypes = [ctypes.c_void_p]
    library.free(library.malloc(3 * BLOCK // 2))
    return library


def used_block(library: ctypes.CDLL) -> int:
    """Take a block, and write to all of it: only then does the process have it."""
    block: int = library.malloc(BLOCK)
    ctypes.memset(block, 1, BLOCK)
    return block


@contextmanager
def free_memory(blocks: int) -> Iterator[ctypes.CDLL]:
    """Let the C library keep so many blocks that are free, as a process does that has worked."""
    library = c_library()
    parts = [(used_block(library), library.malloc(BLOCK)) for _ in range(blocks)]
    for used, _ in parts:
        library.free(used)  # what lies between them was never written to
    try:
        yield library
    finally:
        for _, between in parts:
            library.free(between)
        library.malloc_trim(0)


def test_memory_that_was_free_before_counts_once_it_is_used(tmp_path: Path) -> None:
    """A process that has worked has some; a trial would see none of what it takes of that."""
    with free_memory(10) as library, runner(save_toy(tmp_path)) as runs:
        taken = [used_block(library) for _ in range(5)]
        used = runs.used_bytes
        for block in taken:
            library.free(block)
    assert used >= 4.9 * BLOCK
