"""Every case over a socket, to `python -m service`; also those that are no HTTP."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.contract.cases import Case, of_server
from tests.contract.servers import GOOD, SERVERS, Counts, check_good, counts
from tests.support.clients import address, counted
from tests.support.processes import running


def play(client: httpx.Client, case: Case) -> dict[str, Any]:
    reply = client.request(
        case.method,
        case.path,
        content=case.content(),
        headers={name.encode(): value for name, value in case.headers.items()},
    )
    return case.seen(reply.status_code, reply.headers, reply.content)


async def play_raw(url: str, case: Case) -> dict[str, Any]:
    """Write the case on a connection of its own, and read until that ends."""
    reader, writer = await asyncio.open_connection(*address(url))
    writer.write(case.raw)
    async with asyncio.timeout(10):
        reply = await reader.read()
    writer.close()
    head, _, content = reply.partition(b"\r\n\r\n")
    line, _, rest = head.partition(b"\r\n")
    headers = httpx.Headers([each.split(b": ", 1) for each in rest.split(b"\r\n")])
    return case.seen(int(line.split()[1]), headers, content)


async def play_all_raw(url: str, cases: list[Case]) -> list[dict[str, Any]]:
    return await asyncio.gather(*(play_raw(url, case) for case in cases))


@pytest.mark.slow
@pytest.mark.parametrize("name", SERVERS)
def test_the_process_refuses_as_the_app_does(name: str, folder_of: Callable[[str], Path]) -> None:
    server = SERVERS[name]
    cases = sorted(of_server(name), key=lambda case: bool(case.raw))
    raw = [case for case in cases if case.raw]
    settings = {"models_dir": folder_of(name), "watch": False, **server.settings}
    with (
        running(**settings) as service,
        httpx.Client(base_url=service.url) as client,
    ):
        said = len(service.log)
        framed = [case for case in cases if not case.raw]
        seen = [play(client, case) for case in framed]
        while counted(client.get("/metrics").text, "torchlit_queue_rows"):
            pass  # those whose deadline passed leave with the next batch
        again = [play(client, case) for case in framed]  # the heads are known now
        seen += asyncio.run(play_all_raw(service.url, raw))
        total = counts(client.get("/metrics").text)
        reply = client.post("/predict/toy", json=GOOD, headers=server.headers)
        check_good(reply.status_code, reply.json())
        assert service.stop() == 0
    wrong = {
        case.name: {"seen": got, "right": case.right()}
        for case, got in zip(cases, seen, strict=True)
        if got != case.right()
    }
    assert wrong == {}
    assert again == seen[: len(again)]
    assert total == sum((case.counts() for case in [*framed, *cases]), Counts())
    assert not [line for line in service.log[said:] if "WARNING" in line or "Traceback" in line]
