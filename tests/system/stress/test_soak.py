"""Half a minute of mixed load, alone and with all troubles beside it; `make soak` for ten."""

import os

import pytest

from tests.system.stress.soak import Soaked, soak

SECONDS = float(os.environ.get("STRESS_SOAK_S", "30"))
GROWTH_MB = 5.0  # of resident memory once it has settled; what a leak of 200 bytes a request is

pytestmark = pytest.mark.stress


def checked(soaked: Soaked) -> Soaked:
    assert soaked.wrong == []
    assert soaked.outcomes["200"] > soaked.rate * SECONDS / 2
    assert soaked.descriptors[1] <= soaked.descriptors[0]
    return soaked


def test_nothing_grows_under_a_steady_load() -> None:
    soaked = checked(soak(SECONDS, is_troubled=False))
    assert soaked.growth_mb <= GROWTH_MB


# A client that is cut off while it connects leaves its connection to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_no_answer_is_lost_or_mixed_when_all_troubles_come_together() -> None:
    soaked = checked(soak(SECONDS, is_troubled=True))
    assert soaked.probes["count"] > 0  # `make soak` says how long they may take
    for kind in (
        *("long bodies", "long replies", "replies that would be too large", "slow readers"),
        *("slow senders", "idle connections", "workers killed", "folder moved"),
        *("runs without end", "releases", "answers of the newest"),
    ):
        assert soaked.troubles[kind] > 0, kind
