"""A worker speaks gRPC where it is wanted and installed, and loads it when a client does."""

import asyncio
import signal
from pathlib import Path

import numpy as np
import pytest

from service.errors import InvalidSetting
from service.process import speaking
from service.settings import Settings
from tests.support.clients import address
from tests.support.grpc_client import INFER, Client, infer_request
from tests.support.processes import Process, running
from tests.support.toys import save_toy

ASKED = infer_request("toy", np.ones((1, 4), np.float32)).SerializeToString()


def test_it_is_on_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert speaking.speaks_grpc(Settings())
    assert speaking.speaks_grpc(Settings(grpc=True))
    assert not speaking.speaks_grpc(Settings(grpc=False))
    monkeypatch.setattr(speaking, "find_spec", lambda name: None)
    assert not speaking.speaks_grpc(Settings())
    with pytest.raises(InvalidSetting, match="TORCHLIT_GRPC: expected the extra grpc"):
        speaking.speaks_grpc(Settings(grpc=True))


def has_protobuf(service: Process) -> bool:
    return "google/_upb" in Path(f"/proc/{service.process.pid}/maps").read_text()


@pytest.mark.slow
@pytest.mark.anyio
async def test_nothing_is_loaded_before_a_client_speaks_it_and_nothing_lost_at_a_stop(
    tmp_path: Path,
) -> None:
    save_toy(tmp_path)
    with running(models_dir=tmp_path) as service:
        assert service.get("/health/ready").status_code == 200
        assert not has_protobuf(service)
        _, port = address(service.url)
        async with Client(port) as client:
            assert (await client.call(INFER, ASKED)).code == 0
            assert has_protobuf(service)
            stopping = asyncio.to_thread(service.stop, signal.SIGTERM)
            task = asyncio.create_task(stopping)
            answered = []
            while not client.goaways:
                answered.append(await client.call(INFER, ASKED))
            assert await task == 0
            assert {each.code for each in answered} == {0}
            assert client.goaways[0] == (2**31 - 1, 0)
