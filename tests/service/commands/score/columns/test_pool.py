"""Blocks here are of the test: they say who answered them, or end the process that tries."""

import errno
import os
import signal
from collections.abc import Iterator
from multiprocessing.context import SpawnProcess
from pathlib import Path

import pyarrow as pa
import pytest
from msgspec import Struct

from service.batch import Scorer
from service.batch.answered import Answered
from service.commands.score.columns.pool import MOST_AHEAD, Pool, Step
from service.commands.score.columns.processes import Processes
from service.commands.score.columns.worker import Result, Task
from service.commands.score.columns.writers import Writer
from service.commands.score.suffixes import CSV
from service.errors import CannotScore, InvalidInput
from service.settings import Settings
from tests.support.toys import save_toy, toy_card

SCHEMA = pa.schema([("number", pa.int64())])
WRITER = Writer(CSV, "", SCHEMA, ["number"])


class Numbered(Struct, frozen=True):
    """A block of one row."""

    number: int
    bad: str = ""  # what it raises
    dies_until: str = ""  # a file, without which the process ends, once it is made

    def answer(self, scorer: Scorer) -> Answered:
        if self.bad:
            raise InvalidInput(self.bad)
        if self.dies_until and not os.path.exists(self.dies_until):
            if not self.dies_until.endswith("never"):
                open(self.dies_until, "x").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return Answered(pa.record_batch([[self.number]], SCHEMA), [])


def task(number: int, **what: str) -> Task:
    return Task(Numbered(number, **what), WRITER, f"in: row {number}")


@pytest.fixture
def toy(tmp_path: Path) -> Scorer:
    save_toy(tmp_path, card=toy_card())
    return Scorer("toy", Settings(models_dir=tmp_path))


@pytest.fixture
def two(toy: Scorer) -> Iterator[Pool]:
    """Two workers."""
    with Processes(2) as processes, Pool(toy, 2, processes) as pool:
        processes.open(toy)
        yield pool


def numbers(pool: Pool, steps: Iterator[Step[int]]) -> list[tuple[int, bytes]]:
    return [(what, b"" if result is None else result.data) for what, result in pool.answer(steps)]


def test_one_process_is_this_one(toy: Scorer) -> None:
    with Pool(toy, 1) as pool:
        steps = (Step(task(n) if n % 3 else None, n) for n in range(7))
        expected = [(n, b"%d\n" % n if n % 3 else b"") for n in range(7)]
        assert numbers(pool, steps) == expected
        assert not pool.workers


def test_where_no_process_can_be_started_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(SpawnProcess, "start", fail)
    with pytest.raises(CannotScore) as raised:
        Processes(2)
    assert str(raised.value) == "--workers: none can be started: Resource temporarily unavailable"


# Processes that import ONNX Runtime take their time.


@pytest.mark.slow
def test_answers_come_in_order_and_few_blocks_are_in_memory(two: Pool) -> None:
    begun, done = [], []

    def steps() -> Iterator[Step[int]]:
        for n in range(30):
            begun.append(n)
            assert len(begun) - len(done) <= 2 * MOST_AHEAD
            yield Step(task(n) if n % 3 else None, n)

    for what, result in two.answer(steps()):
        done.append(what)
        assert (result is None) == (what % 3 == 0)
        if result is not None:
            assert result == Result(b"%d\n" % what, 1, [])
    assert len(two.workers) == 2
    assert done == list(range(30))


@pytest.mark.slow
def test_an_error_is_raised_when_its_turn_comes(two: Pool) -> None:
    answers = two.answer(iter([Step(task(1), 1), Step(task(2, bad="row 2: no"), 2)]))
    assert next(answers)[0] == 1
    with pytest.raises(InvalidInput, match=r"^row 2: no") as raised:
        next(answers)
    assert "in answer" in raised.value.__notes__[0]  # where it was raised


@pytest.mark.slow
def test_blocks_of_a_process_that_ended_go_to_others(two: Pool, tmp_path: Path) -> None:
    steps = [
        Step(task(n, dies_until=str(tmp_path / "died") if n == 3 else ""), n) for n in range(9)
    ]
    assert numbers(two, iter(steps)) == [(n, b"%d\n" % n) for n in range(9)]


@pytest.mark.slow
def test_a_block_that_ends_every_process_is_named(two: Pool) -> None:
    steps = [Step(task(n, dies_until="/never" if n == 1 else ""), n) for n in range(3)]
    with pytest.raises(CannotScore) as raised:
        numbers(two, iter(steps))
    assert str(raised.value) == (
        "in: row 1: each of 3 processes ended before it had answered, the last with SIGKILL, as "
        "where memory is short"
    )


@pytest.mark.slow
def test_processes_that_nobody_took_end() -> None:
    with Processes(2) as processes:
        pids = [each.pid for each in processes._started]
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
