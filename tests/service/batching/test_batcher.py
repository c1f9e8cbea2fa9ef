import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from service.batching import SLOW_S, UNSHARED, Batcher, Entry, Inputs, Outputs, Spare, Timing
from service.errors import (
    DeadlineExceeded,
    InferenceFailed,
    InvalidInput,
    QueueFull,
    Unavailable,
)
from tests.support.clocks import Clock, soon

pytestmark = pytest.mark.anyio

Run = Callable[[Inputs], Outputs]


class Doubler:
    """A run function at the boundary: doubles its rows, and remembers its batches."""

    def __init__(self) -> None:
        self.batches: list[list[float]] = []

    def __call__(self, inputs: Inputs) -> Outputs:
        (rows,) = inputs
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

    def __call__(self, inputs: Inputs) -> Outputs:
        self.entered.release()
        assert self.leave.acquire(timeout=10)
        return super().__call__(inputs)


class Recorder:
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.waiting = 0
        self.lost = Counter[str]()  # rows, by reason
        self.rows: list[int] = []  # of each batch
        self.seconds: list[float] = []  # of each batch
        self.waits: list[float] = []  # of each entry

    def queued(self, rows: int) -> None:
        self.waiting += rows

    def dropped(self, reason: str, rows: int) -> None:
        self.lost[reason] += rows

    def ran(self, rows: int, seconds: float, waits: Sequence[float]) -> None:
        self.rows.append(rows)
        self.seconds.append(seconds)
        self.waits += waits


def make(run: Run, **options: Any) -> tuple[Batcher, Recorder]:
    observer = Recorder()
    options = {"max_batch_size": 4, "max_queue_rows": 100} | options
    return Batcher(run, observer, **options), observer


def rows(*numbers: float) -> NDArray[np.float32]:
    return np.array([[number] for number in numbers], np.float32)


def submit(
    batcher: Batcher,
    rows: NDArray[Any],
    timeout_s: float = 10,
    *,
    clock: Callable[[], float] = time.perf_counter,
    **options: Any,
) -> Coroutine[Any, Any, Outputs]:
    """Submit the rows of the only input."""
    return batcher.submit([rows], len(rows), clock() + timeout_s, **options)


async def until_entered(gate: Gate) -> None:
    assert await asyncio.to_thread(gate.entered.acquire, timeout=10)


@pytest.fixture
def thread() -> Any:
    with ThreadPoolExecutor(1) as executor:
        yield executor


async def test_each_of_many_callers_gets_its_own_answer() -> None:
    run = Doubler()
    batcher, _ = make(run)
    outputs = await asyncio.gather(*(submit(batcher, rows(n)) for n in range(8)))
    for number, (doubled, same) in enumerate(outputs):
        assert doubled.tolist() == [[2 * number]]
        assert same.tolist() == [number]
    assert run.batches == [[0, 1, 2, 3], [4, 5, 6, 7]]


async def test_a_lone_caller_is_not_kept_waiting() -> None:
    run = Doubler()
    batcher, observer = make(run)
    await submit(batcher, rows(1))
    assert run.batches == [[1]]
    assert observer.rows == [1]


async def test_a_caller_who_is_alone_is_answered_where_it_stands() -> None:
    run = Doubler()
    batcher, observer = make(run)
    asked = submit(batcher, rows(1, 2), alone=True)
    with pytest.raises(StopIteration) as answered:  # at the first step, without the event loop
        asked.send(None)
    doubled, _ = answered.value.value
    assert doubled.tolist() == [[2], [4]]
    assert observer.rows == [2]
    assert observer.waits == [0]
    with pytest.raises(ValueError, match="negative"):
        await submit(batcher, rows(-1), alone=True)
    assert observer.rows == [2, 1]


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
    batcher, observer = make(run, **options)
    await submit(batcher, rows(*range(count)), alone=True)
    assert run.batches == batches
    assert sum(observer.waits) > 0


async def test_a_dear_model_runs_few_rows_in_the_loop_for_a_caller_who_is_alone(
    thread: Any,
) -> None:
    threads: list[threading.Thread] = []

    def run(inputs: Inputs) -> Outputs:
        threads.append(threading.current_thread())
        return inputs

    batcher, _ = make(run, executor=thread, max_rows_in_loop=1)
    await submit(batcher, rows(1), alone=True)
    await submit(batcher, rows(1, 2), alone=True)
    await submit(batcher, rows(1))
    here = [each is threading.main_thread() for each in threads]
    assert here == [True, False, False]


async def test_while_a_batch_runs_nobody_is_alone(thread: Any) -> None:
    gate = Gate()
    batcher, _ = make(gate, executor=thread)
    first = asyncio.create_task(submit(batcher, rows(1)))
    await until_entered(gate)
    second = asyncio.create_task(submit(batcher, rows(2), alone=True))
    await asyncio.sleep(0)
    assert not second.done()
    gate.leave.release(2)
    await asyncio.gather(first, second)
    assert gate.batches == [[1], [2]]


async def test_a_batch_is_counted_in_rows_and_keeps_the_order() -> None:
    run = Doubler()
    batcher, _ = make(run)
    await asyncio.gather(
        submit(batcher, rows(1, 2, 3)),
        submit(batcher, rows(4, 5)),
        submit(batcher, rows(6)),
    )
    assert run.batches == [[1, 2, 3], [4, 5, 6]]


async def test_a_request_larger_than_a_batch_is_split_and_put_together() -> None:
    run = Doubler()
    batcher, _ = make(run)
    doubled, same = await submit(batcher, rows(*range(10)))
    assert doubled.tolist() == [[2 * number] for number in range(10)]
    assert same.tolist() == list(range(10))
    assert run.batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


async def test_other_work_gets_its_turn_between_the_batches_of_a_long_queue() -> None:
    run = Doubler()
    batcher, _ = make(run)
    task = asyncio.create_task(submit(batcher, rows(*range(12))))
    await asyncio.sleep(0)
    seen = []
    while not task.done():
        seen.append(len(run.batches))
        await asyncio.sleep(0)
    assert {0, 1, 2} <= set(seen)


async def test_while_a_batch_runs_what_arrives_forms_the_next(thread: Any) -> None:
    gate = Gate()
    batcher, _ = make(gate, executor=thread)
    first = asyncio.create_task(submit(batcher, rows(1)))
    await until_entered(gate)
    rest = [asyncio.create_task(submit(batcher, rows(n))) for n in (2, 3, 4)]
    await asyncio.sleep(0)
    gate.leave.release(2)
    await asyncio.gather(first, *rest)
    assert gate.batches == [[1], [2, 3, 4]]


async def test_a_cancelled_caller_takes_its_rows_along_and_harms_nobody(thread: Any) -> None:
    gate = Gate()
    batcher, observer = make(gate, executor=thread)
    first = asyncio.create_task(submit(batcher, rows(1)))
    await until_entered(gate)
    tasks = [asyncio.create_task(submit(batcher, rows(n))) for n in (2, 3, 4)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    gate.leave.release(2)
    answers = await asyncio.gather(first, *tasks, return_exceptions=True)
    assert [type(answer) for answer in answers] == [list, list, asyncio.CancelledError, list]
    assert gate.batches == [[1], [2, 4]]
    assert observer.lost["cancelled"] == 1


async def test_a_caller_cancelled_while_its_batch_runs_does_not_hurt_it(thread: Any) -> None:
    gate = Gate()
    batcher, _ = make(gate, executor=thread)
    tasks = [asyncio.create_task(submit(batcher, rows(n))) for n in (1, 2)]
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
    batcher, observer = make(gate, executor=thread)
    task = asyncio.create_task(submit(batcher, rows(*range(12))))
    await until_entered(gate)
    task.cancel()
    await asyncio.sleep(0)
    gate.leave.release(3)
    await batcher.close()
    assert gate.batches == [[0, 1, 2, 3]]
    assert observer.lost["cancelled"] == 8


async def test_in_a_batch_that_raises_only_the_culprit_fails() -> None:
    run = Doubler()
    batcher, _ = make(run)
    answers = await asyncio.gather(
        *(submit(batcher, rows(n)) for n in (1, -2, 3)), return_exceptions=True
    )
    assert answers[0][0].tolist() == [[2]]
    assert isinstance(answers[1], ValueError)
    assert answers[2][0].tolist() == [[6]]
    assert run.batches == [[1, -2, 3], [1], [-2], [3]]


async def test_the_batcher_lives_on_after_a_failure() -> None:
    batcher, _ = make(Doubler())
    with pytest.raises(ValueError, match="negative"):
        await submit(batcher, rows(-1))
    assert (await submit(batcher, rows(1)))[0].tolist() == [[2]]


async def test_a_full_queue_refuses_at_once_and_says_so(thread: Any) -> None:
    gate = Gate()
    batcher, observer = make(gate, executor=thread, max_queue_rows=2)
    first = asyncio.create_task(submit(batcher, rows(1)))
    await until_entered(gate)
    waiting = asyncio.create_task(submit(batcher, rows(2, 3)))
    await asyncio.sleep(0)
    with pytest.raises(QueueFull, match="at most 2 rows may wait, 2 do"):
        await submit(batcher, rows(4))
    assert observer.lost["queue_full"] == 1
    gate.leave.release(2)
    await asyncio.gather(first, waiting)


async def test_rows_of_callers_who_left_do_not_fill_the_queue(thread: Any) -> None:
    gate = Gate()
    batcher, _ = make(gate, executor=thread, max_queue_rows=2)
    first = asyncio.create_task(submit(batcher, rows(1)))
    await until_entered(gate)
    left = asyncio.create_task(submit(batcher, rows(2, 3)))
    await asyncio.sleep(0)
    left.cancel()
    await asyncio.sleep(0)
    late = asyncio.create_task(submit(batcher, rows(4, 5)))
    await asyncio.sleep(0)
    gate.leave.release(2)
    await asyncio.gather(first, late)
    assert gate.batches == [[1], [4, 5]]


async def test_an_empty_queue_takes_a_request_larger_than_its_bound() -> None:
    batcher, _ = make(Doubler(), max_queue_rows=2)
    doubled, _ = await submit(batcher, rows(*range(6)))
    assert len(doubled) == 6


async def test_a_passed_deadline_is_told_while_the_batch_before_still_runs(thread: Any) -> None:
    gate = Gate()
    batcher, observer = make(gate, executor=thread)
    first = asyncio.create_task(submit(batcher, rows(1)))
    await until_entered(gate)
    with pytest.raises(DeadlineExceeded, match="deadline passed after"):
        await submit(batcher, rows(2), 0.01)
    gate.leave.release()
    await first
    await batcher.close()
    assert gate.batches == [[1]]  # the late rows were dropped, not run
    assert observer.lost["deadline"] == 1


async def test_a_deadline_that_passed_before_the_batch_forms_drops_the_entry() -> None:
    run = Doubler()
    batcher, observer = make(run)
    with pytest.raises(DeadlineExceeded):
        await submit(batcher, rows(1), -1)
    assert run.batches == []
    assert observer.lost["deadline"] == 1


async def test_closing_answers_what_waits_and_refuses_what_comes(thread: Any) -> None:
    gate = Gate()
    batcher, _ = make(gate, executor=thread)
    tasks = [asyncio.create_task(submit(batcher, rows(n))) for n in range(6)]
    await until_entered(gate)
    closing = asyncio.create_task(batcher.close())
    await asyncio.sleep(0)
    with pytest.raises(Unavailable):
        await submit(batcher, rows(9))
    assert not closing.done()
    gate.leave.release(2)
    await closing
    assert all(task.done() for task in tasks)
    assert [task.result()[0].tolist() for task in tasks] == [[[2 * n]] for n in range(6)]


class Putting:
    """A waiter that puts other rows in the queue when it is told of its deadline."""

    def __init__(self, put: Any) -> None:
        self._put = put
        self._is_done = False

    def done(self) -> bool:
        return self._is_done

    def cancelled(self) -> bool:
        return False

    def set_result(self, outputs: Any) -> None:
        raise AssertionError("it was late")

    def set_exception(self, error: Exception) -> None:
        self._is_done = True
        self._put()


async def test_who_is_told_of_a_deadline_may_put_rows_in_the_queue() -> None:
    now = [0.0]
    batcher, observer = make(Doubler(), max_batch_size=2, max_queue_rows=3, clock=lambda: now[0])
    loop = asyncio.get_running_loop()
    one, other, more = (loop.create_future() for _ in range(3))

    def put() -> None:
        batcher.put(Entry([rows(5, 6)], 2, None, more, 9.0))
        with pytest.raises(QueueFull):
            batcher.put(Entry([rows(7, 8)], 2, None, loop.create_future(), 9.0))

    batcher.put(Entry([rows(1)], 1, None, Putting(put), 1.0))
    batcher.put(Entry([rows(2)], 1, None, one, 9.0))
    batcher.put(Entry([rows(3)], 1, None, other, 9.0))
    now[0] = 2.0
    answers = await asyncio.gather(one, other, more)
    assert [answer[0].tolist() for answer in answers] == [[[4]], [[6]], [[10], [12]]]
    await batcher.close()
    assert observer.waiting == 0
    assert observer.lost == {"deadline": 1, "queue_full": 2}
    assert observer.rows == [2, 2]


async def test_closing_does_not_wait_for_more_rows() -> None:
    batcher, _ = make(Doubler(), max_queue_delay_s=3600)
    task = asyncio.create_task(submit(batcher, rows(3)))
    await asyncio.sleep(0)
    left = asyncio.create_task(submit(batcher, rows(4)))
    await asyncio.sleep(0)
    left.cancel()
    await asyncio.wait_for(batcher.close(), 5)
    assert task.result()[0].tolist() == [[6]]


async def test_with_a_queue_delay_a_batch_waits_for_more_but_not_when_full() -> None:
    run = Doubler()
    batcher, _ = make(run, max_queue_delay_s=0.05)
    one = asyncio.create_task(submit(batcher, rows(1)))
    for _ in range(5):
        await asyncio.sleep(0)
    assert run.batches == []
    two = asyncio.create_task(submit(batcher, rows(2)))
    await asyncio.gather(one, two)
    assert run.batches == [[1, 2]]
    batcher, _ = make(run, max_queue_delay_s=3600)
    await asyncio.gather(*(submit(batcher, rows(n)) for n in range(4)))
    assert run.batches[1:] == [[0, 1, 2, 3]]


async def test_the_queue_gauge_counts_the_rows_that_wait(thread: Any) -> None:
    gate = Gate()
    batcher, observer = make(gate, executor=thread)
    first = asyncio.create_task(submit(batcher, rows(1)))
    await until_entered(gate)
    waiting = asyncio.create_task(submit(batcher, rows(2, 3)))
    await asyncio.sleep(0)
    assert observer.waiting == 2
    gate.leave.release(2)
    await asyncio.gather(first, waiting)
    assert observer.waiting == 0


async def test_a_refusal_looks_through_the_queue_only_after_somebody_left(thread: Any) -> None:
    gate = Gate()
    batcher, observer = make(gate, executor=thread, max_queue_rows=4)
    first = asyncio.create_task(submit(batcher, rows(1)))
    await until_entered(gate)
    left = asyncio.create_task(submit(batcher, rows(2, 3)))
    stays = asyncio.create_task(submit(batcher, rows(4, 5)))
    await asyncio.sleep(0)
    left.cancel()
    await asyncio.sleep(0)
    with pytest.raises(QueueFull, match="at most 4 rows may wait, 2 do"):
        await submit(batcher, rows(6, 7, 8))
    assert observer.waiting == 2
    gate.leave.release(2)
    await asyncio.gather(first, stays)


async def test_the_parts_of_a_large_request_that_left_do_not_fill_the_queue(thread: Any) -> None:
    gate = Gate()
    batcher, _ = make(gate, executor=thread, max_queue_rows=8)
    first = asyncio.create_task(submit(batcher, rows(1)))
    await until_entered(gate)
    left = asyncio.create_task(submit(batcher, rows(*range(8))))
    await asyncio.sleep(0)
    left.cancel()
    for _ in range(3):
        await asyncio.sleep(0)
    last = asyncio.create_task(submit(batcher, rows(9)))
    await asyncio.sleep(0)
    gate.leave.release(2)
    await asyncio.gather(first, last)
    assert gate.batches == [[1], [9]]


async def test_times_are_measured_of_queue_and_computation(thread: Any) -> None:
    clock, gate = Clock(), Gate()
    batcher, observer = make(gate, executor=thread, clock=clock)
    first = asyncio.create_task(submit(batcher, rows(1), clock=clock))
    await until_entered(gate)
    clock.now += 1
    second = asyncio.create_task(submit(batcher, rows(2), clock=clock))
    await asyncio.sleep(0)
    clock.now += 2
    gate.leave.release()
    await first
    await until_entered(gate)
    clock.now += 4
    gate.leave.release()
    await second
    assert observer.rows == [1, 1]
    assert observer.seconds == [3, 4]
    assert observer.waits == [0, 2]


@pytest.mark.parametrize("alone", [True, False])
async def test_rows_that_come_after_their_deadline_are_not_run(alone: bool) -> None:
    doubler = Doubler()
    batcher, observer = make(doubler)
    with pytest.raises(DeadlineExceeded):
        await submit(batcher, rows(1, 2, 3), -0.1, alone=alone)
    assert observer.lost["deadline"] == 3
    assert observer.rows == []


async def test_rows_that_do_not_fit_together_are_run_one_by_one() -> None:
    batcher, _ = make(Doubler())
    odd = np.array([[3, 4]], np.float32)
    answers = await asyncio.gather(submit(batcher, rows(1)), submit(batcher, odd))
    assert [doubled.tolist() for doubled, _ in answers] == [[[2]], [[6, 8]]]


async def test_the_inputs_of_a_batch_are_joined_each_with_its_like_and_split_again() -> None:
    batches: list[tuple[Any, Any]] = []

    def run(inputs: Inputs) -> Outputs:
        left, right = inputs
        batches.append((left.tolist(), right.tolist()))
        return [left * 10, right.sum(axis=1), left[:, 0] + right[:, 1]]

    batcher, observer = make(run)
    answers = await asyncio.gather(
        batcher.submit([rows(1), np.array([[1, 2]])], 1, soon()),
        batcher.submit([rows(2, 3), np.array([[3, 4], [5, 6]])], 2, soon()),
    )
    assert batches == [([[1], [2], [3]], [[1, 2], [3, 4], [5, 6]])]
    assert [[each.tolist() for each in answer] for answer in answers] == [
        [[[10]], [3], [3]],
        [[[20], [30]], [7, 11], [6, 9]],
    ]
    assert observer.rows == [3]


async def test_the_inputs_of_a_large_request_are_split_at_the_same_rows() -> None:
    batches: list[tuple[Any, Any]] = []

    def run(inputs: Inputs) -> Outputs:
        left, right = inputs
        batches.append((left[:, 0].tolist(), right.tolist()))
        return [left[:, 0] - right]

    batcher, _ = make(run)
    outputs = await batcher.submit([rows(*range(6)), np.arange(100, 106)], 6, soon())
    assert batches == [([0, 1, 2, 3], [100, 101, 102, 103]), ([4, 5], [104, 105])]
    assert outputs[0].tolist() == [-100] * 6


async def test_one_that_raises_among_several_inputs_fails_alone() -> None:
    def run(inputs: Inputs) -> Outputs:
        if (inputs[1] < 0).any():
            raise ValueError("negative")
        return [inputs[0] + inputs[1]]

    batcher, _ = make(run)
    answers = await asyncio.gather(
        *(batcher.submit([rows(1), rows(n)], 1, soon()) for n in (1, -2, 3)), return_exceptions=True
    )
    assert [type(each) for each in answers] == [list, ValueError, list]
    assert (answers[0][0].tolist(), answers[2][0].tolist()) == ([[2]], [[4]])


async def test_only_entries_of_one_kind_share_a_batch_and_all_keep_their_order() -> None:
    run = Doubler()
    batcher, _ = make(run)
    finished: list[int] = []

    async def ask(number: int, kind: str) -> None:
        doubled, _ = await submit(batcher, rows(number), kind=kind)
        assert doubled.tolist() == [[2 * number]]
        finished.append(number)

    await asyncio.gather(*(ask(number, kind) for number, kind in enumerate("aabaabbbbb")))
    assert run.batches == [[0, 1], [2], [3, 4], [5, 6, 7, 8], [9]]
    assert finished == list(range(10))


async def test_the_parts_of_a_large_request_share_batches_with_their_kind_only() -> None:
    run = Doubler()
    batcher, _ = make(run)
    await asyncio.gather(
        submit(batcher, rows(*range(6)), kind="a"),
        submit(batcher, rows(6), kind="a"),
        submit(batcher, rows(7), kind="b"),
    )
    assert run.batches == [[0, 1, 2, 3], [4, 5, 6], [7]]


async def test_one_of_another_kind_who_left_parts_nobody(thread: Any) -> None:
    gate = Gate()
    batcher, _ = make(gate, executor=thread)
    first = asyncio.create_task(submit(batcher, rows(1)))
    await until_entered(gate)
    tasks = [
        asyncio.create_task(submit(batcher, rows(number), kind=kind))
        for number, kind in ((2, "b"), (3, "a"), (4, "a"))
    ]
    await asyncio.sleep(0)
    tasks[0].cancel()
    gate.leave.release(2)
    await asyncio.gather(first, *tasks[1:])
    await batcher.close()
    assert gate.batches == [[1], [3, 4]]


async def test_answers_that_cannot_be_put_together_say_how_many_rows_may_be_sent() -> None:
    def run(inputs: Inputs) -> Outputs:
        (numbers,) = inputs
        return [np.zeros((len(numbers), int(numbers.max())))]  # as wide as its largest number

    batcher, _ = make(run)
    sentence = "^the answers to 4 rows each differ in shape; send at most 4 rows$"
    with pytest.raises(InvalidInput, match=sentence) as error:
        await submit(batcher, rows(*range(6)))
    assert isinstance(error.value.__cause__, ValueError)
    (fits,) = await submit(batcher, rows(1, 2, 3, 3, 2, 3))
    assert fits.shape == (6, 3)


def above_zero(inputs: Inputs) -> Outputs:
    """Answer the rows above 0 only."""
    (numbers,) = inputs
    return [numbers[numbers[:, 0] > 0] * 2, numbers]


async def test_a_batch_without_an_answer_for_each_row_is_run_one_by_one() -> None:
    batcher, observer = make(above_zero)
    asked = [submit(batcher, each) for each in (rows(1), rows(-1), rows(2, 3))]
    answers = [answer[0].tolist() for answer in await asyncio.gather(*asked)]
    assert answers == [[[2]], [], [[4], [6]]]  # who is alone gets what the model says
    assert observer.rows == [4]


async def test_the_parts_of_a_large_request_need_an_answer_for_each_row() -> None:
    batcher, _ = make(above_zero)
    numbers = list(range(1, 9))
    assert (await submit(batcher, rows(*numbers)))[0].ravel().tolist() == [
        2 * number for number in numbers
    ]
    with pytest.raises(InferenceFailed, match=r"^the model did not answer with one row for each"):
        await submit(batcher, rows(*numbers[:7], -1))


@pytest.mark.parametrize("max_batch_size", [1, 4])
async def test_entries_of_the_kind_alone_share_no_batch_and_are_not_cut(
    max_batch_size: int,
) -> None:
    doubler = Doubler()
    batcher, _ = make(doubler, max_batch_size=max_batch_size)
    asked = [rows(1), rows(2, 3), rows(*range(10)), rows(4), rows(5)]
    kinds = [UNSHARED, UNSHARED, UNSHARED, None, None]
    answers = await asyncio.gather(
        *(submit(batcher, each, kind=kind) for each, kind in zip(asked, kinds, strict=True))
    )
    for each, answer in zip(asked, answers, strict=True):
        np.testing.assert_array_equal(answer[0], each * 2)
    together = [[4, 5]] if max_batch_size > 1 else [[4], [5]]
    assert doubler.batches == [[1], [2, 3], list(range(10)), *together]


async def test_with_a_batch_size_of_1_arrays_come_and_go_as_they_are() -> None:
    """Of a model that takes no batch the first dimension is not the rows, or there is none."""
    seen: list[Inputs] = []

    def run(inputs: Inputs) -> Outputs:
        seen.append(inputs)
        return inputs

    batcher, observer = make(run, max_batch_size=1)
    for alone in (False, True):
        entries = [[np.float32(7), np.zeros((3, 2))], [np.float32(8), np.ones((5, 2))]]
        asked = [batcher.submit(each, 1, soon(), alone=alone) for each in entries]
        answers = await asyncio.gather(*asked)
        assert all(got is given for got, given in zip(answers, entries, strict=True))
        assert all(got is given for got, given in zip(seen, entries, strict=True))
        seen.clear()
    assert observer.rows == [1] * 4


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("is_slow", [False, True])
async def test_a_batch_that_holds_the_loop_is_the_last_one_there(
    alone: bool, is_slow: bool
) -> None:
    """Unless it was the machine that held it: then the same rows are fast in the executor."""
    clock = Clock()
    threads: list[str] = []
    checked: list[tuple[list[float], int, str]] = []

    def run(inputs: Inputs) -> Outputs:
        threads.append(threading.current_thread().name)
        if (inputs[0] == 7).any():
            clock.now += 1.5 * SLOW_S
        return inputs

    def check(inputs: Inputs, count: int) -> bool:
        checked.append((inputs[0][:, 0].tolist(), count, threading.current_thread().name))
        return is_slow

    with ThreadPoolExecutor(1, "own") as executor:
        batcher, _ = make(run, clock=clock, spare=Spare(lambda: executor, check))
        for each in (rows(1), rows(7, 7, 7)):
            np.testing.assert_array_equal(
                (await submit(batcher, each, clock=clock, alone=alone))[0], each
            )
        while not checked:
            await asyncio.sleep(0)
        await asyncio.get_running_loop().run_in_executor(executor, len, checked)  # it is over
        for each in (rows(1), rows(2)):
            np.testing.assert_array_equal(
                (await submit(batcher, each, clock=clock, alone=alone))[0], each
            )
    here = threading.current_thread().name
    assert checked == [([7, 7, 7], 3, "own_0")]
    assert threads == [here, here, *(["own_0"] * 2 if is_slow else [here] * 2)]


async def test_while_a_batch_is_checked_others_wait_for_it_outside_of_the_loop() -> None:
    clock = Clock()
    threads: list[str] = []
    go_on, loop_is_free = threading.Event(), asyncio.Event()

    def run(inputs: Inputs) -> Outputs:
        threads.append(threading.current_thread().name)
        if (inputs[0] == 7).any():
            clock.now += 1.5 * SLOW_S
        return inputs

    with ThreadPoolExecutor(1, "own") as executor:
        spare = Spare(lambda: executor, lambda *_: not go_on.wait(10))
        batcher, _ = make(run, clock=clock, spare=spare)
        await submit(batcher, rows(7), clock=clock)
        waiting = asyncio.create_task(submit(batcher, rows(1), clock=clock))
        asyncio.get_running_loop().call_later(0.01, loop_is_free.set)
        await loop_is_free.wait()
        assert not waiting.done()
        go_on.set()
        await waiting
        await submit(batcher, rows(2), clock=clock)
    here = threading.current_thread().name
    assert threads == [here, "own_0", here]


class Steady(Doubler):
    """A Doubler whose batches take so many seconds each, by a clock by hand."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        super().__init__()
        self._clock, self._seconds = clock, seconds

    def __call__(self, inputs: Inputs) -> Outputs:
        self._clock.now += self._seconds
        return super().__call__(inputs)


async def test_a_caller_who_is_alone_learns_that_it_did_not_wait() -> None:
    clock, timing = Clock(), Timing()
    batcher, observer = make(Steady(clock, 0.01), clock=clock)
    await submit(batcher, rows(1, 2), clock=clock, alone=True, timing=timing)
    assert (timing.queue_s, timing.compute_s) == (0, pytest.approx(0.01))
    assert observer.seconds == [timing.compute_s]


async def test_a_caller_learns_what_the_observer_is_told_of_it() -> None:
    """Three batches: it waits until the first, and computes in all of them."""
    clock, timing = Clock(), Timing()
    batcher, observer = make(Steady(clock, 0.25), clock=clock)
    asked = asyncio.create_task(submit(batcher, rows(*range(10)), clock=clock, timing=timing))
    await asyncio.sleep(0)
    clock.now += 2
    await asked
    assert (timing.queue_s, timing.compute_s) == (2, 0.75)
    assert observer.seconds == [0.25] * 3
    assert observer.waits == [2, 2.25, 2.5]


async def test_what_shares_a_batch_shares_its_time() -> None:
    clock, timings = Clock(), [Timing(), Timing()]
    batcher, observer = make(Steady(clock, 0.25), clock=clock)
    first = asyncio.create_task(submit(batcher, rows(1), clock=clock, timing=timings[0]))
    clock.now += 1
    await asyncio.gather(first, submit(batcher, rows(1), clock=clock, timing=timings[1]))
    assert [each.compute_s for each in timings] == observer.seconds * 2 == [0.25] * 2
    assert [each.queue_s for each in timings] == observer.waits


class Told(Timing):
    """A Timing that keeps all that it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[tuple[float, float, list[int]]] = []  # since, start, sizes
        self.lost: list[float] = []

    def note(self, since: float, start: float, seconds: float, batch: Sequence[Entry]) -> None:
        super().note(since, start, seconds, batch)
        self.batches.append((since, start, [each.size for each in batch]))

    def dropped(self, since: float) -> None:
        self.lost.append(since)


async def test_each_of_a_batch_is_told_who_is_in_it_and_who_is_dropped_of_that() -> None:
    clock = Clock()
    together, late, left, alone = Told(), Told(), Told(), Told()
    batcher, _ = make(Steady(clock, 0.25), clock=clock)
    start = clock.now
    tasks = [
        asyncio.create_task(submit(batcher, rows(n, n), clock=clock, timing=together))
        for n in range(2)
    ]
    expires = asyncio.create_task(submit(batcher, rows(1), 0.5, clock=clock, timing=late))
    leaves = asyncio.create_task(submit(batcher, rows(1), clock=clock, timing=left))
    await asyncio.sleep(0)
    leaves.cancel()
    clock.now += 1
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.gather(expires, leaves, return_exceptions=True)
    assert together.batches == [(start, start + 1, [2, 2])] * 2
    assert (late.batches, left.batches) == ([], [])
    assert late.lost == left.lost == [start]
    await submit(batcher, rows(1), clock=clock, alone=True, timing=alone)
    assert alone.batches == [(start + 1.25, start + 1.25, [])]


async def test_what_is_to_run_alone_is_neither_joined_nor_cut() -> None:
    run = Doubler()
    batcher, _ = make(run)
    entries = [rows(1), rows(2, 3, 4, 5, 6, 7), rows(8)]
    kinds = [None, UNSHARED, None]
    answers = await asyncio.gather(
        *(
            batcher.submit([each], len(each), soon(), kind=kind)
            for each, kind in zip(entries, kinds, strict=True)
        )
    )
    assert run.batches == [[1], [2, 3, 4, 5, 6, 7], [8]]
    assert answers[1][0][:, 0].tolist() == [4, 6, 8, 10, 12, 14]
    run.batches.clear()
    await asyncio.gather(
        *(batcher.submit([rows(each)], 1, soon(), kind=UNSHARED) for each in range(3)),
        batcher.submit([rows(9)], 1, soon()),
    )
    assert run.batches == [[0], [1], [2], [9]]


async def test_answers_that_are_not_one_for_each_row_are_never_shared() -> None:
    """Joined rows that come back fewer are run by themselves: nobody gets another's."""

    def only_positive(inputs: Inputs) -> Outputs:
        (numbers,) = inputs
        return [numbers[numbers[:, 0] > 0]]

    batcher, _ = make(only_positive)
    first, second = await asyncio.gather(
        batcher.submit([rows(1, -2)], 2, soon()), batcher.submit([rows(3)], 1, soon())
    )
    assert (first[0].tolist(), second[0].tolist()) == ([[1]], [[3]])
    with pytest.raises(InferenceFailed, match="one row for each row"):
        await batcher.submit([rows(1, 2, 3, 4, -5, 6)], 6, soon())


async def test_rows_that_wait_when_the_loop_is_left_still_have_a_deadline() -> None:
    clock, gate = Clock(), threading.Event()

    def run(inputs: Inputs) -> Outputs:
        clock.now += 1.5 * SLOW_S
        return inputs

    with ThreadPoolExecutor(1) as executor:
        batcher, _ = make(run, clock=clock, spare=Spare(lambda: executor, lambda *_: gate.wait(10)))
        slow = asyncio.create_task(submit(batcher, rows(1, 2, 3, 4), clock=clock))
        late = asyncio.create_task(submit(batcher, rows(5), 0.05, clock=clock))
        await slow
        with pytest.raises(DeadlineExceeded):
            await late
        gate.set()


@pytest.mark.parametrize("has_spare", [False, True])
async def test_a_slow_batch_of_rows_that_do_not_fit_together_stops_nothing(
    has_spare: bool,
) -> None:
    clock = Clock()
    checked: list[int] = []

    def run(inputs: Inputs) -> Outputs:
        clock.now += 1.5 * SLOW_S
        return inputs

    with ThreadPoolExecutor(1) as executor:
        spare = Spare(lambda: executor, lambda inputs, _: bool(checked.append(len(inputs[0]))))
        batcher, _ = make(run, clock=clock, spare=spare if has_spare else None)
        odd = np.array([[3, 4], [5, 6]], np.float32)
        await asyncio.gather(
            submit(batcher, rows(1), clock=clock), submit(batcher, odd, clock=clock)
        )
        await submit(batcher, rows(7), clock=clock)
        await batcher.close()
    assert checked[:1] == ([2] if has_spare else [])


async def test_small_requests_pass_between_the_parts_of_large_ones(thread: Any) -> None:
    gate = Gate()
    batcher, observer = make(gate, executor=thread)
    large = [asyncio.create_task(submit(batcher, rows(*[n] * 20))) for n in (1, 2, 3)]
    await until_entered(gate)
    small = asyncio.create_task(submit(batcher, rows(9)))
    await asyncio.sleep(0)
    assert observer.waiting == 3 * 20 + 1 - 4  # none of it is forgotten
    gate.leave.release(16)
    answers = await asyncio.gather(*large)
    assert [answer[0].ravel().tolist() for answer in answers] == [[2 * n] * 20 for n in (1, 2, 3)]
    assert (await small)[0].tolist() == [[18]]
    assert [9] in gate.batches[:7]  # behind two parts of each
    assert observer.waiting == 0


async def test_rows_that_come_later_count_as_waiting(thread: Any) -> None:
    gate = Gate()
    batcher, _ = make(gate, executor=thread, max_queue_rows=20)
    large = asyncio.create_task(submit(batcher, rows(*range(20))))
    await until_entered(gate)
    with pytest.raises(QueueFull, match="at most 20 rows may wait, 16 do"):
        await submit(batcher, rows(*range(5)))
    gate.leave.release(5)
    await large


async def test_closing_waits_for_all_parts_of_a_large_request(thread: Any) -> None:
    gate = Gate()
    batcher, _ = make(gate, executor=thread)
    large = asyncio.create_task(submit(batcher, rows(*range(20))))
    await until_entered(gate)
    closing = asyncio.create_task(batcher.close())
    gate.leave.release(5)
    await closing
    assert gate.batches == [[n, n + 1, n + 2, n + 3] for n in range(0, 20, 4)]
    await large


@pytest.mark.parametrize("in_thread", [True, False])
async def test_what_fails_in_the_middle_leaves_nothing_behind(thread: Any, in_thread: bool) -> None:
    run = Doubler()
    batcher, observer = make(run, executor=thread if in_thread else None)
    with pytest.raises(ValueError, match="negative"):
        await submit(batcher, rows(*range(8), -1, *range(20)))
    assert (await submit(batcher, rows(1)))[0].tolist() == [[2]]
    await asyncio.wait_for(batcher.close(), 10)
    assert observer.waiting == 0
    assert observer.lost["cancelled"] > 0


# Whatever is raised answers the batch.


class NoThread(ThreadPoolExecutor):
    """An executor for whose thread the system has no room, at first."""

    is_full = True

    def submit(self, *arguments: Any, **others: Any) -> Any:
        if self.is_full:
            raise RuntimeError("can't start new thread")
        return super().submit(*arguments, **others)


async def test_a_batch_that_cannot_be_handed_over_is_answered() -> None:
    with NoThread(1) as executor:
        batcher, _ = make(Doubler(), executor=executor)
        tasks = [asyncio.create_task(submit(batcher, rows(n))) for n in range(6)]
        answers = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
        assert [str(answer) for answer in answers] == ["can't start new thread"] * 6
        executor.is_full = False
        assert (await submit(batcher, rows(1)))[0].tolist() == [[2]]
        await asyncio.wait_for(batcher.close(), 5)


@pytest.mark.parametrize("error", [SystemExit("no"), MemoryError("no")])
async def test_a_batch_whose_run_raises_anything_is_answered(
    error: BaseException, thread: Any
) -> None:
    def fail(_: Inputs) -> Outputs:
        raise error

    batcher, observer = make(fail, executor=thread)
    for _ in range(2):
        tasks = [asyncio.create_task(submit(batcher, rows(n))) for n in range(2)]
        answers = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
        assert all("no" in str(answer) for answer in answers)
    assert observer.rows == [2, 2]
    await asyncio.wait_for(batcher.close(), 5)


async def test_outputs_that_are_none_answer_their_batch_with_what_is_wrong() -> None:
    broken: Any = lambda inputs: None  # noqa: E731 - what no run may return
    batcher, _ = make(broken)
    tasks = [asyncio.create_task(submit(batcher, rows(n))) for n in range(2)]
    answers = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
    assert [type(answer) for answer in answers] == [TypeError] * 2
    await asyncio.wait_for(batcher.close(), 5)


@pytest.mark.parametrize("alone", [True, False])
async def test_what_is_too_slow_stays_in_the_loop_while_there_is_no_thread(alone: bool) -> None:
    def no_thread() -> Any:
        raise RuntimeError("can't start new thread")

    def slow(inputs: Inputs) -> Outputs:
        time.sleep(2 * SLOW_S)
        return inputs

    batcher, _ = make(slow, spare=Spare(no_thread, lambda *_: True))
    for _ in range(2):
        (same,) = await asyncio.wait_for(submit(batcher, rows(3), alone=alone), 5)
        assert same.tolist() == [[3]]
    await asyncio.wait_for(batcher.close(), 5)


# A batch that nobody waits for is stopped.


class Stoppable(Gate):
    """A Gate that leaves a batch when it is let go on, or told to stop."""

    def __init__(self) -> None:
        super().__init__()
        self.stop = threading.Event()

    def __call__(self, inputs: Inputs) -> Outputs:
        self.entered.release()
        while not self.leave.acquire(timeout=0.01):
            if self.stop.is_set():
                raise InferenceFailed("it was stopped")
        return Doubler.__call__(self, inputs)


@pytest.mark.parametrize("leave", ["deadline", "cancelled"])
async def test_a_run_is_stopped_when_the_last_caller_leaves_and_not_before(
    thread: Any, leave: str
) -> None:
    run = Stoppable()
    batcher, _ = make(run, executor=thread, stop=run.stop)
    first = asyncio.create_task(submit(batcher, rows(0)))
    await until_entered(run)
    loop = asyncio.get_running_loop()
    waiters = [loop.create_future() for _ in range(2)]
    now = time.perf_counter()
    entries = [
        Entry([rows(number)], 1, None, waiter, now + seconds)
        for number, waiter, seconds in zip((1, 2), waiters, (0.02, 3600), strict=True)
    ]
    for entry in entries:
        batcher.put(entry)
    run.leave.release()
    await first
    await until_entered(run)
    if leave == "deadline":
        with pytest.raises(DeadlineExceeded):
            await asyncio.wait_for(waiters[0], 5)
    else:
        waiters[0].cancel()
        batcher.left()
    assert not run.stop.is_set()
    waiters[1].cancel()
    batcher.left()
    assert run.stop.is_set()
    await asyncio.wait_for(batcher.close(), 5)
    assert not run.stop.is_set()  # the next may run
    assert run.batches == [[0]]


async def test_how_long_a_batch_runs_is_known_while_it_does(thread: Any) -> None:
    clock, gate = Clock(), Gate()
    batcher, _ = make(gate, executor=thread, clock=clock)
    assert batcher.running_s == 0
    task = asyncio.create_task(submit(batcher, rows(1), clock=clock))
    await until_entered(gate)
    clock.now += 3
    assert batcher.running_s == 3
    gate.leave.release()
    await task
    assert batcher.running_s == 0
