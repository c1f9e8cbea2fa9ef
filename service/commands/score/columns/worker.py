"""What happens in a worker process: it opens the model, and answers one block after the other."""

import os
import pickle
import signal
import threading
import traceback
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
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
    """Let Arrow start no threads: there is a process for each core."""
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)


def work(pipe: Connection, pickled: bytes) -> None:
    """Answer tasks from a pipe until it closes. What is raised is sent as the answer.

    pickled: a Scorer, which holds no more than the words that made it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent answers it
    threading.Thread(target=_end_with_parent, daemon=True).start()
    be_small()
    scorer: Scorer | None = None
    while True:
        try:
            task: Task = pipe.recv()
        except (EOFError, OSError):
            return
        answer: Any
        try:
            scorer = scorer or pickle.loads(pickled)
            answer = task.run(scorer)
        except Exception as error:
            error.add_note(traceback.format_exc())
            answer = error
        pipe.send(answer)


def _end_with_parent() -> None:
    """End this process when its parent has ended, however that was."""
    parent = parent_process()
    if parent is None:
        raise RuntimeError("a worker has a parent. This is a bug.")
    wait([parent.sentinel])
    os._exit(1)
