import os
import subprocess
import sys

import pytest

from service.commands.terminal import STDERR, STDIN, STDOUT, Stdout, open_closed, say, show
from service.errors import NotWritten
from tests.support.scoring import Become


def test_what_is_written_is_there_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    out = Stdout()
    out.write(b"a")
    out.line("\u00e4 \ud800")  # half of a surrogate pair has no form in UTF-8
    assert capfd.readouterr().out == "a\u00e4 \\ud800\n"
    say("two\nlines \x1b[31m")
    show("as it is\r")
    assert capfd.readouterr().err == "torchlit: two\\nlines \\x1b[31m\nas it is\r"


def test_more_than_a_pipe_takes_at_once_is_written(stream: Become) -> None:
    code = "import sys; print(len(sys.stdin.buffer.read()))"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as reader:
        assert reader.stdin is not None
        stream(STDOUT, os.dup(reader.stdin.fileno()))
        Stdout().write(b"x" * 1_000_000)
        stream(STDOUT, os.open(os.devnull, os.O_WRONLY))
        assert reader.communicate()[0] == b"1000000\n"


def test_a_full_disk_is_one_sentence_and_silence_on_stderr(stream: Become) -> None:
    stream(STDOUT, os.open("/dev/full", os.O_WRONLY))
    stream(STDERR, os.open("/dev/full", os.O_WRONLY))
    with pytest.raises(NotWritten, match=r"^stdout: cannot be written: No space left on device$"):
        Stdout().write(b"x")
    say("nobody hears it")


def test_a_reader_who_has_enough_is_no_failure_of_ours(stream: Become) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    stream(STDOUT, writer)
    with pytest.raises(BrokenPipeError):
        Stdout().write(b"x")


def test_a_stream_that_is_closed_gets_no_other_file(stream: Become, tmp_path: object) -> None:
    for number in (STDIN, STDOUT, STDERR):
        os.close(number)
    open_closed()
    file = os.open(f"{tmp_path}/other", os.O_WRONLY | os.O_CREAT)
    assert file not in (STDIN, STDOUT, STDERR)
    os.close(file)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.read(STDIN, 1)
    with pytest.raises(NotWritten, match=r"^stdout: cannot be written: Bad file descriptor$"):
        Stdout().write(b"x")
    say("nobody hears it")


def test_streams_that_are_open_stay_as_they_are(capfd: pytest.CaptureFixture[str]) -> None:
    open_closed()
    Stdout().line("here")
    assert capfd.readouterr().out == "here\n"
