"""Every case in one process: the reply, and that a refusal leaves no trace."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from tests.contract.cases import Case, claims, of_server
from tests.contract.servers import GOOD, SERVERS, Server, check_good
from tests.support.toys import serving

pytestmark = pytest.mark.anyio


class Running(NamedTuple):
    server: Server
    client: httpx.AsyncClient

    async def send(self, case: Case) -> httpx.Response:
        return await self.client.request(
            case.method,
            case.path,
            content=in_parts(case) if case.chunk_bytes else case.body,
            headers={name.encode(): value for name, value in case.headers.items()},
        )

    async def check_good(self) -> None:
        reply = await self.client.post("/predict/toy", json=GOOD, headers=self.server.headers)
        check_good(reply.status_code, reply.json())

    async def models(self) -> object:
        """Return which versions serve: what no refusal changes."""
        reply = await self.client.post("/v2/repository/index", headers=self.server.headers)
        return reply.json()


async def in_parts(case: Case) -> AsyncIterator[bytes]:
    for part in case.content():
        yield part


@pytest.fixture(scope="module")
async def running(
    request: pytest.FixtureRequest, folder_of: Callable[[str], Path]
) -> AsyncIterator[Running]:
    server = SERVERS[request.param]
    async with serving(server.settings_of(folder_of(server.name))) as client:
        running = Running(server, client)
        models = await running.models()
        yield running
        assert await running.models() == models


@pytest.mark.parametrize(
    ("running", "cases"),
    [pytest.param(server, cases, id=claim) for (server, claim), cases in claims().items()],
    indirect=["running"],
    scope="module",
)
async def test_a_refusal_is_one_sentence_and_leaves_no_trace(
    running: Running, cases: list[Case], caplog: pytest.LogCaptureFixture
) -> None:
    for case in cases:
        caplog.clear()
        reply = await running.send(case)
        seen = case.seen(reply.status_code, reply.headers, reply.content)
        assert (case.name, seen) == (case.name, case.right())
        assert reply.headers["content-type"] == "application/json"
        assert reply.headers["x-request-id"]
        # A caller's mistake is no event of ours; how often a model failed before it is.
        logged = [each for each in caplog.messages if not each.endswith(" more in 1 s)")]
        assert case.status == 500 or logged == []
        await running.check_good()


@pytest.mark.parametrize("running", ["plain"], indirect=True)
async def test_refusals_do_no_harm_to_good_requests_that_come_with_them(running: Running) -> None:
    async def check_bad(case: Case) -> None:
        reply = await running.send(case)
        assert case.seen(reply.status_code, reply.headers, reply.content) == case.right(), case.name

    async def check_copy(model: str, datatype: str, row: list[object]) -> None:
        tensor = {"name": "input", "datatype": datatype, "shape": [1, len(row)], "data": row}
        reply = await running.client.post(f"/v2/models/{model}/infer", json={"inputs": [tensor]})
        (output,) = reply.json()["outputs"]
        assert output["data"] == row

    async def check_sum(length: int) -> None:
        tensor = {"name": "input", "datatype": "FP32", "shape": [1, length]}
        content = {"inputs": [{**tensor, "data": [length] * length}]}
        reply = await running.client.post("/v2/models/lengths/infer", json=content)
        assert reply.json()["outputs"][0]["data"] == [length**2]

    async def check_inverse(number: int) -> None:
        reply = await running.client.post("/predict/fussy", json={"instances": [[number]]})
        (prediction,) = reply.json()["predictions"]
        assert prediction["output"] == [pytest.approx(1 / (number - 7))]

    async def check_square(number: int) -> None:
        reply = await running.client.post("/predict/table", json={"instances": [[number]]})
        assert reply.json()["predictions"] == [{"output": [number**2]}]

    bad = [case for case in of_server("plain") if not case.raw]
    failing = [case for case in bad if case.status == 500]
    calls = [
        *(check_bad(case) for case in [*bad, *failing * 10]),
        *(running.check_good() for _ in range(100)),
        *(check_copy("same", "FP32", [number, 0, 0, 1]) for number in range(50)),
        *(check_copy("word", "BYTES", [f"word {number}"]) for number in range(50)),
        *(check_sum(1 + number % 7) for number in range(50)),
        *(check_inverse(8 + number) for number in range(50)),
        *(check_square(number % 3) for number in range(50)),
    ]
    random.Random(5).shuffle(calls)
    await asyncio.gather(*calls)
