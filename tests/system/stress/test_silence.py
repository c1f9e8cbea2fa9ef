"""Bodies that are long, odd or wrong: while one is read and answered, everybody else is, too.

make test-stress
"""

import asyncio
import gzip
import time
from pathlib import Path

import httpx
import pytest

from tests.support.processes import running
from tests.system.stress.long_bodies import kinds, save_models

pytestmark = pytest.mark.stress

LONGEST_S = 0.25  # of silence, where two processes share two cores; the loop is held for a fifth
BEAT_S = 0.005


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    save_models(folder)
    return folder


def test_nobody_waits_for_a_body_of_another(models_dir: Path) -> None:
    with running(models_dir=models_dir, request_timeout_s=60) as service:
        silences = asyncio.run(all_silences(service.url))
    print()
    for name, seconds in sorted(silences.items(), key=lambda each: -each[1]):
        print(f"{name:28} {seconds * 1000:6.1f} ms of silence at most")
    assert {name for name, seconds in silences.items() if seconds > LONGEST_S} == set()


async def all_silences(url: str) -> dict[str, float]:
    """Return the longest time that /health/live took under each kind of body."""
    silences = {}
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        for name, path, body, status, media_type in kinds():
            packed = gzip.compress(body, 1)  # before: it would hold the loop of this client
            beating = asyncio.create_task(beats(url))
            await asyncio.sleep(10 * BEAT_S)
            headers = {"content-encoding": "gzip", "content-type": media_type}
            async with client.stream("POST", path, content=packed, headers=headers) as reply:
                assert reply.status_code == status, (name, await reply.aread())
                async for _ in reply.aiter_raw():
                    pass
            beating.cancel()
            silences[name] = max(await asyncio.gather(beating))
    return silences


async def beats(url: str) -> float:
    """Return how long a probe took at most, until it is cancelled."""
    longest = 0.0
    try:
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            while True:
                start = time.perf_counter()
                (await client.get("/health/live")).raise_for_status()
                longest = max(longest, time.perf_counter() - start)
                await asyncio.sleep(BEAT_S)
    except asyncio.CancelledError:
        return longest
