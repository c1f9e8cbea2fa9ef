import pytest

from service.commands.score.options import Job
from service.errors import CannotScore
from service.settings import machine
from service.settings.machine import Resources


def processes(workers: str) -> int:
    return Job(model="iris", input="in.csv", output="-", workers=workers).processes


def test_auto_is_one_for_each_core_that_there_is_memory_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine, "available", lambda: Resources(8, 3.5, None))
    assert processes("auto") == 3
    assert processes("5") == 5
    assert processes("99999") == machine.MOST_WORKERS


@pytest.mark.parametrize("workers", ["0", "-1", "two", "1.5", "", "\u0663", "1" * 5000])
def test_another_number_is_refused(workers: str) -> None:
    with pytest.raises(CannotScore) as raised:
        processes(workers)
    assert str(raised.value) == f"--workers: expected a number from 1, or auto, got {workers!r}"
