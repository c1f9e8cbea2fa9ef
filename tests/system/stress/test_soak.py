"""Half a minute of mixed load; `make soak` for ten."""

import os

import pytest

from tests.system.stress.soak import soak

SECONDS = float(os.environ.get("STRESS_SOAK_S", "30"))
GROWTH_MB = 5.0  # of resident memory once it has settled; what a leak of 200 bytes a request is

pytestmark = pytest.mark.stress


def test_nothing_grows_under_a_steady_load() -> None:
    soaked = soak(SECONDS)
    print(soaked)
    print(*soaked.wrong[:10], sep="\n")
    assert soaked.wrong == []
    assert soaked.outcomes["200"] > soaked.rate * SECONDS / 2
    assert soaked.descriptors[1] <= soaked.descriptors[0]
    assert soaked.growth_mb <= GROWTH_MB
