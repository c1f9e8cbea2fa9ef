import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from service.batcher import Batcher, Outputs
from service.errors import DeadlineExceeded, QueueFull, RequestError, Unavailable
from service.metrics import OUTCOMES, REASONS, UNMATCHED_OUTCOMES, Blocks, ModelMetrics

pytestmark = pytest.mark.anyio

Run = Callable[[NDArray[Any]], Outputs]


class Doubler:
    """A run function at the boundary: doubles its rows, and remembers its batches."""

    def __init__(self) -> None:
        self.batches: list[list[float]] = []

    def __call__(self, rows: NDArray[Any]) -> Outputs:
        self.batches.append(rows[:, 0].tolist())
        if (rows < 0).any():
            raise ValueError("negative")
        return [rows * 2, rows[:, 0]]


class Gate(Doubler):
    """A Doubler in a thread that waits in each batch until it is let go on."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Semaphore(0)
        self.leave = threading.Semaphore(0)

    def __call__(self, rows: NDArray[Any]) -> Outputs:
        self.entered.release()
        assert self.leave.acquire(timeout=10)
        return super().__call__(rows)


def make(run: Run, **options: Any) -> tuple[Batcher, ModelMetrics]:
    metrics = ModelMetrics("toy", "1", blocks=Blocks())
    options = {"max_batch_size": 4, "max_queue_rows": 100} | options
    return Batcher(run, metrics, **options), metrics


def rows(*numbers: float) -> NDArray[np.float32]:
    return np.array([[number] for number in numbers], np.float32)


def rejected(metrics: ModelMetrics, reason: str) -> float:
    return metrics._rejected[REASONS.index(reason)]


async def until_entered(gate: Gate) -> None:
    assert await asyncio.to_thread(gate.entered.acquire, timeout=10)


@pytest.fixture
def thread() -> Any:
    with ThreadPoolExecutor(1) as executor:
        yield executor


async def test_each_of_many_callers_gets_its_own_answer() -> None:
    run = Doubler()
    batcher, _ = make(run)
    outputs = await asyncio.gather(*(batcher.submit(rows(n), 10) for n in range(8)))
    for number, (doubled, same) in enumerate(outputs):
        assert doubled.tolist() == [[2 * number]]
        assert same.tolist() == [number]
    assert run.batches == [[0, 1, 2, 3], [4, 5, 6, 7]]


async def test_a_lone_caller_is_not_kept_waiting() -> None:
    run = Doubler()
    batcher, metrics = make(run)
    await batcher.submit(rows(1), 10)
    assert run.batches == [[1]]
    assert sum(metrics.batch_rows._cells[:-1]) == 1


async def test_a_caller_who_is_alone_is_answered_where_it_stands() -> None:
    run = Doubler()
    batcher, metrics = make(run)
    asked = batcher.submit(rows(1, 2), 10, alone=True)
    with pytest.raises(StopIteration) as answered:  # at the first step, without the event loop
        asked.send(None)
    doubled, _ = answered.value.value
    assert doubled.tolist() == [[2], [4]]
    assert sum(metrics.batch_rows._cells[:-1]) == sum(metrics.compute_seconds._cells[:-1]) == 1
    assert metrics.queue_seconds._cells[-1] == 0
    with pytest.raises(ValueError, match="negative"):
        await batcher.submit(rows(-1), 10, alone=True)
    assert sum(metrics.batch_rows._cells[:-1]) == 2


@pytest.mark.parametrize(
    ("count", "options", "batches"),
    [
        (3, {"max_rows_in_loop": 2}, [[0, 1, 2]]),
        (1, {"max_rows_in_loop": 0}, [[0]]),
        (6, {}, [[0, 1, 2, 3], [4, 5]]),  # more than a batch
        (6, {"max_rows_in_loop": 9}, [[0, 1, 2, 3], [4, 5]]),
        (1, {"max_queue_delay_s": 0.001}, [[0]]),
    ],
)
async def test_too_many_rows_wait_for_their_batch_even_alone(
    count: int, options: dict[str, Any], batches: list[list[float]]
) -> None:
    run = Doubler()
    batcher, metrics = make(run, **options)
    await batcher.submit(rows(*range(count)), 10, alone=True)
    assert run.batches == batches
    assert metrics.queue_seconds._cells[-1] > 0


async def test_a_dear_model_runs_few_rows_in_the_loop_for_a_caller_who_is_alone(
    thread: Any,
) -> None:
    threads: list[threading.Thread] = []

    def run(rows: NDArray[Any]) -> Outputs:
        threads.append(threading.current_thread())
        return [rows]

    batcher, _ = make(run, executor=thread, max_rows_in_loop=1)
    await batcher.submit(rows(1), 10, alone=True)
    await batcher.submit(rows(1, 2), 10, alone=True)
    await batcher.submit(rows(1), 10)
    here = [each is threading.main_thread() for each in threads]
    assert here == [True, False, False]


async def test_while_a_batch_runs_nobody_is_alone(thread: Any) -> None:
    gate = Gate()
    batcher, _ = make(gate, executor=thread)
    first = asyncio.create_task(batcher.submit(rows(1), 10))
    await until_entered(gate)
    second = asyncio.create_task(batcher.submit(rows(2), 10, alone=True))
    await asyncio.sleep(0)
    assert not second.done()
    gate.leave.release(2)
    await asyncio.gather(first, second)
    assert gate.batches == [[1], [2]]


async def test_a_batch_is_counted_in_rows_and_keeps_the_order() -> None:
    run = Doubler()
    batcher, _ = make(run)
    await asyncio.gather(
        batcher.submit(rows(1, 2, 3), 10),
        batcher.submit(rows(4, 5), 10),
        batcher.submit(rows(6), 10),
    )
    assert run.batches == [[1, 2, 3], [4, 5, 6]]


async def test_a_request_larger_than_a_batch_is_split_and_put_together() -> None:
    run = Doubler()
    batcher, _ = make(run)
    doubled, same = await batcher.submit(rows(*range(10)), 10)
    assert doubled.tolist() == [[2 * number] for number in range(10)]
    assert same.tolist() == list(range(10))
    assert run.batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


async def test_other_work_gets_its_turn_between_the_batches_of_a_long_queue() -> None:
    run = Doubler()
    batcher, _ = make(run)
    task = asyncio.create_task(batcher.submit(rows(*range(12)), 10))
    await asyncio.sleep(0)
    seen = []
    while not task.done():
        seen.append(len(run.batches))
        await asyncio.sleep(0)
    assert {0, 1, 2} <= set(seen)


async def test_while_a_batch_runs_what_arrives_forms_the_next(thread: Any) -> None:
    gate = Gate()
    batcher, _ = make(gate, executor=thread)
    first = asyncio.create_task(batcher.submit(rows(1), 10))
    await until_entered(gate)
    rest = [asyncio.create_task(batcher.submit(rows(n), 10)) for n in (2, 3, 4)]
    await asyncio.sleep(0)
    gate.leave.release(2)
    await asyncio.gather(first, *rest)
    assert gate.batches == [[1], [2, 3, 4]]


async def test_a_cancelled_caller_takes_its_rows_along_and_harms_nobody(thread: Any) -> None:
    gate = Gate()
    batcher, metrics = make(gate, executor=thread)
    first = asyncio.create_task(batcher.submit(rows(1), 10))
    await until_entered(gate)
    tasks = [asyncio.create_task(batcher.submit(rows(n), 10)) for n in (2, 3, 4)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    gate.leave.release(2)
    answers = await asyncio.gather(first, *tasks, return_exceptions=True)
    assert [type(answer) for answer in answers] == [list, list, asyncio.CancelledError, list]
    assert gate.batches == [[1], [2, 4]]
    assert rejected(metrics, "cancelled") == 1


async def test_a_caller_cancelled_while_its_batch_runs_does_not_hurt_it(thread: Any) -> None:
    gate = Gate()
    batcher, _ = make(gate, executor=thread)
    tasks = [asyncio.create_task(batcher.submit(rows(n), 10)) for n in (1, 2)]
    await until_entered(gate)
    tasks[0].cancel()
    await asyncio.sleep(0)
    gate.leave.release()
    (doubled, _) = await tasks[1]
    assert doubled.tolist() == [[4]]
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]


async def test_a_cancelled_large_request_cancels_all_its_parts(thread: Any) -> None:
    gate = Gate()
    batcher, metrics = make(gate, executor=thread)
    task = asyncio.create_task(batcher.submit(rows(*range(12)), 10))
    await until_entered(gate)
    task.cancel()
    await asyncio.sleep(0)
    gate.leave.release(3)
    await batcher.close()
    assert gate.batches == [[0, 1, 2, 3]]
    assert rejected(metrics, "cancelled") == 8


async def test_in_a_batch_that_raises_only_the_culprit_fails() -> None:
    run = Doubler()
    batcher, _ = make(run)
    answers = await asyncio.gather(
        *(batcher.submit(rows(n), 10) for n in (1, -2, 3)), return_exceptions=True
    )
    assert answers[0][0].tolist() == [[2]]
    assert isinstance(answers[1], ValueError)
    assert answers[2][0].tolist() == [[6]]
    assert run.batches == [[1, -2, 3], [1], [-2], [3]]


async def test_the_batcher_lives_on_after_a_failure() -> None:
    batcher, _ = make(Doubler())
    with pytest.raises(ValueError, match="negative"):
        await batcher.submit(rows(-1), 10)
    assert (await batcher.submit(rows(1), 10))[0].tolist() == [[2]]


async def test_a_full_queue_refuses_at_once_and_says_so(thread: Any) -> None:
    gate = Gate()
    batcher, metrics = make(gate, executor=thread, max_queue_rows=2)
    first = asyncio.create_task(batcher.submit(rows(1), 10))
    await until_entered(gate)
    waiting = asyncio.create_task(batcher.submit(rows(2, 3), 10))
    await asyncio.sleep(0)
    with pytest.raises(QueueFull, match="at most 2 rows may wait, 2 do"):
        await batcher.submit(rows(4), 10)
    assert rejected(metrics, "queue_full") == 1
    gate.leave.release(2)
    await asyncio.gather(first, waiting)


async def test_rows_of_callers_who_left_do_not_fill_the_queue(thread: Any) -> None:
    gate = Gate()
    batcher, _ = make(gate, executor=thread, max_queue_rows=2)
    first = asyncio.create_task(batcher.submit(rows(1), 10))
    await until_entered(gate)
    left = asyncio.create_task(batcher.submit(rows(2, 3), 10))
    await asyncio.sleep(0)
    left.cancel()
    await asyncio.sleep(0)
    late = asyncio.create_task(batcher.submit(rows(4, 5), 10))
    await asyncio.sleep(0)
    gate.leave.release(2)
    await asyncio.gather(first, late)
    assert gate.batches == [[1], [4, 5]]


async def test_an_empty_queue_takes_a_request_larger_than_its_bound() -> None:
    batcher, _ = make(Doubler(), max_queue_rows=2)
    doubled, _ = await batcher.submit(rows(*range(6)), 10)
    assert len(doubled) == 6


async def test_a_passed_deadline_is_told_while_the_batch_before_still_runs(thread: Any) -> None:
    gate = Gate()
    batcher, metrics = make(gate, executor=thread)
    first = asyncio.create_task(batcher.submit(rows(1), 10))
    await until_entered(gate)
    with pytest.raises(DeadlineExceeded, match="deadline passed after"):
        await batcher.submit(rows(2), 0.01)
    gate.leave.release()
    await first
    await batcher.close()
    assert gate.batches == [[1]]  # the late rows were dropped, not run
    assert rejected(metrics, "deadline") == 1


async def test_a_deadline_that_passed_before_the_batch_forms_drops_the_entry() -> None:
    run = Doubler()
    batcher, metrics = make(run)
    with pytest.raises(DeadlineExceeded):
        await batcher.submit(rows(1), -1)
    assert run.batches == []
    assert rejected(metrics, "deadline") == 1


async def test_closing_answers_what_waits_and_refuses_what_comes(thread: Any) -> None:
    gate = Gate()
    batcher, _ = make(gate, executor=thread)
    tasks = [asyncio.create_task(batcher.submit(rows(n), 10)) for n in range(6)]
    await until_entered(gate)
    closing = asyncio.create_task(batcher.close())
    await asyncio.sleep(0)
    with pytest.raises(Unavailable):
        await batcher.submit(rows(9), 10)
    assert not closing.done()
    gate.leave.release(2)
    await closing
    assert all(task.done() for task in tasks)
    assert [task.result()[0].tolist() for task in tasks] == [[[2 * n]] for n in range(6)]


async def test_with_a_queue_delay_a_batch_waits_for_more_but_not_when_full() -> None:
    run = Doubler()
    batcher, _ = make(run, max_queue_delay_s=0.05)
    one = asyncio.create_task(batcher.submit(rows(1), 10))
    for _ in range(5):
        await asyncio.sleep(0)
    assert run.batches == []
    two = asyncio.create_task(batcher.submit(rows(2), 10))
    await asyncio.gather(one, two)
    assert run.batches == [[1, 2]]
    batcher, _ = make(run, max_queue_delay_s=3600)
    await asyncio.gather(*(batcher.submit(rows(n), 10) for n in range(4)))
    assert run.batches[1:] == [[0, 1, 2, 3]]


async def test_the_queue_gauge_counts_the_rows_that_wait(thread: Any) -> None:
    gate = Gate()
    batcher, metrics = make(gate, executor=thread)
    first = asyncio.create_task(batcher.submit(rows(1), 10))
    await until_entered(gate)
    waiting = asyncio.create_task(batcher.submit(rows(2, 3), 10))
    await asyncio.sleep(0)
    assert metrics._queue_rows[0] == 2
    gate.leave.release(2)
    await asyncio.gather(first, waiting)
    assert metrics._queue_rows[0] == 0


async def test_a_refusal_looks_through_the_queue_only_after_somebody_left(thread: Any) -> None:
    gate = Gate()
    batcher, metrics = make(gate, executor=thread, max_queue_rows=4)
    first = asyncio.create_task(batcher.submit(rows(1), 10))
    await until_entered(gate)
    left = asyncio.create_task(batcher.submit(rows(2, 3), 10))
    stays = asyncio.create_task(batcher.submit(rows(4, 5), 10))
    await asyncio.sleep(0)
    left.cancel()
    await asyncio.sleep(0)
    with pytest.raises(QueueFull, match="at most 4 rows may wait, 2 do"):
        await batcher.submit(rows(6, 7, 8), 10)
    assert metrics._queue_rows[0] == 2
    gate.leave.release(2)
    await asyncio.gather(first, stays)


async def test_the_parts_of_a_large_request_that_left_do_not_fill_the_queue(thread: Any) -> None:
    gate = Gate()
    batcher, _ = make(gate, executor=thread, max_queue_rows=8)
    first = asyncio.create_task(batcher.submit(rows(1), 10))
    await until_entered(gate)
    left = asyncio.create_task(batcher.submit(rows(*range(8)), 10))
    await asyncio.sleep(0)
    left.cancel()
    for _ in range(3):
        await asyncio.sleep(0)
    last = asyncio.create_task(batcher.submit(rows(9), 10))
    await asyncio.sleep(0)
    gate.leave.release(2)
    await asyncio.gather(first, last)
    assert gate.batches == [[1], [9]]


async def test_times_are_measured_of_queue_and_computation(thread: Any) -> None:
    gate = Gate()
    batcher, metrics = make(gate, executor=thread)
    first = asyncio.create_task(batcher.submit(rows(1), 10))
    await until_entered(gate)
    second = asyncio.create_task(batcher.submit(rows(2), 10))
    await asyncio.sleep(0.05)
    gate.leave.release(2)
    await asyncio.gather(first, second)
    assert sum(metrics.compute_seconds._cells[:-1]) == 2
    assert sum(metrics.queue_seconds._cells[:-1]) == 2
    assert metrics.compute_seconds._cells[-1] >= 0.05  # the first batch was held in the gate
    assert metrics.queue_seconds._cells[-1] >= 0.05  # the second waited as long


@pytest.mark.parametrize("alone", [True, False])
async def test_rows_that_come_after_their_deadline_are_not_run(alone: bool) -> None:
    doubler = Doubler()
    batcher, metrics = make(doubler)
    with pytest.raises(DeadlineExceeded):
        await batcher.submit(rows(1, 2, 3), -0.1, alone=alone)
    assert metrics._rejected[REASONS.index("deadline")] == 3
    assert sum(metrics.batch_rows._cells) == 0


async def test_rows_that_do_not_fit_together_fail_alone() -> None:
    batcher, _ = make(Doubler())
    odd = np.zeros((1, 2), np.float32)
    answers = await asyncio.gather(batcher.submit(rows(1), 10), batcher.submit(odd, 10))
    assert answers[0][0].tolist() == [[2]]


def leaves(kind: type[Exception]) -> list[Any]:
    return [kind, *(leaf for each in kind.__subclasses__() for leaf in leaves(each))]


def test_every_error_has_a_counter() -> None:
    outcomes = {each.outcome for each in leaves(RequestError)}
    before_a_model_is_known = {"unauthorized", "timeout", "too_many_connections"}
    assert outcomes - before_a_model_is_known <= set(OUTCOMES)
    assert outcomes - {QueueFull.outcome} <= set(UNMATCHED_OUTCOMES)
