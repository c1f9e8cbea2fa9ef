"""What counting costs: CPU time per request of the service, and of the same service with nothing
counted (unmetered.py), driven in turn over 64 connections. Both have one core, wrk has another.
Median of the rounds (least to most). The target: at most 5 % lost, a ratio of 1.05.
"""

from collections.abc import Iterator
from functools import partial

from benchmarks.processes import SERVER_CORE, BenchmarkError, Server, serving
from benchmarks.report import in_turn, ratio, say, spread, table
from benchmarks.rivals import torchlit
from benchmarks.workloads import Workload, all_workloads
from benchmarks.wrk import drive

CONNECTIONS = 64
TURNS_PER_ROUND = 3  # so small a difference wants more of them, each shorter


def run(rounds: int, seconds: int) -> Iterator[str]:
    """Yield one table. Raises BenchmarkError if the one counts nothing, or the other does."""
    unmetered = serving(
        "-m benchmarks.unmetered", cores=SERVER_CORE, ready="/health/ready", environment={}
    )
    rows = []
    with torchlit(SERVER_CORE) as counting, unmetered as not_counting:
        for work in all_workloads():
            turns, turn_s = rounds * TURNS_PER_ROUND, max(1, seconds // TURNS_PER_ROUND)
            say(f"metrics: {work.name}, rounds: {turns}")
            used = {
                server.pid: partial(cpu_us, server, work, turn_s)
                for server in (counting, not_counting)
            }
            ours, theirs = in_turn(turns, used).values()
            rows.append([work.name, spread(ours), spread(theirs), ratio(ours, theirs, "1.05")])
        counts = [each.counted("torchlit_requests_total") for each in (counting, not_counting)]
    if not counts[0] > 0 == counts[1]:
        raise BenchmarkError(f"expected requests counted, and none, got {counts}")
    yield table(["workload", "CPU us per request", "with nothing counted", "ratio"], rows)


def cpu_us(server: Server, work: Workload, seconds: int) -> float:
    """Return the microseconds of CPU time that one request takes of the server."""
    before = server.cpu_s()
    requests = drive(server, work, CONNECTIONS, seconds).requests
    return 1e6 * (server.cpu_s() - before) / requests
