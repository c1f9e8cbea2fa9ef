"""Lines that hold nobody up."""

import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service.logs.stderr import Stderr
from tests.support.processes import NO_CERTIFICATES, environment


class Pipe:
    """A logger whose lines go into a pipe."""

    def __init__(self, most_bytes: int = 2**20) -> None:
        self.reads, self.writes = os.pipe()
        self.handler = Stderr(self.writes, most_bytes)
        self.logger = logging.Logger("x")
        self.logger.addHandler(self.handler)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    made.handler.close()
    for each in (made.reads, made.writes):
        os.close(each)


def test_lines_are_written_in_order_and_none_is_missing_at_the_end(pipe: Pipe) -> None:
    for number in range(500):
        pipe.logger.error("%d \ud800", number)
    pipe.handler.close()
    assert os.read(pipe.reads, 65_536).decode().splitlines() == [
        f"{number} \\ud800" for number in range(500)
    ]
    pipe.logger.error("later")  # at exit others may log, too
    pipe.handler.close()
    assert os.read(pipe.reads, 100) == b"later\n"


def test_where_nobody_reads_lines_are_counted_and_nobody_waits() -> None:
    pipe = Pipe(most_bytes=200_000)
    line = "x" * 999
    for _ in range(1000):  # a megabyte; a pipe holds 64 KiB
        pipe.logger.error(line)
    first = os.read(pipe.reads, 1000)
    assert first.decode() == f"{line}\n"
    text, written, lost = "", 0, 0
    while written + lost < 999:
        text += os.read(pipe.reads, 65_536).decode()
        written = text.count(f"{line}\n")
        told = re.findall(r"^(\d+) lines were lost, as nobody read those before them$", text, re.M)
        lost = sum(map(int, told))
    assert written + lost == 999
    assert written >= 199
    assert lost
    pipe.logger.error("after")  # it goes on
    pipe.handler.close()
    assert os.read(pipe.reads, 65_536).decode().endswith("after\n")
    for each in (pipe.reads, pipe.writes):
        os.close(each)


def test_a_pipe_without_a_reader_or_that_does_not_wait_is_no_event(pipe: Pipe) -> None:
    os.set_blocking(pipe.writes, False)
    for _ in range(200):
        pipe.logger.error("y" * 999)
    text = b""
    while text.count(b"\n") < 200:
        text += os.read(pipe.reads, 65_536)
    assert text == (b"y" * 999 + b"\n") * 200
    os.close(pipe.reads)
    pipe.logger.error("nobody")
    pipe.handler.close()
    pipe.reads = os.open(os.devnull, os.O_RDONLY)


FORK = """
import logging, os, signal
from service.logs.stderr import Stderr
logging.root.addHandler(Stderr())
logging.error("parent")
if pid := os.fork():
    os.waitpid(pid, 0)
    logging.error("parent again")
    logging.shutdown()
else:
    logging.error("child")
    logging.shutdown()
    os._exit(0)
"""


def test_each_of_two_processes_writes_its_own_lines() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORK], stderr=subprocess.PIPE, text=True, check=True, timeout=20
    )
    assert sorted(done.stderr.split("\n")) == ["", "child", "parent", "parent again"]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_service_whose_log_nobody_reads_serves_on_and_stops(
    models_dir: Path, workers: int
) -> None:
    settings = {"models_dir": models_dir, "workers": workers, "access_log": "true"}
    process = subprocess.Popen(
        [sys.executable, "-m", "service"],
        env=environment(port=0, drain_s=0, **settings),
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if found := re.search(rb"serves (http://\S+)", line):
                url = found[1].decode()
                break
        with httpx.Client(base_url=url, verify=NO_CERTIFICATES, timeout=10) as client:
            for _ in range(100):  # each a line of 1 kB and more
                assert client.get(f"/models/{'x' * 1000}").status_code == 404
            assert client.get("/health/live").status_code == 200
        start = time.monotonic()
        process.terminate()
        assert process.wait(timeout=20) == 0
        print(f"stopped in {time.monotonic() - start:.2f} s")
    finally:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()
