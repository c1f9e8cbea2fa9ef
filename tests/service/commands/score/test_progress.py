import os
import select

import pytest

from service.commands.score import progress
from service.commands.score.output import Mark
from service.commands.score.progress import Progress
from tests.support.scoring import Become


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that it is now."""
    now = [0.0]
    monkeypatch.setattr(progress, "monotonic", lambda: now[0])
    return now


def before(rows: int) -> Mark:
    return Mark(job={}, rows=rows)


def test_a_terminal_shows_how_far_it_is_now_and_then(stream: Become, clock: list[float]) -> None:
    main_end, terminal = os.openpty()
    stream(2, terminal)
    shown = Progress(1000, before(0))
    for quarter in range(1, 9):  # of a second
        clock[0] += 0.25
        shown.show(quarter * 100, quarter * 125)
    shown.clear()
    said = b""
    while said.count(b"\r\x1b[K") < 5:
        assert select.select([main_end], [], [], 5)[0], said
        said += os.read(main_end, 10_000)
    os.close(main_end)
    assert said.split(b"\r\x1b[K") == [
        b"",
        b" 25%, 200 rows",
        b" 50%, 400 rows",
        b" 75%, 600 rows, 400 a second, 0:00:00 left",
        b"100%, 800 rows, 400 a second, 0:00:00 left",
        b"",
    ]


def test_where_the_size_is_not_known_there_is_no_share(stream: Become, clock: list[float]) -> None:
    main_end, terminal = os.openpty()
    stream(2, terminal)
    shown = Progress(0, before(0))
    clock[0] += 1
    shown.show(7, 0)
    assert select.select([main_end], [], [], 5)[0]
    assert os.read(main_end, 100) == b"\r\x1b[K7 rows"
    os.close(main_end)


def test_without_a_terminal_nothing_is_shown(
    capfd: pytest.CaptureFixture[str], clock: list[float]
) -> None:
    shown = Progress(1000, before(0))
    clock[0] += 10
    shown.show(7, 0)
    shown.clear()
    assert capfd.readouterr().err == ""


def test_the_pace_is_that_of_this_run(clock: list[float]) -> None:
    shown = Progress(1000, before(500))  # rows of a run before
    clock[0] += 1
    shown.show(600, 0)
    assert shown.pace == ""  # too short to say
    clock[0] += 3
    shown.show(900, 0)
    assert shown.pace == ", 100 a second"
