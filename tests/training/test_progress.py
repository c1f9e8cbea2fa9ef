import io
import sys

import pytest

from training.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time; change its only element to let it pass."""
    now = [1000.0]
    monkeypatch.setattr("training.progress.time.monotonic", lambda: now[0])
    return now


def accuracy() -> dict[str, float]:
    return {"accuracy": 0.98765, "other": 1.0}


def never() -> dict[str, float]:
    raise AssertionError("was measured, though nobody can see it")


def test_log_has_a_line_now_and_then_and_one_for_the_last_epoch(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress("toy/1", epochs=400, steps_per_epoch=1) as shown:
        shown.epoch(1, 3.0, 4.0, never)
        clock[0] += 12
        shown.epoch(100, 0.25, 0.5, accuracy)
        shown.epoch(101, 0.2, 0.4, never)
        clock[0] += 1
        shown.epoch(400, 0.1, 0.2, accuracy)
    assert capsys.readouterr().err.splitlines() == [
        "toy/1: epoch 100 of 400: loss 0.2500, held out 0.5000, accuracy 0.9877, 36 s left",
        "toy/1: epoch 400 of 400: loss 0.1000, held out 0.2000, accuracy 0.9877, after 13 s",
    ]


def test_long_training_says_minutes(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("toy/1", epochs=10, steps_per_epoch=1) as shown:
        clock[0] += 60
        shown.epoch(1, 1.0, 1.0, accuracy)
    assert capsys.readouterr().err.endswith(", 9 min left\n")


def test_what_ends_early_has_a_line_and_what_fails_has_none(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress("toy/1", epochs=400, steps_per_epoch=1) as shown:
        shown.epoch(7, 1.0, 1.0, accuracy)
    assert capsys.readouterr().err.startswith("toy/1: epoch 7 of 400")
    interrupted = Progress("toy/1", epochs=400, steps_per_epoch=1)
    interrupted.epoch(7, 1.0, 1.0, never)
    interrupted.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert capsys.readouterr().err == ""


def test_without_a_title_nothing_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(None, epochs=1, steps_per_epoch=1) as shown:
        shown.step()
        shown.epoch(1, 1.0, 1.0, never)
    assert capsys.readouterr().err == ""


def test_terminal_has_a_bar_with_the_epoch_and_its_numbers(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress("toy/1", epochs=2, steps_per_epoch=3) as shown:
        for _ in range(3):
            shown.step()
        clock[0] += 1
        shown.epoch(1, 0.25, 0.5, accuracy)
        written = terminal.getvalue()
        assert "toy/1: epoch 1 of 2:  50%" in written
        assert "3/6" in written
        assert "loss=0.2500, held out=0.5000, accuracy=0.9877" in written
        shown.epoch(2, 0.1, 0.2, accuracy)  # too soon to be shown, were it not the last
    last = terminal.getvalue().rstrip("\n").split("\r")[-1]
    assert "toy/1: epoch 2 of 2" in last
    assert "loss=0.1000, held out=0.2000, accuracy=0.9877" in last
