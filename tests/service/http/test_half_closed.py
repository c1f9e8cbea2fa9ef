"""Clients that send no more but still read (RFC 9112, section 9.6), and those that have left."""

import contextlib
import socket
import time
from collections.abc import Iterator
from functools import partial

import pytest

from tests.support.clients import address, counted, predict_request, reset
from tests.support.processes import Process, running
from tests.support.toys import body, save_dear, save_toy, toy_card

TOY = predict_request(body("toy", [[1, 2, 3, 4]]))
DEAR = predict_request(body("dear", [[1, 0, 0, 0]]))
LARGE = predict_request(body("toy", [[1 / 3, 2 / 7, 3 / 11, 4 / 13]] * 4096))
GET = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    folder = tmp_path_factory.mktemp("models")
    save_toy(folder, card=toy_card())
    save_dear(folder)
    with running(models_dir=folder) as process:
        yield process
        assert process.stop() == 0


def all_that_comes(url: str, pieces: list[bytes], pause_s: float = 0) -> bytes:
    """Send pieces, close the sending side, and return what comes until the other closes."""
    with socket.create_connection(address(url), timeout=20) as connection:
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(0.02 if len(pieces) > 1 else 0)
        time.sleep(pause_s)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(partial(connection.recv, 65_536), b""))


@pytest.mark.parametrize(
    ("pieces", "count"),
    [
        ([TOY], 1),
        ([TOY, TOY[:20], TOY[20:]], 2),
        ([TOY * 5], 5),
        ([DEAR], 1),
        ([DEAR + TOY + GET + DEAR], 4),
        ([DEAR * 3 + TOY[:-3]], 3),  # what never comes completely has no answer
        ([LARGE], 1),
        ([LARGE + GET], 2),
        ([GET], 1),
        ([TOY.replace(b"HTTP/1.1", b"HTTP/1.0")], 1),
    ],
    ids=["one", "two", "five", "slow", "behind it", "cut", "large", "behind that", "GET", "1.0"],
)
@pytest.mark.parametrize("pause_s", [0, pytest.param(0.02, marks=pytest.mark.slow)])
def test_who_closes_the_sending_side_only_gets_every_answer(
    service: Process, pieces: list[bytes], count: int, pause_s: float
) -> None:
    got = all_that_comes(service.url, pieces, pause_s)
    assert got.count(b"HTTP/1.1 200 OK\r\n") == got.count(b"HTTP/1.1 ") == count


def test_a_reply_that_is_held_for_others_is_sent_before_the_end(service: Process) -> None:
    """While others ask, replies leave at the end of the loop's turn: the end may come before."""
    with socket.create_connection(address(service.url)) as other:
        other.sendall(TOY[:-3])
        got = [all_that_comes(service.url, [GET]) for _ in range(150)]
    assert [reply.count(b"HTTP/1.1 200 OK\r\n") for reply in got] == [1] * 150


@pytest.mark.parametrize("sent", [b"", TOY[:20], TOY[:-3], b"POST"])
def test_what_never_comes_completely_has_no_answer(service: Process, sent: bytes) -> None:
    assert all_that_comes(service.url, [sent]) == b""


CANCELLED = 'torchlit_requests_total{model="dear",outcome="cancelled"'


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """The service with a model that takes seconds, one row at a time; two may wait."""
    folder = tmp_path_factory.mktemp("models")
    save_dear(folder, 3000)
    with running(models_dir=folder, max_queue_rows=2, max_batch_size=1) as process:
        yield process
        assert process.stop() == 0


def wait_for(service: Process, series: str, value: float) -> None:
    deadline = time.monotonic() + 20
    while counted(service.get("/metrics").text, series) != value:
        assert time.monotonic() < deadline


@contextlib.contextmanager
def asking(service: Process, *, shuts: bool) -> Iterator[socket.socket]:
    """Ask for a row, and read nothing."""
    with socket.create_connection(address(service.url)) as connection:
        connection.sendall(DEAR)
        if shuts:
            connection.shutdown(socket.SHUT_WR)
        yield connection


@pytest.mark.slow
@pytest.mark.parametrize("shuts", [False, True], ids=["at once", "behind the end"])
def test_who_resets_has_left(busy: Process, shuts: bool) -> None:
    """A reset behind the end of what is sent is seen within a second."""
    before = counted(busy.get("/metrics").text, CANCELLED)
    with asking(busy, shuts=False), asking(busy, shuts=shuts) as leaving:
        wait_for(busy, 'torchlit_queue_rows{model="dear"', 1)  # the other's row runs
        reset(leaving)
        wait_for(busy, CANCELLED, before + 1)
        assert counted(busy.get("/metrics").text, "torchlit_queue_rows") <= 1


@pytest.mark.slow
def test_who_may_have_left_makes_room_for_others(busy: Process) -> None:
    """Callers whose time was over have closed, and their rows fill the queue."""
    content = body("dear", [[1, 0, 0, 0]])
    reply = busy.post("/predict", content=content, timeout=30)  # behind all that came before
    assert reply.status_code == 200
    before = counted(busy.get("/metrics").text, CANCELLED)
    with contextlib.ExitStack() as stack:
        for _ in range(3):  # one runs, two wait
            stack.enter_context(asking(busy, shuts=True))
        wait_for(busy, 'torchlit_queue_rows{model="dear"', 2)
        assert all_that_comes(busy.url, [DEAR]).startswith(b"HTTP/1.1 503 ")  # told, too
        reply = busy.post("/predict", content=content, timeout=30)
    assert reply.status_code == 200
    assert counted(busy.get("/metrics").text, CANCELLED) == before + 3
