import errno
import fcntl
import os
from pathlib import Path

import pytest

from service.commands.score.conversion import Growing
from service.commands.score.output import ALSO_STDOUT, Mark, Part
from service.errors import NotWritten

NEW = Mark(job={})
MARK = Mark(job={"the model": "x", "--keep": True}, input_sha256="ab", lines=3, output_bytes=4)


@pytest.fixture
def part(tmp_path: Path) -> Part:
    return Part(tmp_path / "out.csv", force=False)


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_a_file_has_its_name_once_it_is_finished(part: Part, tmp_path: Path) -> None:
    part.check()
    with part:
        assert part.mark() is None
        part.begin(NEW)
        part.write(b"a\n")
        part.write(b"b\n")
        part.save(MARK)
        assert names(tmp_path) == ["out.csv.part", "out.csv.part.json"]
        part.write(b"c\n")
        part.finish()
    assert names(tmp_path) == ["out.csv"]
    assert (tmp_path / "out.csv").read_bytes() == b"a\nb\nc\n"


def test_it_goes_on_after_what_counts(part: Part, tmp_path: Path) -> None:
    with part:
        part.begin(NEW)
        part.write(b"a\nb\n")
        part.save(MARK)
        part.write(b"what was written after that, and half a li")
    with Part(tmp_path / "out.csv", force=False) as again:
        assert again.mark() == MARK
        again.go_on(MARK.output_bytes)
        again.write(b"c\n")
        again.finish()
    assert (tmp_path / "out.csv").read_bytes() == b"a\nb\nc\n"


@pytest.mark.parametrize("damage", ["cut", "nonsense", "other", "gone"])
def test_a_mark_that_cannot_be_true_is_none(part: Part, tmp_path: Path, damage: str) -> None:
    sidecar = tmp_path / "out.csv.part.json"
    with part:
        part.begin(NEW)
        part.write(b"a\nb\n")
        part.save(MARK)
        if damage == "cut":
            part.go_on(3)
        elif damage == "gone":
            sidecar.unlink()
        else:
            sidecar.write_text("{" if damage == "nonsense" else '{"job": 7}')
        assert part.mark() is None


def test_who_begins_anew_leaves_no_mark_of_the_old_bytes(part: Part, tmp_path: Path) -> None:
    with part:
        part.begin(NEW)
        part.write(b"a\nb\n")
        part.save(MARK)
        part.begin(NEW)
        assert part.mark() == NEW
        assert (tmp_path / "out.csv.part").read_bytes() == b""


def test_what_is_not_worth_keeping_is_removed(part: Part, tmp_path: Path) -> None:
    with part:
        part.begin(NEW)
        part.write(b"a\n")
        part.save(MARK)
        part.drop()
        part.drop()
    assert names(tmp_path) == []


def test_what_is_there_is_replaced_by_force_only(part: Part, tmp_path: Path) -> None:
    (tmp_path / "out.csv").write_text("precious")
    (tmp_path / "link").symlink_to("out.csv")
    for name in ("out.csv", "link"):
        with pytest.raises(NotWritten, match=r"out\.csv: is there already; --force replaces it$"):
            Part(tmp_path / name, force=False).check()
    forced = Part(tmp_path / "link", force=True)
    forced.check()
    with forced:
        forced.begin(NEW)
        forced.write(b"new")
        assert (tmp_path / "out.csv").read_text() == "precious"
        forced.finish()
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "out.csv").read_text() == "new"


def test_what_came_meanwhile_is_not_replaced(part: Part, tmp_path: Path) -> None:
    part.check()
    with part:
        part.begin(NEW)
        (tmp_path / "out.csv").write_text("precious")
        with pytest.raises(NotWritten, match="is there already"):
            part.finish()
    assert names(tmp_path) == ["out.csv", "out.csv.part", "out.csv.part.json"]


@pytest.mark.parametrize("force", [True, False])
def test_what_is_no_file_is_never_replaced(tmp_path: Path, force: bool) -> None:
    os.mkfifo(tmp_path / "pipe")  # as a device would be
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/null")):
        with pytest.raises(NotWritten, match=r"expected a file, or - for stdout$"):
            Part(path, force=force).check()
    for name in ALSO_STDOUT:
        with pytest.raises(NotWritten, match=f"^{name}: expected a file; stdout is -$"):
            Part(Path(name), force=force).check()


def test_two_processes_do_not_write_one_file(part: Part, tmp_path: Path) -> None:
    with part:
        part.begin(NEW)
        part.write(b"a\n")
        other = Part(tmp_path / "out.csv", force=True)
        with pytest.raises(NotWritten, match=r"out\.csv\.part: another process is writing it$"):
            other.__enter__()
        part.finish()
    with other:  # it may try again
        pass


def test_one_who_finished_it_before_it_was_held_is_another_process(
    part: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    def finish_it(*_: object) -> None:
        part.path.unlink()
        part.path.touch()

    monkeypatch.setattr(fcntl, "flock", finish_it)
    with pytest.raises(NotWritten, match="another process is writing it"), part:
        pass


def test_a_result_that_is_made_of_the_part_appears_when_it_is_complete(
    part: Part, tmp_path: Path
) -> None:
    def double(source: Growing, result: Path) -> None:
        result.write_bytes(source.read() * 2)

    def fail(source: Growing, result: Path) -> None:
        result.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with part:
        part.begin(NEW)
        part.write(b"a\n")
        part.save(MARK)
        part.convert = fail
        with pytest.raises(NotWritten, match="cannot be written: No space left"):
            part.finish()
        assert names(tmp_path) == ["out.csv.part", "out.csv.part.json"]
        part.convert = double
        part.finish()
    assert names(tmp_path) == ["out.csv"]
    assert (tmp_path / "out.csv").read_bytes() == b"a\na\n"


def test_what_cannot_be_written_is_told(
    part: Part, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        pytest.raises(NotWritten, match=r"x\.part: cannot be written: No such file or directory$"),
        Part(tmp_path / "no/x", force=False),
    ):
        pass

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with part:
        part.begin(NEW)
        part.write(b"a\n")
        for name in ("write", "fsync", "ftruncate"):
            with monkeypatch.context() as patch:
                patch.setattr(os, name, fail)
                for attempt in {
                    "write": [lambda: part.write(b"b")],
                    "fsync": [lambda: part.save(MARK), part.finish],
                    "ftruncate": [lambda: part.begin(NEW), lambda: part.go_on(0)],
                }[name]:
                    with pytest.raises(NotWritten, match="cannot be written: No space left"):
                        attempt()
        assert names(tmp_path) == ["out.csv.part"]


def test_a_part_of_somebody_else_is_not_replaced(tmp_path: Path) -> None:
    other = tmp_path / "out.csv.part"
    other.write_text("precious")
    with pytest.raises(NotWritten, match="expected one of a job that was stopped, got another"):
        Part(tmp_path / "out.csv", force=False).__enter__()
    other.unlink()
    (tmp_path / "target").write_text("precious")
    other.symlink_to("target")
    for force in (False, True):
        with pytest.raises(NotWritten, match="cannot be written"):
            Part(tmp_path / "out.csv", force=force).__enter__()
    assert (tmp_path / "target").read_text() == "precious"


def test_names_that_have_no_room_beside_them_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NotWritten, match="expected a name that is 14 bytes below the longest"):
        Part(tmp_path / ("x" * 245), force=False).check()
    with pytest.raises(NotWritten, match="/: expected a file or folder that has a name"):
        Part(Path("/"), force=False)
