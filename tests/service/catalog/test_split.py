"""Which version is chosen: by weight, always the same for a value, and only among what is ready."""

import logging
from collections import Counter
from itertools import pairwise
from math import sqrt
from random import seed
from typing import Any, cast

import pytest

from service.catalog.served import ServedModel
from service.catalog.split import Splits, Ticket
from service.metrics import Blocks, Metrics
from service.metrics.exposition import render
from service.settings.split import Split
from tests.support.clients import counted

DRAWS = 10_000
FALSE_ALARM = 6.2  # standard deviations: a share is farther off once in 10^9 runs


class Fake:
    """A version that serves."""

    def __init__(self, version: int) -> None:
        self.version = version


def serving(*versions: int) -> dict[tuple[str, int | None], ServedModel]:
    served: Any = {("toy", version): Fake(version) for version in versions}
    if versions:
        served["toy", None] = served["toy", max(versions)]
    return cast(dict[tuple[str, int | None], ServedModel], served)


def splits(split: str, *ready: int, header: str | None = None) -> Splits:
    made = Splits(Metrics(Blocks()), header)
    made.follow(serving(*ready))
    made.hold(Split(split))
    return made


def taken(made: Splits, ticket: Ticket) -> int | None:
    served = made.take("toy", ticket)
    return None if served is None else served.version


def of_values(made: Splits, count: int = DRAWS) -> list[int | None]:
    return [taken(made, Ticket(b"user-%d" % number)) for number in range(count)]


def of_draws(made: Splits) -> list[int | None]:
    seed(1)
    return [taken(made, Ticket(None)) for _ in range(DRAWS)]


@pytest.mark.parametrize("choose", [of_draws, of_values])
@pytest.mark.parametrize(
    "weights",
    [{2: 90, 3: 10}, {1: 1}, {1: 0, 2: 1}, {1: 50, 2: 30, 3: 20}, {1: 1, 2: 999}, {7: 3, 9: 4}],
)
def test_each_version_gets_its_share(weights: dict[int, int], choose: Any) -> None:
    text = ",".join(f"{version}:{weight}" for version, weight in weights.items())
    got = Counter(choose(splits(f"toy={text}", *weights)))
    assert got.keys() == {version for version, weight in weights.items() if weight}
    for version, weight in weights.items():
        share = weight / sum(weights.values())
        deviation = sqrt(DRAWS * share * (1 - share))
        assert abs(got[version] - DRAWS * share) <= FALSE_ALARM * deviation, version


def test_the_choice_of_a_value_stays_for_ever() -> None:
    """Fixed once: another hash would give all callers another version with an upgrade."""
    chosen = of_values(splits("toy=1:1,2:1,3:1", 1, 2, 3), 16)
    assert chosen == [1, 2, 2, 3, 2, 2, 2, 2, 2, 3, 3, 1, 3, 2, 2, 3]
    assert chosen == of_values(splits("toy=3:5,2:5,1:5", 3, 1, 2), 16)


def test_a_value_means_nothing_for_another_model() -> None:
    made = Splits(Metrics(Blocks()))
    served = serving(1, 2)
    made.follow(served | {("mean", version): each for (_, version), each in served.items()})
    made.hold(Split("toy=1:1,2:1 mean=1:1,2:1"))
    values = [b"%d" % number for number in range(DRAWS)]
    same = sum(made.take("toy", Ticket(each)) is made.take("mean", Ticket(each)) for each in values)
    assert abs(same - DRAWS / 2) <= FALSE_ALARM * sqrt(DRAWS) / 2


@pytest.mark.parametrize(
    ("steps", "grows"),
    [
        (["1:50,2:30,3:0", "1:50,2:30,3:5", "1:50,2:30,3:20", "1:50,2:30,3:900"], 3),
        (["1:1,2:30,3:20", "1:50,2:30,3:20"], 1),
        (["2:100,3:0", "2:90,3:10", "2:50,3:50", "2:0,3:1"], 3),
    ],
)
def test_a_weight_that_grows_takes_values_and_moves_no_others(steps: list[str], grows: int) -> None:
    chosen = [of_values(splits(f"toy={each}", 1, 2, 3)) for each in steps]
    for before, after in pairwise(chosen):
        moved = {new for old, new in zip(before, after, strict=True) if old != new}
        assert moved == {grows}


@pytest.mark.parametrize("choose", [of_draws, of_values])
def test_the_share_of_what_is_not_ready_goes_to_the_others_by_weight(choose: Any) -> None:
    made = splits("toy=1:20,2:60,3:20", 1, 2)
    got = Counter(choose(made))
    deviation = sqrt(DRAWS * 0.75 * 0.25)
    assert got.keys() == {1, 2}
    assert abs(got[2] - DRAWS * 0.75) <= FALSE_ALARM * deviation
    fallbacks = counted(render(made._metrics).decode(), "torchlit_split_fallbacks_total")
    assert abs(fallbacks - DRAWS * 0.2) <= FALSE_ALARM * sqrt(DRAWS * 0.2 * 0.8)


def test_values_of_versions_that_are_ready_stay_when_another_is_not() -> None:
    made = splits("toy=1:20,2:60,3:20", 1, 2, 3)
    before = of_values(made)
    made.follow(serving(1, 2))
    after = of_values(made)
    assert all(new == old for old, new in zip(before, after, strict=True) if old != 3)
    made.follow(serving(1, 2, 3))
    assert of_values(made) == before


def test_a_request_that_is_read_twice_gets_one_version_and_counts_once() -> None:
    made = splits("toy=1:1,2:1,3:1", 1, 2)
    tickets = [Ticket(None) for _ in range(300)]
    first = [taken(made, each) for each in tickets]
    fallbacks = counted(render(made._metrics).decode(), "torchlit_split_fallbacks_total")
    assert fallbacks > 0
    assert [taken(made, each) for each in tickets] == first
    assert counted(render(made._metrics).decode(), "torchlit_split_fallbacks_total") == fallbacks


def test_what_is_drawn_at_the_ends_is_a_version() -> None:
    made = splits("toy=1:999999999,2:999999999,3:1", 1, 2, 3)
    assert taken(made, Ticket(None, 0.0)) == 1
    assert taken(made, Ticket(None, 1 - 2**-53)) == 3


def test_no_version_is_chosen_where_none_is_ready_or_has_a_weight() -> None:
    made = splits("toy=2:1", 1)
    assert taken(made, Ticket(None)) is None
    assert made.take("mean", Ticket(None)) is None


def test_the_value_is_that_of_the_header() -> None:
    made = splits("toy=1:1", 1, header="X-User-Id")
    assert made.ticket({b"x-user-id": b" me "}).value == b"me"
    assert made.ticket({b"x-user-id": b" "}).value is made.ticket({}).value is None
    assert splits("toy=1:1", 1).ticket({b"x-user-id": b"me"}).value is None


def test_each_change_of_what_is_ready_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "torchlit.split")
    made = splits("toy=2:90,3:10", 1, 2, 3)
    assert caplog.messages == []
    for ready in ([1, 2], [1, 2], [1], [], [1, 2, 3], [1, 2, 3]):
        made.follow(serving(*ready))
    made.hold(Split("toy=3:1,4:0,5:1"))
    made.hold(Split("toy=3:1"))
    model = "model toy: split"
    assert caplog.messages == [
        f"{model} 2:90,3:10: not ready: 3; in place of that: 2",
        f"{model} 2:90,3:10: not ready: 2, 3; in place of that: 1",
        f"{model} 2:90,3:10: not ready: 2, 3; in place of that: none",
        f"{model} 2:90,3:10: all that have a weight are ready",
        f"{model} 3:1,4:0,5:1: not ready: 5; in place of that: 3",
        f"{model} 3:1: all that have a weight are ready",
    ]


def test_what_has_a_weight_is_counted_from_0_and_only_while_it_has_one() -> None:
    made = splits("toy=2:90,3:0", 2)
    text = render(made._metrics).decode()
    assert 'torchlit_split_fallbacks_total{model="toy",version="3"} 0.0' in text
    made.hold(Split("toy=3:1"))
    of_draws(made)
    series = 'torchlit_split_fallbacks_total{model="toy",version="3"}'
    assert counted(render(made._metrics).decode(), series) == DRAWS
    made.hold(Split())
    assert "split_fallbacks" not in render(made._metrics).decode()
    made.hold(Split("toy=3:1"))
    assert counted(render(made._metrics).decode(), series) == DRAWS
