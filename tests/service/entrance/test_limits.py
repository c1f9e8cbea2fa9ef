"""Places of connections, with a clock by hand."""

from math import inf

import pytest

from service.entrance.limits import CHECK_EVERY_S, FOR_PROBES, IDLE_S, Limits
from service.entrance.memory import Memory
from service.settings import Settings


class Client:
    """A connection that ends when it is told to."""

    def __init__(self, since: float = inf) -> None:
        self.since = since  # when it fell idle
        self.is_asking = False
        self.has_ended = False
        self.is_checked = False

    def idle_since(self) -> float:
        return self.since

    def is_answering(self) -> bool:
        return self.is_asking

    def cut_off_if_slow(self) -> None:
        self.is_checked = True

    def give_way(self) -> None:
        self.has_ended = True


async def nobody(*_: object) -> None:
    raise AssertionError


@pytest.fixture
def limits() -> Limits:
    start = 10.0 - CHECK_EVERY_S
    return Limits(Settings(max_connections=3), Memory(10**9), nobody, lambda _: None, start)


def entered(limits: Limits, *clients: Client) -> list[bool]:
    return [limits.enter(each) for each in clients]


def test_the_longest_idle_connection_gives_its_place(limits: Limits) -> None:
    clients = [Client(2.0), Client(1.0), Client(3.0)]
    assert entered(limits, *clients) == [True] * 3
    limits.check(clients, 10.0)
    assert entered(limits, Client(), Client()) == [True] * 2
    assert [each.has_ended for each in clients] == [True, True, False]


def test_who_is_busy_or_was_busy_just_now_keeps_its_place(limits: Limits) -> None:
    clients = [Client(), Client(10.0), Client(10.0 - IDLE_S - CHECK_EVERY_S)]
    entered(limits, *clients)
    limits.check(clients, 10.0)
    assert entered(limits, Client()) == [False]
    limits.check(clients, 10.0 + CHECK_EVERY_S)
    assert entered(limits, Client(), Client()) == [True, False]
    assert [each.has_ended for each in clients] == [False, False, True]


def test_who_fell_busy_after_the_search_keeps_its_place(limits: Limits) -> None:
    clients = [Client(1.0), Client(2.0), Client(3.0)]
    entered(limits, *clients)
    limits.check(clients, 10.0)
    entered(limits, Client())
    clients[1].since = inf
    limits.leave(clients[2])
    assert entered(limits, Client(), Client()) == [True, False]
    assert [each.has_ended for each in clients] == [True, False, False]


def test_of_those_without_a_place_the_oldest_ends(limits: Limits) -> None:
    entered(limits, *(Client() for _ in range(3)))
    extra = [Client() for _ in range(FOR_PROBES)]
    assert not any(entered(limits, *extra))
    assert not any(each.has_ended for each in extra)
    limits.leave(extra[0])
    assert not any(entered(limits, Client(), Client()))
    assert [each.has_ended for each in extra] == [False, True] + [False] * (FOR_PROBES - 2)


def test_without_a_place_who_waits_for_an_answer_ends_after_the_silent(limits: Limits) -> None:
    entered(limits, *(Client() for _ in range(3)))
    extra = [Client() for _ in range(FOR_PROBES)]
    extra[0].is_asking = extra[1].is_asking = True
    entered(limits, *extra, Client())
    assert [each.has_ended for each in extra] == [False, False, True] + [False] * (FOR_PROBES - 3)


def test_if_all_without_a_place_wait_for_an_answer_the_oldest_ends(limits: Limits) -> None:
    entered(limits, *(Client() for _ in range(3)))
    extra = [Client() for _ in range(FOR_PROBES)]
    for each in extra:
        each.is_asking = True
    late = Client()
    entered(limits, *extra, late)
    assert extra[0].has_ended
    assert not any(each.has_ended for each in (*extra[1:], late))


def test_who_has_none_gets_the_place_of_one_that_left(limits: Limits) -> None:
    clients, late = [Client() for _ in range(3)], Client()
    entered(limits, *clients, late)
    assert not limits.place(late)
    limits.leave(clients[0])
    assert limits.place(late)
    extra = [Client() for _ in range(FOR_PROBES + 1)]
    entered(limits, *extra)
    assert [late.has_ended, extra[0].has_ended] == [False, True]


def test_the_time_in_which_the_process_was_stopped_counts_for_nobody(limits: Limits) -> None:
    client = Client()
    limits.check([client], 10.0)
    assert client.is_checked
    client.is_checked = False
    before = limits.now
    limits.check([client], 100.0)
    assert not client.is_checked  # what it sent is read first
    assert not limits.is_over(before, 0.0)
    limits.check([client], 100.0 + CHECK_EVERY_S)
    assert client.is_checked
    assert limits.is_over(before, 0.0)
    assert not limits.is_over(before, CHECK_EVERY_S)
