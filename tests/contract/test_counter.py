"""The cases of each claim are counted once each, by outcome and model, and nothing else is."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.contract.cases import claims
from tests.contract.servers import SERVERS, Counts, counts
from tests.contract.test_app import Running
from tests.support.toys import serving

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("name", SERVERS)
async def test_each_refusal_is_counted_once(name: str, folder_of: Callable[[str], Path]) -> None:
    server = SERVERS[name]
    wrong = {}
    async with serving(server.settings_of(folder_of(name))) as client:
        running = Running(server, client)
        client.headers["accept-encoding"] = "identity"
        before = counts((await client.get("/metrics")).text)
        for (of, claim), cases in claims().items():
            if of != name:
                continue
            right = Counts()
            for case in cases:
                await running.send(case)
                right += case.counts()
            after = counts((await client.get("/metrics")).text)
            if after - before != right:
                wrong[claim] = {"counted": after - before, "right": right}
            before = after
    assert wrong == {}
