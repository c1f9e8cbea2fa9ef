"""Steps and workers: who gets what, when workers are slow to begin, or end."""

from collections import deque
from collections.abc import Sequence
from typing import Any

import pytest

from service.commands.score.columns.pool import Pool, Step
from service.commands.score.columns.worker import Result, Task
from service.errors import CannotScore


class Far:
    """A worker of another machine: it takes a step once it was said to be ready."""

    def __init__(self, number: int, fate: str, most: int) -> None:
        self.pipe = number
        self.most = most  # steps that it has
        self.fate = fate  # "answers", "waits", "ends" before it is ready, or "breaks" at a step
        self.steps: deque[Step[Any]] = deque()
        self.is_ready = False
        self.stopped = False

    @property
    def has_room(self) -> bool:
        return len(self.steps) < self.most

    def take(self, step: Step[Any]) -> None:
        assert self.is_ready
        assert self.has_room
        self.steps.append(step)

    def answered(self) -> bool:
        if self.fate == "ends" or (self.fate == "breaks" and self.is_ready):
            return False
        if self.steps:
            step = self.steps.popleft()
            step.answer = Result(b"", step.what, [])
        self.is_ready = True
        return True

    def ended(self) -> str:
        return "its machine is gone"

    def stop(self) -> None:
        self.stopped = True


class Place:
    """Starts workers of these fates, the last one for all others."""

    def __init__(self, *fates: str, most: int = 1) -> None:
        self.fates = deque(fates)
        self.most = most
        self.started: list[Far] = []

    def start(self) -> Far:
        fate = self.fates.popleft() if len(self.fates) > 1 else self.fates[0]
        self.started.append(Far(len(self.started), fate, self.most))
        return self.started[-1]

    def wait(self, pipes: Sequence[int]) -> Sequence[int]:
        some = [each for each in pipes if self.started[each].fate != "waits"]
        assert some, "nobody will ever answer"
        return some[-1:]  # who began last is first


def answers(place: Place, count: int) -> list[int]:
    steps = (Step(Task(None, None, f"rows {number}"), number) for number in range(20))
    with Pool(None, count, place) as pool:  # no Scorer is here
        return [result.rows for _, result in pool.answer(steps) if result is not None]


@pytest.mark.parametrize(
    "fates",
    [
        ["answers"],
        ["waits", "waits", "answers"],  # there is no room for two of them
        ["ends", "ends", "answers"],
        ["breaks", "answers", "breaks", "answers"],
        ["breaks", "waits", "answers"],
    ],
    ids="-".join,
)
@pytest.mark.parametrize("most", [1, 2])
def test_answers_come_in_order_whoever_is_slow_or_ends(fates: list[str], most: int) -> None:
    place = Place(*fates, most=most)
    assert answers(place, 3) == list(range(20))
    assert all(each.stopped for each in place.started)


def test_one_worker_elsewhere_is_not_this_process() -> None:
    place = Place("answers")
    assert answers(place, 1) == list(range(20))
    assert len(place.started) == 1


@pytest.mark.parametrize(("count", "loads"), [(1, [1, 0]), (2, [1, 1]), (3, [2, 1]), (9, [2, 2])])
def test_steps_are_spread_before_any_is_answered(count: int, loads: list[int]) -> None:
    place = Place("answers", most=2)
    with Pool(None, 2, place) as pool:
        for _ in range(2):
            pool.workers.append(place.start())
            pool.workers[-1].is_ready = True
        steps = (Step(Task(None, None, f"rows {number}"), number) for number in range(count))
        pool._hand_out(list(steps))
    assert [len(each.steps) for each in place.started] == loads


@pytest.mark.parametrize(
    ("fate", "why"),
    [
        ("ends", "6 workers ended before they could begin, the last: its machine is gone"),
        ("breaks", "rows 0: each of 3 processes ended before it had answered, the last with its"),
    ],
)
def test_what_never_ends_well_is_given_up(fate: str, why: str) -> None:
    with pytest.raises(CannotScore, match=f"^{why}"):
        answers(Place(fate), 2)
