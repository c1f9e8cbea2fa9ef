"""What comes in on a connection: no head is too long, and unread requests cost little."""

import contextlib
import re
import socket
from collections.abc import Iterator
from functools import partial
from math import inf

import pytest

from service.http.arrival import MAX_HEAD_BYTES, MOST_BEHIND, PIECE, Flow, pieces
from tests.support.clients import address
from tests.support.processes import Process, resident_mb, running
from tests.support.toys import save_toy

SMALL = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
ENDS = {"target": (b"GET /health/live?", b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")}
ENDS["header"] = (b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX: ", b"\r\n\r\n")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    folder = tmp_path_factory.mktemp("models")
    save_toy(folder)
    with running(models_dir=folder) as process:
        yield process


def replies(service: Process, sent: bytes) -> list[bytes]:
    """Send in one piece; return the status of each reply that comes until the connection ends."""
    with socket.create_connection(address(service.url), timeout=20) as connection:
        connection.sendall(sent)
        got = b"".join(iter(partial(connection.recv, 65_536), b""))
    return re.findall(rb"HTTP/1\.1 (\d+) ", got)


def head(of: str, size: int) -> bytes:
    begin, end = ENDS[of]
    return begin + b"a" * (size - len(begin) - len(end)) + end


@pytest.mark.parametrize("of", ENDS)
def test_a_head_is_served_up_to_its_bound_and_not_beyond(service: Process, of: str) -> None:
    assert replies(service, head(of, MAX_HEAD_BYTES)) == [b"200"]
    for size in (MAX_HEAD_BYTES + 1, 200_000):
        assert replies(service, head(of, size)) == [b"431"]


def test_a_head_behind_other_requests_has_the_same_bound(service: Process) -> None:
    """The answers before it come first, and are the last."""
    before = SMALL * 3
    assert replies(service, before + head("header", MAX_HEAD_BYTES)) == [b"200"] * 4
    assert replies(service, before + head("header", MAX_HEAD_BYTES + 1)) == [b"200"] * 3


@pytest.mark.slow
def test_requests_whose_replies_nobody_reads_cost_little(service: Process) -> None:
    """They took 80 times their bytes: 11 MB of them 880 MB."""
    before = resident_mb(service.process.pid)
    with socket.create_connection(address(service.url), timeout=1) as connection:
        with contextlib.suppress(TimeoutError):
            connection.sendall(SMALL * 1_000_000)
        assert service.get("/health/live").status_code == 200
        assert resident_mb(service.process.pid) < before + 40


def test_reading_stops_while_much_waits() -> None:
    class Transport:
        reads = True

        def pause_reading(self) -> None:
            self.reads = False

        def resume_reading(self) -> None:
            self.reads = True

    transport = Transport()
    flow = Flow(transport)
    flow.put_behind(bytes(MOST_BEHIND))
    assert transport.reads
    flow.put_behind(b"a")
    flow.resume_reading()
    assert not transport.reads
    assert flow.take_behind() == bytes(MOST_BEHIND) + b"a"
    assert transport.reads


def test_the_rest_of_a_body_is_parsed_in_one_piece() -> None:
    """Behind the piece that has the head."""
    data = b"a" * (3 * PIECE + 1)
    for rests, sizes in (
        ([inf, len(data) - PIECE], [PIECE, len(data) - PIECE]),
        ([len(data)], [len(data)]),
        ([inf, len(data) - PIECE - 1, 0], [PIECE, PIECE, PIECE, 1]),
    ):
        cut = [piece for _, piece in pieces(data, partial(next, iter(rests)))]
        assert [len(piece) for piece in cut] == sizes
        assert b"".join(cut) == data
