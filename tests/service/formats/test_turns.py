import pytest

from service.formats import turns
from service.formats.turns import Turns


def test_it_pauses_only_if_the_last_time_is_long_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    now, pauses = [0.0], list[float]()
    monkeypatch.setattr(turns, "perf_counter", lambda: now[0])
    monkeypatch.setattr(turns, "sleep", pauses.append)
    give_way = Turns()
    for now[0] in (0.001, 0.003, 0.0041, 0.005, 0.008, 0.0082):
        give_way()
    assert len(pauses) == 2
