"""Requests that nobody would send: each is answered in a sentence, and none leaves a trace.

STRESS_FUZZ=100000 make test-stress
"""

import asyncio
import json
import math
import os
import re
import time
from collections import Counter
from typing import Any

import pytest
import uvloop

from tests.support.processes import resident_mb, running
from tests.system.stress.fuzzing import Fuzzed, Fuzzer
from tests.system.stress.load import (
    COMMITTED_MODELS,
    LOST,
    PATIENCE_S,
    Connection,
    Reply,
    assert_log_is_clean,
    wait_until_queue_is_empty,
)

REQUESTS = int(os.environ.get("STRESS_FUZZ", "100000"))
SEED = int(os.environ.get("STRESS_SEED", "0"))
WITH_OPTIONS, API_KEY = 10_000, "a-key-that-is-long-enough"
WARM = 0.2  # of the requests; from then on the memory is not to grow
GROWTH = 1.1
CONNECTIONS = 16
NOT_FINITE = b"the model answered NaN or infinity for this input"  # numbers may be that large
GLANCE_S = 0.05  # how long an answer is waited for that may never come
SHOWN = 10

# What infers is sent twice: the second time the service knows the head.
AGAIN = re.compile(rb"POST [^ ]*(predict|infer|invocations)")
CHANCE = re.compile(rb"(?i)(x-request-id|date|server-timing|[a-z-]*content-length):")

pytestmark = pytest.mark.stress


class Findings:
    """What came back: how many replies of which status, and what was wrong."""

    def __init__(self, *, may_unload: bool = False) -> None:
        """may_unload: whether requests may load and unload models for each other."""
        # Statuses that say nothing of how a request was read.
        self._passing = {504, 503, 404} if may_unload else {504}
        self._may_unload = may_unload
        self.sent = self.twice = 0
        self.statuses: Counter[str] = Counter()
        self.wrong: list[str] = []

    def note(self, fuzzed: Fuzzed, reply: Reply) -> None:
        """Count a reply, and say what is wrong with it if anything is."""
        self.statuses[str(reply.status)] += 1
        if what := wrong_with(reply, fuzzed):
            self.blame(fuzzed, f"{what}: {reply.head!r} {reply.body[:200]!r}")

    def may_differ(self, reply: Reply) -> bool:
        """Whether the same request may be answered otherwise a moment later."""
        lists_models = b"expected the name of a model (" in reply.body
        return reply.status in self._passing or (self._may_unload and lists_models)

    def blame(self, fuzzed: Fuzzed, what: str) -> None:
        """Remember what was wrong, and the request that it was wrong with."""
        framed = "framed" if fuzzed.is_framed else "unframed"
        self.wrong.append(f"{what}\n    {framed}, {len(fuzzed.sent)} bytes: {fuzzed.sent[:800]!r}")


def wrong_with(reply: Reply, fuzzed: Fuzzed) -> str:
    """Say what is wrong with a reply; nothing if nothing is."""
    if reply.status >= 500 and reply.status not in (501, 503, 504) and NOT_FINITE not in reply.body:
        return "a status that is never meant"
    if fuzzed.is_framed and not reply.closes and b"\r\nx-request-id: " not in reply.head:
        return "a reply without an id"
    if reply.status < 400 or fuzzed.method == "HEAD":
        return ""
    try:
        fields = json.loads(reply.body)
    except ValueError:
        return "an error that is not JSON"
    if list(fields) != ["error"] or not isinstance(fields["error"], str):
        return "an error with other fields"
    return "an error without words" if len(fields["error"]) < 10 else ""


async def read_reply(reader: asyncio.StreamReader, method: str) -> Reply:
    """Return the next reply that is no interim one. Raises ValueError if that is none."""
    status = 100
    while status < 200:
        head = await reader.readuntil(b"\r\n\r\n")
        if not re.match(rb"HTTP/1\.1 [1-5]\d\d ", head):
            raise ValueError(f"expected a status line, got {head[:200]!r}")
        status = int(head[9:12])
    if method == "HEAD" or status in (204, 304):
        return Reply(status, head, b"")
    length = re.search(rb"\r\ncontent-length: (\d+)", head)
    if length is None:
        raise ValueError(f"expected a content-length, got {head!r}")
    return Reply(status, head, await reader.readexactly(int(length[1])))


async def ask_framed(connection: Connection, fuzzed: Fuzzed, findings: Findings) -> bool:
    """Send a request that must be answered; return whether the connection lives on."""
    connection.writer.write(fuzzed.sent)
    try:
        async with asyncio.timeout(PATIENCE_S):
            reply = await read_reply(connection.reader, fuzzed.method)
    except (*LOST, TimeoutError, ValueError) as error:
        findings.blame(fuzzed, f"no reply: {error!r}")
        return False
    findings.note(fuzzed, reply)
    if reply.closes or not AGAIN.match(fuzzed.sent):
        return not reply.closes
    connection.writer.write(fuzzed.sent)  # its head is known now: it may be answered directly
    try:
        async with asyncio.timeout(PATIENCE_S):
            again = await read_reply(connection.reader, fuzzed.method)
    except (*LOST, TimeoutError, ValueError) as error:
        findings.blame(fuzzed, f"no reply to the same again: {error!r}")
        return False
    findings.twice += 1
    may_differ = findings.may_differ(again) or findings.may_differ(reply)
    if not may_differ and not says_the_same(again, reply):
        findings.blame(fuzzed, f"two replies: {reply!r} and {again!r}")
    return not again.closes


def says_the_same(one: Reply, other: Reply) -> bool:
    """Whether two replies differ in nothing but ids, times, and the last digits of numbers.

    A model rounds otherwise in another batch. Of binary data the JSON before it is compared.
    """
    heads = [
        sorted(line for line in each.head.split(b"\r\n") if not CHANCE.match(line))
        for each in (one, other)
    ]
    bodies = [
        json.JSONDecoder().raw_decode(each.body.decode("latin-1"))[0] for each in (one, other)
    ]
    return heads[0] == heads[1] and alike(*bodies)


def alike(one: Any, other: Any) -> bool:
    """Whether two documents are equal, but for the last digits of numbers and ids."""
    if isinstance(one, dict) and isinstance(other, dict):
        return list(one) == list(other) and all(
            alike(one[name], other[name]) for name in one if name != "id"
        )
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(alike, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-4, abs_tol=1e-6)
    return bool(one == other)


async def ask_unframed(connection: Connection, fuzzed: Fuzzed, findings: Findings) -> None:
    """Send what may be answered once, several times or not at all; look at what there is."""
    connection.writer.write(fuzzed.sent)
    try:
        async with asyncio.timeout(GLANCE_S):
            while True:
                findings.note(fuzzed, await read_reply(connection.reader, fuzzed.method))
    except (*LOST, TimeoutError):
        findings.statuses["closed or open"] += 1
    except ValueError as error:
        findings.blame(fuzzed, f"no HTTP: {error}")


async def fuzz(url: str, fuzzer: Fuzzer, requests: int, findings: Findings) -> None:
    """Send so many requests, one after the other."""
    connection: Connection | None = None
    for _ in range(requests):
        fuzzed = fuzzer.next()
        findings.sent += 1
        if connection is None:
            connection = await Connection.open(url)
        lives = False
        try:
            if fuzzed.is_framed:
                lives = await ask_framed(connection, fuzzed, findings)
            else:
                await ask_unframed(connection, fuzzed, findings)
        finally:
            if not lives:
                connection.leave()
                connection = None
    if connection is not None:
        connection.leave()


async def fuzz_together(
    url: str, seed: int, requests: int, findings: Findings, api_key: str = ""
) -> None:
    """Fuzz over several connections."""
    fuzzers = [Fuzzer(seed + number, api_key) for number in range(CONNECTIONS)]
    share = requests // CONNECTIONS
    await asyncio.gather(*(fuzz(url, fuzzer, share, findings) for fuzzer in fuzzers))


def test_whatever_is_sent_is_answered_in_a_sentence_and_leaves_no_trace() -> None:
    findings = Findings()

    async def fuzz_twice(url: str, pid: int) -> tuple[float, float, float]:
        start = time.perf_counter()
        await fuzz_together(url, SEED, int(REQUESTS * WARM), findings)
        warm_mb = resident_mb(pid)
        await fuzz_together(url, SEED + CONNECTIONS, int(REQUESTS * (1 - WARM)), findings)
        seconds = time.perf_counter() - start
        await wait_until_queue_is_empty(url)
        return warm_mb, resident_mb(pid), seconds

    with running(models_dir=COMMITTED_MODELS) as service:
        warm_mb, end_mb, seconds = uvloop.run(fuzz_twice(service.url, service.process.pid))
        assert service.process.poll() is None
        assert service.stop() == 0
    print(
        f"{findings.sent} requests, {findings.twice} of them twice, in {seconds:.1f} s; "
        f"{dict(sorted(findings.statuses.items()))}; resident {warm_mb:.1f} MB after the first "
        f"{WARM:.0%}, {end_mb:.1f} MB at the end; wrong: {len(findings.wrong)}"
    )
    print(*findings.wrong[:SHOWN], sep="\n")
    assert_log_is_clean(service.log)
    assert findings.wrong == []
    assert end_mb <= warm_mb * GROWTH


def test_every_option_takes_whatever_is_sent_and_each_line_logged_is_json() -> None:
    findings = Findings(may_unload=True)
    options = {"access_log": "true", "log_format": "json", "cors_origins": "*"}
    options["model_control"] = "true"
    with running(models_dir=COMMITTED_MODELS, api_keys=API_KEY, **options) as service:
        uvloop.run(fuzz_together(service.url, SEED, WITH_OPTIONS, findings, API_KEY))
        assert service.stop() == 0
    lines = [json.loads(line) for line in service.log]
    print(
        f"{findings.sent} requests: {dict(sorted(findings.statuses.items()))}; "
        f"{len(lines)} lines logged; wrong: {len(findings.wrong)}"
    )
    print(*findings.wrong[:SHOWN], sep="\n")
    assert [line for line in lines if line["level"] == "ERROR"] == []
    assert findings.statuses["401"] > 0
    assert findings.wrong == []
