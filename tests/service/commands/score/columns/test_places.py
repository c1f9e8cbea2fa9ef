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

    def __init__(self, number: int, fate: str) -> None:
        self.pipe = number
        self.fate = fate  # "answers", "waits", "ends" before it is ready, or "breaks" at a step
        self.step: Step[Any] | None = None
        self.is_ready = False
        self.stopped = False

    def take(self, step: Step[Any]) -> None:
        assert self.is_ready
        self.step = step

    def answered(self) -> bool:
        if self.fate == "ends" or (self.fate == "breaks" and self.is_ready):
            return False
        if self.step is None:
            self.is_ready = True
        else:
            self.step.answer, self.step = Result(b"", self.step.what, []), None
        return True

    def ended(self) -> str:
        return "its machine is gone"

    def stop(self) -> None:
        self.stopped = True


class Place:
    """Starts workers of these fates, the last one for all others."""

    def __init__(self, *fates: str) -> None:
        self.fates = deque(fates)
        self.started: list[Far] = []

    def start(self) -> Far:
        fate = self.fates.popleft() if len(self.fates) > 1 else self.fates[0]
        self.started.append(Far(len(self.started), fate))
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
def test_answers_come_in_order_whoever_is_slow_or_ends(fates: list[str]) -> None:
    place = Place(*fates)
    assert answers(place, 3) == list(range(20))
    assert all(each.stopped for each in place.started)


def test_one_worker_elsewhere_is_not_this_process() -> None:
    place = Place("answers")
    assert answers(place, 1) == list(range(20))
    assert len(place.started) == 1


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
