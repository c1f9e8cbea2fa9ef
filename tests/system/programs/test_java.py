"""Java's HttpClient and HttpURLConnection, and a socket that is closed on one side: Calls.java."""

import json
from collections import Counter
from pathlib import Path

import pytest

from tests.support.processes import Process
from tests.system.programs.asked import LARGE, PREDICT, check_predictions
from tests.system.programs.programs import run

pytestmark = pytest.mark.programs

CALLS = Path(__file__).with_name("Calls.java")
REPLIES = {
    "HttpClient": 3,
    "HttpClient, in chunks": 1,
    "HttpClient, announced": 1,
    "HttpClient, several at once": 16,
    "HttpURLConnection": 2,
    "HttpURLConnection, in chunks": 2,
}


@pytest.mark.parametrize("content", [PREDICT, LARGE], ids=["small", "large"])
def test_java(service: Process, content: bytes) -> None:
    check(java(service.url, "socket", stdin=content), REPLIES | {"Socket": 1})


def test_java_through_nginx(nginx: str) -> None:
    """Its lines for websockets pass on the offers of HTTP/2."""
    check(java(f"{nginx}/websocket", stdin=PREDICT), REPLIES)


def java(*arguments: str, stdin: bytes) -> list[list[str]]:
    """Run Calls.java; return way, status and body of each reply."""
    printed = run("java", CALLS, *arguments, stdin=stdin).decode()
    return [line.split("\t") for line in printed.splitlines()]


def check(said: list[list[str]], replies: dict[str, int]) -> None:
    """Hold replies against how many there are to be of each way, and against NumPy."""
    assert Counter(way for way, _, _ in said) == replies
    for _, status, reply in said:
        assert status == "200"
        check_predictions(json.loads(reply))
