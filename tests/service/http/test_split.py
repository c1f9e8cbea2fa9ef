"""Requests that name no version go by weight, whichever way and in whichever protocol they come."""

import asyncio
import gzip
import json
import re
from collections import Counter
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.card import Feature
from service.http.app import App
from service.http.request import TICKET
from service.metrics.exposition import render
from service.settings import Settings
from service.settings.split import Split
from tests.support import grpc_client
from tests.support.clients import counted, read_reply
from tests.support.sockets import Listening, listening
from tests.support.toys import save_mean, save_toy, serving, toy_card

pytestmark = pytest.mark.anyio

ROW = [1.0, 2.0, 3.0, 4.0]
ROWS = json.dumps({"instances": [ROW]}).encode()
NAMED = json.dumps({"instances": [{"a": 1, "b": 2, "c": 3, "d": 4}]}).encode()
TENSORS = json.dumps(
    {"inputs": [{"name": "input", "shape": [1, 4], "datatype": "FP32", "data": ROW}]}
).encode()
FALSE_ALARM = 6.2  # standard deviations: a share is farther off once in 10^9 runs


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Versions 1 and 2 of the toy, whose features have other names, and a model without weights."""
    path = tmp_path_factory.mktemp("models")
    save_toy(path, card=toy_card())
    others = [
        Feature(
            name=name, unit="m", description=name, minimum=0, maximum=1, mean=0, std=1, default=0
        )
        for name in ("p", "q", "r", "s")
    ]
    save_toy(path, 2, card=toy_card(features=others))
    save_mean(path)
    return path


def settings(folder: Path, split: str = "toy=1:1,2:1", **more: Any) -> Settings:
    return Settings(models_dir=folder, split=Split(split), default_model="toy", **more)


class Caller:
    """Sends requests on one connection."""

    def __init__(self, service: Listening) -> None:
        self._service = service

    async def __aenter__(self) -> "Caller":
        self._reader, self._writer = await self._service.connect()
        return self

    async def __aexit__(self, *error: object) -> None:
        self._writer.close()

    async def send(
        self, path: str, content: bytes, headers: dict[str, str] | None = None
    ) -> tuple[bytes, bytes]:
        given = [f"{name}: {value}" for name, value in (headers or {}).items()]
        lines = [f"POST {path} HTTP/1.1", "Host: x", *given, f"Content-Length: {len(content)}"]
        self._writer.write("\r\n".join([*lines, "", ""]).encode() + content)
        return await read_reply(self._reader)


def version_in(head: bytes, body: bytes) -> int:
    """The version that answered, as the body says it, else the header."""
    said = re.search(rb'"(?:model_)?version":"?(\d+)', body)
    said = said or re.search(rb"x-model-version: (\d+)", head)
    assert said is not None, (head, body)
    return int(said[1])


def requests(app: App) -> dict[int, float]:
    text = render(app.services.metrics).decode()
    series = "torchlit_requests_total"
    return {n: counted(text, series, f'model="toy",outcome="ok",version="{n}"') for n in (1, 2)}


@pytest.mark.parametrize(
    ("path", "content"),
    [("/predict/toy", ROWS), ("/predict", ROWS), ("/v2/models/toy/infer", TENSORS)],
)
async def test_kept_heads_do_not_freeze_the_choice(folder: Path, path: str, content: bytes) -> None:
    count = 400
    async with listening(settings(folder, "toy=1:3,2:1")) as service, Caller(service) as caller:
        got = Counter([version_in(*await caller.send(path, content)) for _ in range(count)])
        assert len(service.by_asgi) == 1  # the head is learned there
        assert requests(service.app) == got
        (connection,) = service.state.connections
        assert TICKET not in connection.extensions  # the next may come another way
    assert abs(got[2] - count / 4) <= FALSE_ALARM * sqrt(count * 3 / 16)


async def test_what_one_version_refuses_is_refused_as_often_as_it_has_weight(folder: Path) -> None:
    """The direct way leaves the refusal to the ordinary one, which may not choose again."""
    count = 300
    async with listening(settings(folder)) as service, Caller(service) as caller:
        replies = [await caller.send("/predict/toy", NAMED) for _ in range(count)]
    refused = [(head, body) for head, body in replies if head.startswith(b"HTTP/1.1 400 ")]
    assert abs(len(refused) - count / 2) <= FALSE_ALARM * sqrt(count) / 2
    assert len(service.by_asgi) == len(refused) + 1 - refused.count(replies[0])
    assert {version_in(*each) for each in refused} == {2}
    assert {version_in(*each) for each in replies if each not in refused} == {1}
    assert all(b"p, q, r, s" in body for _, body in refused)


async def test_what_was_drawn_for_a_request_that_gave_up_is_for_no_other(folder: Path) -> None:
    """The next of the connection comes the ordinary way too: its version is drawn anew."""
    count = 200
    got = Counter[tuple[int, int]]()
    async with listening(settings(folder)) as service, Caller(service) as caller:
        await caller.send("/predict/toy", NAMED)
        while sum(got.values()) < count:
            before = version_in(*await caller.send("/predict/toy", NAMED))
            new = {"X-Number": str(sum(got.values()))}
            got[before, version_in(*await caller.send("/predict/toy", ROWS, new))] += 1
    after_refusals = got[2, 1] + got[2, 2]
    assert abs(got[2, 1] - after_refusals / 2) <= FALSE_ALARM * sqrt(after_refusals) / 2


async def test_a_value_of_the_header_gets_one_version_in_every_protocol(folder: Path) -> None:
    chosen = settings(folder, split_header="X-User-Id", predict_route="/vertex")
    binary = grpc_client.infer_request("toy", np.array([ROW], np.float32)).SerializeToString()
    mlflow = json.dumps({"inputs": [ROW]}).encode()
    sent: list[tuple[str, bytes, dict[str, str]]] = [
        *[("/predict/toy", ROWS, {})] * 2,  # the second goes directly
        ("/predict", gzip.compress(ROWS), {"Content-Encoding": "gzip"}),
        ("/predict", b"1,2,3,4\n", {"Content-Type": "text/csv"}),
        ("/v2/models/toy/infer", TENSORS, {}),
        ("/invocations", ROWS, {}),
        ("/invocations", ROWS, {"Accept": "text/csv"}),
        ("/invocations", ROWS, {"Accept": "application/jsonlines"}),
        ("/invocations", mlflow, {}),
        ("/vertex", ROWS, {}),
    ]
    versions = Counter[int]()
    async with (
        listening(chosen) as service,
        Caller(service) as caller,
        grpc_client.Client(service.port) as grpc,
    ):
        for number in range(8):
            user = f"user-{number}"
            replies = [
                await caller.send(path, content, {"X-User-Id": user} | headers)
                for path, content, headers in sent
            ]
            answer = await grpc.infer(binary, x_user_id=user)
            got = {version_in(*each) for each in replies} | {int(answer.model_version)}
            assert len(got) == 1
            versions += Counter(got)
        assert requests(service.app) == {n: versions[n] * (len(sent) + 1) for n in (1, 2)}
    assert versions.keys() == {1, 2}


async def test_over_grpc_requests_go_by_weight(folder: Path) -> None:
    binary = grpc_client.infer_request("toy", np.array([ROW], np.float32)).SerializeToString()
    named = grpc_client.infer_request("toy", np.array([ROW], np.float32), model_version="1")
    async with listening(settings(folder)) as service, grpc_client.Client(service.port) as grpc:
        got = Counter([(await grpc.infer(binary)).model_version for _ in range(100)])
        assert abs(got["1"] - 50) <= FALSE_ALARM * 5
        named = named.SerializeToString()
        wrong = grpc_client.infer_request("toy", np.array([[1.0]], np.float32), model_version="2")
        refused = await grpc.call(grpc_client.INFER, wrong.SerializeToString())
        assert refused.code != 0
        assert refused.headers["x-model-version"] == "2"
        assert {(await grpc.infer(named)).model_version for _ in range(20)} == {"1"}


async def test_who_names_a_version_gets_it(folder: Path) -> None:
    one = json.dumps({"instances": [ROW], "version": 1}).encode()
    async with listening(settings(folder, "toy=1:0,2:1")) as service, Caller(service) as caller:
        for path, content in (
            ("/predict/toy", one),
            ("/predict/toy?version=1", ROWS),
            ("/v2/models/toy/versions/1/infer", TENSORS),
        ):
            replies = [await caller.send(path, content) for _ in range(3)]
            assert {version_in(*each) for each in replies} == {1}
        assert version_in(*await caller.send("/predict/toy", ROWS)) == 2


async def test_new_weights_hold_from_the_next_request_on(folder: Path, tmp_path: Path) -> None:
    """Requests that wait and come meanwhile are answered, each by the version it began with."""
    file = tmp_path / "split"
    file.write_text("toy=1:1")
    chosen = Settings(models_dir=folder, split_file=file, watch=False)
    async with listening(chosen) as service:
        splitting, is_over = service.app.services.splitting, False

        async def one() -> list[int]:
            got = []
            async with Caller(service) as caller:
                while not is_over:
                    head, body = await caller.send("/predict/toy", ROWS)
                    assert head.startswith(b"HTTP/1.1 200 ")
                    got.append(version_in(head, body))
                    await asyncio.sleep(0)
                return [*got, version_in(*await caller.send("/predict/toy", ROWS))]

        tasks = [asyncio.create_task(one()) for _ in range(8)]
        file.write_text("toy=2:1")
        await splitting.reload()
        is_over = True
        for got in await asyncio.gather(*tasks):
            assert got == sorted(got)  # once the new weights hold the old ones do not
            assert (got[0], got[-1]) == (1, 2)


async def test_models_shows_the_weights_that_hold(folder: Path) -> None:
    async with serving(settings(folder, "toy=2:90,1:10")) as client:
        assert (await client.get("/models/toy")).json()["split"] == {"1": 10, "2": 90}
        assert "split" not in (await client.get("/models/mean")).json()
    async with serving(Settings(models_dir=folder)) as client:
        assert client.services.catalog.splits is None
        assert "split" not in (await client.get("/models/toy")).json()


async def test_pages_of_other_origins_may_send_the_header_and_read_the_version(
    folder: Path,
) -> None:
    chosen = settings(folder, cors_origins="*", split_header="X-Session")
    origin = {"origin": "https://a.example", "access-control-request-method": "POST"}
    async with serving(chosen) as client:
        reply = await client.options("/predict", headers=origin)
        assert "x-session" in reply.headers["access-control-allow-headers"].lower()
        reply = await client.post("/predict", content=ROWS, headers={"origin": origin["origin"]})
        assert "x-model-version" in reply.headers["access-control-expose-headers"]
