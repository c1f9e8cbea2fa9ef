"""What happens in a worker process: it opens the model, and answers one block after the other."""

import contextlib
import os
import pickle
import signal
import sys
import threading
import traceback
from importlib.abc import MetaPathFinder
from multiprocessing.connection import Connection
from queue import Queue
from typing import Any, Protocol

import pyarrow as pa
from msgspec import Struct

from service.batch.answered import Answered
from service.batch.scorer import Scorer
from service.commands.score.columns.writers import Writer


class Block(Protocol):
    """A piece of an input. It is pickled."""

    def answer(self, scorer: Scorer) -> Answered:
        """Return the answers to its rows."""


class Task(Struct, frozen=True):
    """A block to answer, and how to write the answers."""

    block: Block
    writer: Writer
    where: str  # says which rows these are
    file: str = ""  # that they are from, where there are several
    is_column: bool = False  # whether that stands before the answers

    def run(self, scorer: Scorer) -> "Result":
        """Answer the block. Raises ServiceError."""
        answered = self.block.answer(scorer)
        table, bad = answered.table, answered.bad
        if self.file:
            bad = [f"{self.file}: {each}" for each in bad]
        if self.is_column:
            names = pa.repeat(self.file, table.num_rows)
            table = pa.RecordBatch.from_arrays(
                [names, *table.columns], ["file", *table.schema.names]
            )
        return Result(self.writer.encode(table), table.num_rows, bad)


class Result(Struct, frozen=True):
    """What a block becomes: bytes of the output, so many rows, and why others are left out."""

    data: bytes
    rows: int
    bad: list[str]


def be_small() -> None:
    """Let Arrow start no threads, keep little memory, and load no pandas: there are several of it.

    pyarrow 26 loads pandas, where that is installed, as soon as it makes an array: half a second
    and 45 MB of each process. It tries once; nobody else is told that there is no pandas.
    """
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    with contextlib.suppress(NotImplementedError):  # not in each build
        pa.set_memory_pool(pa.jemalloc_memory_pool())  # it gives back what mimalloc would keep
    no_pandas = _NoPandas()
    sys.meta_path.insert(0, no_pandas)
    try:
        pa.scalar(0)
    finally:
        sys.meta_path.remove(no_pandas)


class _NoPandas(MetaPathFinder):
    """Says that pandas is not installed."""

    def find_spec(self, name: str, *_: object) -> None:
        """Raise ModuleNotFoundError for it; leave others to others."""
        if name == "pandas":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def work(pipe: Connection) -> None:
    """Answer tasks from a pipe until it closes. What is raised is sent as the answer.

    Before them comes a Scorer, pickled, which holds no more than the words that made it. While a
    task is answered the next is received, and the answer before is sent.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent answers it
    tasks: Queue[Any] = Queue()  # the parent sends no more than it means to
    answers: Queue[Any] = Queue(1)
    for function, queue in ((_receive, tasks), (_send, answers)):
        threading.Thread(target=function, args=(pipe, queue), daemon=True).start()
    be_small()
    pickled = tasks.get()
    scorer: Scorer | None = None
    while True:
        task: Task = tasks.get()
        try:
            scorer = scorer or pickle.loads(pickled)
            answers.put(task.run(scorer))
        except Exception as error:
            error.add_note(traceback.format_exc())
            answers.put(error)


def _receive(pipe: Connection, tasks: "Queue[Any]") -> None:
    """Receive tasks; end this process when its parent has ended."""
    try:
        while True:
            tasks.put(pipe.recv())
    finally:
        os._exit(1)


def _send(pipe: Connection, answers: "Queue[Any]") -> None:
    """Send answers; end this process when its parent has ended."""
    try:
        while True:
            pipe.send(answers.get())
    finally:
        os._exit(1)
