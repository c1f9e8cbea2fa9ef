import asyncio

import pytest

from service.catalog import retry
from service.catalog.retry import Retry

pytestmark = pytest.mark.anyio


async def test_the_delay_doubles_while_tries_fail_and_begins_anew_after_one_that_did_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retry, "FIRST_S", 0.001)
    monkeypatch.setattr(retry, "MOST_S", 0.004)
    loop = asyncio.get_running_loop()
    called = asyncio.Event()
    tries = Retry(called.set)
    delays = []
    for fails in (True, True, True, True, False, True):
        tries.begin()
        called.clear()
        if fails:
            before = loop.time()
            tries.later()
            tries.later()
            assert tries.is_due
            delays.append(round(tries.due_at - before, 4))
            await asyncio.wait_for(called.wait(), 20)
    assert delays == [0.001, 0.002, 0.004, 0.004, 0.001]


async def test_a_try_that_was_not_called_for_leaves_the_delay_as_it_is() -> None:
    tries = Retry(lambda: None)
    delays = []
    for _ in range(3):  # as by SIGHUP
        tries.begin()
        before = asyncio.get_running_loop().time()
        tries.later()
        delays.append(round(tries.due_at - before, 1))
    assert delays == [retry.FIRST_S] * 3
    tries.end()
    assert not tries.is_due
