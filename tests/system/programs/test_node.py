"""Node 20's http and fetch, by calls.mjs."""

import json
from pathlib import Path

import pytest

from tests.support.processes import Process
from tests.system.programs.asked import LARGE, PREDICT, check_predictions
from tests.system.programs.programs import run

pytestmark = pytest.mark.programs

CALLS = Path(__file__).with_name("calls.mjs")


@pytest.mark.parametrize("content", [PREDICT, LARGE], ids=["small", "large"])
def test_node(service: Process, picture: Path, content: bytes) -> None:
    printed = json.loads(run("node", CALLS, service.url, picture, stdin=content))
    assert printed["version"].startswith("v20.")
    said = printed["said"]
    assert {way: call["status"] for way, call in said.items()} == dict.fromkeys(said, 200)
    form = said.pop("fetch, a form")
    assert json.loads(form["reply"])["predictions"] == [{"value": 2.5}]
    for call in said.values():
        check_predictions(json.loads(call["reply"]))
    reused = [call["reused"] for call in said.values() if "reused" in call]
    assert reused == [False, *[True] * (len(reused) - 1)]
