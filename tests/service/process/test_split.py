"""Weights of a file, in several workers: under load, at SIGHUP, and when one of them dies."""

import asyncio
import os
import re
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.support.clients import address, ask
from tests.support.processes import NO_CERTIFICATES, Process, running
from tests.support.toys import body, save_toy, toy_card

CLIENTS = 12


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for version in (1, 2):
        save_toy(tmp_path / "models", version, card=toy_card())
    return tmp_path / "models"


async def versions_until(service: Process, change: Callable[[], object]) -> list[Counter[int]]:
    """Let clients ask on connections of their own while something changes.

    Returns which versions answered before, meanwhile and after; every request is answered.
    """
    phase = 0
    answered = [Counter[int]() for _ in range(3)]

    async def one() -> None:
        reader, writer = await asyncio.open_connection(*address(service.url))
        while sum(answered[2].values()) < 40 * CLIENTS:
            begun = phase
            head, reply = await ask(reader, writer, body("toy", [[1, 2, 3, 4]]))
            assert head.startswith(b"HTTP/1.1 200 ")
            version = re.search(rb'"version":(\d+)', reply)
            assert version is not None
            answered[begun if begun == phase else 1][int(version[1])] += 1
        writer.close()

    async def then() -> None:
        nonlocal phase
        while sum(answered[0].values()) < 40 * CLIENTS:
            await asyncio.sleep(0.01)
        phase = 1
        await asyncio.to_thread(change)
        phase = 2

    await asyncio.gather(then(), *(one() for _ in range(CLIENTS)))
    return answered


@pytest.mark.slow
@pytest.mark.parametrize("watch", [True, False])
def test_new_weights_hold_in_every_worker_and_no_request_is_lost(
    folder: Path, tmp_path: Path, watch: bool
) -> None:
    file = tmp_path / "split"
    file.write_text("toy=1:1")

    def change(service: Process) -> None:
        file.write_text("toy=2:1")
        if not watch:
            service.process.send_signal(signal.SIGHUP)
        for _ in range(3):
            service.wait_for("split: (toy=2:1)")

    with running(models_dir=folder, workers=3, split_file=file, watch=watch) as service:
        before, _, after = asyncio.run(versions_until(service, lambda: change(service)))
        assert service.stop() == 0
    assert before.keys() == {1}
    assert after.keys() == {2}


@pytest.mark.slow
def test_a_worker_that_dies_is_replaced_by_one_with_the_weights_that_hold(
    folder: Path, tmp_path: Path
) -> None:
    file = tmp_path / "split"
    file.write_text("toy=1:1,2:0")
    with running(models_dir=folder, workers=2, split_file=file) as service:
        file.write_text("toy=1:1,2")
        for _ in range(2):
            service.wait_for("(the weights before hold)")
        number, pid = re.search(  # type: ignore[union-attr]
            r"worker (\d) \(process (\d+)\) serves", "".join(service.log)
        ).groups()
        os.kill(int(pid), signal.SIGKILL)
        service.wait_for(rf"(worker {number} \(process (?!{pid})\d+\) serves)")
        text = service.get("/metrics").text
        assert "torchlit_workers 2.0" in text
        with httpx.Client(verify=NO_CERTIFICATES) as client:
            for _ in range(20):
                reply = client.post(f"{service.url}/predict", content=body("toy", [[1, 2, 3, 4]]))
                assert reply.json()["version"] == 1
        assert service.stop() == 0
    assert "could not start" not in "".join(service.log)


@pytest.mark.slow
def test_values_get_the_same_version_of_every_worker(folder: Path) -> None:
    with running(
        models_dir=folder, workers=3, split="toy=1:1,2:1", split_header="X-User-Id"
    ) as service:
        chosen = {}
        for _ in range(6):
            for user in map(str, range(8)):
                reply = service.post(  # on a connection of its own: any worker
                    "/predict", content=body("toy", [[1, 2, 3, 4]]), headers={"x-user-id": user}
                )
                version = reply.json()["version"]
                assert chosen.setdefault(user, version) == version
        assert set(chosen.values()) == {1, 2}
