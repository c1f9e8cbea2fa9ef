import errno
import os
import sys
import threading
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from service.commands.score.conversion import Conversion, Growing


@pytest.fixture
def part(tmp_path: Path) -> Path:
    """Return a part of five bytes."""
    path = tmp_path / "part"
    path.write_bytes(b"12345")
    return path


def test_a_result_is_made_while_its_part_grows(part: Path, tmp_path: Path) -> None:
    seen: list[bytes] = []
    is_read = threading.Event()

    def convert(source: Growing, new: Path) -> None:
        seen.append(source.read(5))
        is_read.set()
        seen.append(source.read(3))
        seen.append(source.read(9))
        new.write_bytes(b"".join(seen))

    conversion = Conversion(part, tmp_path / "new", convert, 5)
    assert is_read.wait(9)
    with part.open("ab") as file:
        file.write(b"6")
        file.flush()
        conversion.grew(1)
        assert seen == [b"12345"]  # three are not there
        file.write(b"789")
    conversion.grew(3)
    conversion.finish(lambda new: new.replace(tmp_path / "result"))
    assert seen == [b"12345", b"678", b"9"]  # the end is known once it is complete
    assert (tmp_path / "result").read_bytes() == b"123456789"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["part", "result"]


def test_a_conversion_that_fails_says_so_at_the_next_bytes(part: Path, tmp_path: Path) -> None:
    def convert(source: Growing, new: Path) -> None:
        new.write_bytes(source.read(5))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    conversion = Conversion(part, tmp_path / "new", convert, 5)
    conversion._thread.join()
    with pytest.raises(OSError, match="No space left"):
        conversion.grew(1)
    conversion.drop()
    assert [each.name for each in tmp_path.iterdir()] == ["part"]


def test_a_conversion_that_is_dropped_leaves_nothing(part: Path, tmp_path: Path) -> None:
    failures: list[BaseException] = []

    def convert(source: Growing, new: Path) -> None:
        new.touch()
        try:
            source.read(6)
        except BaseException as error:
            failures.append(error)
            raise

    conversion = Conversion(part, tmp_path / "new", convert, 5)
    conversion.drop()
    assert isinstance(failures[0], InterruptedError)
    assert [each.name for each in tmp_path.iterdir()] == ["part"]


def test_no_thread_is_an_error_of_the_system(
    part: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    with pytest.raises(OSError, match="no thread can be started"):
        Conversion(part, tmp_path / "new", lambda *_: None)


def interrupt_at(step: int, call: Callable[[], object]) -> bool:
    """Call something, and raise KeyboardInterrupt at a step of it; return whether it has so many.

    Between two of them Python looks whether Ctrl-C came.
    """
    left = step

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal left
        frame.f_trace_opcodes = True
        if event == "opcode":
            left -= 1
            if left == 0:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


def test_it_can_be_dropped_wherever_ctrl_c_came(part: Path, tmp_path: Path) -> None:
    """A Condition would stay locked, or its next notification be lost."""
    for step in count(1):

        def convert(source: Growing, _: Path) -> None:
            for _ in count():
                source.read(1)

        conversion = Conversion(part, tmp_path / "new", convert, 5)
        is_interrupted = interrupt_at(step, lambda each=conversion: each.grew(0))
        dropping = threading.Thread(target=conversion.drop, daemon=True)
        dropping.start()
        dropping.join(9)
        assert not dropping.is_alive(), step
        if not is_interrupted:
            break
    assert step > 5
