"""What the benchmarks compute and print. Their servers and wrk run in `make bench` only."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from benchmarks import grpc, report, rivals, score_inputs, trees, unmetered, wrk
from benchmarks.__main__ import NOTES, PARTS
from benchmarks.processes import BenchmarkError, Server

PRINTED = """Running 3s test @ http://127.0.0.1:40001/predict/iris?iris1row
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     3.09ms  551.32us  10.50ms   75.50%
    Req/Sec    20.41k   632.10    21.35k    74.19%
  Latency Distribution
     50%  {p50}
     75%    3.20ms
     90%    3.51ms
     99%  {p99}
  62902 requests in 3.10s, 17.22MB read
{errors}Requests/sec:  20291.02
Transfer/sec:      5.55MB
"""


def printed(p50: str = "3.09ms", p99: str = "3.97ms", errors: str = "") -> str:
    return PRINTED.format(p50=p50, p99=p99, errors=errors)


def test_what_wrk_prints_is_read() -> None:
    assert wrk.parse(printed()) == wrk.Measured(62902, 20291.02, 3.09, 3.97)


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [("551.32us", 0.55132), ("10.50ms", 10.5), ("1.01s ", 1010.0), ("1.20m ", 72_000.0)],
)
def test_latencies_are_in_milliseconds_whatever_their_unit(text: str, milliseconds: float) -> None:
    measured = wrk.parse(printed(p50=text, p99=text))
    assert measured.p50_ms == measured.p99_ms == pytest.approx(milliseconds)


@pytest.mark.parametrize(
    "error",
    [
        "Non-2xx or 3xx responses: 7",
        "Socket errors: connect 0, read 1, write 0, timeout 2",
    ],
)
def test_an_error_that_wrk_counted_stops_the_benchmark(error: str) -> None:
    with pytest.raises(BenchmarkError, match=f"expected replies of 200 only, got {error}"):
        wrk.parse(printed(errors=f"  {error}\n"))


def test_output_without_requests_stops_the_benchmark() -> None:
    with pytest.raises(BenchmarkError, match="expected requests from wrk"):
        wrk.parse("unable to connect to 127.0.0.1:40001 Connection refused\n")
    with pytest.raises(BenchmarkError, match="expected requests from wrk"):
        wrk.parse(printed().replace("62902", "0"))


def test_a_spread_is_the_median_with_the_least_and_the_most() -> None:
    assert report.spread([30_100.4, 9_900.0, 20_262.0]) == "20,262 (9,900 to 30,100)"
    assert report.spread([0.5], 2) == "0.50"


def test_a_ratio_is_taken_round_by_round() -> None:
    assert report.ratio([50, 90, 60], [100, 100, 100]) == "0.60 (0.50 to 0.90)"
    # The machine was twice as fast in the second round: the ratio does not see it.
    assert report.ratio([50, 100], [100, 200], "0.60") == "0.50 (0.50 to 0.50); target 0.60"


def test_a_percentile_is_a_value_that_was_measured() -> None:
    values = [float(each) for each in range(100, 0, -1)]
    assert [report.percentile(values, share) for share in (0.5, 0.99, 1.0)] == [50, 99, 100]
    assert report.percentile([7.0], 0.99) == 7


def test_measures_take_turns() -> None:
    order: list[str] = []
    measures = {name: lambda name=name: order.append(name) or len(order) for name in "ab"}
    assert report.in_turn(2, measures) == {"a": [1, 3], "b": [2, 4]}
    assert order == ["a", "b", "a", "b"]


def test_a_table_is_markdown() -> None:
    assert report.table(["workload", "requests/s"], [["iris", "20,262"], ["mnist", "858"]]) == (
        "| workload | requests/s |\n| --- | ---: |\n| iris | 20,262 |\n| mnist | 858 |"
    )


def test_notes_belong_to_their_part() -> None:
    text = "Intro.\n\n## start\n\nSlow disk.\n\nTwice.\n\n## slow\n\n## scaling\n\nBends.\n"
    assert report.notes(text, "start") == "Slow disk.\n\nTwice."
    assert report.notes(text, "slow") == ""
    assert report.notes(text, "scaling") == "Bends."


@pytest.mark.parametrize(("owner", "name"), unmetered.COUNTING)
def test_what_the_benchmark_takes_out_is_there(owner: type, name: str) -> None:
    assert callable(getattr(owner, name))


def test_there_is_a_place_for_the_notes_of_every_part() -> None:
    headings = [line[3:] for line in NOTES.read_text().splitlines() if line.startswith("## ")]
    assert headings == list(PARTS)


def test_replies_are_alike_when_only_the_last_digits_differ() -> None:
    reply = {"predictions": [{"label": "7", "probability": 0.95543}]}
    assert rivals.alike(reply, {"predictions": [{"label": "7", "probability": 0.95544}]})
    assert not rivals.alike(reply, {"predictions": [{"label": "7", "probability": 0.95}]})
    assert not rivals.alike(reply, {"predictions": [{"label": "1", "probability": 0.95543}]})
    assert not rivals.alike(reply, {"predictions": []})
    assert not rivals.alike(reply, {**reply, "version": 1})


@pytest.mark.slow
def test_the_memory_of_a_program_is_that_of_all_its_processes(tmp_path: Path) -> None:
    child = "import sys, time; held = bytearray(150_000_000); time.sleep(0.4)"
    program = (
        f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}], check=True)"
    )
    took = trees.ran([sys.executable, "-c", program], folder=tmp_path, environment=os.environ)
    assert took.peak_mb > 150
    assert took.seconds > 0.4


def test_a_program_that_fails_stops_the_benchmark(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no rows')"]
    with pytest.raises(BenchmarkError, match="expected it to end well, it said: no rows"):
        trees.ran(command, folder=tmp_path, environment=os.environ)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_files_of_rows_are_the_same_rows(tmp_path: Path, suffix: str) -> None:
    inputs = score_inputs.rows_in(tmp_path / "rows", ["a", "b"], suffix, 200)
    again = score_inputs.rows_in(tmp_path / "again", ["a", "b"], suffix, 200)
    assert inputs.file.read_bytes() == again.file.read_bytes()
    whole, parts = map(score_inputs.read_back, (inputs.file, inputs.folder))
    assert whole.schema == pa.schema({"a": pa.float64(), "b": pa.float64()})
    assert whole.num_rows == 200
    order = [("a", "ascending"), ("b", "ascending")]
    assert parts.sort_by(order).equals(whole.sort_by(order))
    assert score_inputs.read_back(inputs.first).num_rows == 20


H2LOAD = """
finished in 1.91s, 5232.10 req/s, 1.10MB/s
requests: 10000 total, 10000 started, 10000 done, {succeeded} succeeded, 0 failed, 0 errored
traffic: 2.11MB (2210000) total, 1.02MB (1070000) headers (space savings 0.00%), {data} data
"""


def test_what_h2load_prints_is_read() -> None:
    printed = H2LOAD.format(succeeded=10000, data="585.94KB (600000)")
    measured = grpc.parsed(printed, [190, 150, 170], 10000, 1.5)
    assert measured == grpc.Measured(5232.10, 170, 150.0, 60.0)


@pytest.mark.parametrize(
    ("succeeded", "data"), [(9999, "585.94KB (600000)"), (10000, "0B (0)")], ids=["lost", "empty"]
)
def test_an_error_of_grpc_is_no_success(succeeded: int, data: str) -> None:
    with pytest.raises(BenchmarkError):
        grpc.parsed(H2LOAD.format(succeeded=succeeded, data=data), [1], 10000, 1.0)


def test_the_memory_of_a_server_is_that_of_all_below_it() -> None:
    """Also of what a thread of it started, and of what that did."""
    sleeps = "import sys, time; print(1, flush=True); time.sleep(60)"
    starts = "import subprocess, sys; subprocess.run([sys.executable, '-c', {!r}])".format
    from_a_thread = (
        "import subprocess, sys, threading\n"
        "start = lambda: subprocess.run([sys.executable, '-c', {!r}])\n"
        "threading.Thread(target=start).start()"
    ).format
    command = [sys.executable, "-c", from_a_thread(starts(sleeps))]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"1\n"
        assert len(Server(0, process.pid).resident_mb()) == 3
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
