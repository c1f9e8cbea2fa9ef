"""Turns: what came is taken completely, in order, and others have their turn in between."""

import asyncio
import sys
from pathlib import Path
from random import Random

import numpy as np
import pytest

from service.grpc import reading
from service.grpc.reading import PIECE, Reading
from service.settings import Settings
from tests.support import onnx_graphs
from tests.support.grpc_client import INFER, Client, infer_request
from tests.support.sockets import listening
from tests.support.toys import save_toy

pytestmark = pytest.mark.anyio


class Transport(asyncio.Transport):
    """Knows whether it reads."""

    is_reading_now = True
    is_aborted = False

    def abort(self) -> None:
        self.is_aborted = True

    def pause_reading(self) -> None:
        self.is_reading_now = False

    def resume_reading(self) -> None:
        self.is_reading_now = True


class Taker:
    """Takes pieces, and notes the turns of the loop in which it did."""

    def __init__(self) -> None:
        self.transport = Transport()
        self.turns: list[list[bytes]] = [[]]
        self.missing = 0  # what it says after each piece
        self.pauses = False  # after each
        self.drops = False  # after each
        self.reading = Reading(self.transport, self._take, self._end)

    def _take(self, piece: bytes) -> int:
        self.turns[-1].append(piece)
        if self.pauses:
            self.reading.pause()
        if self.drops:
            self.reading.drop()
        return self.missing

    def _end(self) -> None:
        self.turns.append([])

    def taken(self) -> list[list[int]]:
        """Return how long the pieces of each turn are."""
        return [[len(piece) for piece in turn] for turn in self.turns if turn]

    def data(self) -> bytes:
        return b"".join(piece for turn in self.turns for piece in turn)


@pytest.fixture
async def taker() -> Taker:
    return Taker()


@pytest.fixture
def _short_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "TURN_S", 0)


@pytest.fixture
def _short_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "READ_S", 0)


@pytest.fixture
def _time_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TURN_S", "READ_S"):
        monkeypatch.setattr(reading, name, 60)


DATA = Random(17).randbytes(2 * PIECE + 10)


@pytest.mark.usefixtures("_time_enough")
async def test_what_is_quick_is_taken_at_once(taker: Taker) -> None:
    taker.reading.add(DATA)
    taker.reading.add(b"more")
    assert taker.taken() == [[PIECE, PIECE, 10], [4]]
    assert taker.data() == DATA + b"more"
    assert taker.transport.is_reading_now


@pytest.mark.usefixtures("_short_turns")
async def test_others_have_their_turn_between_pieces_that_take_long(taker: Taker) -> None:
    taker.reading.add(DATA)
    assert not taker.transport.is_reading_now
    taker.reading.add(b"more")  # that a transport had read already
    seen = []
    for _ in range(4):
        seen.append(len(taker.taken()))
        await asyncio.sleep(0)
    assert seen == [1, 2, 3, 3]
    assert taker.taken() == [[PIECE], [PIECE], [14]]
    assert taker.data() == DATA + b"more"
    assert taker.transport.is_reading_now


@pytest.mark.usefixtures("_short_reads")
async def test_after_a_read_that_takes_long_no_other_follows_in_the_turn(taker: Taker) -> None:
    taker.reading.add(b"first")
    assert taker.data() == b"first"
    assert not taker.transport.is_reading_now
    taker.reading.add(b"second")  # that a transport had read already
    assert taker.data() == b"first"
    await asyncio.sleep(0.01)
    assert taker.data() == b"firstsecond"
    assert taker.transport.is_reading_now


@pytest.mark.usefixtures("_short_reads")
async def test_who_drops_what_comes_reads_on(taker: Taker) -> None:
    taker.drops = True
    taker.reading.add(DATA)
    await asyncio.sleep(0.01)
    assert taker.taken() == [[PIECE]]
    assert taker.transport.is_reading_now


async def test_what_is_taken_is_not_kept(taker: Taker) -> None:
    data = bytes(100)
    taker.reading.add(data)
    taker.turns.clear()
    assert sys.getrefcount(data) == 2  # ours, and the argument of that


@pytest.mark.usefixtures("_time_enough")
async def test_a_long_frame_is_one_piece(taker: Taker) -> None:
    taker.missing = PIECE + 3
    taker.reading.add(DATA)
    assert taker.taken() == [[PIECE, PIECE + 3, 7]]


@pytest.mark.usefixtures("_short_turns")
async def test_nothing_is_taken_while_it_is_paused(taker: Taker) -> None:
    taker.reading.add(DATA)
    taker.reading.pause()
    await asyncio.sleep(0.01)
    assert taker.taken() == [[PIECE]]
    assert not taker.transport.is_reading_now
    taker.reading.resume()
    taker.reading.pause()
    taker.reading.resume()
    await asyncio.sleep(0.01)
    assert taker.data() == DATA
    assert taker.transport.is_reading_now


async def test_a_pause_within_a_piece_counts_for_the_next(taker: Taker) -> None:
    taker.pauses = True
    taker.reading.add(DATA)
    taker.reading.resume()
    await asyncio.sleep(0.01)
    assert taker.taken() == [[PIECE], [PIECE]]
    assert not taker.transport.is_reading_now


@pytest.mark.usefixtures("_short_turns")
async def test_what_waits_is_dropped_with_the_connection(taker: Taker) -> None:
    taker.reading.add(DATA)
    taker.reading.drop()
    await asyncio.sleep(0.01)
    assert taker.taken() == [[PIECE]]


@pytest.mark.usefixtures("_short_turns")
async def test_a_bug_in_a_later_turn_ends_the_connection(taker: Taker) -> None:
    loop, told = asyncio.get_running_loop(), []
    loop.set_exception_handler(lambda _, context: told.append(context["exception"]))
    taker.reading.add(DATA)
    taker.missing = None  # type: ignore[assignment]
    await asyncio.sleep(0.01)
    assert [type(each) for each in told] == [TypeError]
    assert taker.transport.is_aborted


@pytest.mark.usefixtures("_short_turns")
async def test_calls_of_many_turns_are_answered_right(tmp_path: Path) -> None:
    save_toy(tmp_path)
    onnx_graphs.save_series(tmp_path)
    row, long = (
        infer_request(model, array, id="17").SerializeToString()
        for model, array in (
            ("toy", np.array([[1, 2, 3, 4]], np.float32)),
            ("series", np.ones((1, 10_000), np.float32)),
        )
    )
    async with listening(Settings(models_dir=tmp_path)) as service, Client(service.port) as client:
        alone = [(await client.call(INFER, each)).message for each in (row, long)]
        ids = [client.start(INFER, (row, long)[n % 10 == 5]) for n in range(100)]
        for n, id in enumerate(ids):
            assert (await client.answer(id)).message == alone[n % 10 == 5]
