"""Ray places the service on a cluster, and answers rows there."""

import contextlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.system.engines.clusters import Cluster, cluster
from tests.system.engines.programs import blocks, called, descendants, kill, run, started

pytestmark = pytest.mark.engines


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def ray() -> Iterator[Cluster]:
    with cluster(2, 2) as of_nodes:
        yield of_nodes


def test_ray_data_answers_rows(folder: Path, ray: Cluster, check: Callable[[Path], None]) -> None:
    run(blocks()["Ray Data"].replace("/data/", f"{folder}/"), folder, **ray.settings)
    check(folder / "answers")


def test_ray_places_processes_and_starts_them_again(folder: Path, ray: Cluster) -> None:
    port = free_port()
    code = blocks()["Serve on a Ray cluster"].replace("0.0.0.0", "127.0.0.1")
    code = code.replace("8000", str(port))
    with started(code, folder, **ray.settings) as program:

        def services() -> list[int]:
            return called(descendants(ray.pid), "-m service")

        def answers() -> bool:
            with contextlib.suppress(httpx.TransportError):
                return httpx.get(f"http://127.0.0.1:{port}/health/ready").status_code == 200
            return False

        program.wait_until(lambda: len(services()) == 4 and answers())
        of_nodes = [len(called(descendants(each), "-m service")) for each in ray.raylets]
        assert of_nodes == [2, 2]
        before = services()
        kill(before[0])
        program.wait_until(lambda: len(set(services()) - set(before)) == 1)
        assert answers()
