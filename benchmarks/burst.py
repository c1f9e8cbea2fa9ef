"""64 connections, opened before, start a request of 180 kB each (64 rows of 784) at once: when
do the replies come? Time from the common start, so p50 is half of the work. The server has one
core, the client (asyncio) another; the client's own work is part of the time.
"""

import asyncio
import re
from collections.abc import Iterator
from functools import partial
from itertools import chain
from time import perf_counter

from benchmarks.processes import LOAD_CORE, BenchmarkError, Server, pinned
from benchmarks.report import in_turn, percentile, say, table
from benchmarks.rivals import all_rivals
from benchmarks.workloads import Workload, mnist

CONNECTIONS = 64
BURSTS_PER_ROUND = 7


def run(rounds: int, seconds: int) -> Iterator[str]:
    """Yield one table; the servers take turns, burst by burst. `seconds` is not used."""
    work, times = mnist(1, 64), rounds * BURSTS_PER_ROUND
    say(f"burst: {times} of {CONNECTIONS} requests")
    with all_rivals([work]) as servers, pinned(LOAD_CORE):
        bursts = {name: partial(burst, server, work) for name, server in servers.items()}
        replied = in_turn(times, bursts)
    rows = []
    for name, replies in replied.items():
        all_ms = [1000 * reply_s for reply_s in chain(*replies)]
        p50, p99 = percentile(all_ms, 0.50), percentile(all_ms, 0.99)
        rows.append([name, f"{p50:.1f}", f"{p99:.1f}", f"{max(all_ms):.1f}", f"{p99 / p50:.2f}"])
    yield table(["server", "p50 ms", "p99 ms", "max ms", "p99 / p50"], rows)


def burst(server: Server, work: Workload) -> list[float]:
    """Return when each reply was complete, in seconds from the start of all requests."""
    return asyncio.run(_burst(server, work))


async def _burst(server: Server, work: Workload) -> list[float]:
    head = f"POST {work.path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    request = f"{head}content-length: {len(work.body)}\r\n\r\n".encode() + work.body
    connections = [
        await asyncio.open_connection("127.0.0.1", server.port) for _ in range(CONNECTIONS)
    ]
    start = perf_counter()

    async def replied(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> float:
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = re.search(rb"\r\ncontent-length: (\d+)\r\n", head)
        if not head.startswith(b"http/1.1 200 ") or length is None:
            raise BenchmarkError(f"{work.name}: expected 200, got {head!r}")
        await reader.readexactly(int(length[1]))
        return perf_counter() - start

    try:
        async with asyncio.timeout(60):
            return await asyncio.gather(*(replied(*connection) for connection in connections))
    finally:
        for _, writer in connections:
            writer.close()
